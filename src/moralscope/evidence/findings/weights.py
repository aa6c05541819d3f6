"""What did fine-tuning change in the weights, and does it say anything beyond chance?

Weights of one checkpoint are no sample, so each claim names what its chance is. Per agent:

*update*: how far its weights moved, a description that a gate can refute;
*writes*, *reads*: does more of the whole update lie along the axis of the two answer tokens than
along axes of random tokens? With share_0 the update's own and share_j that of random pair j, the
same pairs for every agent, each agent and side is taken about the mean of all of them in their
standard deviation, t_kj, and

    p_adj(k) = share of j = 0, 1, ..., J with max_k t_kj >= t_k0

(max-T over agents and sides): exact if the decision's pair were one of the random ones.

Over layers (``moved:layers``): are the layers that moved most those where patches find effects?
And between agents, see ``weights_compared`` and ``weights_rewards``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.evidence.designs import base_of, trained_agents
from moralscope.evidence.findings.queries import NOTHING
from moralscope.evidence.findings.weight_queries import (
    beyond_controls,
    layers_together,
    relative_norm,
)
from moralscope.evidence.findings.weights_compared import overlap_findings
from moralscope.evidence.findings.weights_rewards import weight_reward_findings
from moralscope.evidence.gates.updates import GATE, ROUNDOFF
from moralscope.evidence.ledger import Finding, Setting, consult, probability, signed, size
from moralscope.evidence.statistics.resampling import Array
from moralscope.evidence.statistics.rotations import MIN_LAYERS, Together, profiles_together

_TIE = 1.0 - 1e-9


def weight_findings(setting: Setting) -> Iterator[Finding]:
    """All claims about weights, agent by agent, then between agents."""
    if setting.has("update_norms"):
        for (agent,), rows in setting.tables["update_norms"].group_by("agent", maintain_order=True):
            yield _update(setting, str(agent), rows)
    if setting.has("update_directions", "update_controls"):
        yield from _along(setting)
    if setting.has("update_norms", "patching", "agents"):
        yield from _layers(setting)
    yield from overlap_findings(setting)
    yield from weight_reward_findings(setting)


def _update(setting: Setting, agent: str, rows: pl.DataFrame) -> Finding:
    """How far an agent's weights moved."""
    change, base = (float((rows[name] ** 2).sum()) ** 0.5 for name in ("norm", "base_norm"))
    linear = rows.filter(pl.col("rank").is_not_null())
    moved = linear.filter(pl.col("norm") > 0.0)
    words = f"Training moved the weights of {agent} by {size(change / base)} of their norm"
    if moved.height:
        most = moved.sort("relative_norm", descending=True, nulls_last=True).row(0, named=True)
        rank = float(np.median(moved.get_column("effective_rank").to_numpy()))
        words += (
            f", in {moved.height} of {linear.height} linear layers (median effective rank "
            f"{size(rank)}); the most, {size(most['relative_norm'])} of its norm, in "
            f"L{most['layer']}.{most['module']}"
        )
    return Finding(
        id=f"update:{agent}",
        found=f"{words}.",
        observed=f"{words}.",
        estimate=change / base,
        interval=None,
        unit="ratio",
        n=rows.height,
        replicate="weights",
        test="none: a description of these weights",
        query=relative_norm(agent),
        consulted=consult(setting, [agent], [(GATE, agent)]),
        decided=change > ROUNDOFF * base,
    )


# Along the axis of the answers


@dataclass(frozen=True, eq=False)
class Along:
    """How much of one agent's update lies along one axis, on one side.

    Attributes:
        agent, axis, side: whose, along which, written or read.
        share: of its squared norm.
        controls: (J,) of the same along axes of random tokens.
    """

    agent: str
    axis: str
    side: str
    share: float
    controls: Array

    @property
    def scores(self) -> Array:
        """(J + 1,) in standard deviations of them all, the own one first."""
        every = np.concatenate([[self.share], self.controls])
        spread = float(every.std())
        return (every - every.mean()) / spread if spread > 0.0 else np.zeros_like(every)


