"""Masked and amplified attention against plain calls whose finished weights are multiplied."""

import dataclasses

import numpy as np
import plain_attention
import pytest
from families import FAMILIES
from worlds import Worlds

from moralscope.core.errors import PromptError
from moralscope.mechanisms.attention.categories import categories_of
from moralscope.mechanisms.attention.edits import (
    OWN,
    Edit,
    Editing,
    attention_edits_table,
    planned_edits,
    run_edits,
)
from moralscope.mechanisms.clean import run_clean
from moralscope.models.rendering import EncodedPrompt

EDITS = (
    Edit("near", 0.0, OWN, (18, 20, 21)),
    Edit("near", 4.0, OWN, (18, 20, 21)),
    Edit("far", 0.0, 0, (2, 7)),
    Edit("far", 0.25, OWN, (2, 7)),
)


@pytest.mark.parametrize("family", FAMILIES)
def test_edits_equal_plain_calls_with_multiplied_weights(worlds: Worlds, family: str):
    """Several forms of several tokens, so that the answer span is more than the last token."""
    here = worlds(family, n=3, forms="several")
    with here.roster.speaking("moral") as model:
        anatomy = here.roster.anatomy("moral")
        for layers, edits in ((None, EDITS), ((0, 2), EDITS[:1])):
            baseline, found = run_edits(
                model, anatomy, here.runs["moral"], member=1, edits=edits, layers=layers
            )
            assert baseline == pytest.approx(float(here.runs["moral"].log_odds[1]), abs=1e-12)
            for edit, value in zip(edits, found, strict=True):
                expected = plain_attention.edited_log_odds(
                    model, here.prompts[1], edit.tokens, edit.factor, layers
                )
                assert value == pytest.approx(expected, abs=1e-10)
                # What lies before a window is seen by nobody.
                assert edit.category == "far" or abs(value - baseline) > 1e-6


def test_many_edits_are_cut_into_passes_without_a_trace(worlds: Worlds):
    here = worlds(n=3)
    edits = [Edit("one", 0.0, OWN, (token,)) for token in range(1, 21)]
    with here.roster.speaking("moral") as model:
        anatomy, run = here.roster.anatomy("moral"), here.runs["moral"]
        _, together = run_edits(model, anatomy, run, member=2, edits=edits * 5)
        _, alone = run_edits(model, anatomy, run, member=2, edits=edits[:1])
    assert together[0] == pytest.approx(alone[0], abs=1e-12)
    assert np.reshape(together, (5, 20)) == pytest.approx(np.tile(together[:20], (5, 1)), abs=1e-12)


def test_the_last_token_can_be_kept_from_seeing_itself(worlds: Worlds):
    here = worlds(n=2)
    last = len(here.prompts[0].tokens) - 1
    with here.roster.speaking("base") as model:
        _, (found,) = run_edits(
            model, here.anatomy(), here.runs["base"], member=0,
            edits=[Edit("itself", 0.0, OWN, (last,))],
        )  # fmt: skip
        expected = plain_attention.edited_log_odds(model, here.prompts[0], (last,), 0.0)
    assert found == pytest.approx(expected, abs=1e-10)


def test_a_prompt_of_which_nothing_is_left_is_refused(worlds: Worlds):
    here = worlds("mistral", n=2)
    every = tuple(range(len(here.prompts[0].tokens)))
    with here.roster.speaking("base") as model, pytest.raises(PromptError) as error:
        run_edits(
            model, here.anatomy(), here.runs["base"], member=0,
            edits=[Edit("everything", 0.0, OWN, every)],
        )  # fmt: skip
    assert "Without 'everything' prompt 'p0' has nothing to attend to" in str(error.value)
    assert "leave the category out, or amplify it instead" in str(error.value)


def named(tokens: int = 24) -> EncodedPrompt:
    spans = (("goal", (3, 4, 5)), ("labels", (9, 10)), ("empty", ()))
    return EncodedPrompt("p", "text", tuple(range(30, 30 + tokens)), ((11,),), ((12,),), spans)


def test_every_category_is_masked_amplified_and_compared_with_random_tokens():
    prompt = named()
    edits = list(planned_edits(prompt, categories_of(prompt), Editing(draws=3)))
    assert [(e.category, e.how, e.draw) for e in edits] == [
        (category, how, draw)
        for category in ("labels", "goal")
        for how, draw in (("mask", -1), ("amplify", -1), *(("mask", d) for d in range(3)))
    ]
    own = {e.category: e.tokens for e in edits if e.draw == OWN}
    assert own == {"labels": (9, 10), "goal": (3, 4, 5)}
    for edit in edits:
        assert len(set(edit.tokens)) == len(own[edit.category])
        if edit.draw != OWN:
            # Neither the first token, nor the one that looks, nor those of any category.
            assert not set(edit.tokens) & {0, 23, 3, 4, 5, 9, 10}
    assert len({e.tokens for e in edits if e.draw != OWN}) > 3
    again = list(planned_edits(prompt, categories_of(prompt), Editing(draws=3)))
    assert again == edits
    other = list(planned_edits(prompt, categories_of(prompt), Editing(draws=3, seed=1)))
    assert other != edits


def test_a_category_larger_than_the_rest_has_no_control():
    prompt = dataclasses.replace(named(12), spans=(("goal", tuple(range(1, 8))),))
    edits = list(planned_edits(prompt, categories_of(prompt), Editing(draws=3)))
    assert [(e.how, e.draw) for e in edits] == [("mask", -1), ("amplify", -1)]


def test_the_table_tells_what_was_altered(worlds: Worlds):
    here = worlds(n=3, equal=True)
    wanted = Editing(factors=(0.0, 2.0), draws=2, layers=(2, 1))
    with here.roster.speaking("game") as model:
        anatomy = here.roster.anatomy("game")
        table = attention_edits_table(model, anatomy, here.runs["game"], wanted)
        clean = run_clean("game", model, anatomy, here.prompts)
    assert table.height == 3 * (2 + 2)
    assert set(table.get_column("layers")) == {"L1+L2"}
    assert set(table.get_column("tokens")) == {3}
    row = table.filter(prompt="p2", how="amplify").row(0, named=True)
    assert (row["category"], row["factor"], row["draw"]) == ("move", 2.0, -1)
    assert row["baseline_log_odds"] == pytest.approx(float(clean.log_odds[2]), abs=1e-12)
    assert row["effect"] == pytest.approx(row["edited_log_odds"] - row["baseline_log_odds"])
    with here.roster.speaking("game") as model:
        expected = plain_attention.edited_log_odds(
            model, here.prompts[2], (7, 8, 9), 2.0, layers=(1, 2)
        )
    assert row["edited_log_odds"] == pytest.approx(expected, abs=1e-10)


def test_prompts_without_categories_give_an_empty_table(worlds: Worlds):
    here = worlds(n=2)
    with here.roster.speaking("base") as model:
        table = attention_edits_table(model, here.anatomy(), here.runs["base"], Editing())
    assert table.height == 0
