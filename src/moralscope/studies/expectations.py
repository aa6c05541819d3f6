"""Can this study answer what is expected of it? The key ``hypotheses``, held against the study.

A hypothesis that turns out to be unanswerable after hours of measuring can no longer be mended and
stay registered. So everything that can be known beforehand is checked: agents, rewards, pairs and
kinds of sites when the file is read; layers, heads and label assignments when the model is found.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from moralscope.core.decision import Prompt
from moralscope.core.errors import ConfigError, nearest
from moralscope.core.site import every_site, parse_site
from moralscope.evidence.contrasts import OF_SITUATIONS, OF_STATES
from moralscope.evidence.hypotheses.grammar import Hypothesis, refuse_same_names
from moralscope.evidence.synthesis.levels import LEVELS

_OF_A_CHANGE = ("change", "attribution_change", "learned")
_ATTRIBUTED = ("embed", "head", "mlp")
_LEVEL_BY: Mapping[str, str] = {
    "attribution": "attribution",
    "patching": "patching",
    "attention": "attention",
    "wiring": "interactions",
    "weights": "weights",
    "representations": "representations",
}
"""The method that measures a level; behaviour is always measured."""

_BOTH_WAYS = ("symmetric_effect", "asymmetry", "asymmetry_share")


@dataclass(frozen=True, slots=True)
class Measures:
    """What a study measures, as far as hypotheses can ask for it.

    Attributes:
        rewards: of each agent with weights, by name; None where none is known.
        base: the base agent.
        scripted: agents without weights.
        pairs: (source, target) that are patched.
        kinds: kinds of site that are patched.
        positions: where.
        write: what a patched head gets.
        attributed: whether contributions of sites are measured.
        methods: what is looked for inside.
        compared: every two rewards that a comparison is about.
    """

    rewards: Mapping[str, str | None]
    base: str
    scripted: Sequence[str]
    pairs: Sequence[tuple[str, str]]
    kinds: Sequence[str]
    positions: Sequence[str]
    write: str
    attributed: bool
    methods: Collection[str]
    compared: Collection[frozenset[str]]


def check_hypotheses(hypotheses: Sequence[Hypothesis], measured: Measures) -> None:
    """Refuse what a study will never be able to answer.

    Raises:
        ConfigError: two hypotheses have one name, or one asks for an agent, a reward, a pair or a
            method that the study does not have.
    """
    refuse_same_names(hypotheses)
    for hypothesis in hypotheses:
        _check_agents(hypothesis, measured)
        rewards = sorted({r for r in measured.rewards.values() if r is not None})
        for reward in hypothesis.rewards:
            if reward not in rewards:
                raise _unknown(hypothesis, "reward", reward, rewards)
        if "patching" in hypothesis.form.tables:
            _check_patches(hypothesis, measured)
        if "attribution" in hypothesis.form.tables:
            _check_attribution(hypothesis, measured)
        if hypothesis.level is not None:
            _check_level(hypothesis, hypothesis.level, measured)


def _check_agents(hypothesis: Hypothesis, measured: Measures) -> None:
    for agent in hypothesis.agents:
        if agent in measured.scripted:
            raise ConfigError(
                f"Hypothesis {hypothesis.id!r} names a scripted policy, which has no log-odds",
                seen=agent,
                allowed=", ".join(measured.rewards),
                remedy="name an agent with weights",
            )
        if agent not in measured.rewards:
            raise _unknown(hypothesis, "agent", agent, list(measured.rewards))
        if agent == measured.base and hypothesis.quantity in _OF_A_CHANGE:
            raise ConfigError(
                f"Hypothesis {hypothesis.id!r} asks how the base changed",
                seen=agent,
                allowed=", ".join(name for name in measured.rewards if name != measured.base),
                remedy="name a trained agent; the base is what changes are measured from",
            )


def _check_attribution(hypothesis: Hypothesis, measured: Measures) -> None:
    if not measured.attributed:
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} needs attribution, which the study does not measure",
            seen=hypothesis.quantity,
            allowed="a study with the method attribution",
            remedy="add attribution under mechanisms.methods",
        )
    for site in hypothesis.sites:
        if parse_site(site).kind not in _ATTRIBUTED:
            raise ConfigError(
                f"Hypothesis {hypothesis.id!r} names a kind of site that has no contribution",
                seen=site,
                allowed=", ".join(_ATTRIBUTED),
                remedy="name a head or an MLP",
            )


def _check_level(hypothesis: Hypothesis, level: str, measured: Measures) -> None:
    method = _LEVEL_BY.get(level)
    if method is not None and method not in measured.methods:
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} is about a level that the study does not measure",
            seen=level,
            allowed=", ".join(
                name for name in LEVELS if _LEVEL_BY.get(name) in (None, *measured.methods)
            ),
            remedy=f"add {method} under mechanisms.methods",
        )
    if frozenset(hypothesis.rewards) not in measured.compared:
        known = sorted(" and ".join(sorted(pair)) for pair in measured.compared)
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} is about two rewards that the study does not compare",
            seen=" and ".join(hypothesis.rewards),
            allowed="; ".join(known) or "no two rewards are compared",
            remedy="add a comparison of agents of these rewards under comparisons",
        )


def _check_patches(hypothesis: Hypothesis, measured: Measures) -> None:
    first, second = hypothesis.agents
    wanted = [(first, second)]
    if hypothesis.quantity in _BOTH_WAYS:
        wanted.append((second, first))
    for pair in wanted:
        if pair not in measured.pairs:
            raise ConfigError(
                f"Hypothesis {hypothesis.id!r} needs a pair that the study does not patch",
                seen=" into ".join(pair),
                allowed=", ".join(" into ".join(p) for p in measured.pairs) or "no pair is patched",
                remedy=f"add [{', '.join(pair)}] to mechanisms.pairs",
            )
    kinds = [*measured.kinds, "all"]
    for site in hypothesis.sites:
        if parse_site(site).kind not in kinds:
            raise ConfigError(
                f"Hypothesis {hypothesis.id!r} names a kind of site that the study does not patch",
                seen=site,
                allowed=", ".join(kinds),
                remedy=f"add {parse_site(site).kind} to mechanisms.sites",
            )
    for key, known in (("positions", measured.positions), ("write", [measured.write])):
        said: str | None = getattr(hypothesis, key)
        usual = {"positions": "answer_span", "write": "write"}[key]
        if (said or usual) not in known:
            raise ConfigError(
                f"Hypothesis {hypothesis.id!r} asks for patches that the study does not make",
                seen=f"{key} {said or usual}",
                allowed=", ".join(known),
                remedy=f"write {key}: {known[0]}",
            )


def _unknown(hypothesis: Hypothesis, what: str, name: str, known: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"Hypothesis {hypothesis.id!r} names the unknown {what} {name!r}",
        seen=name,
        allowed=", ".join(known) or f"the study has no {what}",
        remedy=nearest(name, known) if known else f"choose a quantity without a {what}",
    )


def check_places(hypotheses: Sequence[Hypothesis], layers: int, heads: int, kv_heads: int) -> None:
    """Refuse sites that the model does not have.

    Raises:
        ConfigError: a layer or head does not exist; the nearest right site is given.
    """
    for hypothesis in hypotheses:
        for name in hypothesis.sites:
            kind = parse_site(name).kind
            known = every_site(kind, n_layers=layers, n_heads=heads, n_kv_heads=kv_heads)
            if parse_site(name) not in known:
                raise ConfigError(
                    f"Hypothesis {hypothesis.id!r} names the unknown site {name!r}",
                    seen=name,
                    allowed=f"{known[0]} to {known[-1]}: {layers} layers with {heads} heads",
                    remedy=nearest(name, [str(site) for site in known]),
                )


def check_asked(hypotheses: Sequence[Hypothesis], prompts: Sequence[Prompt]) -> None:
    """Refuse label assignments, families, games and contrasts that no prompt has.

    Raises:
        ConfigError: one of them does not exist; the nearest right name is given.
    """
    known = {
        "labels": sorted({p.labels for p in prompts}),
        "family": sorted({p.family for p in prompts}),
        "game": sorted({p.game for p in prompts}),
        "contrast": sorted({c.name for c in (*OF_STATES, *OF_SITUATIONS)}),
    }
    for hypothesis in hypotheses:
        for key, names in known.items():
            said: str | None = getattr(hypothesis, key)
            if said is not None and said not in names:
                what = "label assignment" if key == "labels" else key
                raise _unknown(hypothesis, what, said, names)
