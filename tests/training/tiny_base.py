"""A tiny pretrained base as a real folder: configuration, safetensors, tokenizer, chat template.

The tokenizer learns its merges from the games' own prompts, so that they are short; the weights
are random, drawn from a seed.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from moralscope.games import clusters, scenarios, structured, wordings

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SPECIAL = ["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits, so that any text can be told and ``1`` is a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [
        p.decision.messages[0].content + p.decision.stem
        for prompts in (structured(), wordings(), scenarios(), clusters())
        for p in prompts
    ]
    tokenizer.train_from_iterator(texts, trainer)
    marks = {"pad_token": SPECIAL[0], "eos_token": SPECIAL[-1]}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE, **marks)


def save_tiny(folder: Path, *, seed: int = 0, hidden: int = 32, layers: int = 2) -> Path:
    """Write a model folder; equal arguments give equal files.

    The answers ``1`` and ``2`` are made likely where an answer is due, as they are in a model that
    has learned to answer: their rows of the unembedding point along the activation there.
    """
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=4,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                scale = 1.0 if "embed" in name else parameter.shape[1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        due = _activation_at_answers(model, tokenizer)
        for digit in ("1", "2"):
            row = tokenizer.convert_tokens_to_ids(digit)
            noise = torch.randn(hidden, generator=generator) * hidden**-0.5
            model.lm_head.weight[row] = 9.0 * due / due.square().sum() + noise
    folder.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def _activation_at_answers(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Tensor:
    prompts = [p.decision for p in structured()]
    found: list[Tensor] = []
    for decision in prompts[::4]:
        chat = [{"role": "user", "content": decision.messages[0].content}]
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text + decision.stem, add_special_tokens=False)["input_ids"]
        found.append(model.model(torch.tensor([ids])).last_hidden_state[0, -1])
    return torch.stack(found).mean(0)
