"""Vectors in the place of patches: their lengths, and their effects against whole forwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import tiny
import torch
from worlds import World, Worlds

from moralscope.core.errors import AgentError, SiteError
from moralscope.core.site import Site, every_site
from moralscope.core.tables import conform
from moralscope.evidence.controls.judging import judge_controls
from moralscope.mechanisms.patching import rows, segments
from moralscope.mechanisms.patching.changing import Controlled
from moralscope.mechanisms.patching.controlled import control_patches_table, spread_sites
from moralscope.mechanisms.patching.planted import ordinary_log_odds, planted_kinds
from moralscope.mechanisms.patching.tables import patching_table
from moralscope.models.alignment import Alignment

KINDS = ("head", "mlp", "attn", "resid_pre", "resid_mid", "resid_post")


def controlled(
    here: World,
    *,
    kinds: tuple[Any, ...] = KINDS,
    source: str = "game",
    members: int = 4,
    patched: dict[tuple[str, str], float] | None = None,
    **changes: Any,
) -> pl.DataFrame:
    """Controls of a pair of a world, the target being ``moral``."""
    anatomy = here.roster.anatomy("moral")
    settings: dict[str, Any] = {"draws": 2, "planted": True} | changes
    wanted = Controlled(
        pairs=tuple((member, member) for member in range(members)),
        sites=settings.pop("sites", spread_sites(anatomy.sites(*kinds))),
        **settings,
    )
    with here.roster.speaking("moral") as model:
        table = control_patches_table(
            model, anatomy, here.runs[source], here.runs["moral"], wanted,
            rng=np.random.default_rng(5), patched=patched or {},
        )  # fmt: skip
    return conform("control_patches", table)


def of(table: pl.DataFrame, control: str) -> pl.DataFrame:
    return table.filter(pl.col("control") == control)


@pytest.mark.parametrize(
    ("family", "forms", "positions", "write"),
    [
        ("llama", "single", "answer_span", "write"),
        ("llama", "several", "all", "z"),
        ("gemma2", "several", "answer_span", "z"),
        ("gpt2", "multi", "answer_span", "write"),
    ],
)
def test_a_planted_vector_does_in_rows_what_it_does_in_a_whole_forward(
    worlds: Worlds, family: str, forms: str, positions: str, write: str
) -> None:
    here = worlds(family, forms=forms, everywhere=positions == "all")
    planted = of(controlled(here, positions=positions, write=write, draws=0), "planted")
    effect, expected = (planted[name].to_numpy() for name in ("effect", "expected"))
    assert planted.height == len(KINDS) * 2 * 2  # kinds, sizes, prompts
    assert np.abs(effect - expected).max() < 1e-10
    assert np.abs(expected).min() > 1e-3
    full, half = (planted.filter(draw=draw)["norm"].to_numpy() for draw in (0, 1))
    assert full == pytest.approx(2.0 * half)


def test_the_whole_forward_is_the_librarys_own_with_a_hook(worlds: Worlds) -> None:
    """Every form by itself, the vector added from the prompt's last token on."""
    here = worlds("llama", forms="several")
    vector = torch.linspace(-1.0, 1.0, 32, dtype=torch.float64)
    prompts = here.prompts[:2]
    with here.roster.speaking("moral") as model:
        anatomy = here.roster.anatomy("moral")
        found = ordinary_log_odds(
            model, anatomy, prompts, Site("mlp", 1), vector, positions="answer_span", write="write"
        )
        plain = [tiny.plain_log_odds(model, prompt) for prompt in prompts]
        for prompt, value, unchanged in zip(prompts, found, plain, strict=True):

            def add(_: Any, __: Any, output: Any, first: int = len(prompt.tokens) - 1) -> Any:
                moved = output.clone()
                moved[:, first:] += vector
                return moved

            handle = anatomy.blocks[1].mlp.register_forward_hook(add)
            try:
                expected = tiny.plain_log_odds(model, prompt)
            finally:
                handle.remove()
            assert float(value) == pytest.approx(expected, abs=1e-10)
            assert abs(expected - unchanged) > 1e-2


def test_a_random_direction_is_as_long_as_the_patchs_change_and_does_what_it_does(
    worlds: Worlds,
) -> None:
    here = worlds("llama")
    sites = (Site("attn", 0), Site("mlp", 2))
    table = of(controlled(here, sites=sites, planted=False), "random_direction")
    assert table.height == 2 * 2 * 4
    source, target = (here.runs[name].packs[0] for name in ("game", "moral"))
    drawn = np.random.default_rng(5)
    directions = {(s, d): drawn.standard_normal(32) for s in sites for d in range(2)}
    by_name = {prompt.name: index for index, prompt in enumerate(here.prompts)}
    for row in table.iter_rows(named=True):
        site = next(s for s in sites if str(s) == row["site"])
        member = by_name[row["prompt"]]
        # One answer token, one pack: the kept rows are the prompts, in the pack's order.
        kept = int(target.pack.row[2 * target.pack.members.index(member)])
        name = "attn_out" if site.kind == "attn" else "mlp_out"
        gap = getattr(source.captured, name) - getattr(target.captured, name)
        length = float(gap[site.layer, kept].norm())
        assert row["norm"] == pytest.approx(length, rel=1e-9)
        direction = directions[site, row["draw"]]
        vector = torch.as_tensor(direction / np.linalg.norm(direction)) * length
        with here.roster.speaking("moral") as model:
            whole = ordinary_log_odds(
                model, here.roster.anatomy("moral"), [here.prompts[member]], site, vector,
                positions="answer_span", write="write",
            )  # fmt: skip
        expected = float(whole[0] - here.runs["moral"].log_odds[member])
        assert row["effect"] == pytest.approx(expected, abs=1e-10)
        assert abs(row["effect"]) > 1e-6
        assert row["expected"] is None


