"""An adapter without a direction in its B writes nothing along it, and gets its B back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from moralscope.core.errors import ModelError
from moralscope.core.streams import stream
from moralscope.models.weights import base_weight
from moralscope.organisms.directions.adapters import written_by_adapters, written_share
from moralscope.organisms.directions.interventions import Intervention, applied

VECTORS = stream(3, "vectors").standard_normal((4, 32))
TOKENS = (40, 91, 7, 33, 260, 12, 88)


class _StopError(Exception):
    pass


def factors(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if ".lora_B.game" in n}


def linears(model: Any) -> dict[str, Any]:
    return {n: m for n, m in model.named_modules() if hasattr(m, "lora_A")}


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("layer", [None, 1])
def test_what_writes_to_the_stream_does_so_without_the_direction(
    tmp_path: Path, family: str, layer: int | None
):
    roster = tiny.tiny_roster(tmp_path, family, adapters=("game",))
    along = VECTORS[: roster.anatomy("base").n_layers]
    with roster.speaking("game") as model:
        before, clean = factors(model), tiny.plain_logits(model, TOKENS)
        modules = linears(model)
        x = torch.tensor(stream(1, "inputs").standard_normal((5, 64)))
        with applied(model, roster.anatomy("game"), along, Intervention("adapter", layer)):
            seen = {n: m(x[:, : m.in_features]) for n, m in modules.items()}
            assert not torch.allclose(tiny.plain_logits(model, TOKENS), clean, atol=1e-3)
        for name, module in modules.items():
            read = x[:, : module.in_features]
            a, b = module.lora_A["game"].weight, module.lora_B["game"].weight
            written = module.scaling["game"] * read @ a.T @ b.T
            where = int(name.split("layers.")[1].split(".")[0])
            if name.endswith(("o_proj", "down_proj")):
                u = torch.tensor(VECTORS[where if layer is None else layer])
                if family == "gemma2":  # the norm after it multiplies by 1 + weight
                    attention = "post_attention_layernorm"
                    norm = attention if name.endswith("o_proj") else "post_feedforward_layernorm"
                    u = u * (1 + model.get_submodule(f"model.layers.{where}.{norm}").weight)
                written = written @ (torch.eye(32) - torch.outer(u, u) / (u @ u))
                assert ((seen[name] - read @ base_weight(module).T) @ u).abs().max() < 1e-10
            expected = read @ base_weight(module).T + written
            assert torch.allclose(seen[name], expected, atol=1e-10, rtol=0)
        assert all(torch.equal(b, before[n]) for n, b in factors(model).items())
        assert torch.equal(tiny.plain_logits(model, TOKENS), clean)
        with (
            pytest.raises(_StopError),
            applied(model, roster.anatomy("game"), along, Intervention("adapter")),
        ):
            raise _StopError
        assert all(torch.equal(b, before[n]) for n, b in factors(model).items())


def test_a_b_may_get_its_norm_back(tmp_path: Path):
    roster = tiny.tiny_roster(tmp_path, adapters=("game",), settings={"lora_bias": True})
    with roster.speaking("game") as model:
        anatomy, before = roster.anatomy("game"), factors(model)
        with applied(model, anatomy, VECTORS[:3], Intervention("adapter")):
            short = factors(model)
        with applied(model, anatomy, VECTORS[:3], Intervention("adapter", renormalise=True)):
            long = factors(model)
        assert all(torch.equal(b, before[n]) for n, b in factors(model).items())
    changed = [name for name in before if "o_proj" in name or "down_proj" in name]
    assert sorted(n for n in before if not torch.equal(before[n], short[n])) == sorted(changed)
    assert sum("bias" in name for name in changed) == 6
    for name in changed:
        u = torch.tensor(VECTORS[int(name.split("layers.")[1].split(".")[0])])
        assert (u @ short[name]).abs().max() < 1e-12
        assert (u @ long[name]).abs().max() < 1e-12
        assert float(short[name].norm()) < float(before[name].norm())
        assert float(long[name].norm()) == pytest.approx(float(before[name].norm()), rel=1e-12)


def test_the_share_of_b_along_a_direction(tmp_path: Path):
    own = {"target_modules": ["down_proj"], "layers_to_transform": [0, 2]}
    roster = tiny.tiny_roster(
        tmp_path, adapters=("game",), settings={"rank": 1, **own}, dtype=torch.float32
    )
    with roster.speaking("game") as model:
        anatomy = roster.anatomy("game")
        b = {one.layer: one.parts[0].numpy() for one in written_by_adapters(model, anatomy)}
        rows = written_share(model, anatomy, torch.tensor(VECTORS[:3]))
    assert [row["layer"] for row in rows] == [0, 2]
    for row in rows:
        v, w = VECTORS[row["layer"]], b[row["layer"]][:, 0].astype(float)
        cosine = v @ w / np.linalg.norm(v) / np.linalg.norm(w)
        assert row["cosine"] == pytest.approx(cosine, abs=1e-6)
        assert row["share"] == pytest.approx(cosine**2, abs=1e-6)
        assert row["expected"] == 1 / 32
        assert (row["module"], row["adapter"]) == ("mlp.down_proj", "game")
    three = tiny.tiny_roster(tmp_path / "three", adapters=("game",))
    with three.speaking("game") as model:
        rows = written_share(model, three.anatomy("game"), torch.tensor(VECTORS[:3]))
        of_b = next(iter(written_by_adapters(model, three.anatomy("game")))).parts[0].numpy()
    assert len(rows) == 6
    assert rows[0]["cosine"] is None
    u = VECTORS[0] / np.linalg.norm(VECTORS[0])
    assert rows[0]["share"] == pytest.approx(((u @ of_b) ** 2).sum() / (of_b**2).sum(), rel=1e-10)


def test_adapters_that_cannot_be_projected_are_refused(tmp_path: Path):
    roster = tiny.tiny_roster(tmp_path, adapters=("game",))
    done = Intervention("adapter")
    with (
        roster.speaking("base") as model,
        pytest.raises(ModelError, match="No adapter in force writes to the stream"),
        applied(model, roster.anatomy("base"), VECTORS[:3], done),
    ):
        pass
    dora = tiny.tiny_roster(tmp_path / "dora", adapters=("game",), settings={"use_dora": True})
    with (
        dora.speaking("game") as model,
        pytest.raises(ModelError, match="DoRA on layer 0"),
        applied(model, dora.anatomy("game"), VECTORS[:3], done),
    ):
        pass
    one = {"rank": 1, "target_modules": ["down_proj"], "layers_to_transform": [1]}
    alone = tiny.tiny_roster(tmp_path / "alone", adapters=("game",), settings=one)
    with alone.speaking("game") as model:
        anatomy = alone.anatomy("game")
        ((b,),) = (x.parts for x in written_by_adapters(model, anatomy))
        along = np.tile(b[:, 0].numpy(), (3, 1))
        kept = b.clone()
        with (
            pytest.raises(ModelError, match="Nothing is left of adapter 'game'"),
            applied(model, anatomy, along, Intervention("adapter", renormalise=True)),
        ):
            pass
        assert torch.equal(b, kept)
        b.zero_()
        with pytest.raises(ModelError, match="writes nothing"):
            written_share(model, anatomy, torch.tensor(VECTORS[:3]))
