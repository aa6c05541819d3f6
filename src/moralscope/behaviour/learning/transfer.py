"""Label, layout, order or move? The change from base, under every control that tells them apart.

An agent that is rewarded for defecting can learn four things that its training prompts do not
tell apart: to *say a label* ("action2"), to pick a *place in the payoff table* (the second row), to
take the move that is *mentioned first* (or second) in a text, or to *make the move*. The same
change from base is therefore measured under five conditions:

- ``trained``: the wordings, label assignments and table orders of training;
- ``swapped_labels``: the same with the two action labels exchanged, where that assignment was
  not trained on;
- ``exchanged_rows``: the same with the payoff table's rows, columns or both exchanged;
- ``new_wording``: wordings never trained on, under each assignment of the trained labels;
- ``mirrored_wording``: the mirror of a trained or of a new wording, never trained on: the same
  text with the two moves in each other's place (``games.asking.wording.mirrored``).

``change = mean over states of (mean over orders of (log-odds of agent - log-odds of base))``,
with the log-odds of *defecting*, whatever defecting is called and wherever it stands. What was
learned as a label changes sign when labels are swapped, what was learned as a row when rows are
exchanged, what was learned as an order of mention in a mirror, what was learned as a move never.
An agent trained under both assignments has no untrained swap: its ``trained`` rows under the two
assignments are the label control; and so it is with a wording trained on beside its mirror.

What it does not do: the 95% t interval is over the memory-one states (four in one game). They are
all the states there are, not a sample, so the interval says whether the change is consistent over
states; an agent that moves some states up and others down comes out as unclear here, and
``transfer_states`` looks at its states one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from moralscope.behaviour.joining import join_prompts, with_interval, with_memory
from moralscope.behaviour.learning.training_sets import TrainedOn, swap_labels, trained_on
from moralscope.core.errors import AgentError, TableError, nearest
from moralscope.core.tables import conform, schema_of
from moralscope.games.asking.wording import MIRROR_SUFFIX

__all__ = [
    "CONTROLS",
    "NOISE_FLOOR",
    "WORDING_FAMILIES",
    "TrainedOn",
    "clear_sign",
    "controlled_changes",
    "mirror_of",
    "swap_labels",
    "trained_on",
    "transfer_table",
]

CONTROLS = ("trained", "swapped_labels", "exchanged_rows", "new_wording", "mirrored_wording")
"""The conditions, in the order in which tables and sentences have them."""

NOISE_FLOOR = 1e-4
"""Nats. Two scorings in float32 may differ by 5e-5 each from exact ones; an interval that comes
closer to zero than their difference can is not off zero."""

WORDING_FAMILIES = ("structured", "wordings")
"""Families that word the memory-one game, and so can hold wordings never trained on."""

_CELL = ("family", "template", "labels", "table_order")


def transfer_table(
    prompts: pl.DataFrame,
    decisions: pl.DataFrame,
    agents: pl.DataFrame,
    trained: Mapping[str, TrainedOn],
) -> pl.DataFrame:
    """How does each agent's change from base fare under each control?

    Args:
        prompts: a ``prompts`` table.
        decisions: a ``decisions`` table with the trained agents and their bases.
        agents: an ``agents`` table; an agent's base is the agent of kind ``base`` on the same
            base model.
        trained: for each agent to examine, what it was trained on. Agents that are not named
            (the base, scripted policies) are left out.

    Returns:
        A ``transfer`` table. ``change_log_odds`` and its interval are in nats towards defecting,
        ``n_states`` the number of states they are over, ``p_defect`` and ``legal_mass`` the
        agent's own, in [0, 1]. ``keeps_sign`` compares with the strongest of the agent's
        ``trained`` rows whose interval is off zero by ``NOISE_FLOOR``: true or false where the
        row's own interval is off zero as well, else null.

    Raises:
        TableError: the tables break their schemas or do not belong together, an agent or its
            base has no log-odds on a prompt, or none of the prompts was trained on.
        AgentError: an agent or its base is not in the table ``agents``.
    """
    parts = [
        _transfer_of(changes, what)
        for what, changes in controlled_changes(prompts, decisions, agents, trained)
    ]
    if not parts:
        return pl.DataFrame(schema=schema_of("transfer").dtypes())
    return conform("transfer", pl.concat(parts))


def controlled_changes(
    prompts: pl.DataFrame,
    decisions: pl.DataFrame,
    agents: pl.DataFrame,
    trained: Mapping[str, TrainedOn],
) -> Iterator[tuple[TrainedOn, pl.DataFrame]]:
    """Each agent's change from base on every prompt that belongs to a control.

    Args:
        prompts: a ``prompts`` table.
        decisions: a ``decisions`` table with the trained agents and their bases.
        agents: an ``agents`` table.
        trained: what each agent to examine was trained on, as for ``transfer_table``.

    Yields:
        The training, and the agent's decisions joined with their prompts, with ``control`` (one of
        ``CONTROLS``) and ``change``, nats towards defecting.

    Raises:
        TableError, AgentError: as for ``transfer_table``.
    """
    joined = with_memory(join_prompts(prompts, decisions))
    listed = conform("agents", agents)
    for agent, what in trained.items():
        changes = (
            _changes(joined, agent, _base_of(listed, agent))
            .with_columns(control=_control(what))
            .drop_nulls("control")
        )
        trained_there = changes.filter(pl.col("control") == "trained")
        if trained_there.get_column("change").count() == 0:
            raise TableError(
                f"No decision of agent {agent!r} is on a prompt that it was trained on",
                seen=what,
                allowed="decisions, with a legal answer, on its training prompts: the change there "
                "is what the controls are compared with",
                remedy="evaluate the agent on its training prompts too",
            )
        yield what, changes


def _transfer_of(changes: pl.DataFrame, what: TrainedOn) -> pl.DataFrame:
    rows = _summarise(changes)
    return rows.with_columns(
        keeps_sign=_keeps_sign(rows), training_known=pl.lit(what.known)
    ).select(*schema_of("transfer").dtypes())


def _base_of(agents: pl.DataFrame, agent: str) -> str:
    names = agents.get_column("agent").to_list()
    if agent not in names:
        raise AgentError(
            "An agent is not in the table 'agents'",
            seen=agent,
            allowed=", ".join(names),
            remedy=nearest(agent, names),
        )
    model = agents.filter(pl.col("agent") == agent).get_column("base")[0]
    bases = agents.filter(pl.col("kind") == "base", pl.col("base") == model)
    if bases.is_empty():
        raise AgentError(
            f"The base of agent {agent!r} was not evaluated",
            seen=f"no agent of kind base on {model}",
            allowed="the base model among the agents: a change is a change from it",
            remedy="add the base to the study's agents",
        )
    return str(bases.get_column("agent")[0])


def _changes(joined: pl.DataFrame, agent: str, base: str) -> pl.DataFrame:
    """The agent's rows with ``change``, its log-odds minus the base's on the same prompt.

    Null where one of them has no legal answer at all.
    """
    silent = pl.col("legal_mass") == 0.0
    reference = joined.filter(pl.col("agent") == base).select(
        "prompt", before="log_odds", base_silent=silent
    )
    paired = joined.filter(pl.col("agent") == agent).join(
        reference, on="prompt", how="left", maintain_order="left"
    )
    changes = paired.with_columns(change=pl.col("log_odds") - pl.col("before"))
    lacking = pl.col("change").is_null() & ~silent & ~pl.col("base_silent").fill_null(value=False)
    undefined = changes.filter(lacking)
    if undefined.height:
        row = undefined.row(0, named=True)
        named = agent if row["log_odds"] is None else base
        raise TableError(
            f"Agent {named!r} has no log-odds on a prompt",
            seen=row["prompt"],
            allowed="log-odds of the agent and of its base on every prompt that is compared; "
            "scripted policies have none",
            remedy="evaluate both on the same prompts, or leave the agent out",
        )
    return changes


def _control(what: TrainedOn) -> pl.Expr:
    """Which condition a prompt belongs to; null for those that belong to none."""
    swapped = [swap_labels(labels) for labels in what.labels]
    untrained_swaps = [labels for labels in swapped if labels not in what.labels]
    in_game = pl.col("game").is_in(what.games)
    same_wording = pl.col("family").is_in(what.families) & pl.col("template").is_in(what.templates)
    same_labels = pl.col("labels").is_in(what.labels)
    same_order = pl.col("table_order").is_in(what.table_orders)
    mirrors = pl.col("template").is_in([mirror_of(template) for template in what.templates])
    mirrored = mirrors | pl.col("template").str.ends_with(MIRROR_SUFFIX)
    worded = pl.col("family").is_in([*what.families, *WORDING_FAMILIES])
    return (
        pl.when(in_game & same_wording & same_labels & same_order)
        .then(pl.lit("trained"))
        .when(in_game & same_wording & same_order & pl.col("labels").is_in(untrained_swaps))
        .then(pl.lit("swapped_labels"))
        .when(in_game & same_wording & same_labels & (pl.col("table_order") != "none"))
        .then(pl.lit("exchanged_rows"))
        .when(in_game & worded & ~same_wording & pl.col("labels").is_in([*what.labels, *swapped]))
        .then(pl.when(mirrored).then(pl.lit("mirrored_wording")).otherwise(pl.lit("new_wording")))
    )


def mirror_of(template: str) -> str:
    """The name of the wording in which the two moves stand in each other's place.

    >>> mirror_of("rounds"), mirror_of("rounds-mirrored")
    ('rounds-mirrored', 'rounds')
    """
    if template.endswith(MIRROR_SUFFIX):
        return template.removesuffix(MIRROR_SUFFIX)
    return template + MIRROR_SUFFIX


def _summarise(changes: pl.DataFrame) -> pl.DataFrame:
    """Means over orders within states, then over states with their t interval.

    A prompt without any legal answer has no change and no part in it, but in the legal mass.
    """
    cell = ["agent", "control", *_CELL]
    states = changes.group_by(*cell, "game", "scenario", maintain_order=True).agg(
        pl.col("change").mean(),
        pl.col("p_positive_given_legal").mean(),
        pl.col("legal_mass").mean(),
    )
    rows = states.group_by(cell, maintain_order=True).agg(
        change_log_odds=pl.col("change").mean(),
        p_defect=pl.col("p_positive_given_legal").mean(),
        legal_mass=pl.col("legal_mass").mean(),
        n_states=pl.col("change").count().cast(pl.Int64),
        units=pl.col("change").drop_nulls(),
    )
    in_order = pl.col("control").cast(pl.Enum(CONTROLS))
    kept = rows.drop_nulls("change_log_odds")
    return with_interval(kept, "units").sort(in_order, maintain_order=True)


def clear_sign() -> pl.Expr:
    """``sign``: +1 or -1 where the interval is off zero by the noise floor, else null."""
    return (
        pl.when(pl.col("low") > NOISE_FLOOR)
        .then(1)
        .when(pl.col("high") < -NOISE_FLOOR)
        .then(-1)
        .alias("sign")
    )


def _keeps_sign(rows: pl.DataFrame) -> pl.Series:
    """Whether each row's change has the sign of the strongest trained one; null if unclear."""
    signed = rows.with_columns(clear_sign())
    clear = signed.filter(pl.col("control") == "trained", pl.col("sign").is_not_null())
    if clear.is_empty():
        return pl.Series([None] * rows.height, dtype=pl.Boolean)
    strongest = clear.sort(pl.col("change_log_odds").abs(), descending=True, maintain_order=True)
    return signed.get_column("sign") == strongest.get_column("sign")[0]
