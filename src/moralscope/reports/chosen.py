"""Which part of a table does a figure draw? Games in their usual order, and one setting."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from moralscope.games.matrices import GAMES

PUBLISHED_OPPONENT = "random"
"""Whom the published evaluation meets; drawn where a table has it."""

PROTOCOLS = {"exact": "exact, long run", "paper": "published protocol, sampled"}


def games_in_order(names: Iterable[str]) -> list[str]:
    """The package's games first, in its order; then others in theirs."""
    found = list(dict.fromkeys(names))
    return [name for name in GAMES if name in found] + [n for n in found if n not in GAMES]


def values(frame: pl.DataFrame, column: str) -> list[str]:
    """The different texts of a column, in the order of the table."""
    return frame.get_column(column).unique(maintain_order=True).to_list()


def defined(table: pl.DataFrame, column: str) -> tuple[pl.DataFrame, str]:
    """Rows in which a probability given a legal answer is defined, and how many are not, in words.

    Args:
        table: the table.
        column: null where there is no legal answer.
    """
    rows = table.drop_nulls(column)
    out = table.height - rows.height
    told = f" Not drawn, for want of a legal answer: {out} of {table.height} rows." if out else ""
    return rows, told


def one_setting(table: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Rows against one opponent under one pair of labels a protocol, and which, in words.

    Args:
        table: columns protocol, opponent_name, labels.

    Returns:
        Rows, and words such as ``against random, labels action3/action4``. The opponent is
        ``PUBLISHED_OPPONENT`` where there is one, the labels are those of the published protocol
        where it was replayed, else the first of the table.
    """
    opponents = values(table, "opponent_name")
    opponent = PUBLISHED_OPPONENT if PUBLISHED_OPPONENT in opponents else opponents[0]
    rows = table.filter(pl.col("opponent_name") == opponent)
    published = values(rows.filter(pl.col("protocol") == "paper"), "labels")
    parts: list[pl.DataFrame] = []
    words: list[str] = []
    protocols = [p for p in PROTOCOLS if p in values(rows, "protocol")]
    for protocol in protocols + [p for p in values(rows, "protocol") if p not in PROTOCOLS]:
        own = rows.filter(pl.col("protocol") == protocol)
        labels = values(own, "labels")
        label = next((name for name in published if name in labels), labels[0])
        parts.append(own.filter(pl.col("labels") == label))
        words.append(label)
    same = len(set(words)) == 1
    told = words[0] if same else " and ".join(f"{w} ({_told(p)})" for p, w in _pairs(parts, words))
    return pl.concat(parts), f"against {opponent}, labels {told}"


def _pairs(parts: list[pl.DataFrame], words: list[str]) -> list[tuple[str, str]]:
    return [(part.get_column("protocol")[0], word) for part, word in zip(parts, words, strict=True)]


def _told(protocol: str) -> str:
    return PROTOCOLS.get(protocol, protocol)


def protocol_words() -> pl.Expr:
    """The column protocol, in words."""
    return pl.col("protocol").replace(PROTOCOLS)
