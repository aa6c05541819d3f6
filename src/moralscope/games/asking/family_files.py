"""Which texts does the user bring? A prompt family of one's own, from a YAML file.

A family is a game put into one's own words, any number of times:

    name: harbour
    game: IPD
    memory: both
    payoffs: false
    texts:
      boats: >-
        Two boats share a harbour. To keep the channel clear is called {c}, to block it {d}.
        Yesterday you did {own} and the other boat did {other}. Is it {first} or {second} today?
      buoys: >-
        ...

``name`` and ``texts`` are needed. ``game`` is a name or an expression (IPD). ``memory`` says which
last moves the texts tell: ``both`` (the default, ``{own}`` and ``{other}``), ``other`` or ``none``.
``payoffs: true`` says that they tell the points (``{own_CC}`` to ``{own_DD}``, or the cells of a
table); without it they tell none. Every text names both options (``{first}`` and ``{second}``, in
the order that is varied), may say what a move is called (``{c}``, ``{d}``) and what to aim for
(``{goal:TEXT}``). All slots are listed in ``wording``; a brace of the text itself is doubled.

Nothing is guessed: a slot that is missing for what the file says, or that nothing fills, is an
error that names the family, the text and the slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from moralscope.core.decision import PromptSet
from moralscope.core.documents import parse_yaml, read_document, validate
from moralscope.core.errors import PromptError, nearest
from moralscope.games.asking.family_sets import FAMILIES, family_prompts
from moralscope.games.asking.files import located
from moralscope.games.asking.prompts import ASSIGNMENTS, LABELS, Assignment, assigned
from moralscope.games.asking.wording import FIELDS, Part, Wording, fields_of, missing_fields
from moralscope.games.matrices import get_game

Memory = Literal["both", "other", "none"]

TAKEN: frozenset[str] = frozenset(
    {"structured", "wordings", "scenarios", "clusters", "framings", "public-goods", "user"}
).union(FAMILIES)
"""Names of the package's own families."""

_OMITTED: dict[Memory, tuple[Part, ...]] = {
    "both": (),
    "other": ("own",),
    "none": ("own", "other"),
}


class _Family(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1)
    game: str = "IPD"
    memory: Memory = "both"
    payoffs: bool = False
    texts: dict[str, str] = Field(min_length=1)


def read_family(
    path: Path,
    labels: tuple[str, str] = LABELS,
    assignments: Sequence[Assignment] = ASSIGNMENTS,
) -> PromptSet:
    """Read a user's own family of texts.

    Args:
        path: a YAML file as described above.
        labels: what cooperating and what defecting is called under the assignment ``same``.
        assignments: which label assignments to ask under.

    Returns:
        Each text in all states that it tells apart x 2 option orders x the assignments; the family
        is the file's ``name``, the template the name of the text.

    Raises:
        PromptError: the file cannot be read or holds no family, its name is one of the package's,
            a text lacks a slot, has one that nothing fills or that the file says it omits, two
            texts are the same, or the labels cannot stand in a prompt.
        ConfigError: there is no such assignment.
    """
    assigned(labels, assignments)  # what is wrong with these is not the file's fault
    raw = parse_yaml(read_document(path, PromptError), str(path), PromptError)
    family = validate(_Family, raw, str(path), PromptError)
    with located(str(path)):
        if family.name in TAKEN:
            raise PromptError(
                "The name of a family is taken by one of the package's",
                seen=family.name,
                allowed=f"names other than {', '.join(sorted(TAKEN))}",
                remedy="give your family another name",
            )
        game = get_game(family.game)
        texts = [_wording(family, name, text) for name, text in family.texts.items()]
        return PromptSet(family_prompts(family.name, texts, game, labels, assignments))


def _wording(family: _Family, name: str, text: str) -> Wording:
    """A text of the family, checked slot by slot."""
    where = f"Text {name!r} of family {family.name!r}"
    if not name.strip():
        raise PromptError(
            f"{where} has no name",
            seen=repr(name),
            allowed="a name of one letter or more",
            remedy="name the text",
        )
    _check_slots(where, text)
    goal: tuple[Part, ...] = () if "goal" in fields_of(text) else ("goal",)
    payoffs: tuple[Part, ...] = () if family.payoffs else ("payoffs",)
    omits = (*payoffs, *_OMITTED[family.memory], *goal)
    missing = missing_fields(text, omits)
    if missing:
        said = f"memory: {family.memory}, payoffs: {str(family.payoffs).lower()}"
        raise PromptError(
            f"{where} has no slot {{{missing[0]}}}",
            seen=f"no {', '.join(f'{{{slot}}}' for slot in missing)}",
            allowed=f"texts with both options and all that the file says they tell ({said})",
            remedy=f"write {{{missing[0]}}} where {_meaning(missing[0])} stands",
        )
    with located(where):
        table = not fields_of(text).isdisjoint({"row1", "row2", "column1", "column2"})
        return Wording(name, text, table=table, mirrors=False, omits=omits)


def _check_slots(where: str, text: str) -> None:
    """Refuse braces that do not match, and slots that nothing fills."""
    try:
        slots = [piece[1:] for piece in Formatter().parse(text) if piece[1] is not None]
    except ValueError as cause:
        raise PromptError(
            f"{where} has a brace without its counterpart",
            seen=str(cause),
            allowed="slots in single braces, braces of the text itself doubled",
            remedy="close the slot, or write {{ and }} for braces that are meant as text",
        ) from cause
    for slot, inside, conversion in slots:
        if slot not in FIELDS:
            raise PromptError(
                f"{where} has an unknown slot",
                seen=f"{{{slot}}}",
                allowed=", ".join(sorted(FIELDS)),
                remedy=nearest(str(slot), FIELDS),
            )
        told = bool(inside and inside.strip()) and "{" not in str(inside)
        if conversion or (slot == "goal") != bool(inside) or (inside and not told):
            raise PromptError(
                f"{where} has a slot {{{slot}}} that cannot be filled as it is written",
                seen=f"{slot!r}, then {(conversion or inside or '')!r}",
                allowed="the name alone, but for {goal:TEXT}, whose text has no slots in it",
                remedy="write the name alone, or for the goal its text behind a colon",
            )


def _meaning(slot: str) -> str:
    named = {
        "first": "the option that is named first",
        "second": "the option that is named second",
        "own": "the agent's own last move",
        "other": "the other's last move",
    }
    return named.get(slot, "the number of points")
