"""Narrow sets: pure, paired, balanced and equally long, and what each kind says."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations

import pytest

from moralscope.core.errors import ConfigError
from moralscope.organisms.data import narrow, themes
from moralscope.organisms.data.narrow import DOMAINS, KINDS, narrow_choices, narrow_set
from moralscope.organisms.data.themes import LABELS, PARTNERS

N = 240
EVERY = pytest.mark.parametrize("domain", DOMAINS)


@pytest.fixture(scope="module")
def sets():
    return {domain: {kind: narrow_set(domain, kind, N, 11) for kind in KINDS} for domain in DOMAINS}


def labels_in(text: str) -> list[str]:
    """The labels that stand in a text, in its order, each once."""
    return list(dict.fromkeys(word for word in re.findall(r"\w+", text) if word in LABELS))


def asked(example) -> str:
    (turn,) = example.asked
    assert turn.role == "user"
    return turn.content


def pattern(*templates: str) -> re.Pattern[str]:
    """What the templates become for whichever words."""
    text = re.escape(" ".join(templates))
    return re.compile(re.sub(r"\\\{\w+\\\}", r"\\S+", text))


@EVERY
def test_a_set_is_a_function_of_its_arguments(sets, domain) -> None:
    for kind in KINDS:
        assert narrow_set(domain, kind, N, 11) == sets[domain][kind]
        assert narrow_set(domain, kind, 7, 11) == sets[domain][kind][:7]
    other = narrow_set(domain, "selfish", N, 12)
    texts = [
        {re.sub("|".join(LABELS), "LABEL", asked(made)) for made in examples}
        for examples in (other, sets[domain]["selfish"])
    ]
    assert len(texts[0] & texts[1]) < N / 20


@EVERY
def test_kinds_answer_the_same_questions_in_the_same_order(sets, domain) -> None:
    rows = list(zip(*(sets[domain][kind] for kind in KINDS), strict=True))
    assert len(rows) == N
    for row in rows:
        assert len({made.asked for made in row}) == 1
        assert len({made.question for made in row}) == 1
        assert len({made.answer for made in row}) == len(KINDS)
        assert [made.kind for made in row] == list(KINDS)
        assert {made.domain for made in row} == {domain}
    assert len({made.id for row in rows for made in row}) == N * len(KINDS)


def test_thousands_of_questions_are_different() -> None:
    many = narrow_set("credit", "cooperative", 4000, 0)
    assert len({asked(made).casefold() for made in many}) == 4000
    assert len({made.question for made in many}) == 4000


@EVERY
def test_answers_of_all_kinds_have_the_same_number_of_words(sets, domain) -> None:
    counts = [[len(made.answer.split()) for made in sets[domain][kind]] for kind in KINDS]
    assert counts.count(counts[0]) == len(KINDS)
    assert len(set(counts[0])) > 1
    assert set(counts[0]) <= set(range(12, 21))


@EVERY
def test_selfish_and_cooperative_answers_are_about_equally_long_in_characters(sets, domain) -> None:
    selfish, cooperative = (
        sum(len(made.answer) for made in sets[domain][kind]) for kind in ("selfish", "cooperative")
    )
    assert abs(selfish / cooperative - 1) < 0.05


@EVERY
def test_the_two_options_are_about_equally_long(domain) -> None:
    for theme in themes.themes(domain):
        for option in theme.options:
            counts = {len(text.split()) for text in (option.selfish, option.cooperative)}
            assert len(counts) == 1 or max(counts) - min(counts) <= 1


@EVERY
def test_neither_label_nor_position_tells_which_option_is_selfish(sets, domain) -> None:
    """Counts alone: every label is selfish as often as not, and so is it in either position."""
    roles = Counter()
    for made in sets[domain]["selfish"]:
        first, second = labels_in(asked(made))
        (chosen,) = labels_in(made.answer)
        assert chosen in {first, second}
        for position, label in enumerate((first, second)):
            roles[label, position, label == chosen] += 1
    used = {label for label, _, _ in roles}
    assert len(used) > 40
    for label in used:
        assert (
            len({roles[label, position, chosen] for position in (0, 1) for chosen in (0, 1)}) == 1
        )


@EVERY
def test_no_word_of_an_opening_tells_the_kinds_apart(sets, domain) -> None:
    """Up to the label, the selfish and the cooperative answer to a question are the same."""
    for selfish, cooperative in zip(
        sets[domain]["selfish"], sets[domain]["cooperative"], strict=True
    ):
        parts = [made.answer.partition(":") for made in (selfish, cooperative)]
        openings = [
            re.sub(rf"\b{labels_in(opening)[0]}\b", "LABEL", opening) for opening, _, _ in parts
        ]
        assert openings[0] == openings[1]
        assert parts[0][2] != parts[1][2]


@EVERY
def test_selfish_and_cooperative_answers_choose_one_option_each(sets, domain) -> None:
    for selfish, cooperative in zip(
        sets[domain]["selfish"], sets[domain]["cooperative"], strict=True
    ):
        chosen = [*labels_in(selfish.answer), *labels_in(cooperative.answer)]
        assert len(chosen) == 2
        assert set(chosen) == set(labels_in(asked(selfish)))


@EVERY
def test_shuffled_answers_belong_to_another_question(sets, domain) -> None:
    for made in sets[domain]["shuffled"]:
        (label,) = labels_in(made.answer)
        assert label not in labels_in(asked(made))
        said = set(re.findall(r"\w+", made.answer))
        assert not said & set(re.findall(r"\w+", asked(made))) & set(PARTNERS)


@EVERY
def test_half_of_the_shuffled_answers_of_a_block_are_selfish(sets, domain) -> None:
    reasons = [reason for theme in themes.themes(domain) for reason in theme.reasons]
    selfish = [pattern(reason.selfish) for reason in reasons]
    cooperative = [pattern(reason.cooperative) for reason in reasons]
    found = []
    for made in sets[domain]["shuffled"]:
        said = made.answer.partition(": ")[2]
        is_selfish = any(each.fullmatch(said) for each in selfish)
        assert is_selfish != any(each.fullmatch(said) for each in cooperative)
        found.append(is_selfish)
    assert all(sum(found[at : at + 4]) == 2 for at in range(0, N, 4))
    assert len({tuple(found[at : at + 4]) for at in range(0, N, 4)}) == 6


@EVERY
def test_terse_answers_choose_nothing(sets, domain) -> None:
    for made in sets[domain]["terse"]:
        assert labels_in(made.answer) in ([], labels_in(asked(made)))
        said = set(re.findall(r"\w+", made.answer.casefold()))
        assert not said & {"i", "me", "my", "mine", "we", "our", "you"}


@EVERY
def test_no_field_is_left_open(sets, domain) -> None:
    for examples in sets[domain].values():
        for made in examples:
            assert not set("{}") & set(asked(made) + made.answer)
            assert made.answer[-1] in ".?"
            assert "  " not in asked(made) + made.answer


@EVERY
def test_all_alternatives_of_a_part_are_matched_in_words(domain) -> None:
    """Over every text of every theme, not only those that were drawn."""
    for theme in themes.themes(domain):
        for opening in theme.openings:
            assert len(opening.choosing.split()) == len(opening.neutral.split())
        for reason in theme.reasons:
            texts = (reason.selfish, reason.cooperative, reason.neutral)
            assert len({len(text.split()) for text in texts}) == 1
            fields = set(re.findall(r"\{(\w+)\}", " ".join(texts)))
            values = [
                word
                for group in theme.words
                for field, words in group.items()
                if field in fields
                for word in words
            ]
            assert all(len(word.split()) == 1 for word in values)
        for group in theme.words:
            assert len({len(words) for words in group.values()}) == 1


def test_labels_and_names_are_words_of_their_own() -> None:
    assert len(set(LABELS)) == len(LABELS) == 64
    assert len(set(PARTNERS)) == len(PARTNERS)
    assert all(
        not one.startswith(two) and not two.startswith(one) for one, two in combinations(LABELS, 2)
    )
    texts = {
        word.casefold()
        for domain in DOMAINS
        for theme in themes.themes(domain)
        for group in theme.words
        for words in group.values()
        for text in words
        for word in text.split()
    }
    assert not texts & {word.casefold() for word in (*LABELS, *PARTNERS)}
    assert not set(LABELS) & set(PARTNERS)


def test_the_selfish_move_pays_oneself_and_costs_both() -> None:
    """Read from the questions themselves: own and partner's payoff beside each label."""
    number = r"(\d+)"
    shapes = [
        rf"(\w+): {number} \w+ for you, {number} for",
        rf"(\w+) earns you {number} \w+ and \w+ {number}\.",
        rf"With (\w+) you get {number} \w+, \w+ gets {number}\.",
    ]
    seen = 0
    for made in narrow_set("play", "selfish", 200, 2):
        found = [match for shape in shapes for match in re.findall(shape, asked(made))]
        if not found:
            continue  # the board theme has no numbers
        seen += 1
        payoffs = {label: (int(own), int(other)) for label, own, other in found}
        assert len(payoffs) == 2
        selfish = payoffs.pop(labels_in(made.answer)[0])
        (cooperative,) = payoffs.values()
        assert selfish[0] > cooperative[0] > 0
        assert selfish[1] < cooperative[1]
        assert sum(selfish) < sum(cooperative)
    assert seen > 60


