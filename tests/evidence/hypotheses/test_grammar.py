"""The grammar of hypotheses: what can be said, and one clear error for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moralscope.core.documents import validate
from moralscope.core.errors import ConfigError, SiteError
from moralscope.evidence.hypotheses.forms import FORMS
from moralscope.evidence.hypotheses.grammar import (
    Hypothesis,
    Named,
    not_registered,
    statement_of,
)
from moralscope.evidence.hypotheses.judging import hypotheses_table
from moralscope.evidence.hypotheses.quantities import QUANTITIES

Said = dict[str, object]
CHANGE: Said = {"id": "a", "quantity": "change", "agents": ["game"], "direction": "above"}
PATCH: Said = {
    "id": "p",
    "quantity": "patch_effect",
    "agents": ["base", "game"],
    "sites": ["blocks.8.hook_mlp_out", "L3.h1"],
    "direction": "below",
}


def read(said: Said) -> Hypothesis:
    return validate(Hypothesis, said, "study.yaml")


def test_sites_are_printed_canonically() -> None:
    assert read(PATCH).sites == ("L8.mlp", "L3.h1")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (CHANGE, "The change of game from base lies above zero."),
        (CHANGE | {"direction": "zero"},
         "The change of game from base is zero, within the default margin."),
        (CHANGE | {"labels": "a/b", "direction": None, "margin": 0.25},
         "The change of game from base under the labels a/b lies within 0.25 nats of zero."),
        (PATCH, "The effect of taking L8.mlp and L3.h1 from base into game lies below zero."),
        (PATCH | {"sites": ["all"]},
         "The effect of taking everything (the full swap) from base into game lies below zero."),
        (PATCH | {"sites": ["all", "L1.mlp", "L2.mlp", "L3.mlp", "L4.mlp"]},
         ("The effect of taking all, L1.mlp, L2.mlp and 2 further sites from base into game lies "
          "below zero.")),
        ({"id": "c", "quantity": "contrast", "contrast": "forgiveness", "agents": ["game"],
          "direction": "above"}, "The contrast forgiveness of game lies above one half."),
        ({"id": "c", "quantity": "contrast", "contrast": "forgiveness", "agents": ["a", "b"],
          "direction": "above", "family": "wordings"},
         "The contrast forgiveness of a and b on wordings lies above zero."),
        ({"id": "f", "quantity": "flips", "agents": ["a", "b"], "direction": "zero"},
         "The share of scenarios in which one site of a flips b is zero."),
        ({"id": "l", "quantity": "learned", "agents": ["a"], "learned": "move"},
         "What a learned is the move."),
        ({"id": "n", "quantity": "significant_count", "agents": ["a"], "published": 12, "n": 52,
          "tables": ["attribution"]},
         "The number of sites with an effect in a by attribution was published as 12 (n = 52)."),
        ({"id": "s", "quantity": "similarity", "agents": ["a", "b"], "published": 0.99999999,
          "tables": ["decisions"]},
         "The likeness of a and b by decisions was published as 0.99999999."),
    ],
)  # fmt: skip
def test_a_hypothesis_in_words(said: Said, words: str) -> None:
    assert statement_of(read(said)) == words


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (CHANGE | {"quantity": "chagne"}, "'a' is about a quantity that does not exist.*change'"),
        (CHANGE | {"id": "two words"}, "cannot be the name of a hypothesis.*'two words'"),
        (CHANGE | {"agents": []}, "wrong number of agents. Seen: none. Allowed: 1: log-odds of"),
        (CHANGE | {"agents": ["a", "b"]}, "wrong number of agents. Seen: 2: a, b"),
        (PATCH | {"sites": []}, "wrong number of sites. Seen: none. Allowed: 1 or more"),
        (PATCH | {"sites": ["L3.h1", "blocks.3.attn.hook_z[:, :, 1]"]}, "same of its sites twice"),
        (CHANGE | {"sites": ["L1.h1"]}, "names sites, and change has none. Seen: L1.h1"),
        (CHANGE | {"rewards": ["game"]}, "names rewards, and change has none"),
        (CHANGE | {"direction": None}, "nothing that could turn out wrong.*add a direction"),
        (CHANGE | {"margin": 0.1}, "two things at once. Seen: direction above, margin 0.1"),
        (CHANGE | {"direction": "up"}, "value of 'direction' in study.yaml cannot be used"),
        (CHANGE | {"margin": 0.0, "direction": None}, "'margin'.*greater than 0"),
        (CHANGE | {"margin": float("inf"), "direction": None}, "'margin'.*finite"),
        (CHANGE | {"contrast": "guilt"}, "a key that change does not take. Seen: contrast"),
        (CHANGE | {"published": 1.0}, "a key that change does not take. Seen: published"),
        (CHANGE | {"agnets": ["a"]}, "no key 'agnets' in study.yaml.*did you mean 'agents'"),
        (CHANGE | {"registered": True}, "no key 'registered' in study.yaml"),
        ({"id": "c", "quantity": "contrast", "agents": ["a"], "direction": "above"},
         "'c' lacks the key 'contrast'"),
        ({"id": "f", "quantity": "flips", "agents": ["a", "b"], "direction": "below"},
         "direction that flips cannot have. Seen: below. Allowed: direction \\(above, zero\\)"),
        ({"id": "f", "quantity": "flips", "agents": ["a", "b"], "margin": 0.1},
         "margin that flips cannot have"),
        ({"id": "l", "quantity": "learned", "agents": ["a"], "learned": "word"}, "'learned'"),
        ({"id": "n", "quantity": "significant_count", "agents": ["a"], "tables": ["patching"]},
         "lacks the key 'published'"),
    ],
)  # fmt: skip
def test_every_misuse_has_one_clear_error(said: Said, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(said)


def test_a_site_that_does_not_parse_is_refused() -> None:
    with pytest.raises(SiteError, match="not the name of a site.*'L8'"):
        read(PATCH | {"sites": ["L8"]})


def test_a_published_statement_needs_no_direction() -> None:
    said = {"id": "z", "quantity": "zero_flips", "agents": ["a", "b"], "n": 780}
    assert read(said).direction is None
    assert not read(said).claims_absence
    assert read(said | {"direction": "zero"}).claims_absence


def test_hypotheses_of_an_audit_are_never_registered() -> None:
    named = not_registered([read(CHANGE), read(PATCH)], "named in audit.yaml")
    assert [one.registered for one in named] == [False, False]
    with pytest.raises(ConfigError, match="Two hypotheses have the same name. Seen: a"):
        not_registered([read(CHANGE), read(CHANGE | {"direction": "below"})], "")


def test_the_table_of_hypotheses() -> None:
    table = hypotheses_table([Named(read(PATCH), True, "before"), Named(read(CHANGE), False, "x")])
    first, second = table.to_dicts()
    assert first["agents"] == "base,game"
    assert first["sites"] == "L8.mlp,L3.h1"
    assert (first["direction"], first["margin"], first["registered"]) == ("below", None, True)
    assert second["statement"] == "The change of game from base lies above zero."
    assert hypotheses_table([]).height == 0


def test_every_quantity_can_be_asked_and_is_explained() -> None:
    assert set(QUANTITIES) == set(FORMS)
    for name, quantity in QUANTITIES.items():
        assert quantity.form is FORMS[name]
        assert quantity.form.name == name
        assert quantity.form.tables
        assert quantity.form.published or quantity.form.directions or quantity.form.required


@given(
    st.sampled_from(sorted(FORMS)),
    st.lists(st.sampled_from("abc"), max_size=3),
    st.lists(st.sampled_from(["L0.h0", "L1.mlp", "all"]), max_size=3),
    st.sampled_from([None, "above", "zero"]),
    st.sampled_from([None, 0.5]),
)
def test_whatever_is_accepted_reads_back_the_same(
    quantity: str, agents: list[str], sites: list[str], direction: str | None, margin: float | None
) -> None:
    said: Said = {"id": "h", "quantity": quantity, "agents": agents, "sites": sites}
    said |= {"direction": direction, "margin": margin}
    try:
        one = read(said)
    except ConfigError:
        return
    assert read(one.model_dump(mode="json", exclude_none=True)) == one
    assert direction is None or margin is None
    assert statement_of(one).endswith(".")
