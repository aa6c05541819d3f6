"""What does a head look at, word by word? One prompt, shaded by the weight of each token.

The text is the prompt as the model reads it, a character as wide as the other, each token shaded by
the share of the head's attention from the prompt's last token: above in the base, below in the
agent. The head is the one of those in the table that gives most of its attention to other tokens
than it does in the base, on the prompt where it does so most.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import altair as alt
import polars as pl

from moralscope.reports.agent_groups import agent_groups
from moralscope.reports.arrange import below
from moralscope.reports.chosen import values
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figure_attention import TOPIC
from moralscope.reports.look import INK
from moralscope.reports.matrix import SEQUENTIAL
from moralscope.reports.run import Run

_ACROSS = 130
"""Characters in a line."""

_MOST_TOKENS = 600
"""Tokens that are drawn, the last ones: what a decision looks at most is near it."""

_MOST_AGENTS = 4
_WIDTH, _LINE = 6.3, 15
"""Of a character, and between lines, in pixels."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is drawn of one agent."""

    agent: str
    layer: int
    head: int
    prompt: str
    moved: float

    @property
    def site(self) -> str:
        return f"L{self.layer}.h{self.head}"


def has_attention_tokens(run: Run) -> bool:
    """Whether weights were kept token by token."""
    return "attention_tokens" in run.tables


def attention_tokens(run: Run, colours: dict[str, str]) -> Figure | Absent:
    """The head that moved most of each agent on one prompt, base above agent."""
    name, title = "attention_tokens", "Attention: what the heads that moved most look at"
    if reason := run.lacks("attention_tokens"):
        return Absent(name, title, reason, TOPIC)
    table = run.tables["attention_tokens"]
    shown = _chosen(run, colours, table.drop_nulls("base_weight"))
    if not shown:
        reason = "The table attention_tokens holds no agent beside its base."
        return Absent(name, title, reason, TOPIC)
    charts = [chart for one in shown for chart in _panels(table, one, first=one is shown[0])]
    told = ", ".join(f"{one.agent} {one.site} on {one.prompt} ({one.moved:.0%})" for one in shown)
    return Figure(
        name=name,
        title=title,
        shows="One prompt as the model reads it, each token shaded by the share of one head's "
        "attention that it gets from the last token; darker is more, and the first token, where "
        "unused attention goes, is left white. Drawn is the head and prompt with most attention "
        f"given to other tokens than in the base: {told}.",
        does_not_show="A typical head or prompt: these are the largest differences. The table "
        "holds all prompts and the other heads that were kept.",
        chart=below(charts, spacing=10),
        tables=("attention_tokens",),
        topic=TOPIC,
    )


def _chosen(run: Run, colours: dict[str, str], table: pl.DataFrame) -> list[_Shown]:
    """For each drawn agent the head that moved most, and the prompt where it did."""
    if table.is_empty():
        return []
    key = ["agent", "layer", "head"]
    moved = (
        table.group_by(*key, "prompt", maintain_order=True)
        .agg(((pl.col("weight") - pl.col("base_weight")).abs().sum() / 2.0).alias("moved"))
        .with_columns(mean=pl.col("moved").mean().over(key))
        .sort("mean", "moved", descending=True, maintain_order=True)
    )
    groups = agent_groups(run, colours, values(table, "agent"))
    firsts = {groups.name_of[agent]: agent for agent in reversed(values(table, "agent"))}
    found: list[_Shown] = []
    for drawn in groups.names[:_MOST_AGENTS]:
        row = moved.filter(pl.col("agent") == firsts[drawn]).row(0, named=True)
        place = (row["agent"], row["layer"], row["head"], row["prompt"])
        found.append(_Shown(*place, moved=float(row["moved"])))
    return found


