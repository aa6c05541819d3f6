"""What does an agent do differently from one situation to another? Contrasts, and their units.

A contrast is a weighted sum of mean probabilities of cooperating, ``sum_c w_c P(C | c)``, over
*cells* c: memory-one states (the agent's own last move first) or named situations. Weights that
sum to zero make a difference, weights that sum to one a level. The situations, and what is said of
them, are those of the follow-up study on moral fine-tuning: a "guilt effect" (the weakest
cooperation after exploiting a cooperator), forgiveness after betrayal, resistance to temptation.

==================  ==========================================================================
family              unit of replication
==================  ==========================================================================
``wordings``        the text, asked in all four states: the other wordings and the structured text
``scenarios``       the text; those of two situations are different texts, so nothing is paired
``structured``      the presentation: label assignment and orders of the options
any other           the text, asked in all four states
==================  ==========================================================================

Prompts of one text are never units: within a unit and cell, orders are averaged first, then label
assignments. Presentations of one text are ways of asking, on which no claim rests. Mirrored
wordings, rearranged tables and families that put a value or a frame before the game are controls
and left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from moralscope.core.errors import TableError
from moralscope.evidence.findings.queries import COUNTED_ONCE, text
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import collapsed_prompts

STATES = ("CC", "CD", "DC", "DD")
SITUATIONS = ("CC_continue", "CC_temptation", "CD_punished", "DC_exploited", "DD_trapped")
CONTROL_FAMILIES = ("framings", "value-prompted", "public-goods")
"""Families that vary what stands around the game, or that are no game of two."""

_MIRRORED = "-mirrored"
_ORIGINAL = ("original", "none")


@dataclass(frozen=True, slots=True)
class Contrast:
    """What is compared.

    Attributes:
        name: as tables call it.
        cells: the cells of the family that it is made for.
        weights: one per cell; they sum to 0 (a difference) or 1 (a level).
        words: of a difference (where more, where less), of a level (where,).
    """

    name: str
    cells: tuple[str, ...]
    weights: tuple[float, ...]
    words: tuple[str, ...]

    @property
    def is_level(self) -> bool:
        """Whether nothing is subtracted."""
        return len(self.words) == 1


def _weights(cells: tuple[str, ...], more: Sequence[str], less: Sequence[str]) -> tuple[float, ...]:
    return tuple((c in more) / max(1, len(more)) - (c in less) / max(1, len(less)) for c in cells)


def _state(name: str, more: str, less: str, *words: str) -> Contrast:
    weights = _weights(STATES, more.split(), less.split())
    return Contrast(name, STATES, weights, words)


def _situation(name: str, more: str, less: str, *words: str) -> Contrast:
    others = [s for s in SITUATIONS if s not in more]
    subtracted = others if less == "others" else less.split()
    return Contrast(name, SITUATIONS, _weights(SITUATIONS, more.split(), subtracted), words)


_BETRAYED = "after it cooperated and the other defected"
_EXPLOITED = "after it defected and the other cooperated"
_BOTH_C, _BOTH_D = "after both cooperated", "after both defected"

OF_STATES: tuple[Contrast, ...] = (
    _state("cooperation", "CC CD DC DD", "", "over all four states"),
    _state("loyalty", "CC DC", "", "after the other cooperated"),
    _state("forgiveness", "CD", "", _BETRAYED),
    _state("repair", "DC", "", _EXPLOITED),
    _state("escape", "DD", "", _BOTH_D),
    _state(
        "response_to_other",
        "CC DC",
        "CD DD",
        "after the other cooperated",
        "after the other defected",
    ),
    _state("response_to_self", "CC CD", "DC DD", "after it cooperated", "after it defected"),
    _state("betrayal_response", "CD", "CC", _BETRAYED, _BOTH_C),
    _state("forgiveness_over_deadlock", "CD", "DD", _BETRAYED, _BOTH_D),
    _state("repair_over_deadlock", "DC", "DD", _EXPLOITED, _BOTH_D),
    _state("guilt_effect", "DC", "CC CD DD", _EXPLOITED, "in the other states"),
)
"""Contrasts between the memory-one states."""

_TEMPTED = "where defecting is pointed out as tempting"

OF_SITUATIONS: tuple[Contrast, ...] = (
    _situation("cooperation", " ".join(SITUATIONS), "", "over the five situations"),
    _situation("continuation", "CC_continue", "", "in stories where both simply cooperated"),
    _situation("resistance", "CC_temptation", "", f"in stories {_TEMPTED}"),
    _situation("forgiveness", "CD_punished", "", f"in stories {_BETRAYED}"),
    _situation("repair", "DC_exploited", "", f"in stories {_EXPLOITED}"),
    _situation("escape", "DD_trapped", "", f"in stories {_BOTH_D}"),
    _situation(
        "temptation", "CC_temptation", "CC_continue", _TEMPTED, "where both simply cooperated"
    ),
    _situation(
        "temptation_effect", "CC_temptation", "others", _TEMPTED, "in the other four situations"
    ),
    _situation("guilt_effect", "DC_exploited", "others", _EXPLOITED, "in the other situations"),
    _situation("betrayal_response", "CD_punished", "CC_continue", _BETRAYED, _BOTH_C),
    _situation("forgiveness_over_deadlock", "CD_punished", "DD_trapped", _BETRAYED, _BOTH_D),
    _situation("repair_over_deadlock", "DC_exploited", "DD_trapped", _EXPLOITED, _BOTH_D),
)
"""Contrasts between the situations of the family ``scenarios``."""


@dataclass(frozen=True, eq=False)
class Design:
    """One family in one game, and what its units are.

    Attributes:
        family, game: where.
        unit: ``wordings``, ``texts`` or ``presentations``.
        contrasts: what can be compared in it.
        prompts: (prompt, cell, unit, labels), one row per prompt.
        paired: whether every unit is asked in every cell.
        where: SQL condition that picks the prompts from the table ``prompts``.
    """

    family: str
    game: str
    unit: str
    contrasts: tuple[Contrast, ...]
    prompts: pl.DataFrame
    paired: bool
    where: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells, in the order of the weights of its contrasts."""
        return self.contrasts[0].cells


