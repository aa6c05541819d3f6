"""Which questions can these tables answer at all, and what would answer the others?

For every question that claims are made about: its unit of replication, how many of them there are,
the smallest p that they can give (``floor``), what that must lie below (``level``), and how many
units would be needed to reject at all and to find a standardised effect of 1 with 80% power:

    checkpoints       scenarios            floor 2/2^G            level alpha
    wordings          wordings             floor 2/2^W            level alpha
    sites             scenarios            floor 2/2^G            level alpha (max-T)

and those about rewards (``rewards``). Wordings are fixed effects: two or three of them are no
sample, so claims are about these wordings unless six or more were asked. Says nothing about effects
that were found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

import polars as pl

from moralscope.core.errors import EvidenceError, nearest
from moralscope.core.tables import from_rows
from moralscope.evidence.designing.question import (
    Asked,
    Question,
    count,
    reach,
    remedy,
    unknown,
)
from moralscope.evidence.designing.rewards import pairs, rewards, seeds
from moralscope.evidence.designs import trained_agents, units_to_differ_from_zero
from moralscope.evidence.gates.sites import sweep_name
from moralscope.evidence.statistics.power import units_for_power
from moralscope.evidence.units import Tables, checked

MIN_WORDINGS = 6
"""Fewest wordings of a scenario that count as a sample of wordings."""

MEASURED = ("decisions", "patching", "attribution", "norms", "attention")
"""Tables whose prompts say which scenarios there are, the first that is present."""


def _checkpoints(asked: Asked) -> Iterator[Question]:
    measured = [name for name in MEASURED if name in asked.tables]
    if not measured:
        return
    placed = asked.placed(measured[0])
    if placed is None:
        yield unknown(
            "checkpoints", "all prompts", "scenario", asked.alpha,
            "Claims about these checkpoints are replicated over scenarios, and which prompts share "
            "one is not known; give the table prompts (prompt, scenario).",
        )  # fmt: skip
        return
    family, prompts = placed
    n = prompts.get_column("scenario").n_unique()
    floor, needed = asked.floor(n), units_to_differ_from_zero(asked.alpha)
    what = (
        f"Claims about these checkpoints are replicated over {count(n, 'scenario')} (family "
        f"{family}, {count(prompts.height, 'prompt')})"
    )
    missing = _without_agents(asked)
    enough = floor < asked.alpha
    if missing:
        rest = f"; {missing}"
    elif n == 1:
        rest = "; one scenario is no replication, whatever the number of its prompts."
    else:
        rest = f", and {reach(floor, asked.alpha)}."
    power = units_for_power(1.0, asked.alpha)
    yield Question(
        "checkpoints", family, "scenario", n, floor, asked.alpha, needed, power,
        enough and not missing, f"{what}{rest}{remedy(n, needed, power, 'scenario')}",
    )  # fmt: skip


def _without_agents(asked: Asked) -> str:
    """Why nobody can be compared with anybody, as the end of a sentence; empty if they can."""
    if "agents" not in asked.tables:
        return (
            "who was trained and who is the base is not known; give the table agents (agent, "
            "base, kind, reward, training_seed)."
        )
    if not trained_agents(asked.tables["agents"]):
        return "the table agents names no trained agent, so there is no change to speak of."
    return ""


def _wordings(asked: Asked) -> Iterator[Question]:
    if "prompts" not in asked.tables:
        return
    needed = max(MIN_WORDINGS, units_to_differ_from_zero(asked.alpha))
    power = max(needed, units_for_power(1.0, asked.alpha))
    # Of each scenario: texts of their own for every scenario are no wordings of one.
    per_scenario = asked.tables["prompts"].group_by("family", "scenario", maintain_order=True)
    counted = (
        per_scenario.agg(pl.col("template").n_unique().alias("n"))
        .group_by("family", maintain_order=True)
        .agg(pl.col("n").min())
    )
    for family, n in counted.iter_rows():
        sampled = n >= needed
        of = f"of each scenario of the family {family}"
        words = (
            f"{count(n, 'wording')} {of} count as a sample of wordings: "
            f"{reach(asked.floor(n), asked.alpha)}."
            if sampled
            else f"The {'wording' if n == 1 else f'{n} wordings'} {of} "
            f"{'is a fixed effect' if n == 1 else 'are fixed effects'}: claims are about "
            f"{'it' if n == 1 else 'these wordings'}, and hold for no others."
        )
        yield Question(
            "wordings", family, "wording", n, asked.floor(n), asked.alpha, needed, power, sampled,
            f"{words}{remedy(n, needed, power, 'wording', 'be a sample of wordings')}",
        )  # fmt: skip


def _sites(asked: Asked) -> Iterator[Question]:
    """Every sweep and attribution: its sites are tested together, over scenarios."""
    if "patching" in asked.tables and (placed := asked.placed("patching")):
        by = ["source", "target", "positions", "write"]
        rows = asked.tables["patching"].filter(
            (pl.col("site") != "all") & (pl.col("source_prompt") == pl.col("prompt"))
        )
        for key, n, sites in _swept(rows, by, placed[1]):
            yield _site_question(asked, f"patching {sweep_name(*key)}", n, sites)
    for name in ("attribution", "norms"):
        if name in asked.tables and (placed := asked.placed(name)):
            rows = asked.tables[name].filter(pl.col("site") != "bias")
            for (agent,), n, sites in _swept(rows, ["agent"], placed[1]):
                yield _site_question(asked, f"{name} {agent}", n, sites)


def _swept(
    rows: pl.DataFrame, by: list[str], prompts: pl.DataFrame
) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Per group its key, scenarios and sites."""
    places = prompts.select("prompt", pl.col("scenario").alias("place"))
    counted = (
        rows.select(*by, "prompt", "site")
        .join(places, on="prompt", how="inner", maintain_order="left")
        .group_by(by, maintain_order=True)
        .agg(pl.col("place").n_unique(), pl.col("site").n_unique())
    )
    for *key, n, sites in counted.iter_rows():
        yield tuple(str(part) for part in key), n, sites


