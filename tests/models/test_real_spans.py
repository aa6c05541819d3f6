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
    robustness_prompts,
    scenarios,
    structured,
    with_sources,
    wordings,
)
from moralscope.models.alignment import ALL, ANSWER_SPAN, align
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import encode_all, tokens_of
from moralscope.models.scoring import make_packs

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


def test_every_way_of_asking_is_read_as_it_is_written(real_base: LoadedModel) -> None:
    """Stems, labels and frames tokenise at the seam; spans stand where the text tells them."""
    prompts = robustness_prompts()
    encoded = encode_all(real_base.tokenizer, prompts.prompts)
    for read, prompt in zip(encoded, prompts, strict=True):
        message = prompt.decision.messages[-1].content
        told = {span.category for span in prompt.decision.spans}
        assert {category for category, _ in read.spans} == told
        for category in told:
            tokens = [read.tokens[i] for i in tokens_of(read, category)]
            named = [message[s.start : s.end] for s in prompt.decision.spans
                     if s.category == category]  # fmt: skip
            said = "".join(real_base.tokenizer.decode([token]).strip() for token in tokens)
            assert said == "".join(named).replace(" ", ""), (prompt.name, category)
        assert (read.text.startswith("<|im_start|>")) == prompt.decision.chat_template
        assert read.text.endswith(prompt.decision.stem)
        assert all(m.content in read.text for m in prompt.decision.messages)
    assert len({read.sha256 for read in encoded}) == len(prompts)
    nodes = sum(len(pack.tree.tokens) for pack in make_packs(encoded))
    assert nodes < 40_000  # of 120 thousand tokens: prompts share their beginnings


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
