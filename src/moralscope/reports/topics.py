"""On which page does it stand? The analyses of a report, and what belongs to each.

A study has more figures and claims than one page can hold, so each analysis has a page of its own.
A figure names its topic itself, or is placed by its name, or by the first table that it draws; a
claim is placed by the first word of its id. What fits nowhere stands under ``further``, so nothing
is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moralscope.core import (
    schemas_attention,
    schemas_behaviour,
    schemas_course,
    schemas_inside,
    schemas_representations,
    schemas_weights,
    schemas_wiring,
)


@dataclass(frozen=True)
class Topic:
    """An analysis.

    Attributes:
        slug: name of its page.
        title: its heading.
        question: what it answers, for someone who opens the page first.
        reading: how to read what stands there, and the commonest way to misread it.
    """

    slug: str
    title: str
    question: str
    reading: str


TOPICS: tuple[Topic, ...] = (
    Topic(
        "behaviour",
        "Behaviour",
        "What does each agent do, and has it learned the move or only a label?",
        "Probabilities are exact, not sampled, unless a caption says so. A probability given a "
        "legal answer says little where legal answers are rare.",
    ),
    Topic(
        "training",
        "Training",
        "How did training go, and what came of it?",
        "Curves of one seed say nothing of the next; where several were trained, the band is "
        "over seeds.",
    ),
    Topic(
        "lens",
        "Logit lens",
        "At which depth can the decision be read?",
        "Where a decision becomes readable need not be where it is made.",
    ),
    Topic(
        "attribution",
        "Attribution",
        "Which components write the decision, and whose part changed?",
        "A contribution is what a component adds directly. That it changed does not say that the "
        "component was trained: its input may have changed.",
    ),
    Topic(
        "patching",
        "Patching",
        "Which components carry one agent's decision into another?",
        "Effects are causal and of one component at a time; they need not add up to the full swap.",
    ),
    Topic(
        "circuits",
        "Circuits",
        "How few components are enough, and do others find the same ones?",
        "A circuit is judged on scenarios that it was not chosen on, beside random ones of its "
        "size.",
    ),
    Topic(
        "attention",
        "Attention",
        "What does each agent look at, and does it use it?",
        "Weights say where a head looks. Only masking says whether the decision depends on it.",
    ),
    Topic(
        "wiring",
        "Wiring",
        "Which components vary together, and did fine-tuning change that?",
        "Correlations over few prompts differ by chance; pathways count where they survive the "
        "label-swap null, and matter where patching the path moves the decision.",
    ),
    Topic(
        "weights",
        "Weights",
        "What did fine-tuning change in the weights themselves?",
        "Two agents whose adapters began from one seed share input directions by construction.",
    ),
    Topic(
        "representations",
        "Representations",
        "How alike are the changes in what is represented?",
        "Raw vectors of two fine-tunes of one model are nearly equal whatever they learned, so "
        "changes from the base are compared.",
    ),
    Topic(
        "synthesis",
        "Synthesis",
        "At which level do agents differ by more than two seeds of one reward do?",
        "0 is the distance between two seeds of one reward, 1 that between the base and its "
        "fine-tunes. A level without a floor is not identified.",
    ),
    Topic(
        "further",
        "Further analyses",
        "What else was asked?",
        "Each caption says what its figure shows and what it does not.",
    ),
)

_FIGURES = {
    "memory_one": "behaviour", "policy": "behaviour", "label_control": "behaviour",
    "cooperation": "behaviour", "transfer": "behaviour", "learning_curves": "training",
    "training": "training", "training_actions": "training", "policy_drift": "training",
    "lens": "lens", "lens_settling": "lens", "attribution": "attribution",
    "attribution_parts": "attribution", "patching": "patching", "random_directions": "patching",
    "patching_across": "patching", "approximations": "patching", "circuit_curves": "circuits",
    "circuits": "circuits", "cascade": "synthesis",
}  # fmt: skip

_TABLES: dict[str, str] = {
    **dict.fromkeys(schemas_behaviour.SCHEMAS, "behaviour"),
    **dict.fromkeys(schemas_attention.SCHEMAS, "attention"),
    **dict.fromkeys(schemas_wiring.SCHEMAS, "wiring"),
    **dict.fromkeys(schemas_weights.SCHEMAS, "weights"),
    **dict.fromkeys(schemas_representations.SCHEMAS, "representations"),
    **dict.fromkeys(schemas_course.SCHEMAS, "further"),
    **dict.fromkeys(schemas_inside.SCHEMAS, "patching"),
    **dict.fromkeys(("lens", "lens_controls", "stabilisation", "stabilisation_summary"), "lens"),
    **dict.fromkeys(("attribution", "completeness"), "attribution"),
    "edges": "wiring",  # whoever patches paths asks what components tell each other
    **dict.fromkeys(
        ("circuits", "circuit_curves", "circuit_stability", "localisation"), "circuits"
    ),
    **dict.fromkeys(
        (
            "decisions", "policy", "cooperation", "transfer", "transfer_states", "learned", "moves",
        ),
        "behaviour",
    ),
    **dict.fromkeys(("training", "plays", "diagnostics"), "training"),
    **dict.fromkeys(("comparisons", "cascade", "questions"), "synthesis"),
}  # fmt: skip

_CLAIMS = {
    **dict.fromkeys(
        (
            "change", "difference", "labels", "specifications", "contrast", "alike", "learned",
            "texts", "reward", "rewards", "replicates", "seeds", "nearest", "robustness", "most",
            "effect", "families",
        ),
        "behaviour",
    ),
    **dict.fromkeys(("patching", "flips", "asymmetry", "carries", "label"), "patching"),
    **dict.fromkeys(("attribution", "sites", "change_sites"), "attribution"),
    **dict.fromkeys(("circuit", "circuits"), "circuits"),
    **dict.fromkeys(("attention", "uses"), "attention"),
    **dict.fromkeys(
        ("wiring", "pathways", "correlations", "hub", "norms", "interactions", "edges"), "wiring"
    ),
    **dict.fromkeys(
        ("weights", "update", "moved", "overlap", "writes", "reads"), "weights"
    ),
    **dict.fromkeys(("representation", "representations", "subspace", "separation"),
                    "representations"),
    **dict.fromkeys(("cascade", "question", "hypothesis"), "synthesis"),
    **dict.fromkeys(("targeting", "kept", "forecast", "course", "depth"), "further"),
}  # fmt: skip

_SLUGS = tuple(topic.slug for topic in TOPICS)


def topic_of_figure(name: str, tables: Sequence[str], topic: str = "") -> str:
    """The page of a figure.

    Args:
        name: the figure's.
        tables: those that it draws; of an absent figure none.
        topic: what it says itself; empty to place it by name and tables.
    """
    if topic in _SLUGS:
        return topic
    if name in _FIGURES:
        return _FIGURES[name]
    first = name.partition("_")[0]
    if first in _SLUGS:
        return first
    return topic_of_table(tables[0]) or "further" if tables else "further"


def topic_of_table(name: str) -> str | None:
    """The page of a table; None for what belongs to all of them."""
    return _TABLES.get(name)


def topic_of_claim(identifier: str, kind: str) -> str:
    """The page of a claim.

    Args:
        identifier: its id, such as ``replicates:attribution``.
        kind: the first word of it.
    """
    second = identifier.partition(":")[2].partition(":")[0]
    if kind in ("replicates", "alike") and second in _SLUGS:
        return second
    return _CLAIMS.get(kind, "further")