def _site_question(asked: Asked, subject: str, n: int, sites: int) -> Question:
    floor, needed = asked.floor(n), units_to_differ_from_zero(asked.alpha)
    power = max(needed, units_for_power(1.0, asked.alpha / sites))
    strong = remedy(n, needed, power, "scenario").removesuffix(".")
    return Question(
        "sites", subject, "scenario", n, floor, asked.alpha, needed, power, floor < asked.alpha,
        f"{count(sites, 'site')} of {subject} are tested together over {count(n, 'scenario')} "
        f"by their largest statistic: {reach(floor, asked.alpha)}."
        f"{strong}, corrected for {count(sites, 'site')}.",
    )  # fmt: skip


_MAKERS: Mapping[str, Callable[[Asked], Iterator[Question]]] = {
    "checkpoints": _checkpoints,
    "reward": rewards,
    "pair of rewards": pairs,
    "seeds": seeds,
    "wordings": _wordings,
    "sites": _sites,
}
QUESTIONS = tuple(_MAKERS)
"""What designs are judged for, in this order."""


def design_table(
    tables: Tables,
    *,
    alpha: float = 0.05,
    draws: int = 9_999,
    questions: Sequence[str] = QUESTIONS,
) -> pl.DataFrame:
    """What the tables can be asked, as the table ``design``.

    Args:
        tables: result tables by name, any subset of the documented ones.
        alpha: family-wise level of claims.
        draws: of the tests, where there are too many patterns to enumerate.
        questions: which of them to judge; all unless given.

    Raises:
        EvidenceError: there is no such question.
        TableError: a table does not follow its schema, or the base of an agent is ambiguous.
    """
    for name in questions:
        if name not in _MAKERS:
            raise EvidenceError(
                "Designs are not judged for this question",
                seen=name,
                allowed=", ".join(QUESTIONS),
                remedy=nearest(name, QUESTIONS),
            )
    asked = Asked(checked(tables), alpha, draws)
    return from_rows("design", [asdict(row) for name in questions for row in _MAKERS[name](asked)])
