"""The tables of patching: what they hold, their controls, and the two directions of a pair."""

import dataclasses
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hooked import hooked_sweep
from worlds import World, Worlds, clean_runs, world

from moralscope.core.errors import PromptError
from moralscope.core.site import Site, parse_site
from moralscope.core.tables import from_rows
from moralscope.mechanisms.patching.tables import directions_table, patching_table

HEADS = [Site("head", layer, head) for layer in range(3) for head in range(4)]
KEPT: dict[str, Any] = {"n": 3, "everywhere": True, "parts": "qkv", "equal": True}


def table(here: World, source: str, target: str, **chosen: Any) -> Any:
    with here.roster.speaking(target) as model:
        return patching_table(model, here.anatomy(), here.runs[source], here.runs[target], **chosen)


def test_the_table_holds_every_site_and_the_ceiling(worlds: Worlds):
    here = worlds("gemma2", n=3)
    frame, controls = table(here, "game", "moral")
    sites = [*map(str, here.anatomy().component_sites), "all"]
    assert frame.height == 3 * len(sites)
    assert frame.filter(prompt="p1")["site"].to_list() == sites
    assert frame.select("source", "target", "write", "positions").unique().rows() == [
        ("game", "moral", "write", "answer_span")
    ]
    assert frame["prompt"].to_list() == frame["source_prompt"].to_list()
    for at, prompt in enumerate(here.prompts):
        own = frame.filter(prompt=prompt.name)
        assert own["baseline_log_odds"].to_list() == pytest.approx(
            [float(here.runs["moral"].log_odds[at])] * len(sites), abs=1e-10
        )
        (ceiling,) = own.filter(site="all").rows(named=True)
        assert ceiling["patched_log_odds"] == pytest.approx(
            float(here.runs["game"].log_odds[at]), abs=1e-12
        )
        (direct,) = hooked_sweep(
            here.roster, "game", "moral", prompt, interventions=[[Site("head", 2, 3)]]
        )
        (head,) = own.filter(site="L2.h3").rows(named=True)
        assert head["patched_log_odds"] == pytest.approx(direct, abs=1e-10)
        assert (head["layer"], head["kind"], head["head"]) == (2, "head", 3)
    assert controls["control"].unique().to_list() == ["write_all"]
    assert controls["subject"].unique().to_list() == ["game>moral"]
    assert controls["value"].max() < 1e-10


def test_effect_margin_and_flip_follow_from_the_log_odds(worlds: Worlds):
    frame, _ = table(worlds("llama"), "game", "moral")
    for row in frame.rows(named=True):
        before, after = row["baseline_log_odds"], row["patched_log_odds"]
        assert row["effect"] == after - before
        assert row["flipped"] == (before * after < 0)
        # How far the option that was preferred is still ahead.
        assert abs(row["margin"]) == abs(after)
        assert (row["margin"] < 0) == row["flipped"]
    assert frame["flipped"].n_unique() == 2
    assert frame.filter(pl.col("baseline_log_odds") < 0).height > 0
    assert frame.filter(pl.col("baseline_log_odds") > 0).height > 0


def test_sets_of_sites_are_one_row_each(worlds: Worlds):
    here = worlds("llama", n=2)
    together = (Site("mlp", 2), Site("head", 0, 1), Site("attn", 1))
    frame, _ = table(here, "game", "moral", sites=[together, Site("mlp", 2)], members=[1])
    rows = frame.rows(named=True)
    assert [(row["site"], row["kind"], row["layer"]) for row in rows] == [
        ("L0.h1+L1.attn+L2.mlp", "set", None), ("L2.mlp", "mlp", 2), ("all", "all", None),
    ]  # fmt: skip
    direct = hooked_sweep(
        here.roster, "game", "moral", here.prompts[1], interventions=[together, [Site("mlp", 2)]]
    )
    assert [row["patched_log_odds"] for row in rows[:2]] == pytest.approx(direct, abs=1e-10)
    assert abs(direct[0] - direct[1]) > 1e-6


