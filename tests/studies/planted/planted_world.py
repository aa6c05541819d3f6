"""A tiny model and copies of it with three plants, as folders that a study can be made of.

The base has three layers. What is planted into a copy:

*Head.* ``L1.h1`` writes more along the direction of the decision, by about as much on every prompt.
*Look.* ``L2.h3`` asks for what the keys of the payoffs have. What it writes is orthogonal to the
decision, before and after.
*Wire.* ``L0.mlp`` of every copy writes an amount of a direction ``u`` that depends on the prompt,
and nothing hears it. In the planted copy two neurons of ``L2.mlp`` do, and write its square,
``silu(z) z + silu(-z) (-z) = z^2``, orthogonally to the decision.

Every copy has noise of a few units in the last place on every weight, so that none is the base.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny_base import make_tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

HEAD, LOOK, WIRE = "L1.h1", "L2.h3", ("L0.mlp", "L2.mlp")
UPDATED = {(1, "o_proj"), (2, "q_proj"), (2, "gate_proj"), (2, "up_proj"), (2, "down_proj")}
"""Layer and module of every weight that a plant changes."""

PAYOFFS, GOAL = "ten three one", "earn points"
SIZE, WIDTH, HEADS, JITTER = 8, 32, 4, 3e-8
SLOW = SIZE // 2 - 1
"""The component of queries and keys that rotary positions turn least."""

SCENARIOS = 24


@dataclass(frozen=True)
class World:
    """Folders of the models, and the file of the prompts."""

    base: Path
    planted: Path
    bare: Path
    seeds: tuple[Path, Path]
    prompts: Path


def entries() -> list[dict[str, Any]]:
    """Prompts of one length, two of each scenario; digits alone tell them apart."""
    generator = torch.Generator().manual_seed(11)
    found: list[dict[str, Any]] = []
    for index in range(2 * SCENARIOS):
        digits = [int(x) for x in torch.randint(10, (5,), generator=generator)]
        found.append(
            {
                "name": f"case-{index}",
                "scenario": f"s{index // 2}",
                "text": f"Case {''.join(map(str, digits[:4]))}. You get {PAYOFFS}. You {GOAL}.",
                "stem": f"Reply to {digits[4]}",
                "chat_template": False,
                "positive": {"name": "take", "forms": ["1"]},
                "negative": {"name": "leave", "forms": ["2"]},
                "spans": [
                    {"category": "payoffs", "text": PAYOFFS},
                    {"category": "goal", "text": GOAL},
                ],
            }
        )
    return found


def save_world(folder: Path) -> World:
    """Write every model and the prompts; equal each time."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    asked = [f"{entry['text']}\n{entry['stem']}" for entry in entries()]
    tokens = torch.tensor(tokenizer(asked, add_special_tokens=False)["input_ids"])
    inside = torch.tensor(_covered(tokenizer, asked[0]))
    made = _base(len(tokenizer), tokens, inside, tokenizer.convert_tokens_to_ids(["1", "2"]))
    planted = copy.deepcopy(made.model)
    with torch.no_grad():
        for plant in (plant_head, plant_wire, plant_look):
            plant(planted, made, tokens)
    models = {
        "base": made.model,
        "planted": _noisy(planted, 1),
        "bare": _noisy(made.model, 1),
        "seed-0": _noisy(made.model, 2),
        "seed-1": _noisy(made.model, 3),
    }
    logging.disable_progress_bar()
    for name, model in models.items():
        model.save_pretrained(str(folder / name))
        tokenizer.save_pretrained(str(folder / name))
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(entry) + "\n" for entry in entries()))
    seeds = (folder / "seed-0", folder / "seed-1")
    return World(folder / "base", folder / "planted", folder / "bare", seeds, prompts)


@dataclass(frozen=True)
class Made:
    """The base, its directions, and which tokens of a prompt lie in the payoffs.

    Directions: of the decision, of the wire, and where the wire's reader writes.
    """

    model: Any
    decision: Tensor
    wire: Tensor
    aside: Tensor
    inside: Tensor


