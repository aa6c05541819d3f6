"""An explanation holds what the mechanisms measure, and says what it could not do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import tiny

from moralscope.core.decision import Prompt
from moralscope.core.errors import (
    AgentError,
    ConfigError,
    MoralscopeError,
    PromptError,
    SiteError,
)
from moralscope.core.progress import ProgressEvent
from moralscope.core.schemas import SCHEMAS
from moralscope.core.tables import conform
from moralscope.explaining import METHODS, Agents, Explanation, ask, explain, load
from moralscope.mechanisms import direct_to_decision, patch_paths, patching_table
from moralscope.reports.run import read_run


def question(what: str, **more: Any) -> Prompt:
    text = f"Round {what}: choose action1 or action2."
    usual = {"positive": " action2", "negative": " action1", "stem": "I choose"}
    return ask(text, **{**usual, **more})


PROMPTS = [question("1", spans={"round": "1"}), question("2", spans={"round": "2"})]
LONGER = question("1234", name="longer", spans={"round": "1234"})


@pytest.fixture(scope="module")
def found(agents: Agents) -> Explanation:
    return explain(agents, PROMPTS, methods=METHODS)


def test_every_method_leaves_its_tables(found: Explanation):
    assert found.agents == ("base", "game")
    assert found.notes == ()
    assert set(found.tables) == {
        "agents", "prompts", "decisions", "lens", "lens_controls", "stabilisation",
        "stabilisation_summary", "attribution", "completeness", "patching", "controls", "edges",
        "approximations", "agreement", "ablation",
    }  # fmt: skip
    for name, table in found.tables.items():
        assert_frame_equal(conform(name, table), table)
        assert table.height > 0


def test_decisions_are_those_of_plain_forwards(found: Explanation, agents: Agents):
    for name in found.agents:
        with agents.speaking(name) as model:
            expected = [tiny.plain_log_odds(model, read) for read in agents.read(PROMPTS)]
        own = found.decisions.filter(agent=name)["log_odds"].to_list()
        assert own == pytest.approx(expected, abs=1e-9)
    assert len(set(found.decisions["log_odds"].to_list())) == 4


def test_the_base_is_patched_into_every_other_agent(found: Explanation, agents: Agents):
    table = found.tables["patching"]
    assert table.select("source", "target").unique().rows() == [("base", "game")]
    assert (table["prompt"] == table["source_prompt"]).all()
    base, game = (agents.run(name, PROMPTS) for name in found.agents)
    with agents.speaking("game") as model:
        anatomy = agents.anatomy("game")
        again, _ = patching_table(model, anatomy, base, game)
        edges = [direct_to_decision(anatomy, site) for site in anatomy.component_sites]
        paths = patch_paths(model, anatomy, base, game, edges)
    key = ["prompt", "site"]
    assert_frame_equal(table.sort(key), again.sort(key))
    assert_frame_equal(
        found.tables["edges"].sort("prompt", "sender"), paths.sort("prompt", "sender")
    )
    # The full swap is the base's own decision.
    log_odds = found.decisions.filter(agent="base")["log_odds"].to_list()
    assert table.filter(site="all")["patched_log_odds"].to_list() == pytest.approx(log_odds)
    assert table["effect"].abs().max() > 1e-2


def test_a_change_of_attribution_is_split_and_sums_to_the_change(found: Explanation):
    rows = found.tables["attribution"].filter(token=-1)
    sums = {
        (agent, part): value
        for agent, part, value in rows.group_by("agent", "part")
        .agg(pl.col("contribution").sum())
        .rows()
    }
    change = sums["game", "whole"] - sums["base", "whole"]
    assert sums["game", "weights"] + sums["game", "input"] == pytest.approx(change, abs=1e-9)
    assert abs(sums["game", "weights"]) > 1e-3
    assert ("base", "weights") not in sums


def test_controls_hold_and_are_told(found: Explanation):
    controls = found.tables["controls"]
    assert set(controls["control"]) == {"write_all", "self_patch"}
    assert controls["value"].max() < 1e-9
    gates = found.gates()
    noise = gates.filter(gate="noise floor")
    assert sorted(noise["subject"]) == ["self-patch game", "write-all base>game"]
    assert noise["passed"].all()
    assert gates.filter(gate="completeness")["passed"].all()
    assert set(gates.filter(gate="approximation")["subject"].str.head(4)) == {
        "attr",
        "inte",
        "relp",
    }


def test_two_agents_can_be_chosen_either_way(agents: Agents):
    back = explain(agents, PROMPTS, methods="patching", source="game", target="base", sites="mlp")
    table = back.tables["patching"]
    assert table.select("source", "target").unique().rows() == [("game", "base")]
    assert set(table["kind"]) == {"mlp", "all"}
    assert "lens" not in back.tables


def test_the_base_alone_is_patched_across_prompts(alone: Agents):
    found = explain(alone, PROMPTS)
    table = found.tables["patching"]
    assert table.select("source_prompt", "prompt").unique().rows() == [("q1", "q2")]
    first, second = found.decisions["log_odds"].to_list()
    full = table.filter(site="all")
    assert full["baseline_log_odds"].item() == pytest.approx(second)
    assert full["patched_log_odds"].item() == pytest.approx(first)
    assert set(found.tables["attribution"]["part"]) == {"whole"}
    assert "contribution" in found.top(method="attribution").columns
    assert sorted(found.figures) == ["attribution", "lens", "patching"]


def test_one_prompt_of_one_agent_has_nothing_to_patch(alone: Agents):
    found = explain(alone, PROMPTS[0])
    assert {"lens", "attribution"} <= set(found.tables)
    assert "patching" not in found.tables
    (note,) = found.notes
    assert note.method == "patching"
    assert "There is nothing to patch between" in str(note)
    assert "There is nothing to patch between" in repr(found)
    with pytest.raises(ConfigError, match="ask a second prompt, or load an agent"):
        explain(alone, PROMPTS[0], methods=("patching", "paths"))


def test_what_does_not_align_is_told_and_the_rest_is_done(alone: Agents):
    prompts = [*PROMPTS, LONGER]
    pairs = [("q2", "q1"), ("longer", "q1")]
    found = explain(alone, prompts, methods="patching", pairs=pairs, positions="all", sites="mlp")
    assert set(found.tables["patching"]["prompt"]) == {"q2"}
    (note,) = found.notes
    assert note.subject == "q1 into longer"
    assert "do not align token by token" in repr(found)
    with pytest.raises(PromptError, match="do not align token by token"):
        explain(alone, prompts, methods="patching", pairs=pairs[1:], positions="all")


def test_patches_act_at_a_named_span(agents: Agents):
    found = explain(
        agents, PROMPTS, methods=("patching", "paths"), positions="round", sites=["L1.mlp"],
        pairs=[("q1", "q2")], source="base", target="game",
    )  # fmt: skip
    table = found.tables["patching"]
    assert table.select("source", "target", "positions").unique().rows() == [
        ("base", "game", "round")
    ]
    assert abs(table.filter(site="L1.mlp")["effect"].item()) > 1e-6
    assert set(found.tables["edges"]["positions"]) == {"round"}


def test_across_prompts_each_agent_is_patched_with_its_own(agents: Agents):
    found = explain(agents, PROMPTS, methods="patching", pairs=[("q1", "q2")], sites="embed")
    rows = found.tables["patching"].select("source", "target").unique(maintain_order=True).rows()
    assert rows == [("base", "base"), ("game", "game")]


def test_sites_are_kinds_names_and_sets(alone: Agents):
    sites = ["q", "L1.h2", "L2.mlp", ("L0.mlp", "L0.attn")]
    found = explain(alone, PROMPTS, methods="patching", sites=sites)
    names = set(found.tables["patching"]["site"])
    assert {f"L{layer}.h{head}.q" for layer in range(3) for head in range(4)} <= names
    assert {"L1.h2", "L2.mlp", "L0.attn+L0.mlp", "all"} <= names
    assert len(names) == 16


def test_a_checkpoint_is_not_held_to_what_no_site_writes(places: dict[str, Path]):
    both = load(places["base"], full=places["full"])
    found = explain(both, PROMPTS, sites="mlp")
    assert set(found.tables["controls"]["control"]) == {"self_patch"}
    assert found.notes == ()


def test_approximations_without_exact_patches_have_no_agreement(agents: Agents):
    found = explain(agents, PROMPTS[0], methods="approximation", sites=["mlp"])
    assert "agreement" not in found.tables
    assert "no site may be ranked by them" in repr(found)
    with pytest.raises(ConfigError, match="rank_by, which refuses"):
        found.top(method="approximation")


def test_progress_is_told(alone: Agents):
    told: list[ProgressEvent] = []
    explain(alone, PROMPTS[0], methods=("lens", "attribution"), progress=told.append)
    assert [(e.done, e.total, e.note) for e in told if e.task == "explain"] == [
        (1, 2, "lens base"),
        (2, 2, "attribution base"),
    ]


def test_what_is_drawn_depends_on_the_seed_alone(alone: Agents):
    def draws(seed: int) -> list[float]:
        found = explain(alone, PROMPTS[0], methods="lens", seed=seed)
        return found.tables["lens_controls"]["logit_diff"].to_list()

    assert draws(3) == draws(3)
    assert draws(3) != draws(4)


@pytest.mark.parametrize(
    ("wrong", "kind", "told"),
    [
        ({"methods": ["lens", "patchin"]}, ConfigError, "did you mean 'patching'"),
        ({"methods": ()}, ConfigError, "No method was chosen"),
        ({"source": "gme"}, AgentError, "did you mean 'game'"),
        ({"target": "moral"}, AgentError, "There is no agent 'moral'"),
        ({"target": "base"}, AgentError, "nothing changes"),
        ({"pairs": [("q1", "q9")]}, PromptError, "There is no prompt of this name. Seen: 'q9'"),
        ({"pairs": [("q1", "q1")]}, PromptError, "A prompt is paired with itself"),
        ({"pairs": [("q1",)]}, ConfigError, "This is not a pair of prompts"),
        ({"pairs": ["q1"]}, ConfigError, "This is not a pair of prompts"),
        ({"pairs": []}, ConfigError, "No pair of prompts was given"),
        ({"pairs": "label"}, ConfigError, "did you mean 'labels'"),
        ({"positions": "rond"}, PromptError, "did you mean 'round'"),
        ({"sites": "L9.h1"}, SiteError, "the nearest is L2.h1"),
        ({"sites": ["mpl"]}, SiteError, "This is not the name of a site"),
        ({"sites": []}, SiteError, "No site was chosen"),
        ({"sites": ["all"]}, SiteError, "This site cannot be patched"),
        ({"sites": [()]}, SiteError, "An intervention has no site"),
        ({"write": "zz"}, ConfigError, "There is no such way to patch"),
        ({"memory_gib": 0}, ConfigError, "This is not an amount of memory"),
        ({"seed": -1}, ConfigError, "This is not a seed"),
        ({"methods": "ablation", "positions": "round"}, ConfigError, "Ablation does not act"),
        ({"methods": "paths", "sites": "q"}, SiteError, "None of the chosen sites"),
        ({"methods": "patching", "memory_gib": 1e-9}, MoralscopeError, "Not even one row"),
    ],
)
def test_wrong_arguments_are_refused(
    agents: Agents, wrong: dict[str, Any], kind: type[MoralscopeError], told: str
):
    with pytest.raises(kind) as caught:
        explain(agents, PROMPTS, **wrong)
    assert told in str(caught.value)


def test_only_agents_are_explained():
    with pytest.raises(ConfigError, match="These are not agents. Seen: str"):
        explain("default", PROMPTS)  # pyright: ignore[reportArgumentType]


def test_an_answer_that_cannot_be_scored_is_refused(alone: Agents):
    with pytest.raises(PromptError, match="prefix of another"):
        explain(alone, ask("Which?", positive=" action", negative=" action1"))


def test_what_is_saved_is_a_run(found: Explanation, tmp_path: Path):
    assert found.save(tmp_path / "out") == tmp_path / "out"
    found.save(tmp_path / "out")
    run = read_run(tmp_path / "out")
    assert set(run.tables) == {*found.tables, "gates"}
    assert set(run.tables) <= set(SCHEMAS)
    for name, table in found.tables.items():
        assert_frame_equal(run.tables[name], table)
    pictures = sorted(path.name for path in (tmp_path / "out/figures").iterdir())
    assert pictures == [
        f"{n}.{e}"
        for n in ("attribution", "lens", "patching")
        for e in ("json", "pdf", "png", "svg")
    ]
    assert (tmp_path / "out/explanation.txt").read_text() == f"{found!r}\n"
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
