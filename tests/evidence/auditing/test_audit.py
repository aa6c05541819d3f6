"""An audit of a study's own tables says what the study says, whatever form they are in."""

import itertools
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import synthetic
import yaml

from moralscope.core.documents import validate
from moralscope.core.errors import ConfigError, TableError
from moralscope.core.tables import conform
from moralscope.evidence.auditing import normalising
from moralscope.evidence.auditing.audit import Audit, audit
from moralscope.evidence.auditing.coverage import QUESTIONS
from moralscope.evidence.auditing.settings import AuditSettings
from moralscope.evidence.claims import FINDERS, make_claims
from moralscope.evidence.controls.judging import judge_controls
from moralscope.evidence.designing.table import design_table
from moralscope.evidence.gates.judging import judge_gates

DRAWS = 199


def audited(folder: Path, **named: object) -> Audit:
    out = folder.parent / "out"
    out.mkdir()
    return audit(folder, out, draws=DRAWS, **named)


def _small() -> synthetic.Tables:
    """Eight of the scenarios, three of the agents: as much as an audit can be told apart by."""
    tables = synthetic.build()
    agents = ["base", "game", "utilitarian"]
    chosen = pl.col("scenario").is_in([f"s{i}" for i in range(8)])
    prompts = tables["prompts"].filter(chosen)
    asked = prompts.get_column("prompt").implode()
    kept = {}
    for name, frame in tables.items():
        rows = frame.filter(pl.col("agent").is_in(agents)) if "agent" in frame.columns else frame
        rows = rows.filter(pl.col("prompt").is_in(asked)) if "prompt" in frame.columns else rows
        kept[name] = rows
    subjects = pl.col("subject").str.split(">").list.eval(pl.element().is_in(agents)).list.all()
    kept["controls"] = kept["controls"].filter(subjects)
    return kept


@pytest.fixture(scope="module")
def sound() -> synthetic.Tables:
    """A small study without any fault."""
    return _small()


def some(tables: synthetic.Tables, *names: str) -> synthetic.Tables:
    """Those of the tables, so that no test judges what it does not ask for."""
    return {name: tables[name] for name in names}


BEHAVIOUR = ("agents", "prompts", "decisions")


@pytest.fixture(scope="module")
def whole() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Its gates and claims, judged at once."""
    tables = _small()
    controls = judge_controls(tables, draws=DRAWS)
    gates = judge_gates({**tables, "control_results": controls})
    return gates, make_claims({**tables, "gates": gates}, draws=DRAWS), controls


def by_id(claims: pl.DataFrame) -> dict[str, dict]:
    return {row["id"]: row for row in claims.iter_rows(named=True)}


def same_claims(first: pl.DataFrame, second: pl.DataFrame) -> None:
    ours, theirs = by_id(first), by_id(second)
    assert set(ours) == set(theirs)
    for name, claim in ours.items():
        for column, value in claim.items():
            if isinstance(value, float):
                assert theirs[name][column] == pytest.approx(value, rel=1e-9, abs=1e-12), name
            else:
                assert theirs[name][column] == value, (name, column)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_judging_in_parts_gives_the_gates_and_claims_of_judging_whole(
    sound: synthetic.Tables, write, whole, form: str
) -> None:
    gates, claims, controls = whole
    folder = write(sound, form)
    done = audited(folder)
    same_claims(claims, done.claims)
    found = pl.read_parquet(folder.parent / "out" / "tables" / "control_results.parquet")
    assert sorted(found.rows(), key=str) == sorted(controls.rows(), key=str)
    designs = pl.read_parquet(folder.parent / "out" / "tables" / "design.parquet")
    expected = design_table(sound, draws=DRAWS)
    assert sorted(designs.rows(), key=str) == sorted(expected.rows(), key=str)
    assert sorted(done.gates.rows(), key=str) == sorted(gates.rows(), key=str)


def test_wide_tables_without_documented_columns_give_the_same_estimates(
    sound: synthetic.Tables, write, whole
) -> None:
    """One column per agent and per site, other tools' names, and no agents table."""
    wide = sound["decisions"].pivot(on="agent", index="prompt", values="log_odds")
    swept = sound["patching"].pivot(
        on="site", index=["source", "target", "prompt"], values="effect"
    )
    lens = {f"L{i}.h{h}": f"blocks.{i}.attn.hook_z[:, :, {h}]" for i in range(2) for h in range(3)}
    named = {"source": "from_model", "target": "to_model", "L0.mlp": "blocks.0.hook_mlp_out"}
    prompts = sound["prompts"].select("prompt", "labels", "text", cluster="scenario")
    done = audited(
        write({"Decision": wide, "patches": swept.rename(lens | named), "prompts": prompts})
    )
    expected, found = by_id(whole[1]), by_id(done.claims)
    for agent in ("game", "utilitarian"):
        for column in ("estimate", "low", "high", "p", "p_adjusted", "n_units"):
            assert found[f"change:{agent}"][column] == pytest.approx(
                expected[f"change:{agent}"][column], rel=1e-9
            )
    sweep = found["patching:game>utilitarian not recorded"]
    assert sweep["estimate"] == pytest.approx(
        expected["patching:game>utilitarian"]["estimate"], rel=1e-9
    )
    assert "L1.mlp" in sweep["statement"]
    said = " ".join(done.coverage.get_column("sentence"))
    assert "The column cluster is read as scenario" in said or "cluster is read as" in said
    assert "Base is taken for the base because of its name." in said
    assert "3 columns (base, game, utilitarian) are read as agents" in said
    assert "baselines are the log-odds of the table decisions" in said


