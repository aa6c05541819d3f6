"""Does an agent act alike however the question is put? One way of asking varied at a time.

Everything is compared with one reference: the structured text of the game with its table as it is
written, under both assignments of the trained labels, no system message, the answer begun as
usual, the chat template on. A *factor* varies one of these things, and

    p(level) = mean over units of (mean over the unit's prompts of P(C given a legal answer)),
    change(level) = mean over units of (mean over cells of (p at the level - p at the reference)),

where a *cell* holds fixed whatever else a prompt varies: label assignment, state and order of
the two moves, as far as the factor lets them. Only cells that were asked at the reference as well
enter a change, so that nothing is compared but the factor. A last move that a text does not tell
is averaged over on the side of the reference.

==================  ==============================  ======  =====================================
factor              levels                          units   reference
==================  ==============================  ======  =====================================
``family``          prompt families                 texts   ``structured``
``wording``         other texts and their mirrors   states  ``structured``
``labels``          pairs of labels                 states  the trained pair
``assignment``      which label means cooperation   texts   the pair as given
``option_order``    which move is named first       texts   ``C first``
``state``           what both played last           texts   ``CC``
``answer_order``    the same in the instruction     states  ``C first``
``table_order``     rows, columns, both exchanged   states  ``original``
``stem``            how the answer is begun         states  ``default``
``system``          system messages                 states  ``none``
``chat_template``   ``on``, ``off``                 states  ``on``
``value``           paragraphs of values before it  states  ``none``
==================  ==============================  ======  =====================================

Units are what the interval speaks of. Texts stand for other texts like them. The memory-one states
are all that there are, so an interval over them says how even a change is over states. Prompts
are never units: those of one text, or of one state, are variants of one question. Where texts are
the unit and only one was fully crossed with the factor, states take their place.

A prompt on which no answer is legal counts in the legal mass and nowhere else.

What it does not do: vary two things at once (``variance`` has the interactions), or count a
rearranged table, a mirror or another frame into the mean of a family.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from moralscope.behaviour.joining import (
    STATE,
    join_prompts,
    mean_or_null,
    named_first,
    with_interval,
)
from moralscope.behaviour.learning.training_sets import swap_labels
from moralscope.behaviour.learning.transfer import WORDING_FAMILIES
from moralscope.core.tables import conform, schema_of
from moralscope.games import LABELS
from moralscope.games.asking.wording import MIRROR_SUFFIX

_CELL = ("labels", *STATE, "first")
_FIRST = " first"
_FRAMES = ("stem", "system", "chat_template")


@dataclass(frozen=True, slots=True)
class Factor:
    """One way of asking.

    Attributes:
        name: as the table has it.
        asked: which prompts belong to it.
        level: a prompt's level, as text.
        reference: the level that others are compared with.
        cell: columns that are held fixed in a comparison.
        unit: ``texts`` or ``states``.
        complete: whether only cells that were asked at every level count.
    """

    name: str
    asked: pl.Expr
    level: pl.Expr
    reference: str
    cell: tuple[str, ...] = _CELL
    unit: str = "states"
    complete: bool = False


def factors(labels: str, game: str) -> tuple[Factor, ...]:
    """Every way of asking that the table knows.

    Args:
        labels: the trained pair, in the assignment that counts as the reference.
        game: the game that is asked about.

    Raises:
        ConfigError: the labels are not two words.
    """
    family, template = pl.col("family"), pl.col("template")
    game_here = pl.col("game") == game
    trained = pl.col("labels").is_in((labels, swap_labels(labels)))
    written = pl.col("table_order").is_in(("original", "none"))
    structured, mirrored = family == "structured", template.str.ends_with(MIRROR_SUFFIX)
    one_order = pl.col("option_order") == pl.col("answer_order")
    framed = (family == "framings") | (pl.col("system") != "") | ~pl.col("chat_template")
    plain = game_here & trained & written & one_order & ~framed
    worded = plain & family.is_in(WORDING_FAMILIES)
    valued = family == "value-prompted"
    value = pl.when(valued).then(template).otherwise(pl.lit("none"))
    wording = pl.when(structured).then(family).otherwise(template)
    frames = game_here & trained & written & framed
    of_pair = ("assignment", *STATE, "first")
    return (
        Factor("family", plain & ~mirrored, family, "structured", ("labels", *STATE), "texts"),
        Factor("wording", worded, wording, "structured"),
        Factor(
            "labels",
            game_here & written & one_order & ~framed & structured,
            pl.col("pair"),
            labels,
            of_pair,
        ),
        *_crossed(worded & ~mirrored, labels),
        Factor(
            "answer_order",
            game_here & trained & written & ~framed & structured,
            named_first("answer_order") + _FIRST,
            f"C{_FIRST}",
            complete=True,
        ),
        Factor(
            "table_order",
            game_here & trained & one_order & ~framed & structured,
            pl.col("table_order"),
            "original",
        ),
        *(_frame(name, plain & structured, frames) for name in _FRAMES),
        Factor("value", plain & (structured | valued), value, "none"),
    )


def _crossed(asked: pl.Expr, labels: str) -> Iterator[Factor]:
    """What every text is asked with: its units are texts that were asked at every level."""
    for name, columns, level, reference in (
        ("assignment", ("labels",), pl.col("labels"), labels),
        ("option_order", ("first",), pl.col("first") + _FIRST, f"C{_FIRST}"),
        ("state", STATE, pl.concat_str(STATE), "CC"),
    ):
        cell = tuple(c for c in ("template", *_CELL) if c not in columns)
        yield Factor(name, asked, level, reference, cell, "texts", complete=True)


def _frame(name: str, reference: pl.Expr, framed: pl.Expr) -> Factor:
    """A factor whose levels are templates of the family ``framings``."""
    template = pl.col("template")
    if name == "chat_template":
        mine, level = template == "plain", pl.lit("off")
    else:
        prefix = f"{name}:"
        mine, level = template.str.starts_with(prefix), template.str.strip_prefix(prefix)
    usual = {"stem": "default", "system": "none", "chat_template": "on"}[name]
    framings = pl.col("family") == "framings"
    return Factor(
        name,
        reference | (framed & framings & mine),
        pl.when(framings).then(level).otherwise(pl.lit(usual)),
        usual,
    )


def robustness_table(
    prompts: pl.DataFrame,
    decisions: pl.DataFrame,
    *,
    labels: str = "/".join(LABELS),
    game: str = "IPD",
) -> pl.DataFrame:
    """How does each agent decide at every level of every way of asking?

    Args:
        prompts: a ``prompts`` table, such as of ``robustness_prompts``.
        decisions: a ``decisions`` table.
        labels: the labels that agents were trained with, as the reference has them.
        game: the game that is asked about.

    Returns:
        A ``robustness`` table: agents in order of appearance, factors in the order above, the
        reference level first. Factors of which a single level was asked are left out. Probabilities
        and their intervals lie in [0, 1], changes in [-1, 1]; intervals are null where there is
        one unit or no spread, and everything but the legal mass where no answer is legal.
        ``log_odds`` of defecting in nats, null for scripted policies.

    Raises:
        TableError: the tables break their schemas or do not belong together.
        ConfigError: the labels, or others in the table, are not two words.
    """
    joined = join_prompts(prompts, decisions)
    pairs = _pairs(joined, labels)
    described = joined.with_columns(
        pair=pl.col("labels").replace_strict(pairs, return_dtype=pl.String),
        memory=pl.concat_str(STATE),
        first=named_first(),
    ).with_columns(assignment=pl.col("labels") == pl.col("pair"))
    parts = [part for factor in factors(labels, game) for part in _of_factor(described, factor)]
    if not parts:
        return pl.DataFrame(schema=schema_of("robustness").dtypes())
    agents = pl.Enum(joined.get_column("agent").unique(maintain_order=True))
    table = pl.concat(parts).sort(pl.col("agent").cast(agents), maintain_order=True)
    return conform("robustness", table)


def _pairs(joined: pl.DataFrame, labels: str) -> dict[str, str]:
    """Every assignment's pair, written as the assignment of it that comes first."""
    pairs = {labels: labels, swap_labels(labels): labels}
    written: list[str] = joined.get_column("labels").unique(maintain_order=True).to_list()
    for assignment in written:
        pairs[assignment] = pairs.get(swap_labels(assignment), pairs.get(assignment, assignment))
    return pairs


