"""What is looked for inside? The key ``mechanisms`` of the study file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from moralscope.core.agents import Frozen
from moralscope.studies.choices.attention import AttentionChoice
from moralscope.studies.choices.interactions import InteractionChoice
from moralscope.studies.choices.representations import RepresentationChoice
from moralscope.studies.choices.weights import WeightChoice

Method = Literal[
    "lens",
    "attribution",
    "attribution_change",
    "patching",
    "approximations",
    "paths",
    "circuits",
    "attention",
    "interactions",
    "weights",
    "representations",
]
SiteKind = Literal[
    "head", "mlp", "attn", "q", "k", "v", "embed", "resid_pre", "resid_mid", "resid_post"
]


class MechanismChoice(Frozen):
    """What is looked for inside.

    Attributes:
        methods: which to use: the lens with its controls; attribution, and its change from the
            base split into weights and input; exhaustive patching; approximations of it with
            their agreement; paths straight to the decision; circuits; attention by
            category, masked and amplified; component interactions; weight updates;
            representations: similarity, directions, subspaces.
        scenarios: how many scenarios to use; those of clusters are taken in turn over games and
            asked once in each wording, orders and labels rotated.
        pairs: ordered pairs (source, target) to patch; the base into every trained agent unless
            given.
        self_patch_prompts: prompts on which each patched agent is patched into itself.
        sites: kinds of site to patch.
        positions: where: ``answer_span``, ``all``, or named spans of the prompts.
        write: what a patched head gets: the source's contribution, or its activation ``z``.
        changes: patch across prompts too, from counterparts that differ in this: the package's
            changes (``opponent_previous``, ``own_previous``, ``payoffs``, ``labels``) or those
            that the user's prompts declare.
        circuit_share: share of the full swap that a circuit has to reach.
        attention: settings of attention.
        interactions: settings of component interactions.
        weights: settings of weight updates.
        representations: settings of representations.
        memory_mib: what a patching pass may use beyond the model and its clean runs.
    """

    methods: tuple[Method, ...] = ("lens", "attribution", "attribution_change", "patching")
    scenarios: Annotated[int, Field(ge=1)] = 20
    pairs: tuple[tuple[str, str], ...] | None = None
    self_patch_prompts: Annotated[int, Field(ge=1)] = 2
    sites: Annotated[tuple[SiteKind, ...], Field(min_length=1)] = ("head", "mlp")
    positions: Annotated[tuple[str, ...], Field(min_length=1)] = ("answer_span",)
    write: Literal["write", "z"] = "write"
    changes: tuple[str, ...] = ()
    circuit_share: Annotated[float, Field(gt=0, le=1)] = 0.8
    attention: AttentionChoice = AttentionChoice()
    interactions: InteractionChoice = InteractionChoice()
    weights: WeightChoice = WeightChoice()
    representations: RepresentationChoice = RepresentationChoice()
    memory_mib: Annotated[int, Field(ge=1)] = 2048

    @property
    def everywhere(self) -> bool:
        """Whether patches reach beyond the answer span."""
        return any(where != "answer_span" for where in self.positions)
