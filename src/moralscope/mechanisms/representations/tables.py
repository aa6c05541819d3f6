"""Which rows do representations give? Separations and subspaces as tables.

Directions are looked for between agents on the same prompts, and within an agent between prompts
that differ in a property of theirs. Any two different agents can be told apart on equal prompts,
so a separation of agents says nothing by itself: two seeds of one reward are its control.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from moralscope.core.decision import Prompt
from moralscope.core.errors import EvidenceError
from moralscope.core.streams import stream
from moralscope.core.tables import from_rows
from moralscope.evidence.statistics.intervals import cluster_t
from moralscope.mechanisms.representations.directions import mean_difference
from moralscope.mechanisms.representations.probes import (
    METHODS,
    PERMUTATIONS,
    Asked,
    blocks_of,
    centred,
    probe,
)
from moralscope.mechanisms.representations.streams import Array, Streams
from moralscope.mechanisms.representations.subspaces import NOTHING, Control, Found, Readings

PROPERTIES = ("labels", "option_order", "answer_order")
"""How prompts are written, which is probed where exactly two values occur. What a prompt is about
is probed on pairs that differ in nothing else (``change_question``)."""

FRAMING, AGENTS = "framing", "agents"


@dataclass(frozen=True, eq=False)
class Question:
    """Two classes of prompts.

    Attributes:
        what: the property.
        prompts: names.
        labels: ``(n,)`` which of them are of the second class.
        units: the scenario of each.
        strata: the wording of each.
    """

    what: str
    prompts: tuple[str, ...]
    labels: NDArray[np.bool_]
    units: tuple[str, ...]
    strata: tuple[str, ...]

    def asked(self, streams: Streams) -> Asked:
        """An agent's readings at all depths."""
        return Asked(streams.of(self.prompts).values, self.labels, self.units, self.strata)

    @property
    def answerable(self) -> bool:
        """Whether there are scenarios enough to leave some out."""
        return answerable(
            Asked(np.empty((len(self.labels), 0)), self.labels, self.units, self.strata)
        )


def answerable(asked: Asked) -> bool:
    """Whether there are scenarios enough to leave some out."""
    try:
        blocks_of(asked)
    except EvidenceError:
        return False
    return True


def questions(prompts: Sequence[Prompt], properties: Sequence[str] = PROPERTIES) -> list[Question]:
    """The properties in which prompts differ two ways, in scenarios enough to leave some out.

    Properties that divide the prompts alike, as orders do where they are rotated together, are one
    question, under the name of the first.

    The second class is the one whose value is later in the alphabet: an opponent who defected, the
    later label first.
    """
    found: list[Question] = []
    for what in properties:
        values = [getattr(prompt, what) for prompt in prompts]
        kinds = sorted({str(value) for value in values})
        if None in values or len(kinds) != 2:
            continue
        labels = np.array([str(value) == kinds[1] for value in values])
        made = _question(what, prompts, labels, [prompt.template for prompt in prompts])
        alike = any((one.labels == labels).all() or (one.labels != labels).all() for one in found)
        if made.answerable and not alike:
            found.append(made)
    return found


def _question(
    what: str, prompts: Sequence[Prompt], labels: NDArray[np.bool_], strata: Sequence[str]
) -> Question:
    names = tuple(prompt.name for prompt in prompts)
    units = tuple(prompt.scenario for prompt in prompts)
    return Question(what, names, labels, units, tuple(strata))


def change_question(change: str, prompts: Sequence[Prompt]) -> Question:
    """Prompts and their counterparts under a change, which differ in nothing else.

    Every stratum holds what is the same in a prompt and its counterpart, so that no wording, label
    or order can be taken for the change.
    """
    other = "own_previous" if change == "opponent_previous" else "opponent_previous"
    labels = np.array([getattr(prompt, change) == "D" for prompt in prompts])
    strata = [
        f"{p.game} {getattr(p, other)} {p.template} {p.labels} {p.option_order} {p.answer_order} "
        f"{p.table_order}"
        for p in prompts
    ]
    return _question(change, prompts, labels, strata)


def framing_question(prompts: Sequence[Prompt], second: str) -> Question:
    """One text in two frames; the second class has the template ``second``.

    Orders and labels take the place of wordings: each of them stands in both frames.
    """
    labels = np.array([prompt.template == second for prompt in prompts])
    strata = [f"{p.labels} {p.option_order} {p.answer_order}" for p in prompts]
    return _question(FRAMING, prompts, labels, strata)


def separation_rows(
    streams: Streams,
    question: Question,
    layers: Iterable[int],
    *,
    random_model: Streams | None,
    seed: int,
    permutations: int = PERMUTATIONS,
) -> list[dict[str, object]]:
    """Rows of ``separations`` of one agent and one property of prompts."""
    control = None if random_model is None else random_model.of(question.prompts).values
    return _rows(
        (question.what, streams.agent),
        question.asked(streams),
        layers,
        control,
        seed=seed,
        permutations=permutations,
    )


def agent_separation_rows(
    first: Streams,
    second: Streams,
    prompts: Sequence[Prompt],
    layers: Iterable[int],
    *,
    seed: int,
    permutations: int = PERMUTATIONS,
) -> list[dict[str, object]]:
    """Rows of ``separations`` of two agents on the same prompts; the second is the second class."""
    return _rows(
        (AGENTS, f"{first.agent}|{second.agent}"),
        agents_asked(first, second, prompts),
        layers,
        None,
        seed=seed,
        permutations=permutations,
    )