def _of_factor(joined: pl.DataFrame, factor: Factor) -> Iterator[pl.DataFrame]:
    """The rows of a factor for all agents; none where a single level was asked."""
    rows = joined.filter(factor.asked).with_columns(level=factor.level)
    if factor.complete:
        levels = pl.col("level").n_unique()
        rows = rows.filter(levels.over("agent", *factor.cell) == levels.over("agent"))
    rows = rows.filter(pl.col("level").n_unique().over("agent") > 1)
    if rows.is_empty():
        return
    unit = factor.unit
    if unit == "texts" and factor.name != "state" and factor.complete:
        unit = "texts" if rows.n_unique("template") > 1 else "states"
    rows = rows.with_columns(unit=pl.col({"texts": "template", "states": "memory"}[unit]))
    means = _means(rows)
    changes = _changes(rows, factor)
    first = pl.col("level") != factor.reference
    yield (
        means.join(changes, on=("agent", "level"), how="left", maintain_order="left")
        .sort(first, maintain_order=True)
        .with_columns(factor=pl.lit(factor.name), unit=pl.lit(unit))
        .select(*schema_of("robustness").dtypes())
    )


def _means(rows: pl.DataFrame) -> pl.DataFrame:
    """P(C), log-odds and legal mass of each level, with the interval over units."""
    level = ("agent", "level")
    units = rows.group_by(*level, "unit", maintain_order=True).agg(
        pl.col("p_cooperate").mean(),
        mean_or_null("log_odds"),
        pl.col("legal_mass").mean(),
        n_prompts=pl.len().cast(pl.Int64),
    )
    means = units.group_by(level, maintain_order=True).agg(
        pl.col("p_cooperate").mean(),
        mean_or_null("log_odds"),
        pl.col("legal_mass").mean(),
        pl.col("n_prompts").sum(),
        n_units=pl.col("p_cooperate").count().cast(pl.Int64),
        values=pl.col("p_cooperate").drop_nulls(),
    )
    answered = means.filter(pl.col("n_units") > 0).select(*level, "values")
    bounds = with_interval(answered, "values").with_columns(pl.col("low", "high").clip(0.0, 1.0))
    return means.drop("values").join(bounds, on=level, how="left", maintain_order="left")