@pytest.mark.parametrize("positions", ["answer_span", "all", "move"])
def test_prompts_are_patched_into_each_other_by_name(worlds: Worlds, positions: str):
    here = worlds("llama", **KEPT)
    sites = [parse_site(name) for name in ("embed", "L1.h2.q", "L0.kv1.v", "L1.resid_mid")]
    pairs = [(0, 2), (2, 1)]
    frame, controls = table(here, "game", "game", sites=sites, pairs=pairs, positions=positions)
    for mine, theirs in pairs:
        own = frame.filter(prompt=f"p{mine}", source_prompt=f"p{theirs}", positions=positions)
        assert own["site"].to_list() == [*map(str, sites), "all"]
        direct = hooked_sweep(
            here.roster, "game", "game", here.prompts[mine], other=here.prompts[theirs],
            positions=positions, interventions=[[site] for site in sites],
        )  # fmt: skip
        assert own["patched_log_odds"].to_list()[:-1] == pytest.approx(direct, abs=1e-10)
        assert own["patched_log_odds"][-1] == pytest.approx(
            float(here.runs["game"].log_odds[theirs]), abs=1e-10
        )
    if positions == "move":
        assert controls.is_empty(), "writing all of a span is not the source"
    else:
        assert controls.select("control", "subject").rows() == [
            ("write_all", "game>game from p2"), ("write_all", "game>game from p1"),
        ]  # fmt: skip
        assert controls["value"].max() < 1e-10


@pytest.mark.parametrize("positions", ["answer_span", "all", "move"])
def test_where_a_patch_starts_is_before_what_is_scored(worlds: Worlds, positions: str):
    """The tokens that the rows really replace, against positions counted in the prompt."""
    here = worlds("llama", **KEPT)
    frame, _ = table(here, "game", "moral", sites=[Site("mlp", 1)], positions=positions)
    for prompt in here.prompts:
        length, start = len(prompt.tokens), dict(prompt.spans)["move"][0]
        first = {"answer_span": length - 1, "all": 0, "move": start}[positions]
        single, swap = frame.filter(prompt=prompt.name).rows(named=True)
        assert (single["first_patched"], single["first_scored"]) == (first, length)
        assert (swap["first_patched"], swap["first_scored"]) == (0, length)


def test_positions_are_those_of_the_target_s_prompt(worlds: Worlds):
    here = worlds("gemma2", n=3)
    assert len({len(prompt.tokens) for prompt in here.prompts}) > 1, "or it would not show"
    frame, _ = table(here, "game", "game", sites=[Site("mlp", 1)], pairs=[(0, 1), (1, 2)])
    for row in frame.filter(pl.col("site") != "all").rows(named=True):
        (mine,) = (p for p in here.prompts if p.name == row["prompt"])
        assert row["first_patched"] == len(mine.tokens) - 1 == row["first_scored"] - 1


def test_prompts_whose_options_do_not_align_have_no_ceiling(worlds: Worlds):
    """A span may still be patched; what the source answers cannot be read with these options."""
    here = worlds("llama", **KEPT)
    longer = dataclasses.replace(here.prompts[1], positive=((11, 50),))
    prompts = (here.prompts[0], longer)
    other = World(here.roster, prompts, clean_runs(here.roster, prompts, everywhere=True))
    chosen: dict[str, Any] = {"sites": [Site("mlp", 0)], "pairs": [(0, 1)]}
    frame, controls = table(other, "game", "moral", positions="move", **chosen)
    assert frame["site"].to_list() == ["L0.mlp"]
    assert frame["effect"].abs().min() > 1e-6
    assert controls.is_empty()
    with pytest.raises(PromptError, match="'p0' and 'p1' do not align token by token") as e:
        table(other, "game", "moral", positions="all", **chosen)
    assert "patch at a named span" in str(e.value.remedy)


def test_the_control_of_an_agent_with_itself_is_the_self_patch(worlds: Worlds):
    here = worlds("llama", n=2)
    frame, controls = table(here, "game", "game", members=[1], sites=HEADS)
    assert controls.rows() == [("self_patch", "game", "p1", controls["value"][0])]
    largest = frame["effect"].abs().max()
    assert controls["value"][0] >= largest
    assert controls["value"][0] < 1e-10


def test_a_damaged_activation_shows_in_the_controls(tmp_path: Path):
    """The control would not be one if it could not fail."""
    here = world(tmp_path, "llama", n=2)
    here.runs["game"].packs[0].captured.mlp_out[1] += 0.5
    _, wrong = table(here, "game", "moral")
    assert wrong["value"].min() > 1e-3


