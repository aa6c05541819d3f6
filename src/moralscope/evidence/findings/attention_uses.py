"""Is what an agent looks at used? The decision without attention to a category.

``e`` is the change of the log-odds when attention from the answer span to a category is masked
(``attention_edits``), ``r`` the same for as many tokens drawn at random from the rest. Per prompt

    excess = |e| - mean over the draws of |r|,

its mean over the prompts of a scenario is the unit. Sizes, because what a category does may depend
on what it says: an agent that answers in kind is moved up by one last move of the other and down by
the other. The control takes off what losing that many tokens does by itself.

*uses:AGENT:CATEGORY*: is the excess above zero? *uses:A:B:CATEGORY*: does it differ between the
agents of a pair? Sign-flips of scenarios, max-T over all agents and categories, or all categories
of all pairs of a kind. Where an equivalence margin applies (10% of the base's log-odds unless
given), a category without effect is *equivalent* to random tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.core.errors import TableError
from moralscope.evidence.findings.attention import KINDS, RESOLVED, pairs_with_base_last
from moralscope.evidence.findings.attention_queries import mask_excess, mask_excess_difference
from moralscope.evidence.findings.columns import Column, column_findings, untold
from moralscope.evidence.findings.queries import NOTHING
from moralscope.evidence.ledger import (
    Consulted,
    Finding,
    Setting,
    consult,
    noise_floor,
    signed,
    size,
)
from moralscope.evidence.statistics.equivalence import default_margin
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.units import inference_family, on_family

ALL_LAYERS = "all"


@dataclass(frozen=True, eq=False)
class Used:
    """What masking one category does to one agent.

    Attributes:
        scenarios: the G units, sorted.
        excess: (G,) nats; empty where ``missing``.
        size, random: mean size of the effect, and of that of random tokens, nats.
        effect: mean effect with its sign, nats. All three NaN where ``missing``.
        missing: why there is no excess; None where there is.
    """

    scenarios: tuple[str, ...]
    excess: Array
    size: float
    random: float
    effect: float
    missing: str | None


@dataclass(frozen=True, eq=False)
class Uses:
    """What masking does, at one choice of layers.

    Attributes:
        family: of the prompts.
        layers: at which layers attention was altered, as the table has it.
        of: by agent and category.
        margin: of equivalence, nats; 0 for none.
    """

    family: str
    layers: str
    of: Mapping[tuple[str, str], Used]
    margin: float

    def name(self, *parts: str) -> str:
        """Id of a claim; the usual layers go without saying."""
        return ":".join(("uses", *parts, *(() if self.layers == ALL_LAYERS else (self.layers,))))


def attention_use_findings(setting: Setting) -> Iterator[Finding]:
    """Per agent and category its use, then the differences between agents that are compared.

    Raises:
        TableError: agents were masked on different scenarios.
    """
    if not setting.has("prompts", "attention_edits"):
        return
    edits = setting.tables["attention_edits"].filter(pl.col("how") == "mask")
    family = inference_family(setting.tables["prompts"], edits.get_column("prompt"))
    if family is None:
        return
    placed = on_family(edits, setting.tables["prompts"], family)
    for (layers,), rows in placed.group_by("layers", maintain_order=True):
        uses = Uses(family, str(layers), masked(rows), _margin(setting, family))
        _same_scenarios(uses)
        yield from _of_agents(setting, uses)
        yield from _between_agents(setting, uses)


def masked(rows: pl.DataFrame) -> dict[tuple[str, str], Used]:
    """What masking does, by agent and category.

    Args:
        rows: masks of ``attention_edits`` at one choice of layers, with ``scenario``.
    """
    asked = dict(rows.group_by("agent").agg(pl.col("prompt").n_unique()).iter_rows())
    placed = rows.sort("scenario", "prompt", "draw")
    return {
        (str(agent), str(category)): _used(part, int(asked[agent]))
        for (agent, category), part in placed.group_by("agent", "category", maintain_order=True)
    }


def _used(part: pl.DataFrame, total: int) -> Used:
    """One agent and category, its rows sorted by scenario, prompt and draw."""
    own: dict[tuple[str, str], float] = {}
    drawn: dict[tuple[str, str], list[float]] = {}
    for scenario, prompt, draw, effect in part.select(
        "scenario", "prompt", "draw", "effect"
    ).iter_rows():
        if draw < 0:
            own[scenario, prompt] = effect
        else:
            drawn.setdefault((scenario, prompt), []).append(abs(effect))
    both = [key for key in own if key in drawn]
    if len(both) < total:
        missing = _missing(len(own), len(both), total)
        return Used((), np.empty(0), math.nan, math.nan, math.nan, missing)
    # Scenario by scenario: size of the effect, of that of random tokens, and the effect.
    means = {
        scenario: np.array([
            (abs(own[key]), math.fsum(drawn[key]) / len(drawn[key]), own[key])
            for key in both
            if key[0] == scenario
        ]).mean(axis=0)
        for scenario in dict.fromkeys(scenario for scenario, _ in both)
    }  # fmt: skip
    table = np.array(list(means.values()))
    sizes, random, effects = (float(mean) for mean in table.mean(axis=0))
    return Used(tuple(means), table[:, 0] - table[:, 1], sizes, random, effects, None)


def _missing(named: int, controlled: int, total: int) -> str:
    if named < total:
        return f"only {named} of {total} prompts name it; mask it on prompts that all do."
    return (
        f"on {named - controlled} of {total} prompts there is no control, because the rest of the "
        "prompt has fewer tokens than the category or nothing was drawn; ask in longer texts, or "
        "draw random tokens as well."
    )


def _same_scenarios(uses: Uses) -> None:
    told = {key: used for key, used in uses.of.items() if used.missing is None}
    names = {used.scenarios: key for key, used in told.items()}
    if len(names) > 1:
        (one, first), (other, second) = list(names.items())[:2]
        raise TableError(
            f"Attention of {first[0]!r} and {second[0]!r} was not masked on the same scenarios",
            seen=f"{len(set(one) ^ set(other))} scenarios of one alone",
            allowed="the same prompts for all agents",
            remedy="mask all agents on the same prompts",
        )


def _margin(setting: Setting, family: str) -> float:
    """The margin of equivalence for an effect on log-odds; 0 where no base was measured."""
    if setting.margin is not None:
        return setting.margin
    if not setting.has("agents", "decisions"):
        return 0.0
    agents = setting.tables["agents"]
    bases = agents.filter(pl.col("kind") == "base").get_column("agent").to_list()
    rows = on_family(setting.tables["decisions"], setting.tables["prompts"], family)
    values = rows.filter(pl.col("agent").is_in(bases)).get_column("log_odds").drop_nulls()
    return default_margin(values.to_numpy().astype(np.float64)) if len(values) else 0.0


def _consult(setting: Setting, agents: Sequence[str]) -> Consulted:
    return consult(
        setting,
        agents,
        gates=[
            *(("noise floor", f"self-patch {agent}") for agent in agents),
            ("duplicates", "scenarios"),
        ],
        shown=[("dead channel", agent) for agent in agents],
    )


def _of_agents(setting: Setting, uses: Uses) -> Iterator[Finding]:
    columns: list[Column] = []
    for (agent, category), used in uses.of.items():
        name = uses.name(agent, category)
        consulted = _consult(setting, (agent,))
        if used.missing is not None:
            words = f"Whether {agent} uses what it sees of {category} is not known."
            yield untold(name, words, used.missing, consulted, NOTHING)
            continue
        asserted = (
            f"{agent} uses what it sees of {category}: masking it moves the decision further than"
            if used.excess.mean() > 0.0
            else f"Masking what {agent} sees of {category} moves the decision less far than"
        )
        columns.append(
            Column(
                id=name,
                found=f"{asserted} masking random tokens, by",
                observed=f"Masking what {agent} sees of {category} moves the decision, compared "
                "with masking random tokens, by",
                more=f"; mean size {size(used.size)} against {size(used.random)} nats, mean effect "
                f"{signed(used.effect)}",
                values=used.excess,
                query=mask_excess(agent, category, uses.layers, uses.family),
                consulted=consulted,
                margin=uses.margin,
                noise=max(RESOLVED, noise_floor(setting, [agent])),
            )
        )
    family = f"{len(columns)} agents and categories"
    yield from column_findings(setting, f"uses {uses.layers}", columns, family)


def _between_agents(setting: Setting, uses: Uses) -> Iterator[Finding]:
    agents = list(dict.fromkeys(agent for agent, _ in uses.of))
    categories = list(dict.fromkeys(category for _, category in uses.of))
    pairs = pairs_with_base_last(setting, agents)
    for kind in KINDS:
        alike = [pair.agents for pair in pairs if pair.kind == kind]
        columns = [
            _difference(setting, uses, pair, category)
            for pair in alike
            for category in categories
            if all((a, category) in uses.of and uses.of[a, category].missing is None for a in pair)
        ]
        family = f"{len(columns)} categories of {len(alike)} {kind} pairs of agents"
        yield from column_findings(setting, f"uses {kind} {uses.layers}", columns, family)


def _difference(setting: Setting, uses: Uses, agents: tuple[str, str], category: str) -> Column:
    first, second = (uses.of[agent, category] for agent in agents)
    values = first.excess - second.excess
    more = "more" if values.mean() > 0.0 else "less"
    return Column(
        id=uses.name(*agents, category),
        found=f"{agents[0]} uses what it sees of {category} {more} than {agents[1]}: what masking "
        "it does beyond random tokens differs by",
        observed=f"What masking {category} does beyond random tokens differs, {agents[0]} minus "
        f"{agents[1]}, by",
        values=values,
        query=mask_excess_difference(agents, category, uses.layers, uses.family),
        consulted=_consult(setting, agents),
        margin=uses.margin,
        noise=max(RESOLVED, noise_floor(setting, agents)),
    )