def test_the_folder_is_complete_and_its_tables_follow_their_schemas(
    sound: synthetic.Tables, write
) -> None:
    folder = write({**sound, "notes.txt": "hello", "other": pl.DataFrame({"x": [1.0]})})
    done = audited(folder)
    out = folder.parent / "out"
    for path in (out / "tables").glob("*.parquet"):
        conform(path.stem, pl.read_parquet(path))
    assert not (out / "tables" / ".work").exists()
    assert len(json.loads((out / "claims.json").read_text())) == done.claims.height
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {f"{name}.csv" for name in sound}
    left = done.coverage.filter(pl.col("question") == "file", ~pl.col("ran"))
    assert left.select("subject", "sentence").rows() == [
        ("notes.txt", "Neither CSV nor TSV nor Parquet."),
        ("other.csv", "No table has its columns: x."),
    ]


def test_what_was_assumed_can_be_used_as_settings(sound: synthetic.Tables, write) -> None:
    folder = write(some(sound, *BEHAVIOUR))
    first = audited(folder)
    resolved = folder.parent / "out" / "audit.yaml"
    assert yaml.safe_load(resolved.read_text())["agents"]["game"] == {
        "role": "trained", "reward": "game", "seed": 0,
    }  # fmt: skip
    again = folder.parent / "again"
    again.mkdir()
    second = audit(folder, again, settings=resolved, draws=DRAWS)
    same_claims(first.claims, second.claims)


def test_settings_give_roles_rewards_and_scenarios(sound: synthetic.Tables, write) -> None:
    tables = synthetic.replicated(2, {"game": 2.0, "utilitarian": -2.0})
    decisions = tables["decisions"].select("agent", "prompt", "log_odds")
    names = decisions.get_column("agent").unique(maintain_order=True).to_list()
    agents = {n: {"reward": n[:-2], "seed": int(n[-1]), "base": "base"} for n in names if "-" in n}
    prompts = decisions.get_column("prompt").unique().to_list()
    said = {
        "agents": {"base": {"role": "base"}, **agents},
        "scenarios": {name: name.split("w")[0] for name in prompts},
        "margin": 0.5,
        "alpha": 0.1,
        "dtype": "bf16",
    }
    done = audited(write({"decisions": decisions, "audit.yaml": yaml.safe_dump(said)}))
    claims = by_id(done.claims)
    # Two seeds per reward: the reward itself is not identified, the checkpoints are.
    assert claims["reward:game"]["verdict"] == "not identified by this design"
    assert claims["change:game-0"]["verdict"] == "supported"
    assert claims["change:game-0"]["n_units"] == 20
    gates = {(g["gate"], g["subject"]): g for g in done.gates.iter_rows(named=True)}
    assert "7 mantissa bits" in gates["resolution", "base"]["advice"]


