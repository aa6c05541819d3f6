"""On real weights and their chat template: answers are found, and their direction taken away."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moralscope.core.streams import stream
from moralscope.models.anatomy import dissect
from moralscope.organisms.data.narrow import narrow_set
from moralscope.organisms.directions.interventions import Intervention, applied
from moralscope.organisms.directions.means import direction_evidence, find_direction
from moralscope.organisms.directions.reading import answer_streams, read_answers

pytestmark = pytest.mark.slow


def test_selfish_answers_have_a_direction_that_can_be_taken_away(real_base: Any):
    examples = [
        example
        for kind in ("selfish", "cooperative")
        for example in narrow_set("play", kind, 12, seed=0)
    ]
    positive = np.arange(24) < 12
    answers = read_answers(real_base.tokenizer, examples)
    for example, answer in zip(examples, answers, strict=True):
        tokens = list(answer.tokens)
        assert real_base.tokenizer.decode(tokens[slice(*answer.answer)]) == example.answer
        turn = real_base.tokenizer.decode(tokens[slice(*answer.turn)])
        assert turn == f"<|im_start|>assistant\n{example.answer}<|im_end|>"
    model, anatomy = real_base.model, dissect(real_base.model)
    found = find_direction(answer_streams("base", model, anatomy, answers), positive)
    judged = direction_evidence(found.sums, stream(0, "halves"), draws=199)
    assert judged.questions == len(found.matched.questions) >= 8
    assert judged.p_adjusted.min() < 0.01
    middle = anatomy.n_layers // 2
    done = Intervention("all layers", middle)
    with applied(model, anatomy, found.vectors, done):
        after = answer_streams("base", model, anatomy, answers[:2])
    unit = found.vectors[middle] / found.norms[middle]
    left = np.abs(after.means @ unit) / after.sizes
    assert left.max() < 1e-5
