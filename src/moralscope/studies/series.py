"""Is it so in other models too? One study made of several models, compared by relative depth.

A series file names a study and its members. A member's settings stand in place of the study's, as
``--set`` on the command line would put them. Each member is a whole run of its own, in
``members/NAME`` of the series' folder; the series adds what compares them. A member that fails
leaves the others untouched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import Field

from moralscope import __version__
from moralscope.core.agents import Frozen
from moralscope.core.documents import read_yaml, validate
from moralscope.core.errors import ConfigError, MoralscopeError
from moralscope.core.files import atomic_folder, write_json, write_text
from moralscope.core.sealing import MANIFEST, sealed_manifest
from moralscope.core.tables import from_rows, read_table, write_table
from moralscope.evidence.claims import make_claims
from moralscope.evidence.depths.table import depth_table
from moralscope.evidence.designs import trained_agents
from moralscope.evidence.findings.depths import subject_of
from moralscope.evidence.gates.liveness import GATE as LIVENESS
from moralscope.studies.study import Study, read_study

MEMBERS = "members"


class Series(Frozen):
    """The same study of several models.

    Attributes:
        name: shown in the report.
        study: the study file, from the folder of the series file.
        members: by name, the settings that differ from the study's: ``{model: ...}``, with dots
            for nested keys.
        alpha: level of the comparison between members.
        seed: of its randomisation tests.
    """

    name: str = "series"
    study: str
    members: Annotated[dict[str, dict[str, object]], Field(min_length=2)]
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    seed: Annotated[int, Field(ge=0)] = 0


def is_series(path: Path) -> bool:
    """Whether a file describes a series and not a study."""
    return MEMBERS in read_yaml(path)


def read_series(path: Path, changes: tuple[str, ...] = ()) -> tuple[Series, dict[str, Study]]:
    """A series and the study of each member.

    Args:
        path: the series file.
        changes: settings of all members, ``KEY=VALUE``.

    Raises:
        ConfigError: the series, or the study of a member, is not one; or a member's name is none.
    """
    series = validate(Series, read_yaml(path), path.name)
    file = path.parent / series.study
    studies: dict[str, Study] = {}
    for name, settings in series.members.items():
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ConfigError(
                "This cannot be the name of a member",
                seen=repr(name),
                allowed="letters, digits, dots, - and _",
                remedy="rename the member",
            )
        own = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        studies[name] = read_study(file, (f"name={json.dumps(name)}", *own, *changes))
    return series, studies


Runner = Callable[[Study, Path], bool]
"""Runs a study into a folder and says whether every stage was computed."""


def run_series(series: Series, studies: Mapping[str, Study], out: Path, run: Runner) -> list[str]:
    """Run every member, then compare them.

    Args:
        series: what is compared.
        studies: the study of each member.
        out: the folder of the series.
        run: runs one study.

    Returns:
        A sentence for each member that failed.

    Raises:
        MoralscopeError: every member failed; the first one's error.
    """
    failed: dict[str, MoralscopeError] = {}
    finished: dict[str, bool] = {}
    for name, study in studies.items():
        try:
            finished[name] = run(study, out / MEMBERS / name)
        except MoralscopeError as error:
            failed[name] = error
    if not finished:
        raise next(iter(failed.values()))
    tables = _compared(series, studies, out, finished)
    missing: list[dict[str, object]] = [
        {"name": n, "why": str(e), "skipped": None} for n, e in failed.items()
    ]
    _write(series, out, tables, missing)
    return [f"{name}: {error}" for name, error in failed.items()]


def _compared(
    series: Series, studies: Mapping[str, Study], out: Path, finished: Mapping[str, bool]
) -> dict[str, pl.DataFrame]:
    depths: list[pl.DataFrame] = []
    gates: list[pl.DataFrame] = []
    members: list[dict[str, object]] = []
    for name, whole in finished.items():
        folder = out / MEMBERS / name / "tables"
        wanted = ("agents", "prompts", "attribution", "patching", "claims", "gates")
        own = {n: read_table(n, folder) for n in wanted if (folder / f"{n}.parquet").is_file()}
        found = depth_table(name, own)
        verdicts = own["claims"].get_column("verdict") if "claims" in own else pl.Series([""])
        layers = found.get_column("layer").max()
        members.append(
            {
                "member": name,
                "model": studies[name].model,
                "n_layers": None if found.is_empty() else int(str(layers)) + 1,
                "n_agents": len(trained_agents(own["agents"])) if "agents" in own else 0,
                "n_claims": own["claims"].height if "claims" in own else 0,
                "supported": int((verdicts == "supported").sum()),
                "finished": whole,
            }
        )
        depths.append(found)
        if "gates" in own:
            alive = own["gates"].filter(pl.col("gate") == LIVENESS)
            subject = pl.col("subject").map_elements(partial(subject_of, name), pl.String)
            gates.append(alive.with_columns(subject))
    tables = {"members": from_rows("members", members), "depths": pl.concat(depths)}
    if gates:
        tables["gates"] = pl.concat(gates)
    claims = make_claims(tables, alpha=series.alpha, seed=series.seed)
    return {**tables, "claims": claims}


def _write(
    series: Series, out: Path, tables: Mapping[str, pl.DataFrame], missing: list[dict[str, object]]
) -> None:
    with atomic_folder(out / "tables") as folder:
        for name, table in tables.items():
            write_table(name, table, folder)
    write_json(out / "claims.json", tables["claims"].to_dicts())
    write_text(out / "study.yaml", json.dumps(series.model_dump(mode="json"), indent=1) + "\n")
    manifest: dict[str, object] = {
        "moralscope": __version__,
        "study": series.name,
        "seed": series.seed,
        "members": list(series.members),
        "failed": missing,
        "tables": {name: {"rows": table.height} for name, table in tables.items()},
    }
    write_json(out / MANIFEST, sealed_manifest(manifest, out))
