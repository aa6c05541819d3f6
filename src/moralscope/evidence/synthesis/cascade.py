"""Where do differences lie, between the noise floor and what fine-tuning does? The table cascade.

One row per measure and pair of agents, and per measure and pair of rewards. Every row says what its
answer rests on, or what is missing. Sources: the jackknife, Efron and Tibshirani 1993; max-T,
Westfall and Young 1993; relabelling of distances, Anderson 2001.
"""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from moralscope.core.tables import from_rows
from moralscope.evidence.pairs import Pair
from moralscope.evidence.synthesis.comparing import questions_of
from moralscope.evidence.synthesis.distances import Distances
from moralscope.evidence.synthesis.outcomes import (
    AS_LARGE,
    BETWEEN,
    INDISTINGUISHABLE,
    Outcome,
    outcomes,
)
from moralscope.evidence.synthesis.scale import NUMERICAL, SEEDS, Scale, Study, scale_for, study_of
from moralscope.evidence.units import Tables

Row = dict[str, object]


def cascade_table(
    tables: Tables, *, seed: int = 0, draws: int = 9_999, alpha: float = 0.05
) -> pl.DataFrame:
    """How far apart what a study compares lies, at every level that its tables have.

    Args:
        tables: checked result tables; ``comparisons``, or else ``agents``, says who is compared.
        seed: of random reassignments of rewards to seeds.
        draws: how many, where there are more than 20,000.
        alpha: level of the answers about rewards.

    Returns:
        The table ``cascade``; no rows where nothing is compared or nothing was measured.

    Raises:
        TableError: agents that are compared were measured on different prompts or sites.
    """
    return cascade_of(study_of(tables), seed=seed, draws=draws, alpha=alpha)


def cascade_of(study: Study, *, seed: int, draws: int, alpha: float) -> pl.DataFrame:
    """The table from distances that are there already; arguments as above."""
    rows: list[Row] = []
    for question in questions_of(study.tables):
        for found in outcomes(study, question, alpha=alpha, seed=seed, draws=draws):
            rows += _rewards(found, alpha) if question.rewards else [_agents(study, found, alpha)]
            if question.rewards:
                rows += _members(study, found)
    rows += [row for pair in study.pairs if pair.kind != "named" for row in _ends(study, pair)]
    order = {id(measured): index for index, measured in enumerate(study.measured)}
    names = {(m.level, m.measure): order[id(m)] for m in study.measured}
    rows.sort(key=lambda row: names[str(row["level"]), str(row["measure"])])
    return from_rows("cascade", rows)


def _agents(study: Study, found: Outcome, alpha: float) -> Row:
    pair = found.question.pairs[0]
    answer = found.answer(alpha)
    return _row(found.measured, pair, found.scale, found.distance.whole) | {
        "relative": found.relative,
        **_interval(found),
        "answer": answer,
        "reason": _reason_of_agents(found, answer) + _one_seed(study, pair),
    }


def _rewards(found: Outcome, alpha: float) -> list[Row]:
    rewards = found.question.rewards or ("", "")
    answer = found.answer(alpha)
    named = Pair(found.question.name, "named", *rewards)
    row = _row(found.measured, named, found.scale, found.distance.whole)
    return [
        row
        | {
            "kind": "rewards",
            "relative": found.relative,
            **_interval(found),
            "n_units": found.n,
            "replicate": found.replicate,
            "p_adjusted": found.p_adjusted,
            "answer": answer,
            "reason": _reason_of_rewards(found, answer),
        }
    ]


def _members(study: Study, found: Outcome) -> Iterator[Row]:
    """The single pairs that a comparison of rewards is made of."""
    for pair in found.question.pairs:
        apart = found.measured.between(*pair.agents)
        if apart is None:
            continue
        scale = scale_for(study, found.measured, pair.agents)
        interval = scale.interval(apart)
        yield _row(found.measured, pair, scale, apart.whole) | {
            "relative": scale.relative(apart.whole),
            "low": None if interval is None else interval[0],
            "high": None if interval is None else interval[1],
            "answer": None,
            "reason": f"One of the pairs that the comparison of {found.question.between} rests on.",
        }


