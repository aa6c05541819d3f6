"""How is a game put into words, and where in the text does each thing stand?

A wording is a text with named fields. Filling the fields from a scene gives the prompt's text and,
in the same pass, the character spans of everything a study may ask about: nothing is ever searched
for in the finished text, so a label that also occurs in an ordinary word cannot be mistaken.

Fields and the category of the span that each leaves behind:

=====================================  =====================  =================================
``{c}`` ``{d}``                        ``labels``             label of cooperating, defecting
``{first}`` ``{second}``               ``labels``             both labels, in the option order
``{answer_first}`` ``{answer_second}``  ``labels``             both labels, in the answer order
``{row1}`` ``{column2}`` ...           ``labels``             headings of a payoff table
``{own_CD}`` ``{other_CD}`` ...        ``payoffs``            points after (own, other's) moves
``{own_12}`` ``{other_12}`` ...        ``payoffs``            points in table row 1, column 2
``{own_last}`` ``{other_last}``        ``payoffs``            points of the last round
``{own}`` ``{other}``                  ``own_previous``,      label of the own, the other's last
                                       ``opponent_previous``  move
``{goal:TEXT}``                        ``goal``               TEXT itself
=====================================  =====================  =================================

Spans never overlap. A wording that leaves out a category, or one of the four outcomes, is refused
when it is built, unless it says that it omits that part. ``mirrored`` exchanges the moves
throughout a text. Rendering with a chat template is not done here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import product
from string import Formatter
from typing import Literal, get_args

from moralscope.core.decision import Move, Span
from moralscope.core.errors import ConfigError, PromptError, nearest
from moralscope.games.asking.labels import label_fields
from moralscope.games.matrices import MOVES, PAIRS, Game, payoff, points_text
from moralscope.games.states import State

CATEGORIES = ("labels", "payoffs", "opponent_previous", "own_previous", "goal")
"""The span categories; every wording has all of them."""

TableOrder = Literal["original", "rows", "columns", "both"]
TABLE_ORDERS: tuple[TableOrder, ...] = get_args(TableOrder)
"""The wording's own order of payoff rows and columns, or rows, columns or both exchanged."""

Part = Literal["payoffs", "own", "other", "goal"]
"""What a wording may leave out, if it says so: what is at stake, a last move, what to aim for."""

MIRROR_SUFFIX = "-mirrored"
"""What the name of a mirrored wording ends in."""

_OPTIONS = frozenset({"first", "second"})
_OUTCOMES = frozenset(f"own_{own}{other}" for own, other in PAIRS)
_CELLS = frozenset(f"own_{row}{column}" for row, column in product("12", "12"))


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that a wording puts into words.

    Attributes:
        game: whose payoffs are told.
        state: the previous round.
        labels: what cooperating and what defecting is called.
        option_order: 0 if ``{first}`` is the alphabetically first label, 1 if the second.
        answer_order: the same for ``{answer_first}``.
        table_order: order of the rows and columns of a payoff table.
        stem: whether the answer is begun for the agent ("I choose action").
    """

    game: Game
    state: State
    labels: tuple[str, str]
    option_order: int = 0
    answer_order: int = 0
    table_order: TableOrder = "original"
    stem: bool = True


@dataclass(frozen=True, slots=True)
class Wording:
    """One way of putting a game into words.

    Attributes:
        name: how tables call it.
        text: the text with its fields.
        table: whether payoffs stand in a table (prose and lists are not tables).
        mirrors: whether the text stays true when ``mirrored`` exchanges its moves. Prose that
            says more of a move than its points ("the betrayed bank") does not.
        omits: the parts that the text leaves out on purpose; empty for texts of the game itself.

    Raises:
        PromptError: the text has an unknown field, tells a part that it omits, or leaves out
            something that an agent must know to decide: both options, both last moves, the four
            outcomes, the goal.
    """

    name: str
    text: str
    table: bool = False
    mirrors: bool = True
    omits: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        used = fields_of(self.text)
        refuse_unknown_fields(self.name, used, FIELDS)
        missing = missing_fields(self.text, self.omits)
        if missing:
            raise PromptError(
                f"Wording {self.name!r} leaves out what an agent must know to decide",
                seen=f"no field {', '.join(missing)}",
                allowed="texts with both options, both last moves, the four outcomes and the goal",
                remedy="add the missing fields to the text",
            )
        for part in self.omits:
            told = sorted(_TELLING[part] & used)
            if told:
                raise PromptError(
                    f"Wording {self.name!r} tells what it says to omit: {part}",
                    seen=f"{{{told[0]}}}",
                    allowed=f"texts without {', '.join(sorted(_TELLING[part]))}",
                    remedy=f"take the field out of the text, or {part} out of what it omits",
                )

    @property
    def symmetric_only(self) -> bool:
        """Whether the text tells points of one player that stand for both players'."""
        own = fields_of(self.text) & (_OUTCOMES | _CELLS)
        return not {name.replace("own", "other") for name in own} <= fields_of(self.text)


