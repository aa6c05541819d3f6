"""Categories of tokens, masses by category, and the tokens of the heads that moved most."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import tiny
from worlds import Worlds

from moralscope.core.decision import Span
from moralscope.core.site import Site
from moralscope.mechanisms.attention.categories import (
    categories_of,
    category_by_token,
    named_categories,
)
from moralscope.mechanisms.attention.tables import (
    attention_table,
    attention_tokens_table,
    masses_of,
    most_moved,
    token_texts,
)
from moralscope.mechanisms.attention.weights import attention_weights
from moralscope.models.rendering import EncodedPrompt, encode_all


def prompt(*spans: tuple[str, tuple[int, ...]], tokens: int = 10) -> EncodedPrompt:
    return EncodedPrompt("p", "text", tuple(range(30, 30 + tokens)), ((11,),), ((12,),), spans)


def test_every_token_has_one_category():
    asked = prompt(("goal", (6, 7)), ("own", (1,)), ("labels", (2, 3)), ("payoffs", (3, 4)))
    found = categories_of(asked)
    assert dict(found) == {
        "first": (0,), "payoffs": (3, 4), "labels": (2,), "goal": (6, 7), "own": (1,),
        "rest": (5, 8, 9),
    }  # fmt: skip
    assert category_by_token(found) == [
        "first", "own", "labels", "payoffs", "payoffs", "rest", "goal", "goal", "rest", "rest",
    ]  # fmt: skip


def test_a_named_category_without_tokens_is_kept():
    found = categories_of(prompt(("goal", (0,))), ("labels", "goal", "first"))
    assert found["goal"] == found["labels"] == ()
    assert list(found) == ["first", "labels", "goal", "rest"]
    assert len(found["rest"]) == 9


def test_spans_of_a_prompt_become_categories_of_its_tokens():
    """From characters of a chat to tokens: what a category covers is what its span says."""
    asked = tiny.worded_prompts(1)[0]
    content = asked.decision.messages[1].content
    at = content.index("action1")
    spans = (Span("labels", 1, at, at + 7), Span("goal", 1, 0, 5))
    worded = dataclasses.replace(asked, decision=dataclasses.replace(asked.decision, spans=spans))
    assert named_categories([worded]) == {"w0": ("labels", "goal")}
    encoded = encode_all(tiny.tiny_tokenizer(), [worded])[0]
    texts = list(token_texts(encoded))
    assert "".join(texts) == encoded.text
    found = categories_of(encoded)
    assert "action1" in "".join(texts[t] for t in found["labels"])
    assert "".join(texts[t] for t in found["goal"]) == "Round"
    assert sum(len(tokens) for tokens in found.values()) == len(encoded.tokens)


def test_masses_are_sums_of_weights():
    weights = np.random.default_rng(0).dirichlet(np.ones(10), (2, 3))
    categories = categories_of(prompt(("goal", (6, 7)), ("labels", (2,))), ("absent",))
    masses = masses_of(weights, categories)
    assert masses.shape == (2, 3, 5)
    assert masses.sum(-1) == pytest.approx(np.ones((2, 3)), abs=1e-12)
    assert masses[1, 2, 2] == pytest.approx(weights[1, 2, 6] + weights[1, 2, 7], abs=1e-15)
    assert (masses[:, :, 3] == 0.0).all()


def test_the_table_has_every_head_and_category_of_each_prompt(worlds: Worlds):
    here = worlds(n=3, equal=True)
    with here.roster.speaking("game") as model:
        weights = attention_weights(model, here.roster.anatomy("game"), here.runs["game"])
    table = attention_table("game", here.prompts, weights, {"p1": ("move", "labels")})
    assert table.filter(prompt="p0").height == 3 * 4 * 3
    assert table.filter(prompt="p1").height == 3 * 4 * 4
    absent = table.filter(category="labels")
    assert (absent["tokens"].unique().to_list(), absent["mass"].max()) == ([0], 0.0)
    row = table.filter(prompt="p2", layer=2, head=1, category="move").row(0, named=True)
    assert row["mass"] == pytest.approx(weights[2][2, 1, 7:10].sum(), abs=1e-15)
    assert row["tokens"] == 3
    sums = table.group_by("prompt", "layer", "head").agg(pl.col("mass").sum())
    assert sums["mass"].to_numpy() == pytest.approx(np.ones(sums.height), abs=1e-12)


def test_the_heads_that_moved_most_are_shown_token_by_token():
    offsets = tuple((i, i + 1) for i in range(10))
    asked = [dataclasses.replace(prompt(("goal", (6, 7))), offsets=offsets, text="ab def hij")]
    base = np.full((2, 3, 10), 0.1)
    own = base.copy()
    own[1, 2, 6], own[1, 2, 1] = 0.18, 0.02
    own[0, 1, 1], own[0, 1, 2] = 0.2, 0.0  # moved within one category only
    own[0, 0, 7], own[0, 0, 1] = 0.13, 0.07
    assert most_moved(asked, [own], [base], 2) == (Site("head", 1, 2), Site("head", 0, 0))
    heads = most_moved(asked, [own], [base], 1)
    table = attention_tokens_table("game", asked, [own], heads, [base])
    assert table.height == 10
    row = table.row(6, named=True)
    assert (row["token"], row["category"], row["weight"], row["base_weight"]) == (
        " ", "goal", 0.18, 0.1,
    )  # fmt: skip
    assert (row["layer"], row["head"]) == (1, 2)
    alone = attention_tokens_table("base", asked, [base], heads)
    assert alone["base_weight"].null_count() == 10
    assert attention_tokens_table("base", asked, [base], ()).height == 0


def test_tokens_without_offsets_have_no_text():
    assert list(token_texts(prompt())) == [""] * 10
