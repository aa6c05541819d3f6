"""Which token of one prompt corresponds to which of another? Token by token, or not at all.

To patch activity from one prompt into another, every edited token needs its counterpart:

=================  =========================================================================
``answer_span``    the last token of the prompt, and the answers' tokens: form by form, in the
                   order of the options, each but its last token, which is never read
``all``            that, and every token of the prompt by its index: equally many in both
a span's category  the tokens that its spans stand on, in order: equally many in both
=================  =========================================================================

Two forms that begin alike share tokens in the target, which then have to be shared in the source,
or one token would have two counterparts. A prompt aligns with itself. What tokens *say* is not
compared: that is what is patched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import combinations

from moralscope.core.errors import PromptError, nearest
from moralscope.models.rendering import EncodedPrompt, tokens_of
from moralscope.models.tree import Tokens

ANSWER_SPAN = "answer_span"
"""The last token of the prompt, and the answers' tokens."""

ALL = "all"
"""Every token."""

_AROUND = 4
_OTHER_FORMS = "give both prompts forms that tokenise alike, or patch at a named span"


@dataclass(frozen=True, slots=True)
class Alignment:
    """Corresponding tokens of two prompts.

    Attributes:
        prompt: pairs (target, source) of indices into ``tokens``, ascending in both.
        forms: (form, step) of the answers' tokens, the same in both: forms are counted through
            ``positive`` and then ``negative``; step 0 is the first token after the prompt.
    """

    prompt: tuple[tuple[int, int], ...]
    forms: tuple[tuple[int, int], ...]


def align(target: EncodedPrompt, source: EncodedPrompt, positions: str) -> Alignment:
    """Pair the tokens of two prompts at some positions.

    Args:
        target: the prompt that is patched.
        source: the prompt that activity comes from; may be the same.
        positions: ``answer_span``, ``all``, or a category of spans.

    Raises:
        PromptError: the two do not align token by token (the message says where), or a prompt
            lacks the span.
    """
    if positions not in (ANSWER_SPAN, ALL):
        pairs = _spans(target, source, positions)
        return Alignment(tuple(pairs), ())
    count, others = len(target.tokens), len(source.tokens)
    if positions == ANSWER_SPAN:
        pairs = [(count - 1, others - 1)]
    elif count != others:
        raise _out_of_step(target, source)
    else:
        pairs = [(index, index) for index in range(count)]
    return Alignment(tuple(pairs), _forms(target, source))


def _spans(target: EncodedPrompt, source: EncodedPrompt, category: str) -> list[tuple[int, int]]:
    mine, theirs = (_tokens_at(prompt, category) for prompt in (target, source))
    if len(mine) != len(theirs):
        shared = min(len(mine), len(theirs))
        at = next((i for i in range(shared) if _apart(mine, theirs, i)), shared - 1)
        raise _refusal(
            target,
            source,
            f"span {category!r}: {len(mine)} tokens ({_text(target, mine)}) against "
            f"{len(theirs)} ({_text(source, theirs)}), out of step from its token {at}",
            f"equally many tokens of the span {category!r} in both",
            "use words of equally many tokens, or patch at positions='answer_span'",
        )
    return list(zip(mine, theirs, strict=True))


def _apart(mine: Tokens, theirs: Tokens, index: int) -> bool:
    """Whether after a token one span goes on while the other has a gap."""
    ends = [span[index + 1 : index + 2] == (span[index] + 1,) for span in (mine, theirs)]
    return ends[0] != ends[1]


def _tokens_at(prompt: EncodedPrompt, category: str) -> Tokens:
    try:
        return tokens_of(prompt, category)
    except PromptError as error:
        known = [*(name for name, _ in prompt.spans), ANSWER_SPAN, ALL]
        near = nearest(category, known)
        raise PromptError(
            error.problem,
            seen=error.seen,
            allowed=", ".join(known),
            # Without any span the reason is the prompt's, unless a word was misspelt.
            remedy=near if prompt.spans or near.startswith("did") else error.remedy,
        ) from error


def _forms(target: EncodedPrompt, source: EncodedPrompt) -> tuple[tuple[int, int], ...]:
    """The answers' tokens that are read, once they correspond."""
    for option in ("positive", "negative"):
        mine, theirs = (len(getattr(prompt, option)) for prompt in (target, source))
        if mine != theirs:
            raise _refusal(
                target,
                source,
                f"{mine} forms of the {option} option against {theirs}",
                "options with equally many forms",
                _OTHER_FORMS,
            )
    forms, others = target.positive + target.negative, source.positive + source.negative
    for index, (form, other) in enumerate(zip(forms, others, strict=True)):
        if len(form) != len(other):
            raise _refusal(
                target,
                source,
                f"{_form(target, index)}: {len(form)} tokens against {len(other)}",
                "forms that are equally long, token by token",
                _OTHER_FORMS,
            )
    for one, two in combinations(range(len(forms)), 2):
        shared = _shared(forms[one], forms[two])
        if _shared(others[one], others[two]) < shared:
            raise _refusal(
                target,
                source,
                f"{_form(target, one)} and {_form(target, two)} begin with the same {shared} "
                f"tokens in the target, and with {_shared(others[one], others[two])} in the source",
                "forms that share their beginning in the source where they do in the target",
                _OTHER_FORMS,
            )
    return tuple((index, step) for index, form in enumerate(forms) for step in range(len(form) - 1))


def _shared(one: Tokens, two: Tokens) -> int:
    """Tokens that two forms share, of those that are read."""
    count = 0
    for a, b in zip(one[:-1], two[:-1], strict=False):
        if a != b:
            break
        count += 1
    return count


def _form(prompt: EncodedPrompt, index: int) -> str:
    split = len(prompt.positive)
    side, at = ("positive", index) if index < split else ("negative", index - split)
    return f"form {at} of the {side} option"


def _out_of_step(target: EncodedPrompt, source: EncodedPrompt) -> PromptError:
    """Two prompts of different length: where the first of them has a token too many."""
    mine, theirs = target.tokens, source.tokens
    matched = SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes()
    at, other = next((i, j) for _, i, i_end, j, j_end in matched if i_end - i != j_end - j)
    return _refusal(
        target,
        source,
        f"{len(mine)} tokens against {len(theirs)}, out of step from token {at} "
        f"({_text(target, _window(at, mine))}) and token {other} "
        f"({_text(source, _window(other, theirs))})",
        "prompts with equally many tokens",
        "use words of equally many tokens, or patch at positions='answer_span' or a named span",
    )


def _window(at: int, tokens: Tokens) -> Tokens:
    return tuple(range(max(0, at - _AROUND), min(len(tokens), at + _AROUND + 1)))


def _text(prompt: EncodedPrompt, indices: Sequence[int]) -> str:
    """What tokens say, gaps marked; their numbers where the text is not known."""
    if not prompt.offsets:
        return "tokens " + ", ".join(str(prompt.tokens[index]) for index in indices)
    said = ""
    for place, index in enumerate(indices):
        start, end = prompt.offsets[index]
        before = indices[place - 1] if place else index
        if before == index - 1:
            start = prompt.offsets[before][1]
        elif place:
            said += " ... "
        said += prompt.text[start:end]
    return repr(said)


def _refusal(
    target: EncodedPrompt,
    source: EncodedPrompt,
    seen: str,
    allowed: str,
    remedy: str,
) -> PromptError:
    return PromptError(
        f"Prompts {target.name!r} and {source.name!r} do not align token by token",
        seen=seen,
        allowed=allowed,
        remedy=remedy,
    )