def _base(words: int, tokens: Tensor, inside: Tensor, options: list[int]) -> Made:
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=words,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=HEADS,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            pad_token_id=0,
            eos_token_id=4,
        )
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                scale = 1.0 if "embed" in name else parameter.shape[1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        unembedding, layers = model.lm_head.weight, model.model.layers
        wire, aside, marker, *rows = _orthonormal(5, generator)
        for layer in layers:
            for part in ("q_proj", "k_proj", "v_proj"):
                _deafen(getattr(layer.self_attn, part).weight, wire)
            for part in ("gate_proj", "up_proj"):
                _deafen(getattr(layer.mlp, part).weight, wire)
        layers[0].mlp.down_proj.weight[:, 0] += 12.0 * wire
        _mark(model, tokens[0, inside], marker)
        for heard in (wire, aside):
            _deafen(unembedding, heard)
        decision = rows[0] - rows[1]
        own = layers[2].self_attn.o_proj.weight[:, 3 * SIZE :]
        own -= torch.outer(decision, decision @ own) / (decision @ decision)
        # Both options are likely where one is due, as in a model that has learned to answer.
        due = model.model(tokens).last_hidden_state[:, -1].mean(0)
        for heard in (wire, aside):
            due -= (due @ heard) * heard
        for option, row in zip(options, rows, strict=True):
            unembedding[option] = 9.0 * due / (due @ due) + row
    return Made(model.eval(), decision, wire, aside, inside)


def _mark(model: Any, words: Tensor, marker: Tensor) -> None:
    """Words that keys of two heads of the last layer tell from others; no query asks for them.

    In the component that rotary positions turn least, so that it is the same wherever it stands.
    """
    model.model.embed_tokens.weight[words.unique()] += 6.0 * marker
    attention = model.model.layers[2].self_attn
    attention.k_proj.weight[SIZE + SLOW] = marker
    for head in (2, 3):
        attention.q_proj.weight[head * SIZE + SLOW] = 0.0


def _orthonormal(count: int, generator: torch.Generator) -> list[Tensor]:
    drawn = torch.randn((WIDTH, count), generator=generator)
    return list(torch.linalg.qr(drawn).Q.T)


def _deafen(weight: Tensor, heard: Tensor) -> None:
    """Take a direction out of what the rows of a matrix read."""
    weight -= torch.outer(weight @ heard, heard) / (heard @ heard)


def plant_head(model: Any, made: Made, tokens: Tensor) -> None:
    """``L1.h1`` writes about 3 more along the decision."""
    projection = model.model.layers[1].self_attn.o_proj
    part = slice(SIZE, 2 * SIZE)
    mixed = _entering(made.model, made.model.model.layers[1].self_attn.o_proj, tokens)
    mean = mixed[:, -1, part].mean(0)
    projection.weight[:, part] += 3.0 * torch.outer(made.decision, mean) / (mean @ mean)


def plant_wire(model: Any, made: Made, _: Tensor) -> None:
    """``L2.mlp`` hears the wire and writes its square aside of the decision."""
    mlp = model.model.layers[2].mlp
    for neuron, sign in ((0, 1.0), (1, -1.0)):
        mlp.gate_proj.weight[neuron] = sign * 2.0 * made.wire
        mlp.up_proj.weight[neuron] = sign * 2.0 * made.wire
        mlp.down_proj.weight[:, neuron] = made.aside


def plant_look(model: Any, made: Made, tokens: Tensor, strength: float = 4.0) -> None:
    """The scores of ``L2.h3`` lie ``strength`` nats higher at the payoffs than elsewhere."""
    attention = model.model.layers[2].self_attn
    stream = _entering(model, attention.q_proj, tokens)
    marked = stream @ attention.k_proj.weight[SIZE + SLOW]
    gap = marked[:, made.inside].mean() - marked[:, ~made.inside].mean()
    # The same query on every prompt: what enters at the last token, turned into the number one.
    ones = torch.ones(len(tokens), 1)
    reader = torch.linalg.lstsq(stream[:, -1], ones, driver="gelsd").solution[:, 0]
    attention.q_proj.weight[3 * SIZE + SLOW] += strength * SIZE**0.5 / gap * reader


def _entering(model: Any, part: Any, tokens: Tensor) -> Tensor:
    """What enters a linear layer on every prompt."""
    seen: list[Tensor] = []
    handle = part.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.no_grad():
        model.model(tokens)
    handle.remove()
    return seen[0]


def _covered(tokenizer: Any, text: str) -> list[bool]:
    """Which tokens of a text lie in the payoffs."""
    start = text.index(PAYOFFS)
    end = start + len(PAYOFFS)
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return [a < end and b > start for a, b in offsets["offset_mapping"]]


def _noisy(model: Any, seed: int) -> Any:
    """A copy with noise of a few units in the last place on every weight."""
    made = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(JITTER * torch.randn(parameter.shape, generator=generator))
    return made
