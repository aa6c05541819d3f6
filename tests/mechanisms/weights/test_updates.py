"""Updates are what layers multiply by, minus the base: against plain SVDs of merged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import merged
import numpy as np
import polars as pl
import pytest
import scipy.stats
import tiny
import torch

from moralscope.core.agents import AgentSpec
from moralscope.core.errors import AgentError
from moralscope.core.progress import ProgressEvent
from moralscope.mechanisms.weights.tables import comparison_tables, update_tables
from moralscope.mechanisms.weights.updates import linear_places, of_factors, of_matrix, updates_of
from moralscope.models.roster import Roster

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "wide": {"rank": 40},  # more directions than the layer has
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "some": {"target_modules": ["q_proj", "down_proj"]},
}


@pytest.fixture(scope="module", params=KINDS)
def agents(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Roster:
    folder = tmp_path_factory.mktemp(request.param)
    return tiny.tiny_roster(folder, settings={"rank": 3, **KINDS[request.param]})


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Roster:
    """A float32 base and a full checkpoint with other layers, norms and embeddings."""
    folder = tmp_path_factory.mktemp("checkpoints")
    base, tuned = (folder / name for name in ("base", "tuned"))
    model = tiny.tiny_model("llama_bias", dtype=torch.float32)
    roster = Roster(tiny.loaded(model))
    roster.add(AgentSpec(name="base", base=str(base)))
    other = tiny.tiny_model("llama_bias", dtype=torch.float32)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "layers.0." in name or name == "model.embed_tokens.weight":
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    other.save_pretrained(str(tuned))
    tiny.tiny_tokenizer().save_pretrained(str(tuned))
    roster.add(AgentSpec(name="tuned", base=str(base), checkpoint=str(tuned)))
    return roster


def norms_of(roster: Roster, name: str) -> pl.DataFrame:
    return update_tables(roster, name, tiny.token_prompts(2))["update_norms"]


def check(roster: Roster, name: str, family: str, tolerance: float) -> None:
    tables = update_tables(roster, name, tiny.token_prompts(2), spectrum=1000)
    norms = {(r["layer"], r["module"]): r for r in tables["update_norms"].iter_rows(named=True)}
    spectra = tables["update_spectra"].group_by("layer", "module", maintain_order=True)
    values = {key: frame.get_column("singular_value").to_list() for key, frame in spectra}
    for index in range(3):
        for part in merged.parts(family):
            dw = merged.change(roster, name, index, part)
            w = merged.matrix(roster, "base", index, part)
            row = norms[index, part]
            s = np.linalg.svd(dw, compute_uv=False)
            own = np.array(values.get((index, part), []))
            assert row["norm"] == pytest.approx(np.linalg.norm(dw), abs=tolerance)
            assert row["base_norm"] == pytest.approx(np.linalg.norm(w), rel=1e-6)
            assert row["relative_norm"] == pytest.approx(
                np.linalg.norm(dw) / np.linalg.norm(w), abs=tolerance
            )
            assert row["spectral_norm"] == pytest.approx(np.linalg.norm(dw, 2), abs=tolerance)
            assert len(own) == row["rank"]
            assert own == pytest.approx(s[: len(own)], abs=tolerance)
            assert s[len(own) :] == pytest.approx(0.0, abs=20 * tolerance)
            if row["rank"]:
                entropy = scipy.stats.entropy(own)
                assert row["effective_rank"] == pytest.approx(np.exp(entropy), rel=1e-10)
                assert row["stable_rank"] == pytest.approx((own**2).sum() / own[0] ** 2, rel=1e-10)
            else:
                assert row["norm"] == 0.0
                assert row["effective_rank"] is row["stable_rank"] is None
    shares = tables["update_spectra"].group_by("layer", "module").agg(pl.col("share").sum())
    assert shares.get_column("share").to_list() == pytest.approx([1.0] * shares.height, abs=1e-9)


def test_updates_are_those_of_merged_weights(agents: Roster) -> None:
    for name in ("game", "moral"):
        check(agents, name, "llama", 1e-10)


@pytest.mark.parametrize("family", ["gpt2", "phi3", "gemma2"])
def test_updates_of_other_families_are_those_of_merged_weights(tmp_path: Path, family: str) -> None:
    check(tiny.tiny_roster(tmp_path, family), "game", family, 1e-10)


def test_an_adapter_over_half_of_the_layers_has_no_update_elsewhere(tmp_path: Path) -> None:
    roster = tiny.tiny_roster(tmp_path, settings={"target_modules": ["q_proj", "down_proj"]})
    norms = norms_of(roster, "game")
    changed = norms.filter(pl.col("norm") > 0.0)
    assert changed.get_column("module").unique().sort().to_list() == [
        "mlp.down_proj", "self_attn.q_proj",
    ]  # fmt: skip
    assert norms.height == 3 * 7
    assert norms.filter(pl.col("norm") == 0.0).get_column("n_parameters").sum() == 0


def test_parameters_are_those_that_training_could_change(tmp_path: Path) -> None:
    counts = {}
    for kind in ("lora", "dora"):
        roster = tiny.tiny_roster(tmp_path / kind, settings=KINDS[kind])
        counts[kind] = norms_of(roster, "game").get_column("n_parameters").sum()
        with roster.speaking("game") as model:
            expected = sum(p.numel() for n, p in model.named_parameters() if ".game" in n)
        assert counts[kind] == expected
    assert counts["dora"] > counts["lora"]


def test_a_checkpoint_is_its_weights_minus_the_base(checkpoints: Roster) -> None:
    check(checkpoints, "tuned", "llama_bias", 1e-5)
    norms = norms_of(checkpoints, "tuned")
    others = norms.filter(pl.col("rank").is_null())
    found = {(row["layer"], row["module"]): row["norm"] for row in others.iter_rows(named=True)}
    with checkpoints.speaking("base") as model:
        base = {name: p.detach().clone() for name, p in model.named_parameters()}
    with checkpoints.speaking("tuned") as model:
        own = dict(model.named_parameters())
    expected = {}
    for name, p in own.items():
        change = float((p.double() - base[name].double()).norm())
        inside = name.startswith("model.layers.0.")
        linear = name.endswith("_proj.weight")
        if change and not linear:
            expected[0 if inside else None, name.removeprefix("model.layers.0.")] = change
    assert found == pytest.approx(expected, rel=1e-10)
    assert (None, "model.embed_tokens.weight") in found
    assert (0, "input_layernorm.weight") in found
    assert (0, "self_attn.q_proj.bias") in found
    untouched = norms.filter(pl.col("layer") == 1)
    assert untouched.get_column("norm").to_list() == [0.0] * 7
    assert untouched.get_column("rank").to_list() == [0] * 7


def test_biases_of_adapters_count_beside_their_weights(tmp_path: Path) -> None:
    roster = tiny.tiny_roster(tmp_path, "llama_bias", settings={"lora_bias": True})
    norms = norms_of(roster, "game")
    found = norms.filter((pl.col("layer") == 1) & (pl.col("module") == "self_attn.o_proj.bias"))
    with roster.speaking("game") as model:
        linear = merged.layer(model, 1).self_attn.o_proj
        zero = torch.zeros(1, 32, dtype=torch.float64)
        with torch.no_grad():
            change = linear(zero) - linear.base_layer(zero)
    assert found["norm"].item() == pytest.approx(float(change.norm()), rel=1e-10)
    assert found["relative_norm"].item() == pytest.approx(
        float(change.norm() / linear.base_layer.bias.norm()), rel=1e-10
    )


def test_factors_and_products_give_one_update() -> None:
    rng = np.random.default_rng(3)
    b, a = rng.normal(size=(9, 4)), rng.normal(size=(4, 7))
    low = of_factors(torch.from_numpy(b), torch.from_numpy(a))
    whole = of_matrix(torch.from_numpy(b @ a))
    assert low.shape == whole.shape == (9, 7)
    assert low.values == pytest.approx(whole.values, abs=1e-12)
    for update in (low, whole):
        product = update.left * update.values @ update.right.T
        assert product == pytest.approx(b @ a, abs=1e-12)
        assert update.left.T @ update.left == pytest.approx(np.eye(4), abs=1e-12)
        assert update.right.T @ update.right == pytest.approx(np.eye(4), abs=1e-12)
    assert whole.reach is None
    assert low.reach is not None
    assert low.reach @ low.reach.T == pytest.approx(np.linalg.pinv(a) @ a, abs=1e-12)


def test_directions_below_rounding_are_none() -> None:
    rng = np.random.default_rng(3)
    b, a = rng.normal(size=(9, 4)), rng.normal(size=(4, 7))
    b[:, 3] = b[:, 0]
    assert of_factors(torch.from_numpy(b), torch.from_numpy(a)).rank == 3
    a[3] = a[0]
    narrow = of_factors(torch.from_numpy(b), torch.from_numpy(a))
    assert narrow.rank == 3
    assert narrow.reach is not None
    assert narrow.reach.shape == (7, 3)
    nothing = of_factors(torch.zeros(9, 4), torch.from_numpy(a))
    assert (nothing.rank, nothing.norm) == (0, 0.0)


def test_the_base_has_no_update(tmp_path: Path) -> None:
    roster = tiny.tiny_roster(tmp_path)
    with pytest.raises(AgentError, match="The base has no update") as caught:
        update_tables(roster, "base", tiny.token_prompts(2))
    assert "game, moral" in str(caught.value)
    with pytest.raises(AgentError, match="The base has no update"):
        comparison_tables(roster, [("base", "game")])
    with pytest.raises(AgentError, match="There is no agent 'gaem'"):
        comparison_tables(roster, [("gaem", "game")])
    with pytest.raises(AgentError, match="cannot be compared with itself"):
        comparison_tables(roster, [("game", "game")])
    assert comparison_tables(roster, [])["update_overlap"].is_empty()


def test_every_layer_reports_its_turn(tmp_path: Path) -> None:
    roster = tiny.tiny_roster(tmp_path)
    seen: list[ProgressEvent] = []
    update_tables(roster, "game", tiny.token_prompts(2), progress=seen.append)
    assert [event.done for event in seen] == list(range(21))
    assert {event.total for event in seen} == {21}


def test_places_are_the_linear_layers_of_the_layers(tmp_path: Path) -> None:
    roster = tiny.tiny_roster(tmp_path, "gpt2")
    with roster.speaking("game") as model:
        found = linear_places(model)
    assert list(found) == [(i, part) for i in range(3) for part in merged.parts("gpt2")]
    assert updates_of(roster, "game").whole == frozenset()
