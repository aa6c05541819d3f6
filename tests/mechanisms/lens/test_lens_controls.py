"""Controls of the lens: random pairs one by one, neutral questions through the same template."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
from plain_lens import plain_lens
from torch import Tensor
from worlds import World, Worlds

from moralscope.core.decision import Message, Prompt
from moralscope.core.errors import ConfigError, PromptError
from moralscope.core.streams import stream
from moralscope.mechanisms.clean import CleanRun, run_clean
from moralscope.mechanisms.lens.controls import (
    lens_controls_table,
    random_pairs,
    read_random_pairs,
    read_unrelated,
)
from moralscope.mechanisms.lens.reading import lens_table
from moralscope.mechanisms.lens.unrelated import NEUTRAL_TEXTS, unrelated_names, unrelated_prompts
from moralscope.models.anatomy import dissect
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.models.roster import Roster


def logits_of(here: World, agent: str, tokens: tuple[int, ...]) -> Tensor:
    with here.roster.speaking(agent) as model:
        return plain_lens(model, tokens)


@pytest.mark.parametrize(("family", "forms"), [("llama", "multi"), ("gemma2", "single")])
def test_random_pairs_equal_a_loop_over_prompts_and_pairs(worlds: Worlds, family: str, forms: str):
    here = worlds(family, forms=forms, max_nodes=60)
    run = here.runs["game"]
    assert len(run.packs) > 1
    pairs = random_pairs(run.prompts, tiny.VOCABULARY, stream(3, "pairs"), draws=5)
    with here.roster.speaking("game"):
        found, scale = read_random_pairs(here.roster.anatomy("game"), run, pairs)
    shared = (20,) if forms == "multi" else ()
    for index, prompt in enumerate(run.prompts):
        logits = logits_of(here, "game", (*prompt.tokens, *shared)).numpy()
        for draw, (first, second) in enumerate(pairs.tolist()):
            direct = logits[:, first] - logits[:, second]
            assert np.abs(found[index, draw] - direct).max() < 1e-9
    assert found.std() > 0.1
    with here.roster.speaking("game") as model:
        gain = model.model.norm.weight + (1.0 if family == "gemma2" else 0.0)
        acting = model.lm_head.weight * gain
    for index, prompt in enumerate(run.prompts):
        step = len(shared)
        plus, minus = prompt.positive[0][step], prompt.negative[0][step]
        own = (acting[plus] - acting[minus]).norm()
        for draw, (first, second) in enumerate(pairs.tolist()):
            other = (acting[first] - acting[second]).norm()
            assert scale[index, draw] == pytest.approx(float(own / other), abs=1e-12)
    assert np.ptp(scale) > 0.1


def test_a_pair_scaled_to_the_decision_reads_an_equal_angle_equally():
    """Layer norms too: at unit scale, reading = length of direction * root of width * cosine."""
    model = tiny.tiny_model("gpt_neox")
    anatomy = dissect(model)
    run = run_clean("base", model, anatomy, tiny.token_prompts(2))
    pairs = np.array([[11, 12], [12, 11], [40, 70]])
    values, scale = read_random_pairs(anatomy, run, pairs)
    assert np.abs(scale[:, :2] - 1.0).max() < 1e-12
    assert np.abs(values[:, 0] + values[:, 1]).max() < 1e-12
    norm, rows = model.gpt_neox.final_layer_norm, model.lm_head.weight
    acting = (rows - rows[:1]) * norm.weight
    acting = acting - acting.mean(1, keepdim=True)
    lengths = [float((acting[a] - acting[b]).norm()) for a, b in pairs.tolist()]
    assert scale[0, 2] == pytest.approx(lengths[0] / lengths[2], abs=1e-12)
    assert abs(scale[0, 2] - 1.0) > 1e-3


def test_a_pair_of_equal_tokens_keeps_its_readings_of_zero():
    model = tiny.tiny_model("llama")
    model.lm_head.weight[40] = model.lm_head.weight[41]
    anatomy = dissect(model)
    run = run_clean("base", model, anatomy, tiny.token_prompts(2))
    values, scale = read_random_pairs(anatomy, run, np.array([[40, 41], [40, 42]]))
    assert (scale[:, 0] == 1.0).all()
    assert (values[:, 0] == 0.0).all()
    assert (values[:, 1] != 0.0).any()


def test_pairs_are_seeded_distinct_and_leave_the_options_out():
    prompts = tiny.token_prompts(2, forms="several")
    own = {11, 12, 13, 14, 15, 16, 17}
    drawn = random_pairs(prompts, 30, stream(1, "a"), draws=4000)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    # Every ordered pair of the 23 other tokens is about equally likely.
    assert set(drawn.ravel().tolist()) == set(range(30)) - own
    counts = np.bincount(drawn[:, 0] * 30 + drawn[:, 1])
    assert 440 < (counts > 0).sum() <= 23 * 22
    assert counts.max() < 30
    again = random_pairs(prompts, 30, stream(1, "a"), draws=4000)
    assert (again == drawn).all()
    assert (random_pairs(prompts, 30, stream(2, "a"), draws=4000) != drawn).any()
    few = random_pairs(prompts, 30, stream(1, "a"), draws=50, among=[3, 5, 11, 3])
    assert set(few.ravel().tolist()) == {3, 5}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"draws": 0}, "no random option pairs to draw.*Seen: draws 0"),
        ({"among": [3, 40]}, "not in the vocabulary.*Seen: 40.*0 to 29"),
        ({"among": [-1, 3]}, "not in the vocabulary.*Seen: -1"),
        ({"among": [3, 11, 12]}, "Too few tokens.*Seen: 1 besides"),
    ],
)
def test_pairs_that_cannot_be_drawn_are_refused(asked: Mapping[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        random_pairs(tiny.token_prompts(1), 30, stream(1, "a"), **asked)


@pytest.fixture(scope="module")
def roster(tmp_path_factory: pytest.TempPathFactory) -> Roster:
    return tiny.tiny_roster(tmp_path_factory.mktemp("unrelated"), "gemma2")


def asked() -> tuple[Prompt, ...]:
    """Four prompts; the last has its labels swapped, another stem stands in the third."""
    one, two, three, four = tiny.worded_prompts(4)
    swapped = replace(
        four.decision, positive=four.decision.negative, negative=four.decision.positive
    )
    other = replace(three.decision, stem="I take")
    return one, two, replace(three, decision=other), replace(four, decision=swapped)


def runs_of(roster: Roster, name: str, *sets: tuple[EncodedPrompt, ...]) -> list[CleanRun]:
    with roster.speaking(name) as model:
        return [run_clean(name, model, roster.anatomy(name), encoded) for encoded in sets]


@pytest.fixture(scope="module")
def paired(roster: Roster) -> tuple[CleanRun, CleanRun, dict[str, tuple[str, ...]]]:
    prompts = asked()
    unrelated = unrelated_prompts(prompts)
    encoded = [encode_all(roster.tokenizer, tuple(some)) for some in (prompts, unrelated)]
    run, elsewhere = runs_of(roster, "moral", *encoded)
    return run, elsewhere, unrelated_names(prompts, unrelated)


def test_each_distinct_stem_with_its_options_meets_each_neutral_text_once():
    prompts = asked()
    unrelated = unrelated_prompts(prompts)
    assert len(unrelated) == 2 * len(NEUTRAL_TEXTS) == 20
    names = unrelated_names(prompts, unrelated)
    assert names["w0"] == names["w1"] == names["w3"]
    assert not set(names["w0"]) & set(names["w2"])
    by_name = {p.name: p for p in unrelated}
    for prompt in prompts:
        found = [by_name[name].decision for name in names[prompt.name]]
        assert [d.messages for d in found] == [(Message("user", t),) for t in NEUTRAL_TEXTS]
        assert {d.stem for d in found} == {prompt.decision.stem}
        for d in found:
            assert {d.positive.forms, d.negative.forms} == {(" action1",), (" action2",)}


def test_neutral_texts_name_no_game_and_no_label():
    words = {w.strip(".?,").lower() for text in NEUTRAL_TEXTS for w in text.split()}
    assert not words & {"choose", "play", "player", "round", "points", "payoff", "action", "option",
                        "cooperate", "defect", "game", "other", "opponent"}  # fmt: skip
    assert len(set(NEUTRAL_TEXTS)) == len(NEUTRAL_TEXTS) == 10


def test_unrelated_prompts_equal_a_plain_lens_of_each(
    roster: Roster, paired: tuple[CleanRun, CleanRun, dict[str, tuple[str, ...]]]
):
    run, elsewhere, names = paired
    with roster.speaking("moral"):
        found = read_unrelated(roster.anatomy("moral"), run, elsewhere, names)
    assert found.shape == (4, 10, 9)
    tokenizer = roster.tokenizer
    for index, prompt in enumerate(asked()):
        decision = prompt.decision
        for draw in (0, 7):
            chat = [{"role": "user", "content": NEUTRAL_TEXTS[draw]}]
            text = (
                tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
                + decision.stem
            )
            ids = [
                tokenizer.encode(text + option.canonical, add_special_tokens=False)
                for option in (decision.positive, decision.negative)
            ]
            branch = next(i for i, (a, b) in enumerate(zip(*ids, strict=True)) if a != b)
            with roster.speaking("moral") as model:
                logits = plain_lens(model, tuple(ids[0][:branch]))
            direct = (logits[:, ids[0][branch]] - logits[:, ids[1][branch]]).numpy()
            assert np.abs(found[index, draw] - direct).max() < 1e-9
    # Swapping the labels turns the sign and nothing else; draws differ where questions are read.
    assert np.abs(found[3] + found[0]).max() < 1e-12
    assert np.abs(found[0, :, 0] - found[0, 0, 0]).max() < 1e-12
    assert found[0, :, -1].std() > 1e-3


def test_the_embedding_of_an_unrelated_prompt_is_that_of_the_prompt(
    roster: Roster, paired: tuple[CleanRun, CleanRun, dict[str, tuple[str, ...]]]
):
    run, elsewhere, names = paired
    with roster.speaking("moral"):
        anatomy = roster.anatomy("moral")
        lens = lens_table(anatomy, run)
        found = read_unrelated(anatomy, run, elsewhere, names)
    for index, prompt in enumerate(run.prompts):
        own = lens.filter("is_branch", prompt=prompt.name)["logit_diff"].to_numpy()
        assert own[0] == pytest.approx(found[index, 0, 0], abs=1e-12)
        assert abs(own[-1] - found[index, 0, -1]) > 1e-3


def test_the_table_holds_each_reading_in_its_place(
    roster: Roster, paired: tuple[CleanRun, CleanRun, dict[str, tuple[str, ...]]]
):
    run, elsewhere, names = paired
    with roster.speaking("moral"):
        anatomy = roster.anatomy("moral")
        pairs = random_pairs(run.prompts, tiny.VOCABULARY, stream(9), draws=3)
        direct = {
            "random_pair": read_random_pairs(anatomy, run, pairs)[0],
            "unrelated_prompt": read_unrelated(anatomy, run, elsewhere, names),
        }
        scale = read_random_pairs(anatomy, run, pairs)[1]
        table = lens_controls_table(
            anatomy, run, rng=stream(9), draws=3, elsewhere=elsewhere, names=names
        )
        alone = lens_controls_table(anatomy, run, rng=stream(9), draws=3)
    assert table.height == 4 * (3 + 10) * 9
    assert alone.equals(table.filter(control="random_pair"))
    places = [(-1, "embed")] + [(layer, s) for layer in range(4) for s in ("attn", "mlp")]
    for row in table.rows(named=True):
        depth = places.index((row["layer"], row["sublayer"]))
        values = direct[row["control"]]
        place = int(row["prompt"][1:]), row["draw"]
        assert row["logit_diff"] == values[(*place, depth)]
        assert row["scale"] == (scale[place] if row["control"] == "random_pair" else 1.0)
    assert set(table["agent"]) == {"moral"}


def test_controls_that_do_not_fit_are_refused(
    roster: Roster, paired: tuple[CleanRun, CleanRun, dict[str, tuple[str, ...]]]
):
    run, elsewhere, names = paired
    anatomy = roster.anatomy("moral")
    with pytest.raises(ConfigError, match="different agents.*Seen: moral and game"):
        read_unrelated(anatomy, run, replace(elsewhere, agent="game"), names)
    with pytest.raises(PromptError, match="'w0' lacks unrelated prompts.*Seen: 0 of 1"):
        lens_controls_table(anatomy, run, rng=stream(9), elsewhere=elsewhere)
    with pytest.raises(PromptError, match="'w1' lacks unrelated prompts.*Seen: 3 of 10"):
        read_unrelated(anatomy, run, elsewhere, {**names, "w1": names["w1"][:3]})
    with pytest.raises(PromptError, match="'w0' lacks unrelated prompts.*'lost' was not run"):
        read_unrelated(anatomy, run, elsewhere, {**names, "w0": ("lost",)})
    ended = tuple(replace(p, tokens=(*p.tokens[:-1], 3)) for p in elsewhere.prompts)
    with pytest.raises(PromptError, match="'w0' and its unrelated prompt .* end differently"):
        read_unrelated(anatomy, run, replace(elsewhere, prompts=ended), names)
