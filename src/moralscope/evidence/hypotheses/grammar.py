"""What was said beforehand? One hypothesis: a quantity, whom it is about, and what is expected.

    hypotheses:
      - {id: forgives, quantity: change, agents: [game], direction: below}
      - {id: same, quantity: difference, agents: [game, hybrid], margin: 0.2}

A direction says where the number lies (``zero``: within the default margin), a margin that it lies
within +-margin. Printed statements that are tested anew may give the ``published`` figure instead.
``forms`` says which quantity takes which fields; anything else is refused.

Whether a hypothesis was *registered*, named before its data were measured, is nothing that its
author can write: it is found out (``studies.registration``) and travels beside it in ``Named``.
Hypotheses of an audit are never registered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from moralscope.core.agents import Frozen
from moralscope.core.errors import ConfigError, nearest
from moralscope.core.site import parse_site
from moralscope.evidence.hypotheses.forms import FORMS, NONE, Count, Direction, Form
from moralscope.evidence.synthesis.levels import LEVELS, TABLES

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LISTS = ("agents", "rewards", "sites")
_ALWAYS = ("id", "quantity", *_LISTS, "direction", "margin", "published")


class Hypothesis(Frozen):
    """A statement about one quantity, as it is written in a file.

    Attributes:
        id: its name; the claim about it is ``hypothesis:ID``.
        quantity: what it is about, a name in ``forms.FORMS``.
        agents: whom; the first minus the second, or the first into the second.
        rewards: which rewards, for claims about rewards.
        sites: where; printed canonically.
        labels: under this label assignment only (``action1/action2``: the label of cooperating
            first).
        contrast: name of a contrast, such as ``forgiveness``.
        family, game: prompts on which a contrast is taken.
        positions, write: which sweep of a pair; the usual ones unless given.
        learned: what was learned.
        level: at which level of the cascade agents are compared.
        tables: which tables a printed statement rests on.
        metric: which figure in them (an ``interactions`` measure; cosine or pearson).
        direction: above, below or off zero; ``zero``: within the default margin.
        margin: the quantity lies within +-margin, in its own unit.
        published: the figure that was printed.
        n: out of how many, or over how many units, as it was printed.
    """

    id: str
    quantity: str
    agents: tuple[str, ...] = ()
    rewards: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    labels: str | None = None
    contrast: str | None = None
    family: str | None = None
    game: str | None = None
    positions: str | None = None
    write: Literal["write", "z"] | None = None
    learned: Literal["move", "label", "layout", "order"] | None = None
    level: str | None = None
    tables: tuple[str, ...] | None = None
    metric: str | None = None
    direction: Direction | None = None
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    published: Annotated[float, Field(allow_inf_nan=False)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None

    @field_validator("sites")
    @classmethod
    def _canonical(cls, sites: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(parse_site(site)) for site in sites)

    @model_validator(mode="after")
    def _well_formed(self) -> Hypothesis:
        if _ID.fullmatch(self.id) is None:
            raise ConfigError(
                "This cannot be the name of a hypothesis",
                seen=repr(self.id),
                allowed="letters, digits, -, _ and ., a letter or digit first",
                remedy="rename it",
            )
        form = FORMS.get(self.quantity)
        if form is None:
            raise ConfigError(
                f"Hypothesis {self.id!r} is about a quantity that does not exist",
                seen=self.quantity,
                allowed=", ".join(FORMS),
                remedy=nearest(self.quantity, FORMS),
            )
        for field, count in zip(_LISTS, (form.agents, form.rewards, form.sites), strict=True):
            _check_count(self, field, count)
        _check_fields(self, form)
        _check_level(self)
        _check_expectation(self, form)
        return self

    @property
    def form(self) -> Form:
        """What hypotheses about this quantity have to say."""
        return FORMS[self.quantity]

    @property
    def needs(self) -> tuple[str, ...]:
        """The tables without which it cannot be tested, that of its level included."""
        return (*self.form.tables, *(() if self.level is None else (TABLES[self.level],)))

    @property
    def claims_absence(self) -> bool:
        """Whether it says that there is no effect, or none that matters."""
        return self.margin is not None or self.direction == "zero"


def _check_count(hypothesis: Hypothesis, field: str, count: Count) -> None:
    named: tuple[str, ...] = getattr(hypothesis, field)
    low, high = count
    twice = [name for name, times in Counter(named).items() if times > 1]
    if twice:
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} names the same of its {field} twice",
            seen=twice[0],
            allowed="each once",
            remedy="remove one of the two",
        )
    if low <= len(named) <= high:
        return
    if count == NONE:
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} names {field}, and {hypothesis.quantity} has none",
            seen=", ".join(named),
            allowed=f"no {field}: {hypothesis.form.meaning}",
            remedy=f"remove {field!r}, or choose another quantity",
        )
    some = str(low) if low == high else f"{low} or more" if high > 2 else f"{low} or {high}"
    raise ConfigError(
        f"Hypothesis {hypothesis.id!r} names the wrong number of {field}",
        seen=f"{len(named)}: {', '.join(named)}" if named else "none",
        allowed=f"{some}: {hypothesis.form.meaning}",
        remedy=f"write {field}: [{', '.join('NAME' for _ in range(low))}]",
    )


def _check_fields(hypothesis: Hypothesis, form: Form) -> None:
    given = {name for name, value in hypothesis if value is not None and name not in _ALWAYS}
    if hypothesis.published is not None:
        given.add("published")
    missing = [name for name in form.required if name not in given]
    if missing:
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} lacks the key {missing[0]!r}",
            seen=f"quantity {form.name}",
            allowed=f"{', '.join(form.required)} must be given: {form.meaning}",
            remedy=f"add {missing[0]!r}",
        )
    known = {*form.required, *form.optional, *(("published",) if form.published else ())}
    surplus = sorted(given - known)
    if surplus:
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} has a key that {form.name} does not take",
            seen=surplus[0],
            allowed=", ".join(sorted(known)) or f"no further keys: {form.meaning}",
            remedy=f"remove {surplus[0]!r}",
        )


def _check_level(hypothesis: Hypothesis) -> None:
    if hypothesis.level is not None and hypothesis.level not in LEVELS:
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} names the unknown level {hypothesis.level!r}",
            seen=hypothesis.level,
            allowed=", ".join(LEVELS),
            remedy=nearest(hypothesis.level, LEVELS),
        )


def _check_expectation(hypothesis: Hypothesis, form: Form) -> None:
    direction, margin = hypothesis.direction, hypothesis.margin
    allowed = [f"direction ({', '.join(form.directions)})"] if form.directions else []
    allowed += ["margin"] if form.margin else []
    if direction is not None and direction not in form.directions:
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} has a direction that {form.name} cannot have",
            seen=direction,
            allowed=" or ".join(allowed) or f"no direction: {form.meaning}",
            remedy="choose another direction" if form.directions else "remove 'direction'",
        )
    if margin is not None and not form.margin:
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} has a margin that {form.name} cannot have",
            seen=margin,
            allowed=" or ".join(allowed) or f"no margin: {form.meaning}",
            remedy="remove 'margin'",
        )
    count = (direction is not None) + (margin is not None)
    if count == 2 or (count == 0 and allowed and not form.published):
        raise ConfigError(
            f"Hypothesis {hypothesis.id!r} says "
            + ("two things at once" if count else "nothing that could turn out wrong"),
            seen=f"direction {direction}, margin {margin}",
            allowed=f"exactly one of {' and '.join(allowed)}",
            remedy="keep one of the two" if count else "add a direction or a margin",
        )


@dataclass(frozen=True, slots=True)
class Named:
    """A hypothesis and what is known of when it was named.

    ``make_claims``, ``judging.hypothesis_findings`` and ``judging.hypotheses_table`` take these;
    ``not_registered`` makes them of hypotheses whose time of naming nobody vouches for, those of
    an audit above all. A quantity's ``find`` sees the bare ``Hypothesis``.

    Attributes:
        hypothesis: what was said.
        registered: whether it was named before any of its data was measured.
        basis: how that is known, a sentence; the claim repeats it.
        asked: whether it is to be tested; if not, it is only listed.
    """

    hypothesis: Hypothesis
    registered: bool
    basis: str
    asked: bool = True


def not_registered(hypotheses: Sequence[Hypothesis], basis: str) -> tuple[Named, ...]:
    """Hypotheses that may have been named after the data were seen.

    Raises:
        ConfigError: two of them have the same name.
    """
    refuse_same_names(hypotheses)
    return tuple(Named(hypothesis, False, basis) for hypothesis in hypotheses)


def refuse_same_names(hypotheses: Sequence[Hypothesis]) -> None:
    """Refuse two hypotheses of one name.

    Raises:
        ConfigError: two of them have the same name.
    """
    twice = [name for name, n in Counter(h.id for h in hypotheses).items() if n > 1]
    if twice:
        raise ConfigError(
            "Two hypotheses have the same name",
            seen=twice[0],
            allowed="a different id for each",
            remedy="rename one of them",
        )


def statement_of(hypothesis: Hypothesis) -> str:
    """What a hypothesis says, as a sentence made from its fields."""
    form = hypothesis.form
    agents = (*hypothesis.agents, "", "")
    subject = form.subject.format(
        agents=" and ".join(hypothesis.agents),
        first=agents[0],
        second=agents[1],
        rewards=" and ".join(hypothesis.rewards),
        sites=_listed(hypothesis.sites),
        contrast=hypothesis.contrast,
        level=hypothesis.level,
    )
    where = [
        f"under the labels {hypothesis.labels}" if hypothesis.labels else "",
        f"on {hypothesis.family}" if hypothesis.family else "",
        f"in {hypothesis.game}" if hypothesis.game else "",
        f"at {hypothesis.positions}" if hypothesis.positions else "",
        f"by {hypothesis.write}" if hypothesis.write else "",
        f"by {' and '.join(hypothesis.tables)}" if hypothesis.tables else "",
        f"({hypothesis.metric})" if hypothesis.metric else "",
    ]
    words = [subject[:1].upper() + subject[1:], *(w for w in where if w), _expected(hypothesis)]
    return " ".join(words) + "."


def _expected(hypothesis: Hypothesis) -> str:
    if hypothesis.learned is not None:
        return f"is the {hypothesis.learned}"
    unit = hypothesis.form.unit
    level = "one half" if _is_level(hypothesis) else "zero"
    said = {
        "above": f"lies above {level}",
        "below": f"lies below {level}",
        "differs": f"differs from {level}",
        "zero": f"is {level}, within the default margin" if hypothesis.form.margin else "is zero",
    }
    words: list[str] = []
    if hypothesis.direction is not None:
        words.append(said[hypothesis.direction])
    if hypothesis.margin is not None:
        words.append(f"lies within {hypothesis.margin:g} {unit} of {level}")
    if hypothesis.published is not None:
        words.append(f"was published as {hypothesis.published:.10g}")
    counted = "" if hypothesis.n is None else f" (n = {hypothesis.n})"
    return (" and ".join(words) or "was published") + counted


def _is_level(hypothesis: Hypothesis) -> bool:
    levels = ("cooperation", "loyalty", "forgiveness", "resistance")
    return len(hypothesis.agents) == 1 and hypothesis.contrast in levels


def _listed(sites: Sequence[str]) -> str:
    if "all" in sites and len(sites) == 1:
        return "everything (the full swap)"
    if len(sites) > 4:
        return f"{', '.join(sites[:3])} and {len(sites) - 3} further sites"
    return " and ".join([", ".join(sites[:-1]), sites[-1]]) if len(sites) > 1 else "".join(sites)
