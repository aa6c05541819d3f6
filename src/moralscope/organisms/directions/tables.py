"""What goes into the tables? Rows of directions, effects and convergence, each of one layer or try.

Rows follow the schemas ``answer_directions``, ``direction_interventions`` and
``direction_convergence``. Layers count from 0: the stream after that decoder layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from moralscope.organisms.directions.converging import Convergence
from moralscope.organisms.directions.effects import Effect
from moralscope.organisms.directions.means import AnswerDirection, DirectionEvidence
from moralscope.organisms.directions.transfer import Transfer

Row = dict[str, object]


def direction_rows(what: str, direction: AnswerDirection, evidence: DirectionEvidence) -> list[Row]:
    """Rows of ``answer_directions`` of one direction, a layer each."""
    matched, split = direction.matched, evidence.split_half
    return [
        {
            "what": what,
            "agent": direction.agent,
            "weighting": direction.weighting,
            "over": direction.over,
            "layer": layer,
            "length": float(evidence.length[layer]),
            "relative": float(direction.relative[layer]),
            "null_length": float(evidence.null_length[layer]),
            "null_high": float(evidence.null_high[layer]),
            "p": float(evidence.p[layer]),
            "p_adjusted": float(evidence.p_adjusted[layer]),
            "floor": evidence.floor,
            "split_half": None if split is None else float(split[layer]),
            "pairs": len(matched.questions),
            "left_positive": matched.left_positive,
            "left_negative": matched.left_negative,
            "length_ratio": matched.ratio,
            "n": evidence.questions,
        }
        for layer in range(len(direction.vectors))
    ]


def effect_rows(what: str, source: str, moved: Transfer) -> list[Row]:
    """Rows of ``direction_interventions`` of one organism, an intervention each.

    Args:
        what: what the direction tells apart.
        source: whose streams it was found in.
        moved: what it does in this organism.
    """
    rows: list[Row] = []
    for effect, undone in zip(moved.effects, moved.undone, strict=True):
        rows.append(
            {
                "what": what,
                "source": source,
                "agent": moved.agent,
                **_effect(effect),
                "shift": float(moved.shift.mean()),
                "undone": None if undone is None else undone.share,
                "undone_low": None if undone is None else undone.low,
                "undone_high": None if undone is None else undone.high,
            }
        )
    return rows


def _effect(effect: Effect) -> Row:
    done, interval = effect.tried.intervention, effect.interval
    return {
        "intervention": done.name,
        "way": done.way,
        "layer": done.layer,
        "coefficient": done.coefficient,
        "effect": effect.mean,
        "low": None if interval is None else interval[0],
        "high": None if interval is None else interval[1],
        "p": effect.p,
        "p_adjusted": effect.p_adjusted,
        "floor": effect.floor,
        "random_high": effect.random_high,
        "random_p": effect.random_p,
        "n_random": len(effect.tried.random),
        "style": effect.style_mean,
        "beyond_style": effect.beyond_style,
        "beyond_style_p": effect.beyond_style_p,
        "n": effect.questions,
    }


def convergence_rows(what: str, found: Sequence[Convergence]) -> list[Row]:
    """Rows of ``direction_convergence`` of pairs of organisms, a layer each."""
    return [
        {
            "what": what,
            "agent_a": one.first,
            "agent_b": one.second,
            "layer": layer,
            "cosine": float(one.cosine[layer]),
            "halves": one.halves,
            "null_mean": float(one.null_mean[layer]),
            "null_high": float(one.null_high[layer]),
            "p": float(one.p[layer]),
            "p_adjusted": float(one.p_adjusted[layer]),
            "floor": one.floor,
            "shared_answers": one.shared_answers,
            "n": one.texts,
        }
        for one in found
        for layer in range(len(one.cosine))
    ]