def mirrored(wording: Wording) -> Wording:
    """The same text with the two moves in each other's place: is it the order of mention?

    Wherever the text speaks of a move or of the points after moves, it speaks of the other one:

        {c} <-> {d}    {row1} <-> {row2}    {column1} <-> {column2}
        {own_xy} <-> {own_x'y'}    {other_xy} <-> {other_x'y'}

    with x' the move (row, column) other than x. Points stay with the moves that they follow, so
    the same game is told; what was played last, the goal, and the order in which options and
    answers are named are not touched. Only which move is spoken of first is otherwise. An agent
    that takes whichever move comes second in the text answers the two with different moves.

    Returns:
        The mirror, named ``rounds-mirrored``; the mirror of a mirror is the original.

    Raises:
        PromptError: the prose is only true of the moves as they stand.
    """
    if not wording.mirrors:
        raise PromptError(
            f"Wording {wording.name!r} has no mirror",
            seen="prose that is only true of the moves as they stand",
            allowed="texts that say nothing of a move but the points that follow it",
            remedy="mirror another text, such as rounds",
        )
    name = wording.name
    back = name.endswith(MIRROR_SUFFIX)
    return replace(
        wording,
        name=name.removesuffix(MIRROR_SUFFIX) if back else name + MIRROR_SUFFIX,
        text="".join(
            _literal(literal) + ("" if field is None else _field(_facing(field), inside))
            for literal, field, inside, _ in Formatter().parse(wording.text)
        ),
    )


_FACING = str.maketrans("CD12", "DC21")


def _facing(field: str) -> str:
    """The field of the other move; fields that belong to no move face themselves."""
    # No other field has a capital or a digit in its name.
    return {"c": "d", "d": "c"}.get(field, field.translate(_FACING))


def _literal(text: str) -> str:
    """Text as a template writes it, where a brace is doubled."""
    return text.replace("{", "{{").replace("}", "}}")


def _field(name: str, inside: str | None) -> str:
    return f"{{{name}:{inside}}}" if inside else f"{{{name}}}"


def missing_fields(text: str, omits: Collection[Part] = ()) -> list[str]:
    """The fields that a text lacks, in alphabetical order: options, and parts not omitted."""
    used = fields_of(text)
    required = set(_OPTIONS) | ({"own", "other", "goal"} - set(omits))
    if "payoffs" not in omits:
        required |= _CELLS if _CELLS & used else _OUTCOMES
    return sorted(required - used)


def fields_of(text: str) -> frozenset[str]:
    """The names of a text's fields."""
    return frozenset(name for _, name, _, _ in Formatter().parse(text) if name is not None)


def refuse_unknown_fields(wording: str, used: Collection[str], known: Collection[str]) -> None:
    """Refuse a wording that has fields which nothing fills.

    Raises:
        PromptError: a field is not known.
    """
    unknown = sorted(set(used).difference(known))
    if unknown:
        raise PromptError(
            f"Wording {wording!r} has an unknown field",
            seen=f"{{{unknown[0]}}}",
            allowed=", ".join(sorted(known)),
            remedy=nearest(unknown[0], known),
        )


