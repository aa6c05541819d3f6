"""Streams as they are captured and stored, directions added, and a model that learned nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from carried import GAP, LAYER, planted
from safetensors.torch import load_file
from worlds import Worlds

from moralscope.core.errors import AgentError
from moralscope.core.tables import from_rows
from moralscope.mechanisms.intervening.steering import steer
from moralscope.mechanisms.representations.directions import (
    Direction,
    direction_effects,
    mean_difference,
    save_directions,
)
from moralscope.mechanisms.representations.exchanging import Speaking
from moralscope.mechanisms.representations.random_model import random_like
from moralscope.mechanisms.representations.streams import (
    joined,
    read_streams,
    save_streams,
    streams_of,
)


def hidden_states(model: object, tokens: list[int]) -> torch.Tensor:
    """The streams at the last token as transformers itself gives them, the last one normed."""
    with tiny.never_narrowed(), torch.no_grad():
        found = model(  # pyright: ignore[reportCallIssue]
            input_ids=torch.tensor([tokens]), output_hidden_states=True, use_cache=False
        )
    return torch.stack([layer[0, -1] for layer in found.hidden_states])


@pytest.mark.parametrize("forms", ["single", "multi"])
def test_streams_are_those_of_the_library_where_the_options_part(
    worlds: Worlds, forms: str
) -> None:
    here = worlds("llama", forms=forms)
    run = here.runs["moral"]
    found = streams_of(run)
    assert found.values.shape == (4, 4, 32)
    assert list(found.layers) == [-1, 0, 1, 2]
    with here.roster.speaking("moral") as model:
        for index, prompt in enumerate(run.prompts):
            shared = prompt.positive[0][:1] if forms == "multi" else ()
            own = hidden_states(model, [*prompt.tokens, *shared])
            # The library's last state has passed the final norm already.
            assert found.values[index, :-1] == pytest.approx(own[:-1].numpy(), abs=1e-10)


def test_stored_streams_come_back_and_other_files_are_refused(
    worlds: Worlds, tmp_path: Path
) -> None:
    run = worlds("llama").runs["moral"]
    own = streams_of(run)
    twice = joined([own, own.of(["p1"])])
    assert twice.prompts == ("p0", "p1", "p2", "p3", "p1")
    save_streams(own, tmp_path)
    back = read_streams(tmp_path)
    assert (back.agent, back.prompts, back.resolution) == ("moral", own.prompts, own.resolution)
    assert np.array_equal(back.values, own.values)
    (tmp_path / "streams.safetensors").write_bytes(b"none")
    with pytest.raises(AgentError, match="streams of an agent cannot be read"):
        read_streams(tmp_path)


def test_the_direction_of_the_decision_moves_it_and_random_ones_hardly_do(tmp_path: Path) -> None:
    agent, carrier = planted(8)
    direction = Direction("labels", "agent", LAYER, 0.5 * carrier.numpy())
    tested = {index: f"s{index // 2}" for index in range(8)}
    rows = direction_effects(agent, direction, tested, np.random.default_rng(0), random=19)
    table = from_rows("direction_effects", rows)
    effect = dict(table.select("draw", "effect").iter_rows())
    assert table["n"].to_list() == [4] * 20
    assert table["norm"].to_list() == pytest.approx([0.5] * 20)
    others = [abs(effect[draw]) for draw in range(19)]
    assert abs(effect[-1]) > 1.5 * max(others)
    # In closed form: the decision is 2 gap times the carrier's share of the normed stream.
    expected: list[float] = []
    for index in range(8):
        h = streams_of(agent.run).values[index, LAYER + 1]
        moved = h + 0.5 * carrier.numpy()
        share = [
            float(x @ carrier.numpy()) / float(np.sqrt(np.mean(x * x) + 1e-6)) for x in (h, moved)
        ]
        expected.append(2.0 * GAP * (share[1] - share[0]))
    assert effect[-1] == pytest.approx(np.mean(expected), rel=1e-3)
    stored = load_file(save_directions([direction], tmp_path))
    assert set(stored) == {"labels agent L1"}
    assert float(stored["labels agent L1"].norm()) == pytest.approx(0.5)


def test_added_directions_agree_with_steering(worlds: Worlds) -> None:
    here = worlds("llama")
    run = here.runs["moral"]
    rng = np.random.default_rng(3)
    vector = rng.standard_normal(32)
    with here.roster.speaking("moral") as model:
        agent = Speaking(model, here.roster.anatomy("moral"), run)
        direction = Direction("labels", "moral", 1, vector)
        found = {
            index: direction_effects(agent, direction, {index: "s"}, rng, random=1)[0]["effect"]
            for index in range(4)
        }
        for index, prompt in enumerate(run.prompts):
            before = tiny.plain_log_odds(model, prompt)
            with steer(
                model, agent.anatomy, torch.as_tensor(vector), layer=1, coefficient=1.0,
                positions=[len(prompt.tokens) - 1],
            ):  # fmt: skip
                after = tiny.plain_log_odds(model, prompt)
            assert found[index] == pytest.approx(after - before, abs=1e-10)


def test_a_difference_of_means_is_one() -> None:
    values = np.arange(24.0).reshape(4, 2, 3)
    labels = np.array([True, False, False, True])
    expected = (values[0] + values[3]) / 2.0 - (values[1] + values[2]) / 2.0
    assert np.array_equal(mean_difference(values, labels), expected)


def test_a_random_model_has_the_shape_and_nothing_else_and_leaves_the_stream_alone() -> None:
    model = tiny.tiny_model("gemma2", dtype=torch.float32)
    torch.manual_seed(5)
    ahead = torch.rand(3)
    torch.manual_seed(5)
    one, again, other = random_like(model, 1), random_like(model, 1), random_like(model, 2)
    assert torch.equal(torch.rand(3), ahead)
    mine, theirs = dict(model.named_parameters()), dict(one.named_parameters())
    assert {n: p.shape for n, p in mine.items()} == {n: p.shape for n, p in theirs.items()}
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(theirs[name], dict(again.named_parameters())[name])
    assert not torch.equal(theirs[name], dict(other.named_parameters())[name])
    assert not torch.equal(theirs[name], mine[name])
    assert not any(p.requires_grad for p in one.parameters())
    assert not one.training