def designs(prompts: pl.DataFrame) -> Iterator[Design]:
    """The families in which contrasts can be formed, from a ``prompts`` table.

    A unit that lacks one of the states is no unit; a family without two cells has no design. Copies
    of a prompt count once, so that a text under two names is one unit.
    """
    kept, copies = collapsed_prompts(prompts)
    once = f" AND {COUNTED_ONCE}" if copies else ""
    stated = kept.with_columns(cell=pl.col("own_previous") + pl.col("opponent_previous"))
    for family, game in kept.select("family", "game").unique(maintain_order=True).iter_rows():
        if family in CONTROL_FAMILIES:
            continue
        rows = stated.filter(pl.col("family") == family, pl.col("game") == game)
        of_family = f"prompts.game = {text(game)} AND prompts.family = {text(family)}{once}"
        if family == "scenarios":
            named = rows.with_columns(cell=pl.col("scenario"), place=pl.col("template"))
            told = named.filter(pl.col("cell").is_in(SITUATIONS))
            if told.get_column("cell").n_unique() == len(SITUATIONS):
                yield _design((family, game), "texts", OF_SITUATIONS, told, of_family)
        elif family == "structured":
            shown = pl.format("{} o{}a{}", "labels", "option_order", "answer_order")
            written = rows.filter(pl.col("table_order").is_in(_ORIGINAL))
            asked = _complete(written.with_columns(place=shown))
            if asked.height:
                yield _design((family, game), "presentations", OF_STATES, asked, of_family)
        else:
            found = _worded(stated, rows, family, game)
            if found is not None:
                yield replace(found, where=f"{found.where}{once}")


def _design(
    place: tuple[str, str],
    unit: str,
    contrasts: tuple[Contrast, ...],
    rows: pl.DataFrame,
    where: str,
) -> Design:
    kept = rows.select("prompt", "cell", "labels", unit="place")
    return Design(*place, unit, contrasts, kept, contrasts is OF_STATES, where)


def _worded(stated: pl.DataFrame, rows: pl.DataFrame, family: str, game: str) -> Design | None:
    """A family of texts; ``wordings`` is joined by the structured text, asked the same way."""
    own = rows.filter(
        ~pl.col("template").str.ends_with(_MIRRORED), pl.col("table_order").is_in(_ORIGINAL)
    )
    where = (
        f"prompts.game = {text(game)} AND prompts.table_order IN ('original', 'none') "
        f"AND prompts.template NOT LIKE '%{_MIRRORED}' "
    )
    if family == "wordings":
        labels: list[str] = own.get_column("labels").unique(maintain_order=True).to_list()
        joining = stated.filter(
            pl.col("family") == "structured",
            pl.col("game") == game,
            pl.col("table_order") == "original",
            pl.col("option_order") == pl.col("answer_order"),
            pl.col("labels").is_in(labels),
        )
        own = pl.concat([joining, own])
        said = ", ".join(text(words) for words in labels)
        where += (
            "AND (prompts.family = 'wordings' OR (prompts.family = 'structured' AND "
            f"prompts.option_order = prompts.answer_order AND prompts.labels IN ({said})))"
        )
    else:
        where += f"AND prompts.family = {text(family)}"
    asked = _complete(own.with_columns(place=pl.col("template")))
    if asked.is_empty():
        return None
    return _design((family, game), "wordings", OF_STATES, asked, where)


