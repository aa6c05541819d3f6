"""The command ``evaluate`` from words to page: every part, known values, and each bad word."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from moralscope.cli.evaluating import warn_of_labels, warn_of_reference
from moralscope.cli.main import main
from moralscope.core.tables import from_rows, read_table, write_table
from moralscope.models.libraries import transformers
from moralscope.studies import Study
from moralscope.studies.choices.evaluation import PARTS
from moralscope.studies.compose import compose_evaluation
from moralscope.studies.plan import make_plan

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from tiny import save_adapter

FAMILY = """
name: dinner
game: IPD
memory: both
payoffs: false
texts:
  bill: >-
    Two friends share a bill. To pay half is {c}, to slip out is {d}. Last time you did {own} and
    your friend did {other}. Do you choose {first} or {second}?
"""
TABLES = (
    "generalisation", "regret", "action_shares", "moves", "contrasts", "nearest", "robustness",
    "variance", "similarity", "answers", "transcripts", "metric_agreement", "side_effects", "play",
    "exploitability", "price_of_morality", "dynamics", "fixation", "matches", "standings",
    "trained_on", "learned", "claims",
)  # fmt: skip


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation of a base, an adapter and two scripted policies."""

    words: tuple[str, ...]
    out: Path
    cache: Path
    adapter: Path

    def table(self, name: str) -> pl.DataFrame:
        return read_table(name, self.out / "tables")


