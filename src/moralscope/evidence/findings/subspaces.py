"""Does a difference pass through few directions of the stream, on scenarios that were not searched?

From ``subspace_effects``: with e the effect of exchanging a projection and w what the search asked
for, the share that is reached on the held-out scenarios g is

    share = sum over g of mean(e w) / sum over g of mean(w w)

A finding per search over layers and dimensions. At each of them the share is compared with that of
two controls, the same search for arbitrary sides and random subspaces, scenario by scenario; the
sign-flips are corrected for all layers and dimensions (max-T), the larger p of the two controls
counts, and only a larger share is a find. Holm over searches. Unit: the held-out scenario.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.evidence.findings.queries import NOTHING
from moralscope.evidence.findings.representation_queries import reached_share
from moralscope.evidence.gates.copies import GATE as DUPLICATES
from moralscope.evidence.ledger import (
    Consulted,
    Finding,
    Setting,
    consult,
    probability,
    signed,
    size,
)
from moralscope.evidence.statistics.intervals import cluster_t
from moralscope.evidence.statistics.multiplicity import holm
from moralscope.evidence.statistics.resampling import Array, max_t, sign_flip_floor

CONTROLS = ("arbitrary", "random")

NOTHING_THERE = 1e-4
"""Root mean square, in nats, below which exchanging the whole stream is taken to do nothing."""

_WORDS = {
    "arbitrary": "the same search for arbitrary sides reaches",
    "random": "random subspaces reach",
}


@dataclass(frozen=True, slots=True)
class _Best:
    """The layer and dimension that stand out most, beside the stronger control.

    Attributes:
        layer, dimension, control: which.
        share, theirs: reached by the subspace and by the control.
        values: ``(G,)`` of which the mean is ``share - theirs``.
        p, floor: corrected for all layers and dimensions.
        looked: how many layers and dimensions.
    """

    layer: int
    dimension: int
    control: str
    share: float
    theirs: float
    values: Array
    p: float
    floor: float
    looked: int


def subspace_findings(setting: Setting) -> Iterator[Finding]:
    """One finding per search; together they are one family."""
    if not setting.has("subspace_effects", "prompts"):
        return
    prompts = setting.tables["prompts"].select("prompt", "scenario")
    rows = setting.tables["subspace_effects"].filter(pl.col("split") == "test")
    placed = rows.join(prompts, on="prompt", how="inner", maintain_order="left")
    searches = placed.partition_by("what", "source", "agent", as_dict=True, maintain_order=True)
    best = {
        (str(what), str(source), str(agent)): _best(setting, own)
        for (what, source, agent), own in searches.items()
    }
    if not best:
        return
    adjusted = holm(np.array([1.0 if one is None else one.p for one in best.values()]))
    for (search, one), p in zip(best.items(), adjusted.tolist(), strict=True):
        yield _finding(setting, search, one, float(p), len(best))


def _best(setting: Setting, rows: pl.DataFrame) -> _Best | None:
    """The comparison with the smallest p; None where the whole exchange does nothing anywhere."""
    units = (
        rows.with_columns(top=pl.col("effect") * pl.col("wanted"), under=pl.col("wanted") ** 2)
        .group_by("layer", "dimension", "control", "scenario")
        .agg(pl.col("top", "under").mean())
        .sort("layer", "dimension", "control", "scenario")
    )
    shares: dict[tuple[int, int, str], Array] = {}
    for (layer, k, control), own in units.group_by(
        "layer", "dimension", "control", maintain_order=True
    ):
        under: Array = own.get_column("under").to_numpy()
        if float(np.sqrt(under.mean())) > NOTHING_THERE:
            values: Array = own.get_column("top").to_numpy() / under.mean()
            shares[int(str(layer)), int(str(k)), str(control)] = values
    places = [
        (layer, k)
        for layer, k, control in shares
        if control == "none" and all((layer, k, c) in shares for c in CONTROLS)
    ]
    if not places:
        return None
    who = [str(rows.get_column(name)[0]) for name in ("what", "source", "agent")]
    p = np.zeros(len(places))
    for control in CONTROLS:
        beyond = np.stack([shares[*at, "none"] - shares[*at, control] for at in places], axis=1)
        tested = max_t(beyond, setting.rng("subspaces", *who, control), setting.draws)
        # Only a larger share than the control's is a find.
        p = np.maximum(p, np.where(tested.t > 0.0, tested.p_adjusted, 1.0))
    gain = [min(_gain(shares, at, control) for control in CONTROLS) for at in places]
    at = min(range(len(places)), key=lambda i: (p[i], -gain[i]))
    layer, k = places[at]
    control = min(CONTROLS, key=lambda c: _gain(shares, places[at], c))
    own, theirs = shares[layer, k, "none"], shares[layer, k, control]
    sampled = setting.draws if len(own) > 14 else 0
    return _Best(
        layer, k, control, float(own.mean()), float(theirs.mean()), own - theirs,
        float(p[at]), sign_flip_floor(len(own), sampled), len(places),
    )  # fmt: skip


def _gain(shares: dict[tuple[int, int, str], Array], place: tuple[int, int], control: str) -> float:
    return float((shares[*place, "none"] - shares[*place, control]).mean())


def _finding(
    setting: Setting, search: tuple[str, str, str], best: _Best | None, p: float, tests: int
) -> Finding:
    what, source, agent = search
    name = f"subspace:{what}:{agent}" if source == agent else f"subspace:{what}:{source}:{agent}"
    between = f"{what} in {agent}" if source == agent else f"the difference of {source} and {agent}"
    family = f"{tests} search{'es' * (tests > 1)}"
    consulted = _consulted(setting, (source, agent))
    if best is None:
        words = f"Exchanging the whole stream does nothing to the decision, so {between} has no "
        words += "subspace to be found where the options part."
        return Finding(
            id=name, found=words, observed=words, estimate=None, interval=None, unit="share",
            n=0, test="none", query=NOTHING, consulted=consulted,
            missing="at no layer that was searched does exchanging the stream change the decision.",
        )  # fmt: skip
    figures = (
        f"after layer {best.layer}, {best.dimension} direction{'s' * (best.dimension > 1)} "
        f"reach{'es' * (best.dimension == 1)} {best.share:.0%} of what exchanging the whole "
        f"stream does, on {len(best.values)} scenarios that were not searched, where "
        f"{_WORDS[best.control]} {best.theirs:.0%} ({signed(best.share - best.theirs)}; "
        f"among {best.looked} layers and dimensions, adjusted {probability(p)})"
    )
    return Finding(
        id=name,
        found=f"Part of {between} passes through a subspace: {figures}.",
        observed=f"Of {between}: {figures}.",
        estimate=best.share - best.theirs,
        interval=cluster_t(best.values),
        unit="share",
        n=len(best.values),
        test="share reached against arbitrary sides and random subspaces, sign-flips over held-out "
        "scenarios, max-T over layers and dimensions, the larger p, Holm over searches; null: no "
        "more than the controls",
        query=reached_share(search, best.layer, best.dimension, best.control),
        consulted=consulted,
        p=best.p,
        p_adjusted=p,
        p_floor=best.floor,
        level=setting.alpha / tests,
        noise=0.0,
        tests=tests,
        family=family,
        against=""
        if best.share > best.theirs
        else f"the controls reach as much ({size(best.theirs)}).",
    )


def _consulted(setting: Setting, agents: tuple[str, str]) -> Consulted:
    return consult(setting, dict.fromkeys(agents), [(DUPLICATES, "scenarios")])