def render(wording: Wording, scene: Scene) -> tuple[str, tuple[Span, ...]]:
    """The text of a scene, and the spans of its named parts in message 0.

    Returns:
        The text and its spans, in order of appearance and without overlap.
    """
    return fill(wording.text, _fields(scene))


def fill(
    template: str, fields: Mapping[str, tuple[str | None, str]]
) -> tuple[str, tuple[Span, ...]]:
    """A text with its fields filled in.

    Args:
        template: the text with its fields; ``{goal:TEXT}`` fills itself.
        fields: each field's category, None for one that leaves no span, and its filling.

    Returns:
        The text and its spans in message 0, in order of appearance and without overlap.
    """
    text = ""
    spans: list[Span] = []
    for literal, name, inside, _ in Formatter().parse(template):
        text += literal
        if name is None:
            continue
        category, filling = ("goal", inside or "") if name == "goal" else fields[name]
        if category is not None:
            spans.append(Span(category, 0, len(text), len(text) + len(filling)))
        text += filling
    return text, tuple(spans)


def _fields(scene: Scene) -> Mapping[str, tuple[str | None, str]]:
    """Every field but the goal: its category and its text."""
    label = dict(zip(MOVES, scene.labels, strict=True))
    rows, columns = table_moves(scene.table_order)
    fields = label_fields(scene.labels, scene.option_order, scene.answer_order)
    fields["own"] = ("own_previous", label[scene.state.own_previous])
    fields["other"] = ("opponent_previous", label[scene.state.opponent_previous])
    for i in range(2):
        fields[f"row{i + 1}"] = ("labels", label[rows[i]])
        fields[f"column{i + 1}"] = ("labels", label[columns[i]])
    cells: dict[str, tuple[Move, Move]] = {f"{own}{other}": (own, other) for own, other in PAIRS}
    cells |= {f"{i + 1}{j + 1}": (rows[i], columns[j]) for i, j in product(range(2), repeat=2)}
    cells["last"] = (scene.state.own_previous, scene.state.opponent_previous)
    for cell, (own, other) in cells.items():
        points = payoff(scene.game, own, other)
        fields[f"own_{cell}"] = ("payoffs", points_text(points[0]))
        fields[f"other_{cell}"] = ("payoffs", points_text(points[1]))
    return fields


def table_moves(order: TableOrder) -> tuple[tuple[Move, Move], tuple[Move, Move]]:
    """Which move stands in each row, and in each column, of a payoff table?

    Raises:
        ConfigError: there is no such order.
    """
    if order not in TABLE_ORDERS:
        raise ConfigError(
            "There is no such order of a payoff table",
            seen=order,
            allowed=", ".join(TABLE_ORDERS),
            remedy=nearest(str(order), TABLE_ORDERS),
        )
    exchanged = (MOVES[1], MOVES[0])
    rows = exchanged if order in ("rows", "both") else MOVES
    columns = exchanged if order in ("columns", "both") else MOVES
    return rows, columns


FIELDS = frozenset(
    {"goal", "c", "d", "first", "second", "answer_first", "answer_second", "own", "other"}
    | {f"{axis}{i}" for axis in ("row", "column") for i in "12"}
    | {
        f"{who}_{cell}"
        for who in ("own", "other")
        for cell in ("CC", "CD", "DC", "DD", "11", "12", "21", "22", "last")
    }
)
"""The names of all fields."""

_POINTS = frozenset(field for field in FIELDS if field.startswith(("own_", "other_")))

_TELLING: Mapping[Part, frozenset[str]] = {
    "payoffs": _POINTS,
    "own": frozenset({"own", "own_last", "other_last"}),
    "other": frozenset({"other", "own_last", "other_last"}),
    "goal": frozenset({"goal"}),
}
"""The fields that give a part away: points of the last round tell both last moves."""