def _along(setting: Setting) -> Iterator[Finding]:
    found = _shares(setting)
    if not found:
        return
    largest = np.max([one.scores for one in found], axis=0)
    axes = len({one.axis for one in found})
    for one in found:
        own = one.scores
        yield _direction(
            setting,
            one,
            p=float((own >= own[0] - abs(own[0]) * (1.0 - _TIE)).mean()),
            adjusted=float((largest >= own[0] - abs(own[0]) * (1.0 - _TIE)).mean()),
            family=(len(found), axes),
        )


def _shares(setting: Setting) -> list[Along]:
    """Every agent, axis and side with an update; agents must share their random tokens."""
    rows = setting.tables["update_directions"].drop_nulls("share")
    controls = setting.tables["update_controls"].drop_nulls("share").sort("draw")
    key = ["agent", "axis", "side"]
    drawn = {
        tuple(map(str, at)): part.get_column("share").to_numpy()
        for at, part in controls.group_by(key, maintain_order=True)
    }
    found: list[Along] = []
    for at, part in rows.group_by(key, maintain_order=True):
        agent, axis, side = map(str, at)
        squares = part.get_column("norm").to_numpy() ** 2
        if (agent, axis, side) in drawn and squares.sum() > 0.0:
            share = float(squares @ part.get_column("share").to_numpy() / squares.sum())
            found.append(Along(agent, axis, side, share, drawn[agent, axis, side]))
    count = max((len(one.controls) for one in found), default=0)
    return [one for one in found if len(one.controls) == count]


def _direction(
    setting: Setting, one: Along, *, p: float, adjusted: float, family: tuple[int, int]
) -> Finding:
    tests, axes = family
    agent, count = one.agent, len(one.controls)
    beyond = one.share - float(one.controls.mean())
    figures = (
        f"{one.share:.2%} of what its update {one.side} against {np.median(one.controls):.2%} "
        f"(median) and {one.controls.max():.2%} (largest) along axes of {count} random pairs of "
        f"tokens (adjusted {probability(adjusted)})"
    )
    verb = {"writes": "writes along", "reads": "reads along"}[one.side]
    axis = f"the axis of the answers {one.axis}"
    suffix = f":{one.axis}" if axes > 1 else ""
    return Finding(
        id=f"{one.side}:{agent}{suffix}",
        found=f"The update of {agent} {verb} {axis} more than along those of random tokens: "
        f"{figures}.",
        observed=f"Of {agent}, along {axis}: {figures}.",
        estimate=beyond,
        interval=None,
        unit="share",
        n=count,
        replicate="random token pairs",
        test="share along the decision's axis against random pairs of tokens, max-T over agents "
        "and sides; null: the decision's tokens are a random pair",
        query=beyond_controls(agent, one.axis, one.side),
        consulted=consult(setting, [agent], [(GATE, agent)]),
        p=p,
        p_adjusted=adjusted,
        p_floor=1.0 / (count + 1),
        level=setting.alpha,
        tests=tests,
        family=f"{tests} updates",
    )


# Over layers


def _layers(setting: Setting) -> Iterator[Finding]:
    """Whether the layers that moved most are those where patches find effects."""
    sweeps = _sweeps(setting)
    if not sweeps:
        return
    norms, effects, names = _profiles(setting, sweeps)
    agents = [agent for agent, _ in sweeps]
    rng = setting.rng("moved", "layers")
    found = profiles_together(norms, effects, rng, setting.draws) if len(names) >= MIN_LAYERS else (
        None
    )  # fmt: skip
    yield _together(setting, sweeps, agents, found, len(names))