def test_without_scenarios_there_are_no_claims_and_it_is_said_what_to_add(
    sound: synthetic.Tables, write
) -> None:
    folder = write({"decisions": sound["decisions"].select("agent", "prompt", "log_odds")})
    done = audited(folder)
    assert done.claims.height == 0
    coverage = {r["question"]: r for r in done.coverage.iter_rows(named=True)}
    assert not coverage["scenarios"]["ran"]
    assert "add a column scenario" in coverage["scenarios"]["sentence"]
    assert (
        "write scenarios: into audit.yaml"
        in (coverage["changes and differences in behaviour"]["sentence"])
    )


def test_copies_of_prompts_are_not_looked_for_where_texts_are_unknown(
    sound: synthetic.Tables, write
) -> None:
    columns = ["agent", "prompt", "scenario", "log_odds"]
    done = audited(write({"decisions": sound["decisions"].select(columns)}))
    gates = {(g["gate"], g["subject"]): g for g in done.gates.iter_rows(named=True)}
    for subject in ("prompts", "scenarios"):
        assert gates["duplicates", subject]["passed"] is None
        assert "add the column text" in gates["duplicates", subject]["advice"]


def test_copies_of_prompts_are_found_without_scenarios(sound: synthetic.Tables, write) -> None:
    prompts = sound["prompts"].select("prompt", text=pl.lit("the same"))
    decisions = sound["decisions"].select("agent", "prompt", "log_odds")
    done = audited(write({"decisions": decisions, "prompts": prompts}))
    gate = done.gates.filter(pl.col("gate") == "duplicates", pl.col("subject") == "prompts")
    assert gate.select("measured", "passed").rows() == [(31.0, False)]


def test_every_kind_of_claim_has_its_question() -> None:
    asked = {name for question in QUESTIONS for name in question.finders}
    assert set(FINDERS) <= asked


def test_the_documented_settings_can_be_read() -> None:
    page = Path(__file__).parents[3] / "docs" / "audit.md"
    text = page.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    settings = validate(AuditSettings, yaml.safe_load(text), "audit.md")
    assert settings.hypotheses[1].published == 0


def test_scenarios_come_from_names_only_where_that_is_asked_for(
    sound: synthetic.Tables, write
) -> None:
    renamed = sound["decisions"].select(
        "agent", "log_odds", prompt=pl.col("prompt").str.replace("w", "_v")
    )
    renamed = renamed.with_columns(pl.col("prompt").str.replace(r"_v(\d)(\d)", "_v$1$2"))
    folder = write({"decisions": renamed, "audit.yaml": "scenario_from_name: true\n"})
    done = audited(folder)
    assert by_id(done.claims)["change:game"]["n_units"] == 8


def test_without_a_base_differences_stand_and_changes_are_not_available(
    sound: synthetic.Tables, write
) -> None:
    rows = sound["decisions"].filter(pl.col("agent") != "base")
    done = audited(write({"decisions": rows.select("agent", "prompt", "scenario", "log_odds")}))
    coverage = {r["question"]: r for r in done.coverage.iter_rows(named=True)}
    assert not coverage["base"]["ran"]
    assert "none has a name that says so" in coverage["base"]["sentence"]
    assert "difference:game:utilitarian" in by_id(done.claims)
    assert not any(name.startswith("change:") for name in by_id(done.claims))


def test_two_names_that_could_be_the_base_are_not_chosen_between(
    sound: synthetic.Tables, write
) -> None:
    rows = sound["decisions"].select("agent", "prompt", "scenario", "log_odds")
    twin = rows.filter(pl.col("agent") == "base").with_columns(agent=pl.lit("pretrained"))
    done = audited(write({"decisions": pl.concat([rows, twin])}))
    sentence = done.coverage.filter(pl.col("question") == "base").item(0, "sentence")
    assert "base, pretrained could all be it" in sentence