def test_queries_keys_and_values_get_random_directions_and_no_planted_vector(
    worlds: Worlds,
) -> None:
    here = worlds("llama", parts="qkv")
    table = controlled(here, kinds=("q", "k", "v"))
    assert planted_kinds(every_site("q", "mlp", n_layers=1, n_heads=2, n_kv_heads=1)) == ("mlp",)
    assert table["control"].unique().to_list() == ["random_direction"]
    assert table["effect"].abs().max() > 1e-4


def test_effects_of_the_patches_themselves_stand_beside_the_random_ones(worlds: Worlds) -> None:
    here = worlds("llama")
    with here.roster.speaking("moral") as model:
        anatomy = here.roster.anatomy("moral")
        patching, _ = patching_table(model, anatomy, here.runs["game"], here.runs["moral"])
    known = {(r["prompt"], r["site"]): r["effect"] for r in patching.iter_rows(named=True)}
    table = of(controlled(here, kinds=("mlp",), patched=known), "random_direction")
    for row in table.iter_rows(named=True):
        assert row["source_effect"] == known[row["prompt"], row["site"]]


def test_what_changes_nothing_gives_no_length_and_its_effect_is_not_zero_but_unknown(
    worlds: Worlds,
) -> None:
    here = worlds("llama")
    # As if an adapter had never landed: the source computes what the target computes.
    table = controlled(here, source="moral").with_columns(source=pl.lit("dead"))
    assert table["norm"].to_list() == [0.0] * table.height
    assert table["effect"].null_count() == table["expected"].null_count() == table.height
    said = judged(table)
    assert said["random_direction"]["passed"] is said["planted_write"]["passed"] is None
    assert "change nothing at any of the sites" in said["random_direction"]["sentence"]
    assert "the two agents compute the same" in said["planted_write"]["sentence"]


def judged(table: pl.DataFrame) -> dict[str, dict[str, Any]]:
    found = judge_controls({"control_patches": table})
    return {row["control"]: row for row in found.iter_rows(named=True)}


def test_a_sound_engine_passes(worlds: Worlds) -> None:
    said = judged(controlled(worlds("llama", everywhere=True)))["planted_write"]
    assert said["passed"] is True
    assert said["measured"] == pytest.approx(1.0, abs=1e-9)


def test_a_patch_of_the_wrong_sign_is_found(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = rows.read_log_odds
    monkeypatch.setattr(rows, "read_log_odds", lambda *given: -read(*given))
    said = judged(controlled(worlds("llama", everywhere=True)))["planted_write"]
    assert said["passed"] is False
    assert said["measured"] == pytest.approx(-1.0, abs=1e-9)
    assert "none of their effects can be trusted" in said["sentence"]


def test_a_patch_one_token_too_early_is_found(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    def early(target: Any, source: Any, positions: str) -> Alignment:
        del positions
        return Alignment(((len(target.tokens) - 2, len(source.tokens) - 2),), ())

    monkeypatch.setattr(segments, "align", early)
    said = judged(controlled(worlds("llama", everywhere=True)))["planted_write"]
    assert said["passed"] is False


def test_a_site_that_the_model_lacks_is_refused(worlds: Worlds) -> None:
    with pytest.raises(SiteError, match=r"no such site\. Seen: L9\.mlp"):
        controlled(worlds("llama"), sites=(Site("mlp", 9),))


def test_sites_are_spread_over_depth_and_kinds() -> None:
    sites = every_site("head", "mlp", n_layers=30, n_heads=9, n_kv_heads=3)
    chosen = spread_sites(sites)
    assert chosen == tuple(sorted(chosen))
    for kind in ("head", "mlp"):
        layers = [site.layer for site in chosen if site.kind == kind]
        assert len(layers) == 12
        assert (layers[0], layers[-1]) == (0, 29)
        gaps = np.diff([layer or 0 for layer in layers])
        assert set(gaps.tolist()) <= {2, 3}
    few = every_site("head", "mlp", n_layers=2, n_heads=2, n_kv_heads=1)
    assert spread_sites(few) == few
    assert len(spread_sites(sites, most=1)) == 2  # one of each kind


def test_runs_that_kept_too_little_are_refused(worlds: Worlds) -> None:
    with pytest.raises(AgentError, match="queries, keys or values were not kept"):
        controlled(worlds("llama"), kinds=("q",))