def agents_asked(first: Streams, second: Streams, prompts: Sequence[Prompt]) -> Asked:
    """The readings of two agents on the same prompts, those of the second the second class."""
    names = [prompt.name for prompt in prompts]
    return Asked(
        np.concatenate([first.of(names).values, second.of(names).values]),
        np.repeat([False, True], len(names)),
        tuple(prompt.scenario for prompt in prompts) * 2,
        # Every prompt is its own wording here: both agents were asked it.
        tuple(names) * 2,
    )


def _at(asked: Asked, depth: int) -> Asked:
    return replace(asked, values=asked.values[:, depth])


def _rows(
    about: tuple[str, str],
    asked: Asked,
    layers: Iterable[int],
    control: Array | None,
    *,
    seed: int,
    permutations: int,
) -> list[dict[str, object]]:
    """Rows of readings ``(n, depths, width)``, beside those of a model with random weights."""
    rows: list[dict[str, object]] = []
    blocks = blocks_of(asked)
    for layer in layers:
        here = _at(asked, layer + 1)
        length = float(np.linalg.norm(mean_difference(centred(here, blocks), asked.labels)))
        for method in METHODS:
            rng = stream(seed, "separations", *about, layer, method)
            own = probe(here, method, rng, permutations)
            untrained = None
            if control is not None:
                there = _at(replace(asked, values=control), layer + 1)
                untrained = probe(there, method, rng, 0).accuracy
            rows.append({
                "what": about[0], "subject": about[1], "layer": layer, "method": method,
                "accuracy": own.accuracy, "auc": own.auc, "chance": own.chance,
                "chance_low": own.low, "chance_high": own.high, "null_p": own.p,
                "n_null": permutations, "permuted": own.permuted, "random_model": untrained,
                "direction": length, "n": len(set(asked.units)), "n_prompts": len(asked.labels),
            })  # fmt: skip
    return rows


def subspace_tables(
    agent: str, readings: Readings, found: Sequence[Found]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables ``subspace_effects`` and ``subspaces`` of one search over layers.

    Args:
        agent: whose streams were exchanged.
        readings: what went in.
        found: by layer.
    """
    effects: list[dict[str, object]] = []
    summary: list[dict[str, object]] = []
    who = {"what": readings.what, "source": readings.source, "agent": agent}
    for one in found:
        for (k, control, draw), values in one.effects.items():
            at: dict[str, object] = {
                **who, "layer": one.layer, "dimension": k, "control": control,
            }  # fmt: skip
            effects += [
                {
                    **at, "draw": draw, "prompt": readings.prompts[i],
                    "source_prompt": readings.source_prompts[i],
                    "split": "train" if one.train[i] else "test",
                    "full_effect": float(one.full[i]),
                    "wanted": float(one.wanted[control, draw][i]),
                    "effect": float(values[i]),
                }
                for i in range(len(values))
            ]  # fmt: skip
        tried: list[tuple[int, Control]] = [(k, control) for k, control, _ in one.effects]
        for k, control in dict.fromkeys(tried):
            at = {**who, "layer": one.layer, "dimension": k, "control": control}
            summary += [{**at, **_share(one, readings.units, k, control, s)} for s in (True, False)]
    return from_rows("subspace_effects", effects), from_rows("subspaces", summary)


def _share(
    found: Found, units: Sequence[str], k: int, control: Control, train: bool
) -> dict[str, object]:
    """Share of the wanted change that is reached, with its interval over scenarios."""
    draws = [draw for d, c, draw in found.effects if (d, c) == (k, control)]
    wanted = [found.wanted[control, draw] for draw in draws]
    reached = np.mean(
        [w * found.effects[k, control, d] for w, d in zip(wanted, draws, strict=True)], 0
    )
    # Signs aside, all draws want the same.
    squares = wanted[0] ** 2
    top: dict[str, list[float]] = {}
    bottom: dict[str, list[float]] = {}
    for at, unit in enumerate(units):
        if bool(found.train[at]) == train:
            top.setdefault(unit, []).append(float(reached[at]))
            bottom.setdefault(unit, []).append(float(squares[at]))
    over, under = (np.array([np.mean(v) for v in side.values()]) for side in (top, bottom))
    size = float(np.sqrt(under.mean()))
    row: dict[str, object] = {
        "split": "train" if train else "test", "full_effect": size, "n": len(under),
    }  # fmt: skip
    if size <= NOTHING:
        return row
    share = float(over.sum() / under.sum())
    # A ratio of means varies as the means of its residuals do.
    interval = cluster_t(share + (over - share * under) / under.mean())
    ends = {} if interval is None else {"low": interval[0], "high": interval[1]}
    return {**row, "interchange_effect": share, **ends}


def readings_of(
    what: str,
    source: Streams,
    pairs: Mapping[int, tuple[str, str]],
    scenarios: Mapping[str, str],
) -> Readings:
    """What a search exchanges: an agent's prompts, and the source's streams on theirs.

    Args:
        what: what differs.
        source: streams of the source, on all source prompts.
        pairs: by index in the agent's clean run, the agent's prompt and that of the source.
        scenarios: of all of them.
    """
    prompts, source_prompts = ([pair[side] for pair in pairs.values()] for side in (0, 1))
    units = tuple(scenarios[prompt] for prompt in prompts)
    others = tuple(scenarios[prompt] for prompt in source_prompts)
    return Readings(
        what,
        source.agent,
        tuple(pairs),
        tuple(prompts),
        tuple(source_prompts),
        units,
        _blocks(units, others),
        torch.as_tensor(source.of(source_prompts).values),
    )


def _blocks(units: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """For each pair of scenarios the first one that it is joined to, through any chain of pairs."""
    leader = {name: name for name in (*units, *others)}

    def first(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for one, other in zip(units, others, strict=True):
        a, b = sorted((first(one), first(other)))
        leader[b] = a
    return tuple(first(unit) for unit in units)