def _sweeps(setting: Setting) -> list[tuple[str, tuple[str, str, str, str]]]:
    """Per trained agent with an update, the sweep of its base into it, or of it into its base."""
    agents = setting.tables["agents"]
    updated = set(setting.tables["update_norms"].get_column("agent").to_list())
    usual = setting.tables["patching"].filter(
        pl.col("kind").is_in(("head", "mlp"))
        & pl.col("layer").is_not_null()
        & (pl.col("prompt") == pl.col("source_prompt"))
    )
    key = ["source", "target", "positions", "write"]
    swept = [tuple(map(str, row)) for row in usual.select(key).unique(maintain_order=True).rows()]
    found: list[tuple[str, tuple[str, str, str, str]]] = []
    for agent in trained_agents(agents):
        base = base_of(agents, agent)
        ways = [s for pair in ((base, agent), (agent, base)) for s in swept if s[:2] == pair]
        if agent in updated and ways:
            source, target, positions, write = ways[0]
            found.append((agent, (source, target, positions, write)))
    return found


def _profiles(
    setting: Setting, sweeps: Sequence[tuple[str, tuple[str, str, str, str]]]
) -> tuple[Array, Array, list[int]]:
    """Per agent and layer the norm of the update, and the summed size of patches' effects."""
    linear = setting.tables["update_norms"].filter(pl.col("rank").is_not_null())
    patching = setting.tables["patching"].filter(
        pl.col("kind").is_in(("head", "mlp")) & (pl.col("prompt") == pl.col("source_prompt"))
    )
    norms: list[dict[int, float]] = []
    effects: list[dict[int, float]] = []
    for agent, (source, target, positions, write) in sweeps:
        own = linear.filter(pl.col("agent") == agent)
        sums = own.group_by("layer", maintain_order=True).agg((pl.col("norm") ** 2).sum().sqrt())
        norms.append(dict(sums.iter_rows()))
        sites = (
            patching.filter(
                (pl.col("source") == source)
                & (pl.col("target") == target)
                & (pl.col("positions") == positions)
                & (pl.col("write") == write)
            )
            .group_by("layer", "site", maintain_order=True)
            .agg(pl.col("effect").mean())
        )
        sums = sites.group_by("layer", maintain_order=True).agg(pl.col("effect").abs().sum())
        effects.append(dict(sums.iter_rows()))
    common = set(norms[0]).intersection(*norms[1:], *effects)
    layers = sorted(common)
    both = (np.array([[of[at] for at in layers] for of in each]) for each in (norms, effects))
    first, second = both
    return first, second, layers


def _together(
    setting: Setting,
    sweeps: Sequence[tuple[str, tuple[str, str, str, str]]],
    agents: Sequence[str],
    found: Together | None,
    layers: int,
) -> Finding:
    who = f"{len(agents)} agent{'s' * (len(agents) != 1)}"
    words = f"Over {layers} layers of {who}"
    if found is not None:
        words += (
            f", the norm of the update and the size of patches' effects have a rank correlation of "
            f"{signed(found.rho)} ({probability(found.p_layers)} with layers in any order, "
            f"{probability(found.p_turns)} with profiles turned round the depth)"
        )
    else:
        words += ", the norm of the update and the size of patches' effects cannot be correlated"
    return Finding(
        id="moved:layers",
        found=f"Layers that moved more are those where patches find more: {words[0].lower()}"
        f"{words[1:]}."
        if found is not None and found.rho > 0.0
        else f"Layers that moved more are those where patches find less: {words[0].lower()}"
        f"{words[1:]}.",
        observed=f"{words}.",
        estimate=None if found is None else found.rho,
        interval=None,
        unit="correlation",
        n=layers,
        replicate="layers",
        test="rank correlation, the larger p of layers in any order and of profiles turned; null: "
        "where weights moved says nothing of where patches act",
        query=NOTHING if found is None else layers_together(sweeps),
        consulted=consult(setting, agents, [(GATE, agent) for agent in agents]),
        p=None if found is None else found.p,
        p_adjusted=None if found is None else found.p,
        p_floor=None if found is None else found.floor,
        level=setting.alpha,
        tests=None if found is None else 1,
        missing=f"profiles over fewer than {MIN_LAYERS} layers, or flat ones, say nothing."
        if found is None
        else None,
    )