def test_a_damaged_activation_shows_in_the_self_patch(tmp_path: Path):
    here = world(tmp_path, "llama", n=1)
    run = here.runs["game"]
    part = run.packs[0]
    damaged = dataclasses.replace(part.captured, mlp_out=part.captured.mlp_out + 0.5)
    source = dataclasses.replace(run, packs=(dataclasses.replace(part, captured=damaged),))
    with here.roster.speaking("game") as model:
        _, wrong = patching_table(model, here.anatomy(), source, run)
    assert wrong["control"].to_list() == ["self_patch"]
    assert wrong["value"][0] > 1e-3


def test_progress_is_reported_for_each_pass(worlds: Worlds):
    here = worlds("llama", n=3)
    seen: list[tuple[str, int, int | None]] = []
    table(
        here, "game", "moral", members=[0, 1, 2], sites=HEADS[:2],
        progress=lambda event: seen.append((event.task, event.done, event.total)),
    )  # fmt: skip
    # Spans of one token go two by two.
    assert seen == [("patch game>moral", 1, 2), ("patch game>moral", 2, 2)]


def patch_row(source: str, target: str, effect: float, **changed: Any) -> dict[str, Any]:
    row = {
        "source": source, "target": target, "prompt": "p", "source_prompt": "p", "site": "L0.mlp",
        "layer": 0, "kind": "mlp", "head": None, "positions": "answer_span", "write": "write",
        "baseline_log_odds": 1.0, "patched_log_odds": 1.0 + effect, "effect": effect,
        "margin": 1.0 + effect, "flipped": 1.0 + effect < 0,
    }  # fmt: skip
    return {**row, **changed}


def test_directions_are_split_into_symmetric_part_and_asymmetry():
    rows = [
        patch_row("b", "a", -3.0), patch_row("a", "b", 5.0),
        patch_row("a", "b", 2.0, site="L1.mlp"), patch_row("b", "a", -2.0, site="L1.mlp"),
        patch_row("a", "b", 9.0, write="z"),
        patch_row("a", "b", 1.0, site="all", kind="all"),
        patch_row("b", "a", 1.0, site="all", kind="all"),
        patch_row("a", "a", 0.0),
    ]  # fmt: skip
    found = directions_table(from_rows("patching", rows))
    columns = ("agent_a", "agent_b", "site", "effect_a_to_b", "effect_b_to_a", "symmetric",
               "asymmetry")  # fmt: skip
    # (5 - -3) / 2 = 4 and (5 + -3) / 2 = 1; equal and opposite effects have no asymmetry.
    assert sorted(found.select(columns).rows()) == [
        ("a", "b", "L0.mlp", 5.0, -3.0, 4.0, 1.0),
        ("a", "b", "L1.mlp", 2.0, -2.0, 2.0, 0.0),
    ]


def test_directions_across_prompts_exchange_agents_and_prompts_together():
    rows = [
        patch_row("a", "b", 4.0, source_prompt="x", prompt="y"),
        patch_row("b", "a", 1.0, source_prompt="y", prompt="x"),
        patch_row("b", "a", 7.0, source_prompt="x", prompt="y"),  # no patch goes back here
        patch_row("c", "c", 2.0, source_prompt="y", prompt="x"),
        patch_row("c", "c", -6.0, source_prompt="x", prompt="y"),
    ]
    found = directions_table(from_rows("patching", rows))
    columns = ("agent_a", "prompt_a", "agent_b", "prompt_b", "symmetric", "asymmetry")
    assert sorted(found.select(columns).rows()) == [
        ("a", "x", "b", "y", 1.5, 2.5),
        ("c", "x", "c", "y", -4.0, -2.0),
    ]


def test_directions_of_a_live_pair_give_both_effects_back(worlds: Worlds):
    here = worlds("qwen2", n=2)
    both = pl.concat([table(here, "game", "moral")[0], table(here, "moral", "game")[0]])
    found = directions_table(both)
    assert found.height == 2 * len(here.anatomy().component_sites)
    for row in found.rows(named=True):
        effects = [
            both.filter(source=source, target=target, prompt=row["prompt_a"], site=row["site"])[
                "effect"
            ].item()
            for source, target in (("game", "moral"), ("moral", "game"))
        ]
        assert row["symmetric"] + row["asymmetry"] == pytest.approx(effects[0], abs=1e-12)
        assert row["asymmetry"] - row["symmetric"] == pytest.approx(effects[1], abs=1e-12)