def _changes(rows: pl.DataFrame, factor: Factor) -> pl.DataFrame:
    """The change of each level from the reference, cell by cell, with its interval over units."""
    answered = rows.drop_nulls("p_cooperate")
    reference = answered.filter(pl.col("level") == factor.reference)
    others = answered.filter(pl.col("level") != factor.reference)
    omitted = others.select(pl.col(column).is_null() for column in factor.cell).unique()
    found = [_against(others, reference, factor.cell, nulls) for nulls in omitted.iter_rows()]
    units = (
        pl.concat(found)
        .group_by("agent", "level", "unit", maintain_order=True)
        .agg(change=(pl.col("p_cooperate") - pl.col("before")).mean())
    )
    changes = units.group_by("agent", "level", maintain_order=True).agg(
        pl.col("change").mean(), values=pl.col("change")
    )
    return with_interval(changes, "values").select(
        "agent",
        "level",
        "change",
        change_low=pl.col("low").clip(-1.0, 1.0),
        change_high=pl.col("high").clip(-1.0, 1.0),
    )


def _against(
    others: pl.DataFrame, reference: pl.DataFrame, cell: tuple[str, ...], nulls: tuple[bool, ...]
) -> pl.DataFrame:
    """Rows in which just these columns of the cell are not told, beside their reference."""
    omits = dict(zip(cell, nulls, strict=True))
    known = ["agent", *(column for column in cell if not omits[column])]
    means = reference.group_by(known).agg(before=pl.col("p_cooperate").mean())
    return (
        others.filter(pl.col(column).is_null() == null for column, null in omits.items())
        .join(means, on=known, how="inner", maintain_order="left")
        .select("agent", "level", "unit", "p_cooperate", "before")
    )