def _ends(study: Study, pair: Pair) -> Iterator[Row]:
    """Pairs of seeds, and of a base with an agent, on the scale that they make up."""
    said = {
        "base": "The base and a fine-tune: the upper end of the scale is the mean over those that "
        "a comparison is about.",
        "replicate": "Two training runs of one reward: the lower end of the scale is their median.",
    }
    for measured in study.measured:
        found = measured.between(*pair.agents)
        if pair.kind == "base":
            found = found or measured.from_base(*pair.agents)
        if found is None:
            continue
        scale = scale_for(study, measured, pair.agents)
        interval = scale.interval(found)
        yield _row(measured, pair, scale, found.whole) | {
            "relative": scale.relative(found.whole),
            "low": None if interval is None else interval[0],
            "high": None if interval is None else interval[1],
            "answer": None,
            "reason": said[pair.kind],
        }


def _row(measured: Distances, pair: Pair, scale: Scale, distance: float) -> Row:
    return {
        "level": measured.level,
        "measure": measured.measure,
        "comparison": pair.comparison,
        "kind": pair.kind,
        "agent_a": pair.first,
        "agent_b": pair.second,
        "distance": distance,
        "unit": measured.unit,
        "floor": None if scale.floor is None else scale.floor.whole,
        "floor_kind": scale.kind,
        "floor_high": scale.highest,
        "control": None if scale.control is None else scale.control.whole,
        "n_units": measured.n,
        "replicate": measured.replicate,
        "p_adjusted": None,
    }


def _interval(found: Outcome) -> Row:
    low, high = found.interval or (None, None)
    return {"low": low, "high": high}


def _reason_of_agents(found: Outcome, answer: str | None) -> str:
    if answer is None:
        return no_scale(found.scale)
    if answer == INDISTINGUISHABLE:
        return (
            "These two agents lie no further apart than two seeds of one reward do."
            if found.distance.whole <= (found.scale.highest or 0.0)
            else "The interval over scenarios reaches down to the distance of two seeds."
        )
    if answer == AS_LARGE:
        far = "as far apart as fine-tuning moves an agent, or that is within the interval"
    elif _reaches(found):
        far = "further apart than any two seeds; the interval leaves open how far"
    else:
        far = "further apart than any two seeds, less far than fine-tuning moves an agent"
    return f"These two agents lie {far}. With two agents, that is said of them alone."


def _reaches(found: Outcome) -> bool:
    """Whether the interval reaches the upper end of the scale."""
    return found.interval is not None and found.interval[1] >= 1.0


def _reason_of_rewards(found: Outcome, answer: str | None) -> str:
    if answer is None:
        if found.missing is not None:
            return f"Not identified by this design: {found.missing}"
        if found.test is None:
            return "Not tested: the claims rest on the first measure of each level."
        p = f"p = {found.p_adjusted:.2g} over the levels"
        return f"{no_scale(found.scale)} Relabelling the seeds gives {p}."
    p = f"p = {found.p_adjusted:.2g} over the levels"
    if answer == INDISTINGUISHABLE:
        return f"Relabelling the seeds gives as large a difference too often ({p})."
    if answer == BETWEEN and _reaches(found):
        ends = "is too wide to tell how far"
    else:
        ends = f"{'reaches' if answer == AS_LARGE else 'stays below'} the distance of the base"
        ends += " from them"
    return (
        f"Agents of the two rewards lie further apart than seeds of one ({p}), and the interval "
        f"{ends}."
    )


def _one_seed(study: Study, pair: Pair) -> str:
    """What a shared start does to a distance; empty where it is not known to be shared."""
    seeds = [study.known[name].seed for name in pair.agents if name in study.known]
    if len(seeds) < 2 or seeds[0] is None or seeds[0] != seeds[1]:
        return ""
    return (
        " Both began from the same seed, so they may lie closer than two seeds do, whatever they "
        "were trained for."
    )


def no_scale(scale: Scale) -> str:
    """Why there is no answer on the common scale."""
    if scale.kind == NUMERICAL:
        return (
            "Not identified by this design: no reward has two training seeds here, so that 0 is "
            "only the rounding of another number format; train a second seed."
        )
    if scale.kind != SEEDS:
        return (
            "Not identified by this design: no two training seeds of one reward were compared at "
            "this level, so there is no noise floor; train a second seed, or measure it here too."
        )
    if scale.control is None:
        return (
            "Not identified by this design: the base was not measured here, so there is no "
            "positive control."
        )
    return (
        "Not identified by this design: fine-tuning moves these agents no further from the base "
        "than two seeds lie apart, so the scale has no upper end."
    )
