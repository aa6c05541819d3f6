"""Which classical strategies are there, and how far back does each remember?

A classical strategy is a rule of the whole game so far (``classical_rules``), so its memory may be
longer than the one round that a prompt holds. The tables of ``games.opponents``, which hold one
round, take part as well, with settings where they have any: ``noisy(tit-for-tat, 0.1)``.

Strategies open as their literature says. A memory-one table opens with C with the probability
``Opponent.p_cooperated_before``, which is one half where nothing is known.

Deterministic strategies make the moves that Axelrod 4.14 makes for the same pair without noise;
where the literature leaves a strategy open, that library's reading is ours (Knight et al., Journal
of Open Research Software 4 (2016), e35).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from moralscope.core.errors import ConfigError, nearest
from moralscope.games import axelrod_players
from moralscope.games.axelrod_players import AXELROD, strategy_name
from moralscope.games.matrices import PAIRS
from moralscope.games.opponents import OPPONENTS, Opponent, get_opponent, opponent_kind
from moralscope.games.play import classical_rules as rules
from moralscope.games.play.classical_rules import Rule

PROMPT_MEMORY = 1
"""Rounds that a prompt tells of: an agent's policy cannot depend on more."""


@dataclass(frozen=True)
class Classical:
    """A strategy of the literature.

    Attributes:
        name: how tables call it.
        memory: how many of the last rounds its moves depend on; infinity for the whole game.
        rule: P(C) given its own moves and the other's.
        source: where it is described.
        deterministic: whether the rule gives 0 and 1 only.
    """

    name: str
    memory: float
    rule: Rule
    source: str
    deterministic: bool = True


_EVER = math.inf
_FIRST = "Axelrod, Journal of Conflict Resolution 24 (1980), 3-25"
_SECOND = "Axelrod, Journal of Conflict Resolution 24 (1980), 379-403"
_BOOK = "Axelrod, The Evolution of Cooperation (1984)"
_BEAUFILS = "Beaufils, Delahaye and Mathieu, Artificial Life V (1997), 202-209"
_PRISON = "Beaufils, Delahaye and Mathieu, the program PRISON (Lille, 1998)"
_LI = "Li, Hingston and Kendall, IEEE Trans. Comput. Intell. AI in Games 3 (2011), 348-360"
_HILBE = "Hilbe, Nowak and Traulsen, PLOS ONE 8 (2013), e77886"
_MITTAL = "Mittal and Deb, IEEE Trans. Evolutionary Computation 13 (2009), 554-565"
_COOPSIM = "Arnold, the program CoopSim (2015)"
_KNIGHT = "Knight et al., Journal of Open Research Software 4 (2016), e35"
_NOWAK = "Nowak and Sigmund, Nature 364 (1993), 56-58"

