"""What can a hypothesis be about? Every quantity by name: which fields it needs, in words.

The grammar checks hypotheses against these forms, the documentation prints them, and
``quantities`` joins each of them to the test that answers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Direction = Literal["above", "below", "differs", "zero"]

SIGNED: tuple[Direction, ...] = ("above", "below", "differs", "zero")

Count = tuple[int, int]
"""Fewest and most of something that is listed."""

NONE: Count = (0, 0)
MANY = 1_000


@dataclass(frozen=True, slots=True)
class Form:
    """What a hypothesis about a quantity has to say.

    Attributes:
        name: in the key ``quantity``.
        meaning: what the number is, in words; signs included.
        subject: the same as the start of a sentence, with {agents}, {rewards}, {sites} and the
            optional fields in it.
        unit: of the number, of a margin and of a published figure.
        tables: without which it cannot be tested.
        agents, rewards, sites: how many are named.
        required: further fields that must be there.
        optional: further fields that may be there.
        directions: which it can have.
        margin: whether it may lie within a margin instead.
        published: whether it is a printed statement that is tested anew. Then a direction is not
            needed, and the printed figure may stand in its place.
    """

    name: str
    meaning: str
    subject: str
    unit: str
    tables: tuple[str, ...]
    agents: Count = NONE
    rewards: Count = NONE
    sites: Count = NONE
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    directions: tuple[Direction, ...] = SIGNED
    margin: bool = True
    published: bool = False


_DECIDED = ("agents", "prompts", "decisions")
_PATCHED = ("agents", "prompts", "patching")

_DIRECT = (
    Form(
        "change",
        "log-odds of an agent minus those of its base, mean over scenarios",
        "the change of {agents} from base",
        "nats",
        _DECIDED,
        agents=(1, 1),
        optional=("labels",),
    ),
    Form(
        "difference",
        "log-odds of the first agent minus those of the second, mean over scenarios",
        "the log-odds of {first} minus those of {second}",
        "nats",
        _DECIDED,
        agents=(2, 2),
        optional=("labels",),
    ),
    Form(
        "reward_change",
        "change from base of the agents trained with a reward, mean over training seeds",
        "the change from base under the reward {rewards}",
        "nats",
        _DECIDED,
        rewards=(1, 1),
    ),
    Form(
        "reward_difference",
        "that change under the first reward minus the same under the second",
        "the change from base under the rewards {rewards}, the first minus the second,",
        "nats",
        _DECIDED,
        rewards=(2, 2),
    ),
    Form(
        "contrast",
        "a contrast of cooperation between states or situations; with two agents that of the "
        "first minus that of the second. A level of one agent is held against one half",
        "the contrast {contrast} of {agents}",
        "probability",
        _DECIDED,
        agents=(1, 2),
        required=("contrast",),
        optional=("family", "game"),
    ),
    Form(
        "patch_effect",
        "effect on the second agent's log-odds of taking a site from the first; of several sites "
        "the mean of their single effects; site all: the full swap",
        "the effect of taking {sites} from {first} into {second}",
        "nats",
        _PATCHED,
        agents=(2, 2),
        sites=(1, MANY),
        optional=("positions", "write"),
    ),
    Form(
        "symmetric_effect",
        "(A - B)/2 of a pair patched both ways: A the first agent into the second, B the reverse",
        "the signed effect (A - B)/2 of {sites} between {first} and {second}",
        "nats",
        _PATCHED,
        agents=(2, 2),
        sites=(1, MANY),
        optional=("positions", "write"),
    ),
    Form(
        "asymmetry",
        "(A + B)/2 of a pair patched both ways; 0 where effects are equal and opposite",
        "the asymmetry (A + B)/2 of {sites} between {first} and {second}",
        "nats",
        _PATCHED,
        agents=(2, 2),
        sites=(1, MANY),
        optional=("positions", "write"),
    ),
    Form(
        "attribution_change",
        "contribution of a site to an agent's log-odds minus that in base; of several sites the "
        "mean",
        "the change from base in the contribution of {sites} to {agents}",
        "nats",
        ("agents", "prompts", "attribution"),
        agents=(1, 1),
        sites=(1, MANY),
    ),
    Form(
        "flips",
        "share of scenarios in which a patch of one single site, from the first agent into the "
        "second, flips the preferred option",
        "the share of scenarios in which one site of {first} flips {second}",
        "share of scenarios",
        _PATCHED,
        agents=(2, 2),
        optional=("positions", "write"),
        directions=("above", "zero"),
        margin=False,
    ),
    Form(
        "learned",
        "what an agent was shown to have learned: the move, the label, the layout or the order",
        "what {agents} learned",
        "nats",
        ("agents", "learned"),
        agents=(1, 1),
        required=("learned",),
        directions=(),
        margin=False,
    ),
    Form(
        "levels_apart",
        "distance at a level of the cascade between agents of two rewards, mean over pairs from "
        "different training seeds, minus the same between training seeds of one reward",
        "at the level {level}, the distance between agents of the rewards {rewards} minus that "
        "between training seeds of one reward",
        "units of the level",
        ("agents", "comparisons"),
        rewards=(2, 2),
        required=("level",),
        directions=("above",),
        margin=False,
    ),
)

_PUBLISHED = (
    Form(
        "pathway_difference",
        "correlation of two sites over prompts in the first agent minus that in the second",
        "the correlation of {sites} in {first} minus that in {second}",
        "ratio",
        ("prompts",),
        agents=(2, 2),
        sites=(2, 2),
        required=("tables",),
        optional=("metric", "n"),
        directions=("above", "below", "differs"),
        margin=False,
        published=True,
    ),
    Form(
        "significant_count",
        "number of sites with an effect, or that differ from base (one agent) or between agents",
        "the number of sites with an effect in {agents}",
        "sites",
        ("prompts",),
        agents=(1, 2),
        required=("tables", "published"),
        optional=("metric", "n", "positions", "write"),
        directions=(),
        margin=False,
        published=True,
    ),
    Form(
        "similarity",
        "cosine or correlation of two agents' raw results",
        "the likeness of {first} and {second}",
        "ratio",
        ("agents", "prompts"),
        agents=(2, 2),
        required=("tables",),
        optional=("metric", "n"),
        directions=(),
        published=True,
    ),
    Form(
        "asymmetry_share",
        "share of sites whose effects have opposite signs in the two directions of a pair",
        "the share of sites with opposite effects between {first} and {second}",
        "share of sites",
        _PATCHED,
        agents=(2, 2),
        required=("published",),
        optional=("n", "positions", "write"),
        directions=(),
        margin=False,
        published=True,
    ),
    Form(
        "zero_flips",
        "no patch of the first agent into the second flips the preferred option",
        "the number of patches of {first} into {second} that flip the preferred option",
        "patches",
        _PATCHED,
        agents=(2, 2),
        optional=("n", "positions", "write"),
        directions=("zero",),
        margin=False,
        published=True,
    ),
    Form(
        "analyses_correlation",
        "correlation over sites of the effects in two analyses",
        "the correlation over sites of two analyses of {agents}",
        "ratio",
        ("prompts",),
        agents=(1, 2),
        required=("tables",),
        optional=("metric", "n", "positions", "write"),
        directions=("above", "below", "differs"),
        margin=False,
        published=True,
    ),
)

FORMS: Mapping[str, Form] = {form.name: form for form in (*_DIRECT, *_PUBLISHED)}
"""Every quantity by name: named ones first, then printed statements that are tested anew."""
