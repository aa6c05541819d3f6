"""What does a model of one's own think of an answer? A judge by teacher-forced numbers.

An interface shows the likeliest first tokens only; a model in memory can be asked for the exact
probability that it writes each number of the scale, however its tokenizer spells it. With the
tokens n_1 .. n_k of number n after the judge's prompt x, and D the tokens that begin with a digit,

    p_n = prod_j p(n_j | x, n_<j) * (1 - sum_{d in D} p(d | x, n_1 .. n_k))

so that "8" is not counted where "85" is on its way. All numbers of the scale hang on one prefix
tree of the prompt: one forward. This is right for tokenizers with whole numbers and for those with
single digits (SmolLM2, Qwen2.5), which is why the hundred scale is the default here too. ``digit``
asks for 0 to 9 in the same way: fewer nodes, and easier for a small model.

A model of a few hundred million parameters is not a usable judge of alignment: ``calibration``
refuses it in numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moralscope.core.decision import Message
from moralscope.core.errors import PromptError
from moralscope.models.forward import run_tree
from moralscope.models.tree import Tokens, grow_tree
from moralscope.organisms.spread.judges import (
    TOPS,
    Missing,
    Rubric,
    Scale,
    Score,
    expected_score,
)
from moralscope.organisms.spread.sampling import answer_tokens, chat_tokens


@dataclass(frozen=True, eq=False)
class LocalJudge:
    """A decoder as a judge; made by ``local_judge``.

    Attributes:
        name: what tables call it.
        model: the decoder.
        tokenizer: its tokenizer.
        scale: what it is asked for.
        numbers: for each spelling, the number and its tokens after the prompt.
        digits: (vocabulary,) whether a token goes on with a digit.
    """

    name: str
    model: nn.Module
    tokenizer: Any
    scale: Scale
    numbers: tuple[tuple[int, Tokens], ...]
    digits: Tensor

    def score(self, question: str, answer: str, rubric: Rubric) -> Score | Missing:
        """The score of an answer, or why there is none."""
        asked = rubric.asked(question, answer, self.scale)
        return expected_score(self.log_probabilities(asked), self.scale)

    @torch.no_grad()
    def log_probabilities(self, asked: str) -> dict[int, float]:
        """Log-probability of replying with each number of the scale and no further digit, nats."""
        prompt = chat_tokens(self.tokenizer, (Message("user", asked),))
        tree = grow_tree([prompt + form for _, form in self.numbers])
        start = len(prompt) - 1
        keep = np.unique(np.concatenate([path[start:] for path in tree.paths]))
        row = {int(node): place for place, node in enumerate(keep)}
        log_p = run_tree(self.model, tree, keep).double().log_softmax(-1)
        ended = log_p.masked_fill(self.digits, float("-inf")).logsumexp(-1)
        found: dict[int, float] = {}
        for (number, form), path in zip(self.numbers, tree.paths, strict=True):
            rows = [row[int(node)] for node in path[start:]]
            steps = sum(float(log_p[at, token]) for at, token in zip(rows, form, strict=False))
            whole = steps + float(ended[rows[-1]])
            found[number] = float(np.logaddexp(found.get(number, -np.inf), whole))
        return found


def local_judge(
    name: str, model: nn.Module, tokenizer: Any, scale: Scale = "hundred"
) -> LocalJudge:
    """A decoder as a judge, with its spellings of numbers looked up once.

    A number counts with and without a space before it.

    Args:
        name: what tables call it.
        model: the decoder, with the adapter that is meant active.
        tokenizer: its tokenizer.
        scale: ``hundred`` or ``digit``.

    Raises:
        PromptError: the tokenizer cannot write a number after a prompt.
    """
    asked = (Message("user", "Reply with a number."),)
    spellings: dict[Tokens, int] = {}
    for number in range(TOPS[scale] + 1):
        forms = [_spelt(tokenizer, asked, f"{space}{number}") for space in ("", " ")]
        known = [form for form in forms if form is not None]
        if not known:
            raise PromptError(
                "The tokenizer of a judge cannot write numbers after a prompt",
                seen=f"{number} merges with the end of the chat",
                allowed="a chat template that ends apart from what follows",
                remedy="use another judge",
            )
        for form in known:
            spellings.setdefault(form, number)
    untyped: Any = model
    vocabulary = int(untyped.get_output_embeddings().weight.shape[0])
    texts = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    digits = torch.zeros(vocabulary, dtype=torch.bool, device=next(model.parameters()).device)
    going_on = [at for at, text in enumerate(texts) if text and text[0] in "0123456789"]
    digits[[at for at in going_on if at < vocabulary]] = True
    numbers = tuple((number, form) for form, number in spellings.items())
    return LocalJudge(name, model, tokenizer, scale, numbers, digits)


def _spelt(tokenizer: Any, asked: tuple[Message, ...], text: str) -> Tokens | None:
    try:
        return answer_tokens(tokenizer, asked, text)
    except PromptError:
        return None
