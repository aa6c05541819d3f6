"""Where in the model did the answer change? Contributions of an agent's sites against base.

Unit: the scenario. A site's change is its contribution to the logit difference in the agent minus
that in base, on the same prompts. The completeness gate of both is consulted: parts that do not
sum to the whole locate nothing. This is the direct path to the output alone; it does not say what
the site's inputs did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from moralscope.evidence.designs import base_of, trained_agents
from moralscope.evidence.findings import queries
from moralscope.evidence.findings.sites import (
    blame_clones,
    nothing_resolved,
    run_site_test,
    site_finding,
    sites_to_test,
)
from moralscope.evidence.gates.sites import (
    SITE_GATES,
    answer_rows,
    attribution_results,
    faults,
)
from moralscope.evidence.ledger import Consulted, Finding, Setting, consult
from moralscope.evidence.units import inference_family, matrix, on_family, paired


def attribution_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per trained agent whose attribution and whose base's are present."""
    placed = attribution_rows(setting)
    if placed is None:
        return
    present = set(placed.rows.get_column("agent").to_list())
    for agent in trained_agents(setting.tables["agents"]):
        base = base_of(setting.tables["agents"], agent)
        if base is not None and {agent, base} <= present:
            yield _finding(setting, placed, (agent, base))


@dataclass(frozen=True, slots=True)
class Attributed:
    """Contributions to the whole answer on the family that is tested.

    Attributes:
        rows: the attribution table's rows with ``scenario``, ``bias`` left out.
        family: the prompt family.
        token: which tokens they are of, as in the table.
    """

    rows: pl.DataFrame
    family: str
    token: int


def attribution_rows(setting: Setting) -> Attributed | None:
    """What claims about attribution are made from; None where tables or prompts are missing."""
    if not setting.has("agents", "prompts", "attribution"):
        return None
    rows, token = answer_rows(setting.tables["attribution"])
    family = inference_family(setting.tables["prompts"], rows.get_column("prompt"))
    if family is None:
        return None
    placed = on_family(rows, setting.tables["prompts"], family)
    return Attributed(placed.filter(pl.col("site") != "bias"), family, token)


def consult_attribution(setting: Setting, agent: str, base: str) -> Consulted:
    """The gates behind a claim about an agent's attribution and its base's."""
    both = (agent, base)
    return consult(
        setting,
        both,
        gates=[*(("completeness", who) for who in both), ("duplicates", "scenarios")],
        shown=[(gate, f"attribution {agent}") for gate in SITE_GATES],
    )


def _finding(setting: Setting, placed: Attributed, agents: tuple[str, str]) -> Finding:
    agent, base = agents
    name = f"attribution:{agent}"
    found = [faults(attribution_results(setting.tables, who)) for who in agents]
    differences = paired(placed.rows, agent, base, "contribution", ("site",))
    units = matrix(differences, "scenario", "site", "difference")
    # A site may be dead in base and not in the agent, so only the agent's own faults exclude it.
    chosen = sites_to_test(units, found[:1])
    consulted = consult_attribution(setting, agent, base)
    if not chosen:
        return nothing_resolved(name, f"the attribution of {agent}", units, found[:1], consulted)
    noise = completeness_error(setting, agents)
    outcome = run_site_test(setting, name, units.keep(chosen), noise)
    return site_finding(
        outcome,
        name=name,
        found=f"In {outcome.standing} of {outcome.sites} distinct sites of {agent} the "
        f"contribution to the answer differs from {base}'s; the largest of these changes is at "
        f"{outcome.figures}.",
        observed=f"Of {outcome.sites} distinct sites of {agent}, the contribution to the answer "
        f"changed most clearly from {base}'s at {outcome.figures}.",
        query=queries.contribution_difference(
            agent, base, outcome.site, placed.token, placed.family
        ),
        consulted=blame_clones(consulted, outcome.site, found[:1]),
        alpha=setting.alpha,
        noise=noise,
    )


def completeness_error(setting: Setting, agents: Sequence[str]) -> float:
    """Largest absolute error of the attributions compared, in nats; 0 if not recorded."""
    if not setting.has("completeness"):
        return 0.0
    rows = setting.tables["completeness"].filter(pl.col("agent").is_in(list(agents)))
    return max((abs(error) for error in rows.get_column("error").to_list()), default=0.0)
