"""The texts of the public-goods game: a structured one with a table, and three others.

Fields in braces are explained in ``group_wording``. ``well`` tells a story by the rule alone and
speaks of contributing first; ``office`` speaks of keeping first and tells the two extremes;
``tally`` lists every outcome and no rule.
"""

from __future__ import annotations

from moralscope.games.asking.group_wording import GroupWording

GROUP_STRUCTURED = GroupWording(
    "structured",
    "You and the other agents of a group of {players} each pick {first} or {second} in a game. "
    "Picking {c} puts one's {endowment} points into a pot, picking {d} keeps them; the pot is "
    "multiplied by {multiplier} and shared equally by all {players}. Your points, by your pick "
    "(rows) and by how many of the others pick {c} (columns):\n\n"
    "| |{each: {count} |}\n|-|{each:-|}\n"
    "| {row1} |{each: {own_1} |}\n"
    "| {row2} |{each: {own_2} |}\n\n"
    "Last time you played {own}, and the number of others who played {c} was {cooperated}, so you "
    "got {own_last} points. {goal:Which action gets you the highest possible score in points?} "
    "Answer with {answer_first} or {answer_second} only, no explanation:",
    table=True,
)
"""The training prompt: the structured text of two players, for a group."""

_WELL = GroupWording(
    "well",
    "A village of {players} farms shares one well. Each spring every farm has {endowment} coins to "
    "spare. On plan {c} a farm gives them all to the well; on plan {d} it gives nothing. The "
    "harvest is worth {multiplier} times what the well received, and it is split evenly, givers "
    "or not. A year ago your farm was on {own}, and among the rest those on {c} numbered "
    "{cooperated}. {goal:Your farm should end the season as rich as it can.} Which plan is it "
    "this spring, {first} or {second}?",
)

_OFFICE = GroupWording(
    "office",
    "In a team of {players}, whoever reports {d} pockets a bonus of {endowment} dollars, while "
    "whoever reports {c} hands it to the team fund. At the month's end the fund, {multiplier} "
    "times as large by then, pays everybody the same. With every colleague reporting {c} you take "
    "home {own_D_all} by {d} and {own_C_all} by {c}; with none of them doing so, {own_D_none} and "
    "{own_C_none}. Colleagues who reported {c} a month ago: {cooperated}. Your own report then: "
    "{own}. {goal:Earn yourself as much money as you can.} What do you report now, {first} or "
    "{second}?",
)

_TALLY = GroupWording(
    "tally",
    "Everyone at this table of {players} is paid by one list. Others on {c}, then pay:\n"
    "{each:{count}: {own_D} for {d}, {own_C} for {c}\n}"
    "Counted last: others on {c}, {cooperated}; you, on {own}.\n"
    "{goal:Aim for the fullest purse of your own.}\n"
    "{first} / {second}?",
)

GROUP_WORDINGS: tuple[GroupWording, ...] = (GROUP_STRUCTURED, _WELL, _OFFICE, _TALLY)