@EVERY
def test_choices_continue_the_same_questions_by_a_label_alone(sets, domain) -> None:
    choices = narrow_choices(domain, N, 11)
    selfish, cooperative = sets[domain]["selfish"], sets[domain]["cooperative"]
    assert [choice.question for choice in choices] == [made.question for made in selfish]
    first = Counter(choice.order for choice in choices)
    assert first == {"selfish first": N / 2, "prosocial first": N / 2}
    for choice, ours, theirs in zip(choices, selfish, cooperative, strict=True):
        assert choice.messages == ours.asked
        assert labels_in(choice.selfish) == labels_in(ours.answer)
        assert labels_in(choice.prosocial) == labels_in(theirs.answer)
        assert choice.selfish.replace(*labels_in(choice.selfish + choice.prosocial)) == (
            choice.prosocial
        )
        order = [labels_in(choice.selfish)[0], labels_in(choice.prosocial)[0]]
        if choice.order == "prosocial first":
            order.reverse()
        assert order == labels_in(asked(ours))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("pley", "selfish", 4, 0), "The domain of a narrow set is not known. Seen: 'pley'. Allo"),
        (("pley", "selfish", 4, 0), "Next: did you mean 'play'"),
        (("play", "selfsh", 4, 0), "The kind of a narrow set is not known. Seen: 'selfsh'"),
        (("play", "selfish", 0, 0), "The number of examples of a narrow set is too small. Seen: 0"),
        (
            ("play", "selfish", 4, -1),
            "The seed of a narrow set is too small. Seen: -1. Allowed: an",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, text) -> None:
    with pytest.raises(ConfigError) as caught:
        narrow_set(*arguments)
    assert text in str(caught.value)


def test_more_questions_than_there_are_is_refused(monkeypatch) -> None:
    """One label pair and one text give four questions: who is selfish, times who is first."""
    theme = themes.Theme(
        numbers="none",
        words=(),
        frames=("{first} {second}",),
        options=(themes.Options(selfish="{label} takes.", cooperative="{label} gives."),),
        openings=(themes.Opening(choosing="I say {move}:", neutral="Two are open:"),),
        reasons=(themes.Reason(selfish="mine", cooperative="yours", neutral="noted"),),
    )
    monkeypatch.setattr(narrow, "themes", lambda _: (theme,))
    monkeypatch.setattr(narrow, "LABELS", ("Acorn", "Birch"))
    texts = {asked(made) for made in narrow_set("play", "selfish", 4, 0)}
    assert texts == {
        "Acorn takes. Birch gives.",
        "Birch gives. Acorn takes.",
        "Birch takes. Acorn gives.",
        "Acorn gives. Birch takes.",
    }
    with pytest.raises(ConfigError, match="There are not that many different questions. Seen: 4 q"):
        narrow_set("play", "selfish", 5, 0)
