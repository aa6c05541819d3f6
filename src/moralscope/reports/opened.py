"""What did this run find? A run directory in a notebook: its claims, answers, tables and figures.

    run = moralscope.open_run("runs/demo")
    run                      # claims by verdict and the answers, as the report has them
    run.figure("patching")   # the picture with its caption; .chart is the Altair chart
    run.tables["claims"]     # a Polars frame

Nothing is written. In HTML every text is escaped, nothing is loaded and no script runs.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import altair as alt
import polars as pl
from markupsafe import Markup

from moralscope.core.errors import ConfigError, nearest
from moralscope.reports.export import render
from moralscope.reports.figure import Absent, Figure
from moralscope.reports.figures import make_figures
from moralscope.reports.findings import (
    Finding,
    VerdictGroup,
    group_findings,
    headline,
    ranked_groups,
)
from moralscope.reports.look import agent_colours
from moralscope.reports.questions import Answered, answered
from moralscope.reports.run import Run, read_run

SHOWN = 5
"""Claims of a verdict that a summary shows."""


@dataclass(frozen=True)
class ShownFigure:
    """A figure that shows itself: its chart as a picture, what it shows and what it does not."""

    figure: Figure

    @property
    def chart(self) -> alt.TopLevelMixin:
        """The Altair chart, to be changed or saved."""
        return self.figure.chart

    def __str__(self) -> str:
        """Title and caption."""
        return f"{self.figure.title}. {self.figure.shows}"

    def _repr_html_(self) -> str:
        svg = base64.b64encode(render(self.figure).svg.encode()).decode()
        return str(
            Markup(
                '<figure><h4>{}</h4><img src="data:image/svg+xml;base64,{}" alt="{}" '
                'style="max-width:100%;background:white"><figcaption><p><b>Shows.</b> {}</p>'
                "<p><b>Does not show.</b> {}</p></figcaption></figure>"
            ).format(self.figure.title, svg, self, self.figure.shows, self.figure.does_not_show)
        )


class OpenedRun:
    """A run in memory.

    Attributes:
        path: its folder.
        tables: its tables by name; those of more than two million rows are not read.
    """

    def __init__(self, run: Run) -> None:
        """Take over a run that was read."""
        self._run = run
        self._figures: dict[str, Figure | Absent] = {}
        self.path = run.path
        self.tables: Mapping[str, pl.DataFrame] = run.tables

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of those who were studied."""
        return tuple(agent.name for agent in self._run.agents)

    @property
    def claims(self) -> pl.DataFrame:
        """The table ``claims``, one row a claim; empty where there is none."""
        return self.tables.get("claims", pl.DataFrame())

    @property
    def questions(self) -> tuple[Answered, ...]:
        """The research questions with their answers; empty where none were asked."""
        return answered(self._run, self._groups)

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that can be drawn."""
        return tuple(n for n, f in self._made().items() if isinstance(f, Figure))

    def figure(self, name: str) -> ShownFigure:
        """A figure with its caption, which a notebook displays.

        Args:
            name: one of ``figures``.

        Raises:
            ConfigError: there is no such figure, or this run lacks what it shows.
        """
        made = self._made()
        if name not in made:
            raise ConfigError(
                "There is no figure of this name",
                seen=name,
                allowed=", ".join(self.figures),
                remedy=nearest(name, made),
            )
        figure = made[name]
        if isinstance(figure, Absent):
            raise ConfigError(
                "This figure cannot be drawn",
                seen=name,
                allowed=", ".join(self.figures),
                remedy=figure.reason,
            )
        return ShownFigure(figure)

    def __repr__(self) -> str:
        """The headline, and how each claim that stands reads."""
        lines = [f"Run {self.path}", headline(self._groups)]
        lines += [f"{asked.question}: {asked.answer} ({asked.verdict})" for asked in self.questions]
        for group in self._groups:
            lines += ["", f"{group.words.verdict} ({len(group.findings)})"]
            lines += [f"  {finding.statement}" for finding in group.findings[:SHOWN]]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [
            Markup("<div><h3>{}</h3><p>{}</p>").format(self.path.name, headline(self._groups)),
            *(_question(question) for question in self.questions),
            *(_group(group) for group in self._groups),
            Markup("<p>Figures: {}</p></div>").format(", ".join(self.figures) or "none"),
        ]
        return str(Markup().join(parts))

    @property
    def _groups(self) -> Sequence[VerdictGroup]:
        claims = self.claims
        return () if claims.is_empty() else ranked_groups(group_findings(claims))

    def _made(self) -> dict[str, Figure | Absent]:
        if not self._figures:
            agents = self._run.agents
            colours = agent_colours(
                [agent.name for agent in agents],
                frozenset(agent.name for agent in agents if agent.kind == "base"),
                {agent.name: agent.reward for agent in agents},
                frozenset(agent.name for agent in agents if agent.kind == "policy"),
            )
            self._figures = {entry.name: entry for entry in make_figures(self._run, colours)}
        return self._figures


def open_run(path: Path | str) -> OpenedRun:
    """A run directory to look at in a notebook or a script.

    Args:
        path: the folder that ``--out`` named.

    Raises:
        ConfigError: the folder is not a run, or its manifest is not one.
        TableError: a table is damaged or does not follow its schema.
    """
    return OpenedRun(read_run(Path(path)))


def _question(question: Answered) -> Markup:
    return Markup("<p><b>{}</b><br>{} <i>({})</i></p>").format(
        question.text, question.answer, question.verdict
    )


def _group(group: VerdictGroup) -> Markup:
    rows = Markup().join(_row(finding) for finding in group.findings[:SHOWN])
    left = len(group.findings) - SHOWN
    more = Markup("<p>and {} more in <code>run.claims</code></p>").format(left) if left > 0 else ""
    return Markup(
        "<h4>{} {} ({})</h4><table><thead><tr><th>claim</th><th>estimate</th></tr></thead>"
        "<tbody>{}</tbody></table>{}"
    ).format(group.words.symbol, group.words.verdict, len(group.findings), rows, more)


def _row(finding: Finding) -> Markup:
    return Markup('<tr><td style="text-align:left">{}</td><td>{}</td></tr>').format(
        finding.statement, finding.numbers or "\N{EN DASH}"
    )
