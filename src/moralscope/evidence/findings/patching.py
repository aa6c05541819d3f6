"""Which sites carry the difference between two agents? Patches of one into the other.

Unit: the scenario. Per ordered pair: the sites with an effect, the largest as a share of the full
swap (site ``all``), and how many single patches flip the preferred option, always against what
swapping everything flips. For pairs patched both ways, A into b and B into a: in a linear model the
two effects have opposite signs, so the *effect* is (A - B)/2 and the *asymmetry* (A + B)/2; each is
tested against zero, and magnitudes are never compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.evidence.controls.gates import patching_controls
from moralscope.evidence.findings import queries
from moralscope.evidence.findings.sites import (
    blame_clones,
    nothing_resolved,
    run_site_test,
    share_of,
    site_finding,
    sites_to_test,
)
from moralscope.evidence.gates.sites import (
    SITE_GATES,
    SiteFaults,
    faults,
    patching_results,
    sweep_name,
    sweeps,
)
from moralscope.evidence.ledger import (
    Consulted,
    Finding,
    Setting,
    consult,
    noise_floor,
    size,
)
from moralscope.evidence.statistics.intervals import share_interval, zero_event_bound
from moralscope.evidence.units import Units, inference_family, matrix, on_family, paired


@dataclass(frozen=True, slots=True)
class Sweep:
    """All patches of one agent into another on one prompt family.

    Attributes:
        key: (source, target, positions, write).
        rows: the patching table's rows with ``scenario``; the full swap included.
        faults: its clones, dead and rounded sites.
        noise: numerical noise floor of an effect, in nats.
    """

    key: tuple[str, str, str, str]
    rows: pl.DataFrame
    faults: SiteFaults
    noise: float

    @property
    def name(self) -> str:
        """SOURCE>TARGET, with positions and write where they are unusual."""
        return sweep_name(*self.key)


def patching_findings(setting: Setting) -> Iterator[Finding]:
    """Per sweep its sites and its flips; per pair patched both ways its effect and asymmetry."""
    if not setting.has("prompts", "patching"):
        return
    patching, prompts = setting.tables["patching"], setting.tables["prompts"]
    family = inference_family(prompts, patching.get_column("prompt"))
    if family is None:
        return
    found = [
        s for s in found_sweeps(setting, on_family(patching, prompts, family)) if _singles(s).height
    ]
    for sweep in found:
        yield _sites(setting, sweep, family)
        yield flips_finding(setting, sweep, family)
    by_key = {sweep.key: sweep for sweep in found}
    for sweep in found:
        source, target, *how = sweep.key
        reverse = by_key.pop((target, source, how[0], how[1]), None)
        if sweep.key in by_key and reverse is not None and source != target:
            yield from _both_ways(setting, sweep, reverse, family)


def found_sweeps(setting: Setting, rows: pl.DataFrame) -> Iterator[Sweep]:
    """The sweeps in patching rows that have their ``scenario``."""
    for source, target, positions, write, part in sweeps(rows):
        name = sweep_name(source, target, positions, write)
        if part.filter(pl.col("site") != "all").height:
            yield Sweep(
                (source, target, positions, write),
                part,
                faults(patching_results(setting.tables, name, target, part)),
                noise_floor(setting, [source, target, f"{source}>{target}"], patched=True),
            )


def pair_rows(
    patching: pl.DataFrame, pair: Sequence[str], positions: str | None, write: str | None
) -> pl.DataFrame:
    """The patches of one agent into another in one way; no rows where there are none.

    Args:
        patching: the table.
        pair: source and target.
        positions: where; if not told, ``answer_span``, or else the only one at which the two were
            patched into each other: other tools record none.
        write: how; if not told, ``write``, or else the only one.
    """
    both = patching.filter(pl.col("source").is_in(pair) & pl.col("target").is_in(pair))
    usual = {"positions": "answer_span", "write": "write"}
    for column, told in (("positions", positions), ("write", write)):
        there: list[str] = both.get_column(column).unique().to_list()
        meant = there[0] if len(there) == 1 else usual[column]
        both = both.filter(pl.col(column) == (meant if told is None else told))
    return both.filter((pl.col("source") == pair[0]) & (pl.col("target") == pair[1]))


def ways_there(patching: pl.DataFrame, pair: Sequence[str]) -> str:
    """What a pair was patched by instead, as the end of a sentence; empty where it was not."""
    own = patching.filter((pl.col("source") == pair[0]) & (pl.col("target") == pair[1]))
    ways = own.select("positions", "write").unique().sort("positions", "write").rows()
    told = "; ".join(f"positions: {positions}, write: {write}" for positions, write in ways)
    return f" (there is {told})" if ways else ""


def _singles(sweep: Sweep) -> pl.DataFrame:
    return sweep.rows.filter(pl.col("site") != "all")


def _full_swap(rows: pl.DataFrame, value: str = "effect") -> float | None:
    """Mean over scenarios of the effect of swapping everything; None if it was not run."""
    swap = rows.filter(pl.col("site") == "all")
    if swap.height == 0:
        return None
    return float(matrix(swap, "scenario", "site", value).values.mean())


def consult_sweeps(setting: Setting, *found: Sweep) -> Consulted:
    """The gates behind a claim about one sweep or two."""
    agents = list(dict.fromkeys(agent for sweep in found for agent in sweep.key[:2]))
    pairs = [f"write-all {sweep.key[0]}>{sweep.key[1]}" for sweep in found]
    controls = patching_controls([(sweep.name, *sweep.key[:2]) for sweep in found])
    return consult(
        setting,
        agents,
        gates=[
            *(("noise floor", f"self-patch {agent}") for agent in agents),
            *(("noise floor", pair) for pair in pairs),
            *(("position", f"patching {sweep.name}") for sweep in found),
            ("duplicates", "scenarios"),
            *(key for key in controls if key in setting.gates),
        ],
        shown=[(gate, f"patching {sweep.name}") for sweep in found for gate in SITE_GATES],
    )


def _sites(setting: Setting, sweep: Sweep, family: str) -> Finding:
    source, target = sweep.key[:2]
    name = f"patching:{sweep.name}"
    units = matrix(_singles(sweep), "scenario", "site", "effect")
    consulted = consult_sweeps(setting, sweep)
    chosen = sites_to_test(units, [sweep.faults])
    if not chosen:
        return nothing_resolved(name, f"the sweep {sweep.name}", units, [sweep.faults], consulted)
    outcome = run_site_test(setting, name, units.keep(chosen), sweep.noise)
    share = _share(outcome.mean, _full_swap(sweep.rows), sweep.noise)
    return site_finding(
        outcome,
        name=name,
        found=f"{outcome.standing} of {outcome.sites} distinct sites of {target} have an effect "
        f"when taken from {source}; the largest of these is {outcome.figures}{share}.",
        observed=f"Of {outcome.sites} distinct sites of {target}, the clearest effect when taken "
        f"from {source} is {outcome.figures}{share}.",
        query=queries.patch_effect(sweep.key, outcome.site, family),
        consulted=blame_clones(consulted, outcome.site, [sweep.faults]),
        alpha=setting.alpha,
        noise=sweep.noise,
    )


def _share(part: float, whole: float | None, noise: float) -> str:
    return "; the full swap was not run" if whole is None else share_of(part, whole, noise)


def flips_finding(setting: Setting, sweep: Sweep, family: str) -> Finding:
    """How often one site decides, against how often everything together does.

    A copy of a site adds no patch, and a dead site none that could flip anything.
    """
    source, target = sweep.key[:2]
    real = pl.col("flipped") & (pl.col("effect").abs() > sweep.noise)
    distinct = pl.col("site").is_in(list(sweep.faults.distinct))
    singles = _singles(sweep).filter(distinct).with_columns(real.alias("flips"))
    consulted = consult_sweeps(setting, sweep)
    if singles.is_empty():
        units = matrix(_singles(sweep), "scenario", "site", "effect")
        name = f"flips:{sweep.name}"
        return nothing_resolved(name, f"the sweep {sweep.name}", units, [sweep.faults], consulted)
    sites = _singles(sweep).get_column("site").n_unique() - len(sweep.faults.distinct)
    left_out = f" ({sites} sites left out that are copies or dead)" if sites else ""
    per_scenario = singles.group_by("scenario").agg(pl.col("flips").any())
    events, n = int(per_scenario.get_column("flips").sum()), per_scenario.height
    flips = int(singles.get_column("flips").sum())
    # That there is none is a statement about one side, so the whole error stands on it.
    interval = share_interval(events, n) if events else (0.0, zero_event_bound(n))
    swap = sweep.rows.filter(pl.col("site") == "all")
    ceiling = int(swap.get_column("flipped").sum())
    margin = float(np.median(np.abs(singles.get_column("baseline_log_odds").to_numpy())))
    largest = float(np.abs(singles.get_column("effect").to_numpy()).max())
    context = (
        f"the full swap flips {ceiling} of {swap.height} prompts, the median margin is "
        f"{size(margin)} nats and the largest single effect {size(largest)}"
        if swap.height
        else f"the full swap was not run, the median margin is {size(margin)} nats and the largest "
        f"single effect {size(largest)}"
    )
    counted = (
        f"{flips} of {singles.height} single-site patches of {source} into {target}{left_out} flip "
        f"the preferred option, in {events} of {n} scenarios"
    )
    bound = (
        f"; with 95% confidence at most {interval[1]:.1%} of scenarios have one"
        if not events
        else ""
    )
    words = f"{counted}{bound}; {context}."
    return Finding(
        id=f"flips:{sweep.name}",
        found=words,
        observed=words,
        estimate=events / n,
        interval=interval,
        unit="share of scenarios",
        n=n,
        test="exact binomial over scenarios; zero flips: upper bound 1 - 0.05^(1/G)",
        query=queries.flipped_share(sweep.key, family, sweep.noise),
        consulted=consulted,
        # A flip that was seen exists; that none exists is vouched for by live agents alone.
        decided=events > 0 or consulted.alive is True,
        missing=_no_ceiling(events, ceiling, swap.height),
    )


def _no_ceiling(events: int, ceiling: int, swapped: int) -> str | None:
    if events > 0 or ceiling > 0:
        return None
    if swapped == 0:
        return "without the full swap (site all) zero flips cannot be told from robustness; run it."
    return (
        "swapping everything flips nothing either, so a single-site sweep cannot; zero flips say "
        "nothing about robustness here. Use prompts on which the two agents disagree."
    )


def both_ways_rows(ahead: Sweep, back: Sweep) -> pl.DataFrame:
    """Columns ``effect`` (A - B)/2 and ``asymmetry`` (A + B)/2, prompt by prompt, site by site.

    Raises:
        TableError: the two sweeps do not cover the same prompts and sites.
    """
    both = pl.concat(
        [ahead.rows.with_columns(agent=pl.lit("A")), back.rows.with_columns(agent=pl.lit("B"))]
    )
    # "agent" names the direction here, so that both are paired prompt by prompt and site by site.
    return paired(both, "A", "B", "effect", ("site",)).with_columns(
        effect=(pl.col("of_first") - pl.col("of_second")) / 2,
        asymmetry=(pl.col("of_first") + pl.col("of_second")) / 2,
    )


def _both_ways(setting: Setting, ahead: Sweep, back: Sweep, family: str) -> Iterator[Finding]:
    joined = both_ways_rows(ahead, back)
    for kind, sign in (("effect", "-"), ("asymmetry", "+")):
        yield _signed_part(setting, (ahead, back), joined, (kind, sign), family)


def _signed_part(
    setting: Setting,
    found: tuple[Sweep, Sweep],
    joined: pl.DataFrame,
    part: tuple[str, str],
    family: str,
) -> Finding:
    """One of (A - B)/2 and (A + B)/2, over all sites that are sound in both directions."""
    ahead, back = found
    kind, sign = part
    source, target = ahead.key[:2]
    name = f"{kind}:{source}<>{target}{ahead.name.removeprefix(f'{source}>{target}')}"
    units: Units = matrix(joined.filter(pl.col("site") != "all"), "scenario", "site", kind)
    blamed = [ahead.faults, back.faults]
    consulted = consult_sweeps(setting, ahead, back)
    chosen = sites_to_test(units, blamed)
    if not chosen:
        return nothing_resolved(name, f"{source}<>{target}", units, blamed, consulted)
    noise = max(ahead.noise, back.noise)
    outcome = run_site_test(setting, name, units.keep(chosen), noise)
    share = _share(outcome.mean, _full_swap(joined, "effect"), noise) if kind == "effect" else ""
    meaning = (
        f"signed effect (A - B)/2, A being {source} into {target} and B the reverse"
        if kind == "effect"
        else f"asymmetry (A + B)/2, A being {source} into {target} and B the reverse"
    )
    return site_finding(
        outcome,
        name=name,
        found=f"{outcome.standing} of {outcome.sites} distinct sites differ from zero in the "
        f"{meaning}; the largest of these is at {outcome.figures}{share}.",
        observed=f"Of {outcome.sites} distinct sites, the clearest {meaning}, is at "
        f"{outcome.figures}{share}.",
        query=queries.both_ways(ahead.key, outcome.site, family, sign),
        consulted=blame_clones(consulted, outcome.site, blamed),
        alpha=setting.alpha,
        noise=noise,
    )
