"""Tiny random decoders, a tiny tokenizer, adapters and prompts, all built in process.

The weights are larger than the libraries' initial ones, so that attention is uneven, norms matter
and every component moves the decision: a test on them fails where a default one would agree to
many digits by being near zero.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn

from moralscope.core.agents import AgentSpec
from moralscope.core.decision import Decision, Message, Option, Prompt
from moralscope.models.libraries import renamed_properties_tolerated
from moralscope.models.loading import LoadedModel, ModelSource
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

import families

VOCABULARY = 320
WINDOW = families.WINDOW

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
_GPT2_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 2048,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
_OWN = families.FAMILIES
FAMILIES = tuple(_OWN)
"""Supported families, some in several variants."""


def tiny_config(family: str, **changes: Any) -> Any:
    """The configuration of a tiny model."""
    own = _OWN[family]
    sizes = dict(_GPT2_SIZES if family == "gpt2" else _SIZES)
    if own.interleaved:  # every query head has its own key and value, and no key says how many
        del sizes["num_key_value_heads"]
    return getattr(transformers, own.config)(**{**sizes, **own.settings, **changes})


def tiny_model(
    family: str = "llama", *, dtype: torch.dtype = torch.float64, seed: int = 0, **changes: Any
) -> Any:
    """A random decoder in evaluation mode; equal seeds give equal weights."""
    model = transformers.AutoModelForCausalLM.from_config(tiny_config(family, **changes))
    generator = torch.Generator().manual_seed(seed)
    gemma = families.named(model).gain_offset == 1.0
    offset = 0.0 if gemma else 1.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if "norm" in name or "ln_" in name:
                drawn = 0.3 * noise + (offset if name.endswith("weight") else 0.0)
            elif parameter.ndim == 1:
                drawn = 0.3 * noise
            elif "embed" in name or "wte" in name:
                drawn = noise * (parameter.shape[1] ** -0.5 if gemma else 0.5)
            elif "wpe" in name:
                drawn = 0.2 * noise
            else:
                drawn = 1.5 * noise * min(parameter.shape) ** -0.5
            parameter.copy_(drawn)
    model.to(dtype).requires_grad_(False)
    return model.eval()


@contextlib.contextmanager
def never_narrowed() -> Generator[None]:
    """Let plain library code run a float64 model in float64: its own casts to float32 are undone.

    It does so by replacing the methods, unlike the package, so that it can be its oracle.
    """
    to, to_float, softmax = torch.Tensor.to, torch.Tensor.float, nn.functional.softmax

    def wide(x: torch.Tensor, *args: Any, **named: Any) -> torch.Tensor:
        if x.dtype == torch.float64 and torch.float32 in (*args, named.get("dtype")):
            return x
        return to(x, *args, **named)

    def wide_float(x: torch.Tensor) -> torch.Tensor:
        return x if x.dtype == torch.float64 else to_float(x)

    def wide_softmax(x: torch.Tensor, *args: Any, dtype: Any = None, **named: Any) -> torch.Tensor:
        return softmax(x, *args, dtype=None if x.dtype == torch.float64 else dtype, **named)

    with (
        mock.patch.object(torch.Tensor, "to", wide),
        mock.patch.object(torch.Tensor, "float", wide_float),
        mock.patch.object(nn.functional, "softmax", wide_softmax),
    ):
        yield


@torch.no_grad()
def plain_logits(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    """Logits after each token, from an ordinary transformers call on one sequence."""
    with never_narrowed():
        return model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]


def plain_log_probability(model: Any, prompt: Sequence[int], form: Sequence[int]) -> float:
    """Log-probability of a continuation, token by token."""
    log_p = plain_logits(model, [*prompt, *form]).log_softmax(-1)
    steps = range(len(form))
    return sum(float(log_p[len(prompt) - 1 + step, form[step]]) for step in steps)


def plain_log_odds(model: Any, prompt: EncodedPrompt) -> float:
    """Log-odds of a prompt, each form scored on its own."""
    sides = [
        np.logaddexp.reduce([plain_log_probability(model, prompt.tokens, f) for f in forms])
        for forms in (prompt.positive, prompt.negative)
    ]
    return float(sides[0] - sides[1])


def token_prompts(
    n: int = 6, *, seed: int = 0, forms: str = "single", length: int = 26
) -> tuple[EncodedPrompt, ...]:
    """Prompts of random tokens that share prefixes of many lengths, longer than the windows.

    Args:
        n: how many.
        seed: of the draw.
        forms: ``single`` (one token an option), ``multi`` (several tokens, with a shared first
            one) or ``several`` (several forms an option, of several lengths).
        length: tokens of the longest.
    """
    rng = np.random.default_rng(seed)
    options: dict[str, tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]] = {
        "single": (((11,),), ((12,),)),
        "multi": (((20, 21, 22),), ((20, 24, 25, 26),)),
        "several": (((11,), (13, 14)), ((12,), (13, 15, 16), (17,))),
    }
    positive, negative = options[forms]
    stem = tuple(int(t) for t in rng.integers(30, VOCABULARY, length))
    made: list[EncodedPrompt] = []
    for index in range(n):
        shared = stem[: int(rng.integers(2, length - 4))]
        rest = rng.integers(30, VOCABULARY, length - len(shared) - index % 3)
        tokens = (*shared, *(int(t) for t in rest))
        made.append(EncodedPrompt(f"p{index}", f"text {index}", tokens, positive, negative))
    return tuple(made)


def worded_prompts(n: int = 4) -> tuple[Prompt, ...]:
    """Prompts in words, for what needs a tokenizer."""
    return tuple(
        Prompt(
            name=f"w{index}",
            decision=Decision(
                messages=(
                    Message("system", "You play a game."),
                    Message("user", f"Round {index}: choose action1 or action2."),
                ),
                stem="I choose",
                positive=Option("defect", (" action2",)),
                negative=Option("cooperate", (" action1",)),
            ),
            game="IPD",
            scenario=f"IPD_{index % 2}",
            family="structured",
            template="plain",
            labels="action1/action2",
        )
        for index in range(n)
    )


CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_CORPUS = ("choose action1 or action2", "I choose action1", "You play a game. Round", "ab abab")


def tiny_tokenizer(*, chat: bool = True, begins: bool = False) -> Any:
    """A byte-level tokenizer with a few merges.

    Args:
        chat: whether it has a chat template.
        begins: whether plain text gets a beginning-of-sequence token.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([text for text in _CORPUS for _ in range(3)], trainer)
    if begins:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    ends = {"bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, **ends)
    tokenizer.chat_template = CHAT if chat else None
    return tokenizer


def save_base(folder: Path, family: str = "llama", *, chat: bool = True, **changes: Any) -> Path:
    """Save a tiny float32 model with its tokenizer, as ``save_pretrained`` writes them."""
    tiny_model(family, dtype=torch.float32, **changes).save_pretrained(str(folder))
    tiny_tokenizer(chat=chat).save_pretrained(str(folder))
    return folder


def save_adapter(
    folder: Path, model: Any, *, seed: int = 1, rank: int = 3, size: float = 0.15, **settings: Any
) -> Path:
    """Save a random LoRA adapter for a model, as PEFT writes it; the model stays untouched."""
    config = LoraConfig(
        **{
            "r": rank,
            "lora_alpha": 2 * rank,
            "target_modules": "all-linear",
            "task_type": "CAUSAL_LM",
            "init_lora_weights": False,
            **settings,
        }
    )
    generator = torch.Generator().manual_seed(seed)
    with renamed_properties_tolerated():
        wrapped = PeftModel(model, config, adapter_name="default")
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if ".lora_" in name:
                    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.copy_(size * noise)
        wrapped.save_pretrained(str(folder))
        wrapped.unload()
    model.requires_grad_(False)
    return folder


def loaded(model: Any, tokenizer: Any = None) -> LoadedModel:
    """A model in memory as if it had been loaded."""
    parameter = next(model.parameters())
    name: Any = str(parameter.dtype).removeprefix("torch.")
    source = ModelSource("tiny", Path("tiny"), "folder", "0" * 64)
    return LoadedModel(model, tokenizer or tiny_tokenizer(), source, name, "cpu")


def tiny_roster(
    folder: Path,
    family: str = "llama",
    *,
    dtype: torch.dtype = torch.float64,
    adapters: Sequence[str] = ("game", "moral"),
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> Roster:
    """A base with random un-merged adapters; ``base`` is always an agent."""
    model = tiny_model(family, dtype=dtype, **changes)
    roster = Roster(loaded(model))
    roster.add(AgentSpec(name="base", base="tiny"))
    for seed, name in enumerate(adapters, start=1):
        alike = tiny_model(family, dtype=dtype, **changes)
        place = save_adapter(folder / name, alike, seed=seed, **(settings or {}))
        roster.add(AgentSpec(name=name, base="tiny", adapter=str(place)))
    return roster