_DETERMINISTIC = (
    Classical("always-cooperate", 0, rules.always_cooperate, _BOOK),
    Classical("always-defect", 0, rules.always_defect, _BOOK),
    Classical("tit-for-tat", 1, rules.tit_for_tat, _FIRST),
    Classical("suspicious-tit-for-tat", 1, rules.suspicious_tit_for_tat, _HILBE),
    Classical("bully", 1, rules.bully, "Nachbar, J. Econ. Behav. Organ. 19 (1992), 307-326"),
    Classical("anti-tit-for-tat", 1, rules.anti_tit_for_tat, _HILBE),
    Classical("win-stay-lose-shift", 1, rules.win_stay_lose_shift, _NOWAK),
    Classical("win-shift-lose-stay", 1, rules.win_shift_lose_stay, _LI),
    Classical("alternator", 1, rules.alternator, _BOOK),
    Classical("cycler-dc", 1, rules.cycler("DC"), _KNIGHT),
    Classical("cycler-ccd", 2, rules.cycler("CCD"), _BEAUFILS),
    Classical("cycler-ddc", 2, rules.cycler("DDC"), _BEAUFILS),
    Classical("cycler-cccd", 3, rules.cycler("CCCD"), _KNIGHT),
    Classical("tit-for-two-tats", 2, rules.tit_for_two_tats, _BOOK),
    Classical("two-tits-for-tat", 2, rules.two_tits_for_tat, _BOOK),
    Classical("slow-tit-for-tat", 2, rules.slow_tit_for_tat, _PRISON),
    Classical("hard-tit-for-tat", 3, rules.hard_tit_for_tat, _KNIGHT),
    Classical(
        "hard-tit-for-two-tats",
        3,
        rules.hard_tit_for_two_tats,
        "Stewart and Plotkin, PNAS 109 (2012), 10134-10135",
    ),
    Classical("nydegger", 3, rules.nydegger, _FIRST),
    Classical("resurrection", 5, rules.resurrection, _COOPSIM),
    Classical("soft-grudger", 6, rules.soft_grudger, _LI),
    Classical("forgetful-grudger", 10, rules.forgetful_grudger, _KNIGHT),
    Classical("once-bitten", 12, rules.once_bitten, _KNIGHT),
    Classical("grim", _EVER, rules.grim, _FIRST),
    Classical("easy-go", _EVER, rules.easy_go, _PRISON),
    Classical("davis", _EVER, rules.davis, _FIRST),
    Classical("shubik", _EVER, rules.shubik, _FIRST),
    Classical("tester", _EVER, rules.tester, _SECOND),
    Classical("fool-me-once", _EVER, rules.fool_me_once, _KNIGHT),
    Classical("spiteful-tit-for-tat", _EVER, rules.spiteful_tit_for_tat, _PRISON),
    Classical("grudging-alternator", _EVER, rules.grudging_alternator, _PRISON),
    Classical("soft-majority", _EVER, rules.soft_majority, _MITTAL),
    Classical("hard-majority", _EVER, rules.hard_majority, _MITTAL),
    Classical("forgiver", _EVER, rules.forgiver, _KNIGHT),
    Classical("level-punisher", _EVER, rules.level_punisher, _COOPSIM),
    Classical("doubler", _EVER, rules.doubler, _PRISON),
    Classical("gradual", _EVER, rules.gradual, _BEAUFILS),
    Classical("gradual-killer", _EVER, rules.gradual_killer, _PRISON),
    Classical("prober", _EVER, rules.prober, _LI),
    Classical("prober-2", _EVER, rules.prober_two, _PRISON),
    Classical("prober-3", _EVER, rules.prober_three, _PRISON),
    Classical("hard-prober", _EVER, rules.hard_prober, _PRISON),
    Classical("detective", _EVER, rules.detective, "Case, The Evolution of Trust (2017)"),
    Classical(
        "handshake", _EVER, rules.handshake, "Robson, J. Theor. Biol. 144 (1990), 379-396"
    ),
    Classical(
        "collective",
        _EVER,
        rules.collective,
        "Li and Kendall, Evolutionary Computation 17 (2009), 257-274",
    ),
    Classical("punisher", _EVER, rules.punisher, _KNIGHT),
    Classical("inverse-punisher", _EVER, rules.inverse_punisher, _KNIGHT),
)  # fmt: skip


def _table(opponent: Opponent, source: str, name: str = "") -> Classical:
    """A strategy of one round's memory from its four probabilities."""
    after, opening = opponent.p_cooperate_after, opponent.p_cooperated_before
    # An opponent's table has the moves of the one who faces it first.
    p_cooperate = {own + other: after[(other, own)] for own, other in PAIRS}

    def rule(own: str, other: str) -> float:
        return p_cooperate[own[-1] + other[-1]] if own else opening

    values = {*p_cooperate.values(), opening}
    memory = int(len({*p_cooperate.values()}) > 1)
    return Classical(name or opponent.name, memory, rule, source, values <= {0.0, 1.0})


_STOCHASTIC = (
    _table(OPPONENTS["random"], _FIRST),
    _table(OPPONENTS["generous-tit-for-tat"], "Nowak and Sigmund, Nature 355 (1992), 250-253"),
    _table(OPPONENTS["zd-extortion"], "Press and Dyson, PNAS 109 (2012), 10409-10413"),
    # The one who faces them first: C C, C D, D C, D D.
    _table(get_opponent("memory-one(0.9, 0.9, 0, 0, opening=1)"), _FIRST, "joss"),
    _table(
        Opponent("firm-but-fair", dict(zip(PAIRS, (1.0, 1.0, 0.0, 2 / 3), strict=True)), 1.0),
        "Frean, Proceedings of the Royal Society B 257 (1994), 75-79",
    ),
)

