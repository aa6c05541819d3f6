"""Rank-1 adapters are found by place, and their strengths scaled and given back exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny_organism import Organism, organism, texts

from moralscope.core.errors import AgentError, ConfigError
from moralscope.organisms.scalars.adapters import (
    adapted_places,
    chosen,
    of_groups,
    rank_one_adapters,
    scaled,
)

PLACES = tuple(f"L{layer}.mlp.down_proj" for layer in range(3))


def strengths(model: Any) -> list[float]:
    return [layer.scaling["game"] for layer in adapted_places(model).values()]


def test_adapters_stand_where_they_were_put_in_depth_order(here: Organism) -> None:
    assert tuple(each.place for each in here.adapters) == PLACES
    assert [each.layer for each in here.adapters] == [0, 1, 2]
    plain = dict(here.model.named_modules())
    for each in here.adapters:
        module = plain[f"model.layers.{each.layer}.mlp.down_proj"]
        product = each.scaling * torch.outer(each.writes, each.reads)
        a, b = module.lora_A["game"].weight, module.lora_B["game"].weight
        assert torch.equal(each.reads, a[0])
        assert torch.allclose(product, module.scaling["game"] * b @ a, atol=1e-14)


def test_rslora_of_rank_one_has_the_scaling_alpha(folder: Path) -> None:
    made = organism(folder / "rslora", settings={"use_rslora": True, "lora_alpha": 64})
    with made.roster.speaking("game"):
        assert [each.scaling for each in made.adapters] == [64.0] * 3


def test_some_of_them_are_chosen_by_place(here: Organism) -> None:
    picked = chosen(here.adapters, [PLACES[2], PLACES[0]])
    assert [each.place for each in picked] == [PLACES[0], PLACES[2]]
    with pytest.raises(ConfigError, match=r"did you mean 'L2.mlp.down_proj'"):
        chosen(here.adapters, ["L2.mlp.down_prj"])


def test_a_factor_of_one_is_the_identity_and_zero_the_base(here: Organism) -> None:
    tokens = texts(1)[0]
    tuned = tiny.plain_logits(here.model, tokens)
    with scaled(here.model, dict.fromkeys(PLACES, 1.0)):
        assert torch.equal(tiny.plain_logits(here.model, tokens), tuned)
    with scaled(here.model, dict.fromkeys(PLACES, 0.0)):
        silent = tiny.plain_logits(here.model, tokens)
    with here.roster.speaking("base") as base:
        assert torch.equal(silent, tiny.plain_logits(base, tokens))
    assert (silent - tuned).abs().max() > 0.01


def test_a_factor_multiplies_the_update_of_its_place_alone(here: Organism) -> None:
    tokens = texts(1)[0]
    with scaled(here.model, {PLACES[1]: -2.5}):
        found = tiny.plain_logits(here.model, tokens)
    up = dict(here.model.named_modules())["model.layers.1.mlp.down_proj"].lora_B["game"].weight
    before = up.clone()
    try:
        with torch.no_grad():
            up.mul_(-2.5)
        expected = tiny.plain_logits(here.model, tokens)
    finally:
        with torch.no_grad():
            up.copy_(before)
    assert torch.allclose(found, expected, atol=1e-12)


def test_strengths_come_back_bit_for_bit_also_after_an_error(here: Organism) -> None:
    before = strengths(here.model)

    def break_off() -> None:
        with scaled(here.model, {PLACES[0]: 0.0, PLACES[2]: 0.1}):
            assert strengths(here.model) == [0.0, before[1], before[2] * 0.1]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert strengths(here.model) == before


def test_adapters_of_any_rank_are_scaled(folder: Path) -> None:
    wide = organism(folder / "wide", settings={"rank": 3, "target_modules": "all-linear"})
    tokens = texts(1)[0]
    with wide.roster.speaking("game"):
        places = adapted_places(wide.model)
        assert len(places) == 21
        with scaled(wide.model, dict.fromkeys(places, 0.0)):
            silent = tiny.plain_logits(wide.model, tokens)
    with wide.roster.speaking("base") as base:
        assert torch.equal(silent, tiny.plain_logits(base, tokens))


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_factor_that_is_not_finite_is_refused(here: Organism, factor: float) -> None:
    before = strengths(here.model)
    with (
        pytest.raises(ConfigError, match="An adapter cannot be scaled"),
        scaled(here.model, {PLACES[0]: 2.0, PLACES[1]: factor}),
    ):
        pass
    assert strengths(here.model) == before


def test_the_base_has_no_adapter_in_force(here: Organism) -> None:
    with (
        here.roster.speaking("base") as base,
        pytest.raises(AgentError, match="The model has no adapter in force"),
    ):
        rank_one_adapters(base)


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"rank": 2}, "L0.mlp.down_proj: LoRA of rank 2"),
        ({"use_dora": True}, "L0.mlp.down_proj: DoRA of rank 1"),
        ({"lora_bias": True}, "L0.mlp.down_proj: LoRA of rank 1 with a bias"),
    ],
)
def test_adapters_without_a_single_scalar_are_refused(
    folder: Path, settings: dict[str, Any], seen: str
) -> None:
    made = organism(folder / seen.replace(":", ""), settings=settings)
    with (
        made.roster.speaking("game") as model,
        pytest.raises(AgentError, match="An adapter has no single scalar") as error,
    ):
        rank_one_adapters(model)
    assert seen in str(error.value)


def test_two_adapters_at_one_place_are_refused(folder: Path) -> None:
    roster = tiny.tiny_roster(folder / "two", settings={"rank": 1, "target_modules": ["down_proj"]})
    with roster.speaking("game") as model:
        for layer in adapted_places(model).values():
            untyped: Any = layer
            untyped.set_adapter(["game", "moral"])
        with pytest.raises(AgentError, match=r"Seen: L0.mlp.down_proj: game, moral"):
            rank_one_adapters(model)


def test_groups_give_factors_and_the_rest_is_off() -> None:
    found = of_groups(
        PLACES, {"general": PLACES[:1], "domain": PLACES[2:]}, {"general": 20.0, "domain": -10.0}
    )
    assert found == dict(zip(PLACES, (20.0, 0.0, -10.0), strict=True))


@pytest.mark.parametrize(
    ("groups", "factors", "text"),
    [
        ({"a": PLACES[:1]}, {"b": 1.0}, "do not belong together. Seen: a, b"),
        ({"a": PLACES[:2], "b": PLACES[1:]}, {"a": 1.0, "b": 1.0}, "L1.mlp.down_proj: a and b"),
        ({"a": ["L9.mlp.down_proj"]}, {"a": 1.0}, "There is no adapter at this place"),
    ],
)
def test_groups_that_do_not_fit_are_refused(
    groups: dict[str, Any], factors: dict[str, float], text: str
) -> None:
    with pytest.raises(ConfigError) as error:
        of_groups(PLACES, groups, factors)
    assert text in str(error.value)
