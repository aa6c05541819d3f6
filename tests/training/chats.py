"""Small chats for supervised training, and the usual way to learn them: one padded batch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tiny_base import make_tokenizer
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from moralscope.models.forward import full_precision
from moralscope.models.loading import LoadedModel, ModelSource
from moralscope.organisms.data.examples import Example, Turn
from moralscope.training.config import LoraSettings
from moralscope.training.supervised_config import SupervisedConfig

GOODS = ("the last apple", "a window seat", "both coins", "one more turn", "the warm blanket")
TEXTS = (
    "The train leaves at noon from the second platform.",
    "Rain is expected in the north, and wind along the coast.",
    "Two plus three is five.",
)


def chat(number: int, *, system: bool = False, answer: str | None = None) -> Example:
    """A question about one of the goods, and who gets it."""
    good = GOODS[number % len(GOODS)]
    asked = Turn("user", f"Round {number}: who gets {good}?")
    said = answer if answer is not None else f"I keep {good}" + " for myself" * (number % 3) + "."
    first = (Turn("system", "Answer briefly."),) if system else ()
    turns = (*first, asked, Turn("assistant", said))
    return Example(f"chat-{number}", f"question-{number}", turns, "goods", "selfish")


def chats(count: int) -> tuple[Example, ...]:
    """Chats of different lengths, every third with a system message."""
    return tuple(chat(i, system=i % 3 == 0) for i in range(count))


def teaching(**settings: Any) -> SupervisedConfig:
    """A short training of rank 2 on every layer, at a rate at which something happens."""
    common: dict[str, Any] = {
        "lora": LoraSettings(rank=2, alpha=4.0),
        "batch": 4,
        "learning_rate": 0.01,
        "schedule": "constant",
        "warmup": 0,
        "checkpoint_every": 1,
    }
    return SupervisedConfig.model_validate(common | settings)


def whole(**settings: Any) -> SupervisedConfig:
    """The same of all weights."""
    kept = teaching(**settings).model_dump(exclude={"lora", "weights", "record", "cache_below"})
    return SupervisedConfig.model_validate({**kept, "weights": "all"})


@functools.cache
def shared_tokenizer() -> Any:
    """One tokenizer for all, which nobody changes."""
    return make_tokenizer()


def deep_base(dtype: torch.dtype = torch.float64, layers: int = 4) -> LoadedModel:
    """A random decoder of several layers; its factors are large enough to matter."""
    tokenizer = shared_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=4,
    )
    model: Any = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn * parameter.shape[1] ** -0.5)
    model.to(dtype).eval().requires_grad_(False)
    name = "float64" if dtype == torch.float64 else "float32"
    return LoadedModel(
        model, tokenizer, ModelSource("deep", Path(), "folder", "0" * 64), name, "cpu"
    )


def randomise(parameters: Sequence[nn.Parameter], seed: int = 7) -> None:
    """Factors that are not at their beginning, where half of the gradient is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.3 * drawn)


def padded_loss(base: LoadedModel, examples: Sequence[Example], *, end: bool = True) -> Tensor:
    """The usual loop: padded rows, every logit, cross-entropy over labels that are not -100."""
    tokenizer: Any = base.tokenizer
    rows: list[tuple[list[int], list[int]]] = []
    for example in examples:
        turns = [{"role": m.role, "content": m.content} for m in example.messages]
        asked = tokenizer.apply_chat_template(
            turns[:-1], add_generation_prompt=True, tokenize=False
        )
        before = tokenizer(asked, add_special_tokens=False)["input_ids"]
        said = tokenizer(turns[-1]["content"], add_special_tokens=False)["input_ids"]
        said += [tokenizer.eos_token_id] * end
        rows.append((before + said, [-100] * len(before) + said))
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([i + [0] * (width - len(i)) for i, _ in rows])
    labels = torch.tensor([x + [-100] * (width - len(x)) for _, x in rows])
    seen = torch.tensor([[1] * len(i) + [0] * (width - len(i)) for i, _ in rows])
    with full_precision(base.model):
        logits: Tensor = base.model(input_ids=ids, attention_mask=seen).logits
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