def test_patches_without_a_baseline_are_judged_and_flips_are_not(
    sound: synthetic.Tables, write, whole
) -> None:
    columns = ["source", "target", "prompt", "site", "effect"]
    done = audited(
        write({"patching": sound["patching"].select(columns), "prompts": sound["prompts"]})
    )
    found, expected = by_id(done.claims), by_id(whole[1])
    name = "patching:game>utilitarian"
    assert found[f"{name} not recorded"]["estimate"] == pytest.approx(expected[name]["estimate"])
    assert not any(claim.startswith("flips:") for claim in found)
    flips = done.coverage.filter(pl.col("question") == "flips").row(0, named=True)
    assert not flips["ran"]
    assert "add baseline_log_odds" in flips["sentence"]


def test_repeated_rows_are_collapsed_and_counted(sound: synthetic.Tables, write, whole) -> None:
    twice = pl.concat([sound["patching"], sound["patching"].head(5)])
    again = pl.concat([sound["decisions"], sound["decisions"].head(3)])
    done = audited(write({**sound, "patching": twice, "decisions": again}))
    same_claims(whole[1], done.claims)
    counted = done.gates.filter(pl.col("subject").str.starts_with("rows "))
    assert counted.select("subject", "measured", "passed").rows() == [
        ("rows decisions", 3.0, False), ("rows patching", 5.0, False),
    ]  # fmt: skip


def test_nan_is_undefined_and_counted(sound: synthetic.Tables, write) -> None:
    fingerprint = pl.when(pl.col("agent") == "game").then(pl.lit(np.nan))
    rows = sound["decisions"].with_columns(
        fingerprint_log_odds=fingerprint.otherwise("fingerprint_log_odds")
    )
    done = audited(write({**some(sound, *BEHAVIOUR), "decisions": rows}, "parquet"))
    gates = {(g["gate"], g["subject"]): g for g in done.gates.iter_rows(named=True)}
    gate = gates["undefined values", "decisions.fingerprint_log_odds"]
    assert (gate["measured"], gate["passed"]) == (32.0, False)
    assert gates["liveness", "game"]["passed"] is None


def test_agents_on_different_prompts_are_a_stated_gap_and_the_rest_is_judged(
    sound: synthetic.Tables, write
) -> None:
    rows = sound["decisions"].filter((pl.col("agent") != "game") | (pl.col("scenario") != "s3"))
    done = audited(write({**some(sound, "agents", "prompts", "patching"), "decisions": rows}))
    missed = done.coverage.filter(pl.col("question") == "changes and differences in behaviour").row(
        0, named=True
    )
    assert not missed["ran"]
    assert "were not measured on the same prompts" in missed["sentence"]
    assert "patching:game>utilitarian" in by_id(done.claims)


def test_parts_of_a_table_may_be_several_files(sound: synthetic.Tables, write, whole) -> None:
    rest = {name: table for name, table in sound.items() if name != "patching"}
    halves = {
        f"patching-{n}": part
        for n, part in enumerate(sound["patching"].partition_by("source", maintain_order=True))
    }
    folder = write({**rest, **halves})
    (folder / "attribution").mkdir()
    (folder / "attribution.csv").rename(folder / "attribution" / "all.csv")
    same_claims(whole[1], audited(folder).claims)


