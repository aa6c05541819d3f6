"""Attention and sizes: dead categories, copies of one measurement, columns that never change."""

import numpy as np
import polars as pl
from gating import gate

from moralscope.core.tables import from_rows
from moralscope.evidence.gates.judging import judge_gates

PROMPTS = [f"p{i}" for i in range(12)]


def attention(copies: int = 0, silent: str | None = None) -> pl.DataFrame:
    rng = np.random.default_rng(5)
    rows = []
    for prompt in PROMPTS:
        whole = rng.random(2)
        for head in range(8):
            mass = whole if head < copies else rng.random(2)
            rows += [
                {"agent": "game", "prompt": prompt, "layer": 3, "head": head, "category": c,
                 "mass": 0.0 if c == silent else float(m)}
                for c, m in zip(("labels", "payoffs"), mass, strict=True)
            ]  # fmt: skip
    return from_rows("attention", rows)


def norms(columns: dict[str, np.ndarray]) -> dict[str, pl.DataFrame]:
    return {"norms": from_rows("norms", [
        {"agent": "game", "prompt": prompt, "site": site, "norm": float(x)}
        for site, values in columns.items() for prompt, x in zip(PROMPTS, values, strict=True)
    ])}  # fmt: skip


def drawn(k: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(6)
    return {f"L{i}.mlp": 1.0 + rng.random(len(PROMPTS)) for i in range(k)}


def test_heads_that_repeat_one_measurement_are_one() -> None:
    row = gate({"attention": attention(copies=8)}, "duplicates", "attention game")
    assert (row["measured"], row["threshold"], row["passed"]) == (1.0, 8.0, False)
    assert "8 sites are clones (L3.h0, L3.h1, L3.h2, L3.h3, ...)" in str(row["advice"])
    assert gate({"attention": attention()}, "duplicates", "attention game")["passed"] is True


def test_categories_that_are_silent_are_named() -> None:
    row = gate({"attention": attention(silent="payoffs")}, "dead channel", "game")
    assert (row["measured"], row["passed"]) == (1.0, False)
    assert "No head ever attends to payoffs" in str(row["advice"])
    assert "(1 of 2 categories are exactly zero in every row, none may be)" in str(row["advice"])
    row = gate({"attention": attention()}, "dead channel", "game")
    assert row["advice"] == (
        "All 2 attention categories receive attention somewhere (labels, payoffs)."
    )


def test_a_head_without_any_attention_is_dead() -> None:
    rows = attention().with_columns(mass=pl.when(pl.col("head") == 2).then(0.0).otherwise("mass"))
    row = gate({"attention": rows}, "dead sites", "attention game")
    assert (row["measured"], row["passed"]) == (1.0, False)


def test_eight_identical_columns_of_sizes_are_one() -> None:
    column = np.linspace(1.0, 2.0, len(PROMPTS)) ** 2
    clones = {f"L0.h{h}": column for h in range(8)}
    row = gate(norms({**drawn(), **clones}), "duplicates", "norms game")
    assert (row["measured"], row["threshold"], row["passed"]) == (7.0, 14.0, False)


def test_sizes_stored_in_bfloat16_are_not_resolved() -> None:
    """One component only, among others that were stored in full."""
    steps = np.array([1.0, 1.0078125, 1.015625, 1.0234375] * 3)
    row = gate(norms({**drawn(), "L9.mlp": steps}), "resolution", "norms game")
    assert (row["measured"], row["passed"]) == (1.0, False)
    assert "Rounding: 1 of 7 sites (L9.mlp)" in str(row["advice"])
    in_full = np.float64(np.float32(steps + np.linspace(0.0, 0.05, 12) ** 2))
    assert gate(norms({**drawn(), "L9.mlp": in_full}), "resolution", "norms game")["passed"] is True


def test_a_size_that_never_changes_was_not_measured_by_prompt() -> None:
    row = gate(norms({**drawn(), "L9.mlp": np.full(12, 0.3)}), "dead channel", "norms game")
    assert (row["measured"], row["passed"]) == (1.0, False)
    assert "1 of 7 components have the very same size on every prompt (L9.mlp)" in str(
        row["advice"]
    )
    assert gate(norms(drawn()), "dead channel", "norms game")["passed"] is True


def test_one_prompt_says_nothing_of_change() -> None:
    first = norms(drawn())["norms"].filter(pl.col("prompt") == "p0")
    found = judge_gates({"norms": first}).filter(pl.col("gate") == "dead channel")
    assert found.get_column("passed").to_list() == [True]


def with_tokens(**changed: int) -> pl.DataFrame:
    """Six tokens of each category on every prompt, but as many as told of payoffs on some."""
    return attention().with_columns(
        tokens=pl.when(pl.col("category") == "payoffs")
        .then(pl.col("prompt").replace_strict(changed, default=6, return_dtype=pl.Int64))
        .otherwise(6)
    )


def test_a_category_has_to_be_found_on_every_prompt_that_names_it() -> None:
    assert gate({"attention": with_tokens()}, "dead channel", "game")["passed"] is True
    row = gate({"attention": with_tokens(p3=0, p11=0)}, "dead channel", "game")
    assert (row["measured"], row["passed"]) == (1.0, False)
    assert row["advice"] == (
        "payoffs has no token on 2 of 12 prompts that name it (p11, p3): a span that was not found "
        "there, not a finding. Check the spans of these prompts."
    )


def test_a_category_has_to_fire_on_every_prompt_that_has_it() -> None:
    blind = (pl.col("prompt") == "p3") & (pl.col("category") == "labels")
    rows = with_tokens().with_columns(mass=pl.when(blind).then(0.0).otherwise("mass"))
    row = gate({"attention": rows}, "dead channel", "game")
    assert (row["measured"], row["passed"]) == (1.0, False)
    assert "labels gets no attention on 1 of 12 prompts that name it (p3)" in str(row["advice"])
    # Where it is not told how many tokens there are, a prompt may be without the category.
    assert gate({"attention": rows.drop("tokens")}, "dead channel", "game")["passed"] is True


def test_what_is_left_of_a_prompt_may_be_nothing() -> None:
    rows = with_tokens(p3=0).with_columns(category=pl.col("category").replace("payoffs", "rest"))
    assert gate({"attention": rows}, "dead channel", "game")["passed"] is True