CLASSICAL: Mapping[str, Classical] = MappingProxyType(
    {each.name: each for each in (*_DETERMINISTIC, *_STOCHASTIC)}
)
"""The strategies of the literature by name: those without chance first."""


def get_classical(expression: str) -> Classical:
    """The strategy that an expression stands for.

    Args:
        expression: a name of ``CLASSICAL``, whatever its capitals, spaces and underscores, or a
            memory-one opponent with its settings, see ``games.opponents``.

    Raises:
        ConfigError: there is no such strategy, or a setting is wrong.
    """
    name = _regular(expression)
    if name in CLASSICAL:
        return CLASSICAL[name]
    _refuse_unknown(expression)
    return _table(get_opponent(expression), "games.opponents")


def memory_depth(expression: str) -> float:
    """How many of the last rounds does a strategy look at? Infinity for the whole game.

    Args:
        expression: as in ``get_classical``, or ``axelrod(NAME)``, for which the library is asked.

    Raises:
        ConfigError: there is no such strategy.
        DependencyError: the Axelrod library is asked for and not installed.
    """
    if _regular(expression.partition("(")[0]) == AXELROD:
        return axelrod_players.memory_depth(strategy_name(expression))
    return get_classical(expression).memory


def refuse_long_memory(expression: str) -> None:
    """Is this strategy a policy of one who sees the last round only?

    A prompt tells of one round, so an agent can meet a strategy with a longer memory, but cannot
    be one. Tables of ``games.opponents`` pass, ``grim`` among them: its own last move remembers.

    Raises:
        ConfigError: it needs more memory than a prompt holds, or there is no such strategy.
        DependencyError: the Axelrod library is asked for and not installed.
    """
    if _regular(expression) in OPPONENTS:
        return
    depth = memory_depth(expression)
    if depth <= PROMPT_MEMORY:
        return
    rounds = "the whole game" if math.isinf(depth) else f"the last {depth:g} rounds"
    raise ConfigError(
        "This strategy needs more memory than a prompt holds, so it is no policy of an agent",
        seen=f"{expression}, which looks at {rounds}",
        allowed="strategies that look at the last round alone, which is what a prompt tells",
        remedy="let agents meet it as an opponent, or choose a policy such as tit-for-tat",
    )


def as_opponent(expression: str) -> Opponent:
    """The four probabilities of a strategy that looks at the last round alone.

    Args:
        expression: a memory-one opponent, or any other strategy with a memory of one round or
            none: ``bully``, ``alternator``, ``joss``.

    Returns:
        The table of ``games.opponents`` where it has one of this name; else one that opens as
        the strategy does.

    Raises:
        ConfigError: it needs more memory than a prompt holds, or there is no such strategy.
        DependencyError: the Axelrod library is asked for and not installed.
    """
    refuse_long_memory(expression)
    if _regular(expression) not in CLASSICAL or _regular(expression) in OPPONENTS:
        return get_opponent(expression)
    known = get_classical(expression)
    table = {pair: float(known.rule(pair[1], pair[0])) for pair in PAIRS}
    return Opponent(known.name, table, float(known.rule("", "")))


def _regular(name: str) -> str:
    return re.sub(r"[\s_-]+", "-", name.strip().casefold())


def _refuse_unknown(expression: str) -> None:
    name = _regular(expression.partition("(")[0])
    if name in CLASSICAL and name not in OPPONENTS:
        raise ConfigError(
            f"The strategy {name!r} takes no settings",
            seen=expression,
            allowed=name,
            remedy=f"write {name} alone",
        )
    try:
        kind = opponent_kind(expression)
    except ConfigError as error:
        if name in (*OPPONENTS, "memory-one", "noisy", AXELROD):
            raise
        raise _no_strategy(expression) from error
    if kind != "memory-one":
        raise _no_strategy(expression)


def _no_strategy(expression: str) -> ConfigError:
    return ConfigError(
        "There is no classical strategy of this name",
        seen=expression,
        allowed=f"{', '.join(CLASSICAL)}, or a memory-one opponent with settings",
        remedy=nearest(_regular(expression), CLASSICAL),
    )