def test_large_text_files_are_read_through_a_copy_on_disk(
    sound: synthetic.Tables, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = some(sound, "prompts", "patching")
    folder = write(tables)
    first = audited(folder)
    monkeypatch.setattr(normalising, "IN_MEMORY", 0)
    again = folder.parent / "again"
    again.mkdir()
    same_claims(first.claims, audit(folder, again, draws=DRAWS).claims)
    assert not (again / "tables" / ".work").exists()


def test_hypotheses_are_judged_and_not_registered(sound: synthetic.Tables, write) -> None:
    text = yaml.safe_dump(
        {
            "hypotheses": [
                {"id": "up", "quantity": "change", "agents": ["game"], "direction": "above"},
                {
                    "id": "site", "quantity": "patch_effect", "agents": ["game", "utilitarian"],
                    "sites": ["L1.mlp"], "direction": "above",
                },
            ]
        }
    )  # fmt: skip
    done = audited(write({**some(sound, *BEHAVIOUR, "patching"), "audit.yaml": text}))
    claims = by_id(done.claims)
    assert claims["hypothesis:up"]["outcome"] == "confirmed"
    assert claims["hypothesis:site"]["outcome"] == "contradicted"
    assert done.hypotheses.get_column("registered").to_list() == [False, False]
    assert not claims["hypothesis:up"]["registered"]


def test_a_hypothesis_about_nobody_is_refused(sound: synthetic.Tables, write) -> None:
    text = "hypotheses: [{id: x, quantity: change, agents: [gane], direction: above}]"
    with pytest.raises(ConfigError, match="did you mean 'game'"):
        audited(write({**some(sound, *BEHAVIOUR), "audit.yaml": text}))


def test_one_scenario_cannot_carry_a_claim(sound: synthetic.Tables, write) -> None:
    rows = (
        sound["decisions"]
        .with_columns(scenario=pl.lit("only"))
        .select("agent", "prompt", "scenario", "log_odds")
    )
    done = audited(write({"decisions": rows}))
    verdicts = set(done.claims.get_column("verdict"))
    assert done.claims.height
    assert verdicts == {"not identified by this design"}


def test_constant_columns_are_no_result(sound: synthetic.Tables, write) -> None:
    rows = (
        sound["decisions"]
        .with_columns(log_odds=pl.lit(2.0))
        .select("agent", "prompt", "scenario", "log_odds")
    )
    done = audited(write({"decisions": rows}))
    assert "supported" not in set(done.claims.get_column("verdict"))


def test_names_of_sites_that_no_grammar_knows_are_taken_as_they_stand(
    sound: synthetic.Tables, write
) -> None:
    rows = sound["patching"].with_columns(
        site=pl.when(pl.col("site") == "L1.mlp").then(pl.lit("feature 7")).otherwise("site")
    )
    done = audited(write({**some(sound, "prompts"), "patching": rows}))
    claim = by_id(done.claims)["patching:game>utilitarian"]
    assert "feature 7" in claim["statement"]
    reading = done.coverage.filter(
        pl.col("question") == "reading", pl.col("subject") == "patching"
    ).item(0, "sentence")
    assert "taken as they stand (1, such as feature 7)" in reading


def test_a_square_of_correlations_is_read_as_pairs(write) -> None:
    rng = np.random.default_rng(3)
    values = np.corrcoef(rng.normal(size=(3, 40)))
    sites = ["L0.h0", "L0.h1", "L1.mlp"]
    square = pl.DataFrame({"site": sites, **dict(zip(sites, values.T, strict=True))})
    decisions = pl.DataFrame(
        {"agent": ["game"] * 40, "prompt": [f"p{i}" for i in range(40)],
         "log_odds": rng.normal(size=40) * 3}
    )  # fmt: skip
    folder = write({"interactions-game": square, "decisions": decisions})
    audited(folder)
    table = pl.read_parquet(folder.parent / "out" / "tables" / "interactions.parquet")
    assert table.select("agent", "n").unique().rows() == [("game", 40)]
    found = {(r["site_a"], r["site_b"]): r["value"] for r in table.iter_rows(named=True)}
    for (i, a), (j, b) in itertools.product(enumerate(sites), enumerate(sites)):
        assert found[a, b] == pytest.approx(values[i, j], abs=1e-12)


def test_contradicting_rows_are_refused_with_both(sound: synthetic.Tables, write) -> None:
    other = sound["decisions"].head(1).with_columns(log_odds=pl.lit(9.0))
    with pytest.raises(TableError, match=r"log_odds is .* and 9\.0"):
        audited(write({**sound, "decisions": pl.concat([sound["decisions"], other])}))