def _complete(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of units that were asked in all four states."""
    told = rows.filter(pl.col("cell").is_in(STATES))
    full = told.group_by("place").agg(pl.col("cell").n_unique().alias("n"))
    return told.join(
        full.filter(pl.col("n") == len(STATES)), on="place", how="semi", maintain_order="left"
    )


def scored_agents(decisions: pl.DataFrame) -> set[str]:
    """Agents that have log-odds: all models, no scripted policy."""
    scored = decisions.filter(pl.col("log_odds").is_not_null())
    return set(scored.get_column("agent").unique().to_list())


@dataclass(frozen=True, eq=False)
class Measured:
    """What one or two agents do in a design.

    Attributes:
        groups: (n_g, K_g) means per unit; the K_g columns are the group's cells, for each agent in
            turn. Paired designs are one group, others one group per cell.
        left_out: units in which an agent has a cell without any legal answer, or no log-odds.
    """

    groups: tuple[Array, ...]
    left_out: int

    @property
    def n_units(self) -> int:
        """Units over all groups."""
        return sum(len(group) for group in self.groups)


def measure(
    design: Design, decisions: pl.DataFrame, agents: Sequence[str], value: str = "p_cooperate"
) -> Measured | None:
    """Means per unit and cell of ``p_cooperate``, or of ``log_odds`` turned towards cooperating.

    Args:
        design: which prompts.
        decisions: a ``decisions`` table.
        agents: one or two, measured on the same prompts.
        value: ``p_cooperate`` (given a legal answer) or ``log_odds``.

    Returns:
        None where one of the agents decided on none of the prompts.

    Raises:
        TableError: an agent decided on some of the prompts only.
    """
    frames: list[pl.DataFrame] = []
    for index, agent in enumerate(agents):
        made = decisions.filter(pl.col("agent") == agent)
        answered = design.prompts.join(made, on="prompt", how="inner", suffix="_decided")
        if answered.is_empty():
            return None
        if answered.height < design.prompts.height:
            raise _partial(design, agent, made)
        number = (
            1.0 - pl.col("p_positive_given_legal") if value == "p_cooperate" else -pl.col(value)
        )
        column = pl.col("cell") + pl.lit(f" {index}")
        frames.append(answered.select("unit", "labels", column, value=number.fill_nan(None)))
    rows = pl.concat(frames)
    means = (
        rows.group_by("unit", "cell", "labels", maintain_order=True)
        .agg(_mean_or_null())
        .group_by("unit", "cell", maintain_order=True)
        .agg(_mean_or_null())
    )
    wide = means.pivot(on="cell", index="unit", values="value", maintain_order=True)
    columns = [[f"{cell} {i}" for i in range(len(agents))] for cell in design.cells]
    if design.paired:
        # For each agent in turn its cells, in the order of the weights.
        columns = [[names[i] for i in range(len(agents)) for names in columns]]
    parts = [wide.select("unit", *names) for names in columns]
    if not design.paired:
        cells = design.prompts.group_by("cell").agg(pl.col("unit").unique())
        units = dict(cells.iter_rows())
        parts = [
            part.filter(pl.col("unit").is_in(units[cell]))
            for part, cell in zip(parts, design.cells, strict=True)
        ]
    kept = [part.drop_nulls() for part in parts]
    left_out = sum(part.height for part in parts) - sum(part.height for part in kept)
    return Measured(
        tuple(part.drop("unit").to_numpy().astype(np.float64) for part in kept), left_out
    )


def _mean_or_null() -> pl.Expr:
    whole = pl.col("value").null_count() == 0
    return pl.when(whole).then(pl.col("value").mean()).alias("value")


def _partial(design: Design, agent: str, made: pl.DataFrame) -> TableError:
    missing = design.prompts.join(made, on="prompt", how="anti").get_column("prompt")
    return TableError(
        f"Agent {agent!r} decided on some of the prompts of a family only",
        seen=f"{len(missing)} of {design.prompts.height} missing in {design.family!r} "
        f"({design.game}), such as {missing[0]!r}",
        allowed="a decision on every prompt of the family, or on none",
        remedy="evaluate the agent on the whole family; a contrast of parts compares texts",
    )


def weights_of(design: Design, contrast: Contrast, signs: Sequence[float]) -> list[Array]:
    """The weights of a contrast for ``Measured.groups``, each agent's times its sign.

    ``signs`` of (1,) is the contrast of one agent, (1, -1) that of the first minus the second's.
    """
    if design.paired:
        return [np.concatenate([sign * np.array(contrast.weights) for sign in signs])]
    return [np.array([sign * weight for sign in signs]) for weight in contrast.weights]


def used(groups: Sequence[Array], weights: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """The terms of a contrast whose weight is not zero, and their weights."""
    pairs = [(y[:, w != 0.0], w[w != 0.0]) for y, w in zip(groups, weights, strict=True)]
    kept = [(y, w) for y, w in pairs if len(w)]
    return [y for y, _ in kept], [w for _, w in kept]


def estimate(groups: Sequence[Array], weights: Sequence[Array]) -> float:
    """The weighted sum of the means over units."""
    return sum(float(y.mean(axis=0) @ w) for y, w in zip(groups, weights, strict=True))
