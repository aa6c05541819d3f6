"""How is a public-goods game put into words, and where in the text does each thing stand?

As ``wording`` does for two players, with these fields of its own:

==============================================  =====================  ==========================
``{c}`` ``{d}`` ``{first}`` ``{second}`` ...      ``labels``             as for two players
``{endowment}`` ``{multiplier}``                ``payoffs``            the rule of the game
``{own_C_none}`` ``{own_D_all}`` ...            ``payoffs``            points if none, all of the
                                                                       others contribute
``{own_last}``                                  ``payoffs``            points of the last round
``{own}``                                       ``own_previous``       label of the own last move
``{cooperated}``                                ``opponent_previous``  how many others contributed
                                                                       in the last round
``{players}``                                   none                   N
``{row1}`` ``{row2}``                           ``labels``             headings of table rows
``{each:TEXT}``                                 as its parts           TEXT for every number of
                                                                       other contributors
``{goal:TEXT}``                                 ``goal``               TEXT itself
==============================================  =====================  ==========================

Inside ``{each:TEXT}``, ``{count}`` is the number of other contributors, ``{own_C}`` and ``{own_D}``
are the points of either move, and ``{own_1}`` and ``{own_2}`` those of either table row. A wording
tells the rule, or the points of both moves for every number of contributors. Points are told to
two decimals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter

from moralscope.core.decision import Span
from moralscope.core.errors import PromptError
from moralscope.games.asking.labels import label_fields
from moralscope.games.asking.wording import (
    TableOrder,
    fields_of,
    fill,
    refuse_unknown_fields,
    table_moves,
)
from moralscope.games.matrices import MOVES, points_text
from moralscope.games.public_goods import GroupState, PublicGoods

_LABELS = frozenset({"c", "d", "first", "second", "answer_first", "answer_second", "row1", "row2"})
_RULE = frozenset({"players", "endowment", "multiplier"})
_ENDS = frozenset(f"own_{move}_{k}" for move in MOVES for k in ("none", "all"))
_REQUIRED = frozenset({"own", "cooperated", "goal", "first", "second", "c"})
_OUTSIDE = _LABELS | _RULE | _ENDS | _REQUIRED | {"own_last", "each"}
_COUNTED = frozenset({"count", "own_C", "own_D", "own_1", "own_2"})


@dataclass(frozen=True, slots=True)
class GroupScene:
    """Everything that a wording of a public-goods game puts into words.

    Attributes:
        game: the game.
        state: the previous round.
        labels: what contributing and what keeping is called.
        option_order: 0 if ``{first}`` is the alphabetically first label, 1 if the second.
        answer_order: the same for ``{answer_first}``.
        table_order: order of a table's rows (own moves) and columns (numbers of contributors).
        stem: whether the answer is begun for the agent ("I choose action").
    """

    game: PublicGoods
    state: GroupState
    labels: tuple[str, str]
    option_order: int = 0
    answer_order: int = 0
    table_order: TableOrder = "original"
    stem: bool = True


@dataclass(frozen=True, slots=True)
class GroupWording:
    """One way of putting a public-goods game into words.

    Attributes:
        name: how tables call it.
        text: the text with its fields.
        table: whether points stand in a table (prose and lists are not tables).

    Raises:
        PromptError: the text has an unknown field, or leaves out something that an agent must
            know to decide: both options, the previous round, the goal, and the rule or every
            outcome.
    """

    name: str
    text: str
    table: bool = False

    def __post_init__(self) -> None:
        used, counted = fields_of(self.text), _inside_each(self.text)
        refuse_unknown_fields(self.name, used, _OUTSIDE)
        refuse_unknown_fields(self.name, counted, _COUNTED | _LABELS)
        outcomes = {"count", "own_C", "own_D"} <= counted or {"count", "own_1", "own_2"} <= counted
        missing = sorted(_REQUIRED - used)
        if not missing and not outcomes:
            missing = sorted(_RULE - used)
        if missing:
            raise PromptError(
                f"Wording {self.name!r} leaves out what an agent must know to decide",
                seen=f"no field {', '.join(missing)}",
                allowed="texts with both options, the previous round, the goal, and the rule or "
                "every outcome",
                remedy="add the missing fields to the text",
            )


def render_group(wording: GroupWording, scene: GroupScene) -> tuple[str, tuple[Span, ...]]:
    """The text of a scene, and the spans of its named parts in message 0.

    Returns:
        The text and its spans, in order of appearance and without overlap.

    Raises:
        ConfigError: there is no such table order, or the state is not one of the game's.
    """
    counts = list(range(scene.game.players))
    if scene.table_order in ("columns", "both"):
        counts.reverse()
    return fill(_repeated(wording.text, counts), _fields(scene))


def _inside_each(text: str) -> frozenset[str]:
    """The names of the fields within all ``{each:TEXT}`` of a text."""
    pieces = (inside or "" for _, name, inside, _ in Formatter().parse(text) if name == "each")
    return frozenset[str]().union(*map(fields_of, pieces))


def _repeated(text: str, counts: list[int]) -> str:
    """The text with every ``{each:TEXT}`` written out, its fields numbered."""
    for _, name, inside, _ in Formatter().parse(text):
        if name == "each" and inside is not None:
            pieces: list[str] = []
            for k in counts:
                piece = inside
                for field in _COUNTED:
                    piece = piece.replace(f"{{{field}}}", f"{{{field}_{k}}}")
                pieces.append(piece)
            text = text.replace(f"{{each:{inside}}}", "".join(pieces))
    return text


def _fields(scene: GroupScene) -> Mapping[str, tuple[str | None, str]]:
    """Every field but the goal: its category and its text."""
    game, state = scene.game, scene.state
    label = dict(zip(MOVES, scene.labels, strict=True))
    rows, _ = table_moves(scene.table_order)
    fields = label_fields(scene.labels, scene.option_order, scene.answer_order)
    for row, move in enumerate(rows, start=1):
        fields[f"row{row}"] = ("labels", label[move])
    fields |= {
        "players": (None, str(game.players)),
        "endowment": ("payoffs", points_text(game.endowment)),
        "multiplier": ("payoffs", points_text(game.multiplier)),
        "own": ("own_previous", label[state.own_previous]),
        "cooperated": ("opponent_previous", str(state.cooperators)),
        "own_last": ("payoffs", _told(game.points(state.own_previous, state.cooperators))),
    }
    for move in MOVES:
        for k in range(game.players):
            points = ("payoffs", _told(game.points(move, k)))
            fields[f"count_{k}"] = (None, str(k))
            fields[f"own_{move}_{k}"] = points
            fields[f"own_{rows.index(move) + 1}_{k}"] = points
        fields[f"own_{move}_none"] = fields[f"own_{move}_0"]
        fields[f"own_{move}_all"] = fields[f"own_{move}_{game.players - 1}"]
    return fields


def _told(points: float) -> str:
    """Points to two decimals: a share may be a fraction that no text can tell exactly."""
    return points_text(round(points, 2))
