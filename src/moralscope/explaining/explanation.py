"""What was found? Tables, figures and a summary of one explanation, in memory.

The tables follow the package's schemas, so everything that reads a run reads them too: gates,
figures, and the report of a folder that ``save`` wrote. The summary states numbers with unit and
sign and what the controls deviate by. It calls nothing a finding: a few prompts describe
themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from moralscope.core.decision import PromptSet
from moralscope.core.errors import ConfigError, MoralscopeError
from moralscope.core.files import atomic_folder, make_folder, write_bytes, write_text
from moralscope.core.tables import write_table
from moralscope.evidence.gates.judging import judge_gates
from moralscope.explaining.drawing import draw, pictures
from moralscope.explaining.ranking import rank, rankable
from moralscope.explaining.showing import as_html, as_text
from moralscope.explaining.summary import Summary, summarise

if TYPE_CHECKING:
    import altair as alt


@dataclass(frozen=True)
class Note:
    """What could not be done, and why.

    Attributes:
        method: which method, or several joined by commas.
        subject: of whom or of what; empty for all.
        error: the reason, and what to do about it.
    """

    method: str
    subject: str
    error: MoralscopeError

    def __str__(self) -> str:
        place = f"{self.method}, {self.subject}" if self.subject else self.method
        return f"{place}: {self.error}"


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """What was found on some prompts.

    Attributes:
        prompts: what was asked, sources of pairs included.
        tables: by name, as the package documents them.
        notes: what could not be done.
        methods: what was asked for.
        positions: where patches act.
        write: how heads were patched.
    """

    prompts: PromptSet
    tables: Mapping[str, pl.DataFrame]
    notes: tuple[Note, ...]
    methods: tuple[str, ...]
    positions: str
    write: str

    @property
    def agents(self) -> tuple[str, ...]:
        """Who was explained, the base first."""
        return tuple(self.tables["agents"].get_column("agent").to_list())

    @property
    def decisions(self) -> pl.DataFrame:
        """What each agent decides: log-odds in nats, probabilities, the mass of both answers."""
        return self.tables["decisions"].select(
            "prompt", "agent", "log_odds", "p_positive", "p_negative", "legal_mass",
            "p_positive_given_legal",
        )  # fmt: skip

    def top(self, n: int = 10, method: str | None = None) -> pl.DataFrame:
        """The sites with the largest mean effects over prompts, for each agent or pair.

        Args:
            n: how many for each.
            method: patching, attribution, paths or ablation; the first of these that was
                measured unless given.

        Returns:
            Columns source and target (or agent), site, the mean in nats (effect, change from the
            base, or contribution), its share of the full swap (or of the whole change), prompts,
            same_sign (the prompts whose effect has the mean's sign), smallest, largest.

        Raises:
            ConfigError: the method was not measured or cannot be ranked, or ``n`` is below 1.
        """
        if n < 1:
            raise ConfigError(
                "This is not a number of sites",
                seen=n,
                allowed="a whole number from 1",
                remedy="leave it out for ten",
            )
        measured = rankable(self.tables)
        ranked = rank(self.tables, method or (measured[0] if measured else "patching"))
        who = [name for name in ("source", "target", "agent") if name in ranked.columns]
        return ranked.group_by(who, maintain_order=True).head(n)

    def gates(self) -> pl.DataFrame:
        """The table ``gates``: may anything be concluded from these tables at all?"""
        return judge_gates(self.tables)

    @property
    def figures(self) -> dict[str, alt.TopLevelMixin]:
        """Altair charts by name, in the style of the report."""
        return draw(self.tables)

    def save(self, folder: str | Path) -> Path:
        """Write tables and figures; ``moralscope report FOLDER`` then makes a page of them.

        ``tables/NAME.parquet``, ``figures/NAME.json|svg|png`` and ``explanation.txt`` appear whole
        or not at all, and take the place of earlier ones.

        Returns:
            The folder.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = make_folder(Path(folder).expanduser())
        drawn = pictures(self.tables)
        with atomic_folder(path / "tables") as fresh:
            for name, table in {**self.tables, "gates": self.gates()}.items():
                write_table(name, table, fresh)
        with atomic_folder(path / "figures") as fresh:
            for figure, picture in drawn:
                write_text(fresh / f"{figure.name}.json", picture.spec)
                write_text(fresh / f"{figure.name}.svg", picture.svg)
                write_bytes(fresh / f"{figure.name}.png", picture.png)
                write_bytes(fresh / f"{figure.name}.pdf", picture.pdf)
        write_text(path / "explanation.txt", f"{self!r}\n")
        return path

    def __repr__(self) -> str:
        return as_text(self._summary())

    def _repr_html_(self) -> str:
        return as_html(self._summary(), pictures(self.tables))

    def _summary(self) -> Summary:
        return summarise(
            self.prompts,
            self.tables,
            positions=self.positions,
            refusals=tuple((n.method, n.subject, n.error) for n in self.notes),
        )
