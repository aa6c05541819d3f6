"""Was it said before anything was measured? Registration of a study's hypotheses.

A hypothesis is *registered* if, when a study that names it is first run, none of its data has been
measured: no stage that measures what it asks about is finished in the cache, and the run folder
holds no such tables. Then a record is written into the cache before anything is computed:

    CACHE/registrations/named/HYPOTHESIS-DATA.json      what was said, about which data, when
    CACHE/registrations/measured/DATUM.json             since when a datum has been there

and later runs read it. A datum is what a stage measures, named by everything that determines it
except the version of the software, the machine, and how the study calls its agents; so an update
makes nothing new, and neither does renaming. Training is no measuring: it shows no decision.

A hypothesis that is edited is another one, and late if its data is there. One that is taken out
after its data was measured is listed all the same, and tested where it can be, so that dropping
what failed stays visible. What this cannot prove: that nobody measured the same elsewhere, or with
another cache.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from moralscope.core.errors import ConfigError
from moralscope.core.files import make_folder, write_json
from moralscope.core.hashing import sha256_value
from moralscope.core.stage import RECORD, Stage, StageCache
from moralscope.evidence.hypotheses.grammar import Hypothesis, Named
from moralscope.models.loading import ModelSource
from moralscope.studies.catalogue import asked_prompts
from moralscope.studies.estimating.shape import shape_of
from moralscope.studies.expectations import check_asked, check_hypotheses, check_places
from moralscope.studies.study import Study, base_name, label_of, measures

MEASURES: Mapping[str, tuple[str, ...]] = {
    "decisions": ("decide", "answer", "affect", "replicate"),
    "learned": ("decide",),
    "patching": ("patch", "cross", "approximate", "trace", "circuits", "control"),
    "attribution": ("explain",),
    "attention": ("attend",),
    "norms": ("interact",),
    "update_distances": ("weigh",),
    "representation_pairs": ("represent",),
}
"""The kinds of stage that show something of a table."""

_EVERY = tuple(dict.fromkeys(kind for kinds in MEASURES.values() for kind in kinds))
_INCIDENTAL = {"versions", "glue", "threads", "machine", "device", "max_nodes", "agent"}
_PAIRED = MEASURES["patching"]

BEFORE = "It was named before any of its data was measured."
AFTER = "It was named after some of its data had been measured, and is therefore exploratory."
REMOVED = "It was registered, then removed from the study file."
ELSEWHERE = "It was registered for the same data by another study; this study file leaves it out."


def check_answerable(study: Study, source: ModelSource) -> None:
    """Refuse hypotheses about sites, label assignments or contrasts that do not exist.

    Raises:
        ConfigError: one of them does not exist in the model or in the prompts.
    """
    if not study.hypotheses:
        return
    check_asked(study.hypotheses, tuple(asked_prompts(study)))
    if any(hypothesis.sites for hypothesis in study.hypotheses):
        sizes = shape_of(study, source)
        check_places(study.hypotheses, sizes.sizes.n_layers, sizes.sizes.n_heads, sizes.n_kv_heads)


def datum(stage: Stage, stages: Mapping[str, Stage]) -> str:
    """What a stage measures, as a hash: equal whatever the software, the machine and the names.

    Args:
        stage: the stage.
        stages: every stage of the plan, by name.
    """
    return sha256_value(
        {
            "task": [stage.package, stage.task],
            "inputs": _essential(dict(stage.inputs)),
            "needs": sorted(datum(stages[name], stages) for name in stage.needs),
        }
    )


def _essential(value: object) -> object:
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return {key: _essential(held) for key, held in items if key not in _INCIDENTAL}
    if isinstance(value, list | tuple):
        return [_essential(held) for held in cast("Sequence[object]", value)]
    return value


def measuring(stages: Iterable[Stage]) -> dict[str, str]:
    """The data of a plan: name of each stage that measures, to what it measures."""
    named = {stage.name: stage for stage in stages}
    return {name: datum(stage, named) for name, stage in named.items() if _kind_of(name) in _EVERY}


def _kind_of(stage: str) -> str:
    return stage.partition("-")[0]


def _agents_of(stage: str) -> list[str]:
    return stage.partition("-")[2].split(">")


def data_of(study: Study, hypothesis: Hypothesis, data: Mapping[str, str]) -> dict[str, str]:
    """The stages that show something of what a hypothesis asks, and their data.

    Those of the agents that it names, or that were trained with a reward that it names; of the
    base, which other studies share, only where it is about nobody else.
    """
    named = [*hypothesis.agents]
    named += [a for a in study.agents if label_of(study, a) in hypothesis.rewards]
    trained = [name for name in named if name != base_name(study)]
    about = set(trained or named)
    tables = [*(hypothesis.tables or ()), *hypothesis.needs]
    kinds = {kind for table in tables for kind in MEASURES.get(table, ())} or set(_EVERY)

    def shows(stage: str) -> bool:
        agents = set(_agents_of(stage))
        if _kind_of(stage) in _PAIRED and len(hypothesis.agents) > 1:
            return agents == set(hypothesis.agents)
        return bool(agents & about)

    return {name: d for name, d in data.items() if _kind_of(name) in kinds and shows(name)}


@dataclass(frozen=True)
class Registry:
    """What the cache knows of hypotheses and of when their data was measured."""

    root: Path

    @property
    def _named(self) -> Path:
        return self.root / "registrations" / "named"

    @property
    def _measured(self) -> Path:
        return self.root / "registrations" / "measured"

    def mark_measured(self, datum_key: str, stage: str) -> None:
        """Record that a datum is there, with the time; the first record stays."""
        path = self._measured / f"{datum_key}.json"
        if not path.is_file():
            make_folder(path.parent)
            write_json(path, {"stage": stage, "since": _now()})

    def measured_since(self, datum_key: str) -> str | None:
        """Since when a datum has been there; None if nothing is known of it."""
        found = _read(self._measured / f"{datum_key}.json")
        return None if found is None else str(found.get("since", ""))

    def records(self) -> list[Registered]:
        """Every registration, in the order of their times."""
        paths = sorted(self._named.glob("*.json")) if self._named.is_dir() else []
        found = [_registered(path) for path in paths]
        return sorted((r for r in found if r is not None), key=lambda r: (r.time, r.hypothesis.id))

    def register(self, study: str, hypothesis: Hypothesis, data: Sequence[str]) -> None:
        """Record that a hypothesis was named; an earlier record of the same stays."""
        said = _said(hypothesis)
        name = f"{sha256_value(said)[:32]}-{sha256_value(sorted(data))[:16]}.json"
        path = self._named / name
        if not path.is_file():
            make_folder(path.parent)
            write_json(
                path,
                {"hypothesis": said, "study": study, "data": sorted(data), "registered": _now()},
            )


@dataclass(frozen=True)
class Registered:
    """A record: what was said, by which study, about which data, when, and where it is kept."""

    hypothesis: Hypothesis
    study: str
    data: frozenset[str]
    time: str
    path: Path


def _said(hypothesis: Hypothesis) -> dict[str, object]:
    return hypothesis.model_dump(mode="json", exclude_none=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _read(path: Path) -> dict[str, object] | None:
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast("dict[str, object]", found) if isinstance(found, dict) else None


def _registered(path: Path) -> Registered | None:
    """The record in a file; None for one that is damaged, which registers nothing."""
    found = _read(path)
    if found is None:
        return None
    try:
        hypothesis = Hypothesis.model_validate(found["hypothesis"])
        data = frozenset(str(key) for key in cast("list[object]", found["data"]))
        return Registered(hypothesis, str(found["study"]), data, str(found["registered"]), path)
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class _Known:
    """All that decides whether a hypothesis is registered.

    Attributes:
        study: the study that is to be run.
        data: stages that measure, to what they measure.
        since: data that is there already, to the time since when (empty: unknown).
        records: the registrations.
    """

    study: Study
    data: Mapping[str, str]
    since: Mapping[str, str]
    records: Sequence[Registered]


def _known(study: Study, stages: Sequence[Stage], cache: StageCache, out: Path | None) -> _Known:
    data, registry = measuring(stages), Registry(cache.root)
    since: dict[str, str] = {}
    held = _held_by(out)
    for stage in stages:
        found = data.get(stage.name)
        if found is None:
            continue
        marked = registry.measured_since(found)
        if marked is not None:
            since[found] = marked
        elif (cache.folder(stage) / RECORD).is_file() or held.get(stage.name) in (found, stage.key):
            since[found] = ""
    return _Known(study, data, since, registry.records())


def _held_by(out: Path | None) -> dict[str, str]:
    """Stages of the run in a folder, to their data, or to their keys where only those are kept."""
    manifest = None if out is None else _read(out / "manifest.json")
    if manifest is None:
        return {}
    measured = manifest.get("measured")
    if isinstance(measured, dict):
        return {str(k): str(v) for k, v in cast("dict[str, object]", measured).items()}
    stages = cast("list[dict[str, object]]", manifest.get("stages", []))
    return {str(stage["name"]): str(stage["key"]) for stage in stages}


def named_hypotheses(
    study: Study, stages: Sequence[Stage], cache: StageCache, out: Path | None = None
) -> tuple[Named, ...]:
    """The study's hypotheses and those that were removed from it, with how they stand.

    Reads and writes nothing; ``register`` writes.

    Args:
        study: names them.
        stages: of its plan, those that judge left out.
        cache: holds records and finished stages.
        out: the run folder, whose tables count as measured.
    """
    known = _known(study, stages, cache, out)
    own = tuple(
        Named(hypothesis, True, BEFORE)
        if _is_registered(known, hypothesis)
        else Named(hypothesis, False, AFTER)
        for hypothesis in study.hypotheses
    )
    return (*own, *_dropped(known))


def _is_registered(known: _Known, hypothesis: Hypothesis) -> bool:
    """Whether each datum that is there came after a record of the same hypothesis."""
    data = set(data_of(known.study, hypothesis, known.data).values())
    there = data & set(known.since)
    if not there:
        return True
    same = [r for r in known.records if r.hypothesis == hypothesis]
    return any(all(d in r.data or known.since[d] > r.time for d in there) for r in same)


def _dropped(known: _Known) -> tuple[Named, ...]:
    """Registered hypotheses about the same data, measured since, that the study leaves out."""
    present = set(known.data.values())
    kept = set(known.study.hypotheses)
    names = {hypothesis.id for hypothesis in kept}
    found: list[Named] = []
    for record in known.records:
        said = record.hypothesis
        measured = any(d in known.since for d in record.data)
        if said in kept or not record.data <= present or not measured:
            continue
        kept.add(said)
        free = _free_name(said.id, names)
        names.add(free)
        basis = REMOVED if record.study == known.study.name else ELSEWHERE
        renamed = said if free == said.id else said.model_copy(update={"id": free})
        found.append(Named(renamed, True, basis, asked=_answerable(known.study, said)))
    return tuple(found)


def _free_name(name: str, taken: set[str]) -> str:
    """The name, or where an edited hypothesis has taken it, the name with a number."""
    if name not in taken:
        return name
    number = 1
    while f"{name}.before-{number}" in taken:
        number += 1
    return f"{name}.before-{number}"


def _answerable(study: Study, hypothesis: Hypothesis) -> bool:
    """Whether the study still has what a dropped hypothesis names."""
    try:
        check_hypotheses([hypothesis], measures(study))
    except ConfigError:
        return False
    return True


def register(study: Study, stages: Sequence[Stage], cache: StageCache, out: Path) -> None:
    """Record which hypotheses are named now, before anything is computed.

    Records of the same study that it has taken back before any of their data was measured are
    removed: nothing was seen, so nothing was dropped.
    """
    known, registry = _known(study, stages, cache, out), Registry(cache.root)
    present = set(known.data.values())
    for record in known.records:
        withdrawn = record.study == study.name and record.hypothesis not in study.hypotheses
        if withdrawn and record.data <= present and not record.data & set(known.since):
            record.path.unlink(missing_ok=True)
    for hypothesis in study.hypotheses:
        if _is_registered(known, hypothesis):
            data = data_of(study, hypothesis, known.data)
            registry.register(study.name, hypothesis, sorted(set(data.values())))


def named_inputs(named: Sequence[Named]) -> list[dict[str, object]]:
    """Hypotheses as inputs of the stage that judges them."""
    return [
        {
            "hypothesis": _said(one.hypothesis),
            "registered": one.registered,
            "basis": one.basis,
            "asked": one.asked,
        }
        for one in named
    ]
