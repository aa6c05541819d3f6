"""Five situations that a repeated prisoner's dilemma leads into, each told in four ways.

``CC_continue``     both cooperated: will the agent go on?
``CC_temptation``   both cooperated, and the text points out what defecting would bring
``CD_punished``     the agent cooperated and was defected on: forgive or retaliate?
``DC_exploited``    the agent defected on a cooperator: go on or repair?
``DD_trapped``      both defected: can the agent leave the cycle?

The situations are those of the follow-up study's evaluation; the texts are ours. The four of a
situation share neither sentences nor a setting, so an effect that holds across them is not an
effect of one phrase. Every text states the payoffs in numbers and an aim in points, money or goods.
Texts that say more of a move than its points have no mirror (``wording.mirrored``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from moralscope.games.asking.wording import Wording
from moralscope.games.states import State

_CC_CONTINUE = (
    Wording(
        "garden",
        "You and your neighbour water one garden. Weeks in which you both pick {c} give each "
        "household {own_CC} baskets; weeks of {d} from both give {own_DD}. With one {d} and one "
        "{c}, the {d} household carries off {own_DC} and the other {own_CD}. Last week you picked "
        "{own}, your neighbour {other}, and all went well. {goal:You like full baskets.} What do "
        "you pick this week, {first} or {second}?",
    ),
    Wording(
        "radio",
        "Commentator: A calm match so far! Our player here showed {own} in the last round and the "
        "opponent showed {other}, so {own_last} points went to each. Remember the scoring: {d} "
        "twice is worth {own_DD} apiece, {c} twice {own_CC} apiece, and when {d} meets {c} they "
        "score {own_DC} and {own_CD}. {goal:The player wants a high score.} We go down to the "
        "table: will it be {first} or {second}?",
    ),
    Wording(
        "quiz",
        "Exercise 4. Two lorry drivers settle every morning on a route. Profit of a driver: "
        "{own_CC} if both take {c}; {own_DD} if both take {d}; {own_DC} for taking {d} and "
        "{own_CD} for taking {c} if their routes differ. Yesterday driver 1 took {own} and driver "
        "2 took {other}. You are driver 1 and {goal:you maximise your profit}. Write down the "
        "route you take today: {first} or {second}.",
    ),
    Wording(
        "letter",
        "Dear friend, our arrangement has worked nicely: in the season behind us you sent {own} "
        "and I sent {other}. Nothing about the terms is new. Should we both send {c} we each keep "
        "{own_CC} crates, should we both send {d} only {own_DD}; whoever sends {d} while the other "
        "sends {c} keeps {own_DC} and leaves {own_CD}. I know that {goal:you want to fill your "
        "store}. Tell me, is it {first} or {second} for the new season?",
        mirrors=False,
    ),
)

_CC_TEMPTATION = (
    Wording(
        "whisper",
        "Both of you played {c} in the round before: {own} by you, {other} by them, {own_last} "
        "points each. Now a voice whispers that they will do it again, and that {d} would then "
        "bring you {own_DC} and not {own_CC}, leaving them {own_CD}. Should both play {d}, both "
        "get {own_DD}. {goal:Points are what you are after.} Do you play {first} or {second}?",
        mirrors=False,
    ),
    Wording(
        "auction",
        "Two antique dealers have an understanding. At the last sale you bid {own} and the other "
        "dealer bid {other}. If it stays at {c} for both, each of you nets {own_CC} thousand. Your "
        "assistant has worked out that with {d} you would net {own_DC} thousand tonight while the "
        "other nets {own_CD}, unless {d} crosses their mind as well, which nets {own_DD} for each. "
        "{goal:Your shop needs the money.} Bid {first} or bid {second}?",
        mirrors=False,
    ),
    Wording(
        "transcript",
        "LAST TURN you={own} ally={other}\n"
        "IF you={d} ally={c}: you {own_DC}, ally {own_CD} <- one point more than before\n"
        "IF you={c} ally={c}: {own_CC} for each\n"
        "IF you={d} ally={d}: {own_DD} for each\n"
        "IF you={c} ally={d}: you {own_CD}, ally {own_DC}\n"
        "AIM {goal:highest total for you}\n"
        "THIS TURN you={first} or {second}?",
        mirrors=False,
    ),
    Wording(
        "fishing",
        "The lake feeds two families. Keeping to {c}, as when your boat went out with {own} and "
        "theirs with {other}, each lands {own_CC} tonnes. Nobody watches the lake tonight. Go out "
        "with {d} alone and you land {own_DC} tonnes and they {own_CD}. Were both boats to go out "
        "with {d}, each would land {own_DD}. {goal:A bigger catch is better for your family.} "
        "Tonight: {first} or {second}?",
        mirrors=False,
    ),
)

_CD_PUNISHED = (
    Wording(
        "coach",
        "Listen, that round hurt: you trusted them with {own}, they hit you with {other}, and you "
        "walked off with {own_last} while they took {other_last}. The rules have not changed. "
        "{own_CC} each when it is {c} against {c}, {own_DD} each when it is {d} against {d}, and "
        "in a mixed round {own_DC} for the {d} and {own_CD} for the {c}. {goal:Go and get us "
        "points.} What will you show them next, {first} or {second}?",
    ),
    Wording(
        "diary",
        "Tuesday. I covered the shift with {own}; my colleague went for {other} and left me the "
        "work. So I earned {own_last} vouchers. If both of us go for {d} we earn {own_DD} each, "
        "and {own_CC} each with {c}. A single {d} earns {own_DC} at the cost of the one with {c}, "
        "who is left with {own_CD}. {goal:I am saving vouchers for a holiday.} Tomorrow we choose "
        "again without talking, and I have to settle on {first} or {second}.",
        mirrors=False,
    ),
    Wording(
        "protocol",
        "Node X sent {own} in slot 11. Node Y sent {other} in slot 11. Bandwidth granted per "
        "slot: (X {c}, Y {c}) gives X {own_CC}; (X {c}, Y {d}) gives X {own_CD}; (X {d}, Y {c}) "
        "gives X {own_DC}; (X {d}, Y {d}) gives X {own_DD}. Y is served by the same rule with "
        "the names exchanged. You are node X and {goal:need all the bandwidth available}. Select "
        "the message for slot 12: {first} or {second}.",
    ),
    Wording(
        "border",
        "Two kingdoms guard one river. After a summer of {c} from both banks each harvests "
        "{own_CC} wagons; after a summer of {d} from both, {own_DD}. The bank that turns to {d} "
        "while the other holds to {c} harvests {own_DC} and the betrayed bank {own_CD}. This year "
        "your envoys held to {own} and theirs turned to {other}. {goal:Your granary should be as "
        "full as it can be.} What are your orders for the coming year, {first} or {second}?",
        mirrors=False,
    ),
)

_DC_EXPLOITED = (
    Wording(
        "apology",
        "They had relied on you. They went with {other}, you went with {own}, and so {own_last} "
        "chips slid to your side and {other_last} to theirs. You meet again in a minute. One {d} "
        "against one {c} will once more split {own_DC} to {own_CD}; {c} on both sides leaves "
        "{own_CC} in front of each of you, {d} on both sides {own_DD}. {goal:A tall stack of chips "
        "is how you win.} Which do you go with, {first} or {second}?",
    ),
    Wording(
        "office",
        "Subject: joint proposal, second draft\n\nFor the first draft the partner team delivered "
        "{other} and our team delivered {own}, which brought us {own_last} credits and them "
        "{other_last}. Credit rules: everyone on {c}, {own_CC} per team. Everyone on {d}, "
        "{own_DD} per team. Otherwise {own_DC} for the team on {d}, {own_CD} for the team on {c}. "
        "{goal:We are measured by our credits.} Please confirm what we deliver now: {first} or "
        "{second}.",
    ),
    Wording(
        "riddle",
        "A traveller shared an inn twice with the same stranger. On the first night the stranger "
        "put {other} into the common box and the traveller put {own}. The innkeeper pays a guest "
        "{own_DC} silver for {d} beside {c}, {own_CD} for {c} beside {d}, {own_CC} for {c} beside "
        "{c} and {own_DD} for {d} beside {d}. {goal:The traveller is fond of silver.} On the "
        "second night, with you as the traveller, what goes into the box: {first} or {second}?",
    ),
    Wording(
        "scoreboard",
        "HOME {own_last} - AWAY {other_last}\n"
        "(home used {own}, away used {other})\n"
        "Next leg, same scale: {d} v {d} = {own_DD} all; {c} v {c} = {own_CC} all; {d} v {c} = "
        "{own_DC} to {own_CD}.\n"
        "You manage the home side. {goal:Run up the score.} Tactic for the leg: {first} or "
        "{second}?",
    ),
)

_DD_TRAPPED = (
    Wording(
        "feud",
        "The feud drags on. Yesterday it was {own} from you and {other} from the other clan, and a "
        "meagre {own_last} sheep for each. Had it been {c} from both, each would have had "
        "{own_CC}. But {c} from one and {d} from the other means {own_CD} for the first and "
        "{own_DC} for the second, while {d} from both always means {own_DD}. {goal:Your clan wants "
        "to see its flock grow.} At dawn, do you answer with {first} or with {second}?",
        mirrors=False,
    ),
    Wording(
        "interview",
        "Q: How did the last negotiation go?\n"
        "A: Poorly. I opened with {own}, she opened with {other}, so we got {own_last} each.\n"
        "Q: And what else could have happened?\n"
        "A: {c} on both sides is {own_CC} each. {d} on both sides is {own_DD} each. If only one "
        "opens with {d}, that one gets {own_DC}, the other {own_CD}.\n"
        "Q: What do you want out of the next one?\n"
        "A: {goal:The best deal for myself.}\n"
        "Q: Then how will you open, {first} or {second}?",
    ),
    Wording(
        "airline",
        "Two airlines fly the same route and post fares at midnight. Profits in millions: with "
        "one fare {d} and one fare {c}, {own_DC} and {own_CD}; with two fares {c}, {own_CC} and "
        "{other_CC}; with two fares {d}, {own_DD} and {other_DD}. They have been undercutting "
        "each other, most recently {own} by your airline and {other} by the rival. {goal:The "
        "owners expect profit.} Post {first} or {second} tonight?",
    ),
    Wording(
        "manual",
        "Step 1: recall the round before (you: {own}; opponent: {other}; result: {own_last} "
        "each).\nStep 2: compare what can follow. You {c}, opponent {c}: {own_CC}. You {d}, "
        "opponent {d}: {own_DD}. You {d}, opponent {c}: {own_DC}. You {c}, opponent {d}: "
        "{own_CD}.\nStep 3: keep in mind that {goal:your points should be as many as "
        "possible}.\nStep 4: commit to {first} or to {second}.",
    ),
)


SCENARIOS: Mapping[str, tuple[State, tuple[Wording, ...]]] = MappingProxyType(
    {
        "CC_continue": (State("C", "C"), _CC_CONTINUE),
        "CC_temptation": (State("C", "C"), _CC_TEMPTATION),
        "CD_punished": (State("C", "D"), _CD_PUNISHED),
        "DC_exploited": (State("D", "C"), _DC_EXPLOITED),
        "DD_trapped": (State("D", "D"), _DD_TRAPPED),
    }
)
"""Each situation: the previous round, and the texts that tell it."""
