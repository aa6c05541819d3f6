"""How is a summary read? As plain text in a terminal, as HTML in a notebook.

Names, answers and errors may hold anything that a prompt or a model said. In text, characters that
cannot be seen but would act on the terminal are written as escapes; in HTML everything is escaped,
nothing is loaded from elsewhere and no script runs: figures are pictures in ``data:`` addresses.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Iterator, Sequence
from textwrap import wrap

from markupsafe import Markup, escape

from moralscope.explaining.summary import Block, Summary
from moralscope.reports.export import Picture
from moralscope.reports.figure import Figure

WIDTH = 96
"""Columns of a line of text."""

_CELL = 48
"""Longest cell of a table in text."""

_STYLE = Markup(
    "<style>"
    ".ms-explanation{max-width:62rem;line-height:1.45}"
    ".ms-explanation h3{margin:0 0 .1rem;font-size:1.15em}"
    ".ms-explanation h4{margin:1.1rem 0 .25rem;font-size:1em}"
    ".ms-explanation p{margin:.2rem 0;max-width:52rem}"
    ".ms-explanation table{border-collapse:collapse;margin:.3rem 0}"
    ".ms-explanation th,.ms-explanation td{padding:.15rem .9rem .15rem 0;text-align:right;"
    "border:0;background:none;font-variant-numeric:tabular-nums}"
    ".ms-explanation thead th{font-weight:600;border-bottom:1px solid #9aa5b1}"
    ".ms-explanation .word{text-align:left}"
    ".ms-explanation .quiet{opacity:.75}"
    ".ms-explanation figure{margin:1.1rem 0}"
    ".ms-explanation figure img{max-width:100%;background:white}"
    "</style>"
)


def as_text(summary: Summary) -> str:
    """The summary for a terminal, without trailing spaces."""
    lines = [visible(summary.title), *_wrapped(summary.lead)]
    for block in summary.blocks:
        lines += ["", visible(block.heading)]
        for sentence in block.lines:
            lines += _wrapped(visible(sentence), "  ")
        lines += _columns(block)
    lines += ["", *_wrapped(summary.caution)]
    return "\n".join(lines)


def visible(text: str) -> str:
    """The text with control, direction and lone surrogate characters written as escapes."""
    kinds = ("Cc", "Cf", "Co", "Cs")
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in kinds else c for c in text
    )


def _wrapped(text: str, indent: str = "") -> list[str]:
    return wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _columns(block: Block) -> Iterator[str]:
    if not block.columns:
        return
    table = [block.columns, *(tuple(_cut(visible(c)) for c in row) for row in block.rows)]
    widths = [max(len(row[at]) for row in table) for at in range(len(block.columns))]
    for row in table:
        cells = [
            cell.ljust(width) if at < block.words else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  " + "  ".join(cells).rstrip()


def _cut(text: str) -> str:
    return text if len(text) <= _CELL else text[: _CELL - 1] + "\N{HORIZONTAL ELLIPSIS}"


def as_html(summary: Summary, pictures: Sequence[tuple[Figure, Picture]]) -> str:
    """The summary for a notebook, figures below.

    Args:
        summary: what to say.
        pictures: figures with their renderings.
    """
    parts = [
        _STYLE,
        Markup("<h3>{}</h3><p class='quiet'>{}</p>").format(summary.title, summary.lead),
        *(_block(block) for block in summary.blocks),
        *(_figure(figure, picture) for figure, picture in pictures),
        Markup("<p class='quiet'>{}</p>").format(summary.caution),
    ]
    html = Markup("<div class='ms-explanation'>{}</div>").format(Markup("").join(parts))
    # Lone surrogates have no UTF-8 form; show them as escapes.
    return str(html).encode("utf-8", "backslashreplace").decode()


def _block(block: Block) -> Markup:
    lines = Markup("").join(Markup("<p>{}</p>").format(line) for line in block.lines)
    heading = Markup("<h4>{}</h4>").format(block.heading)
    if not block.columns:
        return heading + lines
    kinds = ["word" if at < block.words else "number" for at in range(len(block.columns))]
    head = _row("th", block.columns, kinds)
    body = Markup("").join(_row("td", row, kinds) for row in block.rows)
    table = Markup("<table><thead>{}</thead><tbody>{}</tbody></table>").format(head, body)
    return heading + lines + table


def _row(tag: str, cells: Sequence[str], kinds: Sequence[str]) -> Markup:
    made = Markup("").join(
        Markup("<{0} class='{1}'><bdi>{2}</bdi></{0}>").format(tag, kind, cell)
        for cell, kind in zip(cells, kinds, strict=True)
    )
    return Markup("<tr>{}</tr>").format(made)


def _figure(figure: Figure, picture: Picture) -> Markup:
    address = "data:image/svg+xml;base64," + base64.b64encode(picture.svg.encode()).decode()
    return Markup(
        "<figure><h4>{}</h4><p>{}</p><img alt='{}' src='{}'><p class='quiet'>{}</p></figure>"
    ).format(figure.title, figure.shows, figure.title, escape(address), figure.does_not_show)
