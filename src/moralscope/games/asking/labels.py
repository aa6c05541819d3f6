"""What are the two moves called, and where does an answer that names one of them begin?

Labels are words of the user's own: any two of which neither begins with the other. What they share
at their beginning can be said for the agent, so that only the rest is left to say.
"""

from __future__ import annotations

from moralscope.core.errors import PromptError

OPENING = "I choose"
"""How an answer is begun for the agent unless something else is asked for."""


def check_labels(labels: tuple[str, str]) -> tuple[str, str]:
    """The two action labels, if prompts can be built from them.

    Raises:
        PromptError: a label is empty, padded, holds a line break or a table's bar, the two are the
            same, or one is the beginning of the other (an answer could then mean both).
    """
    for label in labels:
        if not label or label != label.strip() or not label.isprintable() or "|" in label:
            raise PromptError(
                "An action label cannot stand in a prompt",
                seen=repr(label),
                allowed="printable text without a bar or surrounding spaces, like action1",
                remedy="choose another label",
            )
    first, second = sorted(labels)
    if second.startswith(first):
        same = first == second
        raise PromptError(
            "The two action labels are the same"
            if same
            else "One action label is the beginning of the other",
            seen=f"{labels[0]!r} and {labels[1]!r}",
            allowed="two labels of which neither begins with the other",
            remedy="choose another label for one of the two moves",
        )
    return labels


def answer_forms(
    labels: tuple[str, str], *, stem: bool = True, opening: str = OPENING
) -> tuple[str, tuple[str, str]]:
    """Where does the answer begin, and how does it go on for each label?

    What the two labels share at their beginning goes into the answer's stem, up to the last place
    where a digit run starts or a word ends, so that tokens are not cut: ``action1``, ``action2``
    give ``("I choose action", ("1", "2"))``; ``wait``, ``walk`` give
    ``("I choose", (" wait", " walk"))``.

    Args:
        labels: what the two options are called.
        stem: whether the answer is begun for the agent. If not, the answer is the label alone:
            ``("", ("action1", "action2"))``.
        opening: how it is begun, without a space at its end.

    Returns:
        The stem, and what follows it for each label, in the order of the labels.

    Raises:
        PromptError: as for ``check_labels``.
    """
    first, second = check_labels(labels)
    if not stem:
        return "", (first, second)
    cut = max(
        (
            at
            for at in range(min(len(first), len(second)))
            if first[:at] == second[:at] and _breaks(first, at) and _breaks(second, at)
        ),
        default=0,
    )
    # A stem never ends in a space: tokens carry the space at their beginning.
    begun = f"{opening} {first[:cut]}".rstrip()
    whole = f"{opening} {first}", f"{opening} {second}"
    return begun, (whole[0][len(begun) :], whole[1][len(begun) :])


def _breaks(label: str, at: int) -> bool:
    """Whether a digit run starts, or a word ends or starts, before character ``at``."""
    if at == 0:
        return True
    before, after = label[at - 1], label[at]
    if after.isdigit():
        return not before.isdigit()
    return before.isalnum() != after.isalnum()


def label_fields(
    labels: tuple[str, str], option_order: int, answer_order: int
) -> dict[str, tuple[str | None, str]]:
    """The fields that name options: both by meaning, and both in either order."""
    ordered = sorted(labels)
    named = {
        "c": labels[0],
        "d": labels[1],
        "first": ordered[option_order],
        "second": ordered[1 - option_order],
        "answer_first": ordered[answer_order],
        "answer_second": ordered[1 - answer_order],
    }
    return {field: ("labels", label) for field, label in named.items()}