def _panels(
    table: pl.DataFrame, one: _Shown, *, first: bool
) -> Iterator[alt.LayerChart | alt.FacetChart]:
    """The prompt twice: as the base's head sees it, and as the agent's does."""
    rows = table.filter(
        (pl.col("agent") == one.agent)
        & (pl.col("layer") == one.layer)
        & (pl.col("head") == one.head)
        & (pl.col("prompt") == one.prompt)
    ).sort("position")
    kept = rows.tail(_MOST_TOKENS)
    texts = kept.get_column("token").to_list()
    left_out = rows.height - kept.height
    places = list(_laid_out(texts))
    pieces = pl.DataFrame(places, schema=["token", "line", "start", "end", "text"], orient="row")
    top = float(str(kept.filter(pl.col("position") > 0).select(
        pl.max_horizontal("weight", "base_weight").max()
    ).item() or 1.0))  # fmt: skip
    for column, who in (("base_weight", "base"), ("weight", one.agent)):
        weights = kept.select(
            pl.int_range(pl.len()).alias("token"),
            pl.when(pl.col("position") == 0).then(0.0).otherwise(column).alias("weight"),
            "category",
        )
        cut = f", without its first {left_out} tokens" if left_out else ""
        heading = f"{one.site} in {who}, prompt {one.prompt}{cut}"
        legend = first and column == "base_weight"
        yield _text(pieces.join(weights, on="token"), heading, top, legend=legend)


def _laid_out(texts: Sequence[str]) -> Iterator[tuple[int, int, int, int, str]]:
    """Pieces of tokens: token, line, first column, column after the last, what is written there."""
    line = column = 0
    for token, text in enumerate(texts):
        for piece in _pieces(text):
            if column + len(piece) > _ACROSS and column:
                line, column = line + 1, 0
            yield token, line, column, column + len(piece), piece
            column += len(piece)
            if piece.endswith("\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"):
                line, column = line + 1, 0


def _pieces(text: str) -> Iterator[str]:
    """A token without what cannot be seen; long ones and lines apart; a dot for an empty one."""
    shown = "".join(
        "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"
        if letter == "\n"
        else " "
        if letter == "\t"
        else "\N{MIDDLE DOT}"
        if unicodedata.category(letter).startswith("C")
        else letter
        for letter in text or "\N{MIDDLE DOT}"
    )
    start = 0
    for at, letter in enumerate(shown):
        if letter == "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}" or at + 1 - start == _ACROSS:
            yield shown[start : at + 1]
            start = at + 1
    if start < len(shown):
        yield shown[start:]


def _text(
    pieces: pl.DataFrame, heading: str, top: float, *, legend: bool
) -> alt.LayerChart | alt.FacetChart:
    lines = int(str(pieces.get_column("line").max() or 0)) + 1
    steps = [top * i / (len(SEQUENTIAL) - 1) for i in range(len(SEQUENTIAL))]
    across = alt.Scale(domain=[0, _ACROSS], nice=False)
    down = alt.Scale(domain=[lines, 0], nice=False)
    base = alt.Chart(
        pieces.with_columns(
            middle=(pl.col("start") + pl.col("end")) / 2,
            bottom=pl.col("line") + 1,
            centre=pl.col("line") + 0.5,
        )
    )
    shade = alt.Color(
        "weight:Q",
        scale=alt.Scale(domain=steps, range=list(SEQUENTIAL), clamp=True),
        legend=alt.Legend(
            title="Share of the head's attention",
            orient="top",
            direction="horizontal",
            gradientLength=260,
            gradientThickness=10,
            values=[0.0, top / 2, top],
            format=".2~g",
        )
        if legend
        else None,
    )
    back = base.mark_rect().encode(
        x=alt.X("start:Q", scale=across, axis=None),
        x2="end:Q",
        y=alt.Y("line:Q", scale=down, axis=None),
        y2="bottom:Q",
        color=shade,
    )
    words = base.mark_text(fontSize=10).encode(
        x=alt.X("middle:Q", scale=across, axis=None),
        y=alt.Y("centre:Q", scale=down, axis=None),
        text="text:N",
        color=alt.condition(alt.datum.weight > 0.55 * top, alt.value("white"), alt.value(INK)),
    )
    return alt.layer(back, words).properties(
        width=_WIDTH * _ACROSS, height=_LINE * lines, title=heading
    )
