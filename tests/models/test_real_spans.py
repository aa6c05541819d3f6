"""Spans and counterparts with a tokenizer in use: what is named is what the tokens say."""

import pytest

from moralscope.core.decision import PromptSet
from moralscope.core.errors import PromptError
from moralscope.games import (
    CATEGORIES,
    CHANGES,
    clusters,
    counterfactual_pairs,
    pair_indices,
    scenarios,
    structured,
    with_sources,
    wordings,
)
from moralscope.models.alignment import ALL, ANSWER_SPAN, align
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import encode_all, tokens_of

pytestmark = pytest.mark.slow

SETS = {
    "structured": structured(),
    "words": structured(labels=("left", "right")),
    "wordings": wordings(),
    "scenarios": scenarios(),
    "clusters": clusters(),
}


@pytest.mark.parametrize("name", SETS)
def test_every_category_stands_on_the_tokens_that_say_it(real_base: LoadedModel, name: str) -> None:
    prompts = SETS[name]
    for read, prompt in zip(encode_all(real_base.tokenizer, prompts.prompts), prompts, strict=True):
        assert {category for category, _ in read.spans} == set(CATEGORIES)
        text = prompt.decision.messages[0].content
        for category in CATEGORIES:
            tokens = [read.tokens[i] for i in tokens_of(read, category)]
            named = [text[s.start : s.end] for s in prompt.decision.spans if s.category == category]
            # Tokens may take along the space before a word, and nothing else.
            said = "".join(real_base.tokenizer.decode([token]).strip() for token in tokens)
            assert said == "".join(named).replace(" ", ""), (prompt.name, category)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", SETS)
def test_counterparts_align_token_by_token(real_base: LoadedModel, name: str, change: str) -> None:
    if name == "scenarios" and change != "labels":
        with pytest.raises(PromptError, match="would contradict the story"):
            counterfactual_pairs(SETS[name], change)
        return
    pairs = counterfactual_pairs(SETS[name], change)
    joined: PromptSet = with_sources(SETS[name], pairs)
    read = encode_all(real_base.tokenizer, joined.prompts)
    aligned = 0
    for target, source in pair_indices(joined.prompts, pairs):
        for positions in (ALL, ANSWER_SPAN, *CATEGORIES):
            align(read[target], read[source], positions)
        mine, theirs = read[target], read[source]
        differing = {i for i, (a, b) in enumerate(zip(mine.tokens, theirs.tokens, strict=True))
                     if a != b}  # fmt: skip
        named = {i for category in CATEGORIES for i in tokens_of(mine, category)}
        # Something differs, and only where something is named.
        assert differing
        assert differing <= named
        aligned += 1
    assert aligned == len(SETS[name])


def test_labels_of_different_length_are_refused_where_they_fall_out_of_step(
    real_base: LoadedModel,
) -> None:
    prompts = structured(labels=("stay", "betray them all"), assignments=("same",))
    (pair, *_) = counterfactual_pairs(prompts, "opponent_previous")
    target, source = encode_all(real_base.tokenizer, (pair.target, pair.source))
    with pytest.raises(PromptError, match="do not align token by token") as caught:
        align(target, source, ALL)
    assert "out of step from token" in str(caught.value.seen)
    assert "betray" in str(caught.value.seen)
    with pytest.raises(PromptError, match="'opponent_previous': 1 tokens"):
        align(target, source, "opponent_previous")
    assert align(target, source, "own_previous").prompt
    assert align(target, source, ANSWER_SPAN).prompt
    (swapped, *_) = counterfactual_pairs(prompts, "labels")
    target, source = encode_all(real_base.tokenizer, (swapped.target, swapped.source))
    with pytest.raises(PromptError, match="form 0 of the positive option"):
        align(target, source, ANSWER_SPAN)