@pytest.fixture(scope="module")
def evaluated(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    folder = tmp_path_factory.mktemp("evaluate")
    model = transformers.AutoModelForCausalLM.from_pretrained(str(tiny_folder))
    model.name_or_path = str(tiny_folder)
    adapter = save_adapter(folder / "tuned", model)
    (folder / "family.yaml").write_text(FAMILY)
    words = (
        "evaluate", "base", str(adapter), "tft=policy:tit-for-tat", "policy:always-defect",
        "--games", "IPD,ICD", "--answers", "2", "--families", str(folder / "family.yaml"),
        "--out", str(folder / "run"),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORALSCOPE_CACHE", str(folder / "cache"))
        assert main(words) == 0
    return Evaluated(words, folder / "run", folder / "cache", adapter)


def test_every_part_leaves_its_tables(evaluated: Evaluated) -> None:
    for name in TABLES:
        assert evaluated.table(name).height > 0, name
    report = (evaluated.out / "report.html").read_text()
    assert "always-defect" in report
    assert json.loads((evaluated.out / "report.json").read_text())["figures"]


def test_agents_are_what_they_were_named(evaluated: Evaluated) -> None:
    kinds = dict(evaluated.table("agents").select("agent", "kind").iter_rows())
    assert kinds == {
        "base": "base", "tuned": "adapter", "tft": "policy", "always-defect": "policy",
    }  # fmt: skip
    for name in ("learned", "side_effects"):
        assert set(evaluated.table(name).get_column("agent")) == {"tuned"}
    unknown = evaluated.table("trained_on").row(0, named=True)
    assert (unknown["agent"], unknown["known"]) == ("tuned", False)


def test_scripted_policies_have_the_values_that_theory_gives(evaluated: Evaluated) -> None:
    scripted = evaluated.table("decisions").filter(pl.col("agent") == "tft")
    assert scripted.get_column("log_odds").null_count() == scripted.height
    regret = evaluated.table("regret").filter(
        pl.col("protocol") == "exact", pl.col("opponent_name") == "always-cooperate",
        pl.col("game") == "IPD", pl.col("labels") == "action1/action2",
    )  # fmt: skip
    found = {(a, k): r for a, k, r in regret.select("agent", "kind", "regret").iter_rows()}
    # Against a cooperator: tit-for-tat settles on mutual cooperation, which regrets nothing.
    assert found["tft", "utilitarian"] == pytest.approx(0, abs=1e-12)
    assert found["tft", "deontological"] == pytest.approx(0, abs=1e-12)
    assert found["always-defect", "utilitarian"] == pytest.approx(6 - 4, abs=1e-12)
    assert found["always-defect", "deontological"] == pytest.approx(3, abs=1e-12)
    play = evaluated.table("play").filter(
        pl.col("agent") == "tft", pl.col("other") == "always-defect", pl.col("noise") == 0,
        pl.col("labels") == "action1/action2", pl.col("other_kind") == "agent",
    )  # fmt: skip
    paid = dict(play.select("game", "payoff").iter_rows())
    assert paid["IPD"] == pytest.approx(1, abs=1e-12)
    assert paid["ICD"] == pytest.approx(4, abs=1e-12)


def test_the_published_moves_of_the_opponent_are_everyones(evaluated: Evaluated) -> None:
    moves = evaluated.table("moves")
    assert moves.height == 4 * 2 * 50
    seen = {
        tuple(rows.sort("episode", "step").get_column("opponent"))
        for _, rows in moves.group_by("agent", "game")
    }
    assert len(seen) == 1


def test_answers_are_of_models_and_of_prompts_with_decisions(evaluated: Evaluated) -> None:
    answers = evaluated.table("answers")
    assert set(answers.get_column("agent")) == {"base", "tuned"}
    assert answers.height == 2 * 32 * 2
    asked = set(evaluated.table("prompts").get_column("prompt"))
    assert set(answers.get_column("prompt")) <= asked
    topics = evaluated.table("transcripts").filter(pl.col("role") == "assistant")
    assert set(topics.get_column("topic")) == {"decision", "why", "strategy"}


def test_a_users_own_family_is_asked(evaluated: Evaluated) -> None:
    own = evaluated.table("prompts").filter(pl.col("family") == "dinner")
    assert own.height == 16
    levels = evaluated.table("robustness").filter(pl.col("factor") == "family")
    assert "dinner" in levels.get_column("level").to_list()


def test_the_same_command_computes_nothing_again(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MORALSCOPE_CACHE", str(evaluated.cache))
    # The report, which is written anew each time, is not what is asked about here.
    monkeypatch.setattr("moralscope.cli.studying.write_report", lambda run: int(not run.is_dir()))
    capsys.readouterr()
    assert main(evaluated.words) == 0
    stages = len((evaluated.out / "logs" / "stages.log").read_text().splitlines())
    assert f"{stages} of them cached" in capsys.readouterr().out


def test_the_published_protocol_alone(evaluated: Evaluated, tiny_folder: Path) -> None:
    study = compose((str(evaluated.adapter),), base=str(tiny_folder), protocol="paper")
    assert study.evaluation.parts == ("paper",)
    assert {task.stage.name for task in make_plan(study)} == {
        "prompts", "replicate-base", "agents", "comparisons", "decide-base", "decide-tuned",
        "behaviour", "evaluation", "evidence",
    }  # fmt: skip


WANTED: dict[str, object] = {
    "protocol": "all", "words": "action1/action2", "labels": "action3/action4", "answers": 4,
    "seed": 0, "dtype": "float32", "device": "cpu",
}  # fmt: skip


def compose(agents: tuple[str, ...], **wanted: object) -> Study:
    return compose_evaluation(agents, WANTED | wanted)


def test_an_evaluation_asks_for_everything_and_looks_at_nothing_inside() -> None:
    written = "b=policy:memory-one(p_cc=1, p_cd=0, p_dc=0, p_dd=1)"
    study = compose(("base", "policy:noisy(tit-for-tat, 0.1)", written))
    assert study.evaluation.parts == PARTS
    assert study.mechanisms.methods == ()
    assert set(study.agents) == {"base", "noisy-tit-for-tat-0-1", "b"}
    assert study.prompts.table_orders == ("original", "rows", "columns", "both")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a cache of its own, and errors on one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MORALSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "1000")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "problem", "next_step"),
    [
        (["policy:tit-for-tot"], "tit-for-tot", "tit-for-tat"),
        (["policy:gradual"], "needs more memory than a prompt holds", "choose a policy"),
        (["base", "--parts", "regrets"], "The evaluation has no such part seen: regrets",
         "regret"),
        (["base", "--protocol", "papers"], "There is no such protocol seen: papers", "paper"),
        (["base", "--labels", "one"], "This is not a pair of labels seen: 'one'",
         "one slash between them"),
        (["base", "--words", "a/b/c"], "This is not a pair of labels", "one slash"),
        (["base", "--labels", "X/Y"], "published protocol needs its own labels", "paper out"),
        (["base", "--games", "IPD,IDP"], "no game of this name seen: IDP", "did you mean 'IPD'"),
        (["absent/folder/x"], "There is no such agent", "check the path"),
        (["policy:"], "There is no such agent seen: policy:", "write policy:STRATEGY"),
        (["=policy:random"], "There is no such agent", "NAME=policy:STRATEGY"),
        (["base", "--protocol", "exact", "--parts", "paper"], "Nothing is left to measure",
         "leave one of the two out"),
        (["base", "--games", "IPD,matrix(R=3"], "parentheses matched", "noisy(tit-for-tat, 0.1)"),
        (["base", "--strategies", "grim,graduel"], "no classical strategy of this name", "gradual"),
        (["base", "--opponents", "gradual"], "takes part in tournaments only", "strategies"),
        (["a=policy:random", "a=policy:grim"], "Two agents are called 'a'", "NAME=PATH"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_error(
    words: list[str], problem: str, next_step: str, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    assert main(["evaluate", *words, "--out", "run"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert problem in said
    assert next_step in said
    assert not (here / "run" / "tables").exists()


def test_a_file_that_is_absent_is_one_error(
    here: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(tiny_folder), "--families", "absent.yaml", "--out", "run"]
    assert main(words) == 2
    assert "absent.yaml" in capsys.readouterr().err
    assert not (here / "run" / "tables").exists()


def test_commas_within_parentheses_are_the_expressions_own() -> None:
    study = compose(
        ("base",), games="IPD, matrix(R=3,S=0,T=5,P=1)", opponents="noisy(grim, 0.1),random",
        strategies="memory-one(1,0,0,1),gradual",
    ).evaluation  # fmt: skip
    assert study.games == ("IPD", "matrix(R=3,S=0,T=5,P=1)")
    assert study.opponents == ("noisy(grim, 0.1)", "random")
    assert study.strategies == ("memory-one(1,0,0,1)", "gradual")


def test_labels_that_an_agent_was_not_trained_with_are_warned_of(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = (
        ("trained labels", "mine", False, "X/Y"),
        ("trained labels", "other", True, "A"),
        ("liveness", "mine", False, "B"),
    )
    rows = [
        {"gate": gate, "subject": subject, "measured": 1.0, "threshold": 0.0, "passed": passed,
         "advice": f"It was trained with {said}."}
        for gate, subject, passed, said in judged
    ]  # fmt: skip
    (here / "tables").mkdir()
    write_table("gates", from_rows("gates", rows), here / "tables")
    warn_of_labels(here)
    assert capsys.readouterr().err == "Warning, mine: It was trained with X/Y.\n"


def test_labels_that_are_not_the_reference_are_warned_of(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_of_reference(here, ("X", "Y"))  # without adapters there is no such table
    (here / "tables").mkdir()
    rows = [
        {"agent": agent, "known": known, "families": "structured", "templates": "structured",
         "labels": labels, "table_orders": "original", "games": "IPD"}
        for agent, known, labels in (
            ("mine", True, "X/Y,Y/X"), ("other", True, "A/B"), ("unknown", False, "C/D"),
        )
    ]  # fmt: skip
    write_table("trained_on", from_rows("trained_on", rows), here / "tables")
    warn_of_reference(here, ("Y", "X"))
    said = capsys.readouterr().err
    assert said.startswith("Warning, other: It was trained with A/B, but Y/X are the labels")
    assert said.endswith("Give --words A/B.\n")
    assert said.count("Warning") == 1
