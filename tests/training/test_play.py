"""Sampled games: every draw has an address, and every turn is what the rules of the game say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from moralscope.core.decision import Move
from moralscope.core.streams import stream
from moralscope.games import STATES, get_reward
from moralscope.training.batches import Cells, make_cells, training_game, training_prompts
from moralscope.training.config import TrainingConfig
from moralscope.training.others import scripted
from moralscope.training.play import Answer, Answering, Turn, play

Configure = Callable[..., TrainingConfig]
MOVES: tuple[Move | None, ...] = ("C", "D", None)
P = (0.45, 0.3, 0.25)
"""C, D and neither, whatever is asked."""
PGG = "public-goods(players=4, endowment=6, multiplier=2)"


def by_chance(prompts: Sequence[int], rngs: Sequence[np.random.Generator]) -> list[Answer]:
    found: list[Answer] = []
    for _, rng in zip(prompts, rngs, strict=True):
        u = rng.random()
        found.append(Answer(MOVES[int(u >= P[0]) + int(u >= P[0] + P[1])]))
    return found


def always(move: Move | None) -> Answering:
    return lambda prompts, rngs: [Answer(move) for _ in prompts]  # noqa: ARG005


def cells_of(config: TrainingConfig) -> Cells:
    game = training_game(config)
    return make_cells(config, tuple(training_prompts(config, game)), game)


def played(
    config: TrainingConfig, *, step: int = 1, reward: str = "game", answer: Answering = by_chance
) -> tuple[Turn, ...]:
    game = training_game(config)
    others = scripted(config.opponent, game, config.seed)
    assert others is not None
    policy = np.tile(P, (len(getattr(game, "states", STATES)), 1))
    return play(
        config, game, get_reward(reward), cells_of(config), others,
        policy=policy, answer=answer, step=step,
    )  # fmt: skip


def sampling(games: int, rounds: int, group: int = 1, **more: object) -> dict[str, object]:
    return {"games": games, "rounds": rounds, "group": group, **more}


@pytest.mark.parametrize("opponent", ["random", "copies"])
@pytest.mark.parametrize("game", ["IPD", PGG])
def test_draws_depend_on_seed_step_game_and_round_alone(
    configure: Configure, game: str, opponent: str
) -> None:
    config = configure(game=game, opponent=opponent, sampling=sampling(6, 4))
    turns = played(config)
    assert played(config) == turns
    # More games and more rounds add turns and change none.
    longer = played(configure(game=game, opponent=opponent, sampling=sampling(9, 7)))
    assert [t for t in longer if t.game < 6 and t.round < 4] == list(turns)
    assert [(t.game, t.round) for t in turns] == [(g, r) for g in range(6) for r in range(4)]
    for other in (played(config, step=2), played(config.model_copy(update={"seed": 1}))):
        assert other != turns


def test_answers_in_any_order_are_the_same_answers(configure: Configure) -> None:
    config = configure(opponent="random", sampling=sampling(6, 4))

    def backwards(prompts: Sequence[int], rngs: Sequence[np.random.Generator]) -> list[Answer]:
        return by_chance(prompts[::-1], rngs[::-1])[::-1]

    assert played(config, answer=backwards) == played(config)


def test_games_of_a_group_start_alike_and_their_others_draw_alike(configure: Configure) -> None:
    config = configure(opponent="random", labels="both", sampling=sampling(24, 5, 4))
    turns = played(config)
    at = {(t.game, t.round): t for t in turns}
    starts = {g: (at[g, 0].state, at[g, 0].prompt) for g in range(24)}
    for g in range(24):
        assert starts[g] == starts[g // 4 * 4]
        # Whoever plays the same whatever happens plays the same against the whole group.
        assert [at[g, t].others for t in range(5)] == [at[g // 4 * 4, t].others for t in range(5)]
    assert len(set(starts.values())) > 3
    assert any(at[g, 0].answer != at[g // 4 * 4, 0].answer for g in range(24))
    cells = cells_of(config)
    for group in range(6):
        for t in range(5):  # one wording, order and assignment for a group's round
            asked = [cells.prompts[at[g, t].prompt] for g in range(4 * group, 4 * group + 4)]
            assert len({(p.option_order, p.answer_order, p.labels) for p in asked}) == 1


def test_a_game_keeps_its_wording_where_asked(configure: Configure) -> None:
    def variants(variant: str) -> list[int]:
        config = configure(opponent="random", sampling=sampling(8, 10, variant=variant))
        cells = cells_of(config)
        found: list[set[object]] = [set() for _ in range(8)]
        for turn in played(config):
            p = cells.prompts[turn.prompt]
            found[turn.game].add((p.labels, p.option_order, p.answer_order))
        return [len(each) for each in found]

    assert variants("game") == [1] * 8
    assert min(variants("round")) > 2


def by_hand(config: TrainingConfig, turns: Sequence[Turn], reward: str) -> None:
    """Replay what was answered under rules that are written out here."""
    group = config.game == PGG
    n = 4 if group else 2
    points = {"CC": (3, 3), "CD": (0, 4), "DC": (4, 0), "DD": (1, 1)}
    own: Move = "C"
    before: tuple[Move, ...] = ()
    for turn in turns:
        if turn.round == 0:  # the first state says how it starts
            own = "CD"[turn.state // n]  # type: ignore[assignment]
            count = (turn.state % n) if group else 1 - turn.state % 2
            before = ("C",) * count + ("D",) * (n - 1 - count)
        k = before.count("C")
        assert turn.state == ("CD".index(own) * 4 + k if group else "CD".index(own) * 2 + 1 - k)
        move, others = turn.answer.move, turn.others
        assert len(others) == n - 1
        if move is None:
            assert turn.points == -6.0
            before = others
            continue  # the own last move stays
        if group:
            pot = 2 * 6 * (move, *others).count("C") / 4
            earned = [pot + 6 * (m == "D") for m in (move, *others)]
        else:
            earned = list(points[move + others[0]])
        expected = {
            "game": earned[0],
            "utilitarian": sum(earned),
            "deontological": -3.0 if move == "D" and "C" in before else 0.0,
        }[reward]
        assert turn.points == pytest.approx(expected)
        own, before = move, others


@pytest.mark.parametrize("reward", ["game", "deontological", "utilitarian"])
@pytest.mark.parametrize("game", ["IPD", PGG])
def test_turns_follow_the_rules(configure: Configure, game: str, reward: str) -> None:
    config = configure(game=game, opponent="copies", sampling=sampling(40, 6))
    turns = played(config, reward=reward)
    by_hand(config, turns, reward)
    assert {t.answer.move for t in turns} == {"C", "D", None}
    assert len({t.state for t in turns}) == (8 if game == PGG else 4)


def test_tit_for_tat_answers_the_last_legal_move(configure: Configure) -> None:
    config = configure(opponent="tit-for-tat", sampling=sampling(20, 6))
    turns = played(config)
    for a, b in pairwise(turns):
        if b.round == 0:
            continue
        assert b.others == (STATES[b.state].own_previous,)
        expected = a.answer.move or STATES[a.state].own_previous
        assert STATES[b.state].own_previous == expected
    assert any(t.answer.move is None for t in turns)


def test_who_never_answers_legally_stays_where_it_started(configure: Configure) -> None:
    turns = played(configure(opponent="random", sampling=sampling(12, 5)), answer=always(None))
    assert {t.points for t in turns} == {-6.0}
    own = {g: {STATES[t.state].own_previous for t in turns if t.game == g} for g in range(12)}
    assert all(len(moves) == 1 for moves in own.values())
    assert len({t.others for t in turns}) == 2  # the others move on
    assert {move for moves in own.values() for move in moves} == {"C", "D"}


@pytest.mark.parametrize("opponent", ["tit-for-tat", "random", "copies", "grim"])
def test_states_come_up_as_often_as_theory_says(configure: Configure, opponent: str) -> None:
    """Frequencies of the last round over independent games, by the chi-square test."""
    games, rounds = 1500, 3
    config = configure(opponent=opponent, sampling=sampling(games, rounds))
    turns = played(config)
    policy = np.tile(P, (4, 1))
    others = scripted(opponent, training_game(config), 0)  # type: ignore[arg-type]
    assert others is not None
    encounter = others.encounter(get_reward("game"), policy, 1)
    d = encounter.initial
    for t in range(rounds):
        counts = np.bincount([x.state for x in turns if x.round == t], minlength=4)
        possible = d > 0
        assert (counts[~possible] == 0).all()
        assert stats.chisquare(counts[possible], games * d[possible]).pvalue > 1e-3
        d = np.einsum("s,sa,sat->t", d, policy, encounter.transition)
    answers = Counter(t.answer.move for t in turns)
    expected = np.array(P) * games * rounds
    assert stats.chisquare([answers[m] for m in MOVES], expected).pvalue > 1e-3


def test_mean_points_are_the_expected_ones(configure: Configure) -> None:
    config = configure(opponent="noisy(tit-for-tat, 0.2)", sampling=sampling(2000, 1))
    points = np.array([t.points for t in played(config, reward="hybrid")])
    others = scripted(config.opponent, training_game(config), 0)
    assert others is not None
    e = others.encounter(get_reward("hybrid"), np.tile(P, (4, 1)), 1)
    expected = float(e.initial @ e.rewards @ np.array(P))
    assert abs(points.mean() - expected) < 4 * points.std() / np.sqrt(len(points))


def test_label_assignments_take_turns(configure: Configure) -> None:
    config = configure(opponent="random", labels="both", sampling=sampling(16, 4, 2))
    cells = cells_of(config)
    found = Counter[tuple[int, bool]]()
    for turn in played(config):
        found[turn.round, cells.swapped[turn.prompt]] += 1
    assert set(found.values()) == {8}  # of 16 games, in every round, as many of either
    for labels, swapped in (("same", False), ("swapped", True)):
        fixed = configure(opponent="random", labels=labels, sampling=sampling(4, 4))
        own = cells_of(fixed)
        assert {own.swapped[t.prompt] for t in played(fixed)} == {swapped}
    drawn = configure(opponent="random", labels="random", sampling=sampling(40, 4))
    own = cells_of(drawn)
    share = np.mean([own.swapped[t.prompt] for t in played(drawn)])
    assert 0.3 < share < 0.7


def test_the_published_recipe_plays_one_game_of_five_rounds() -> None:
    config = TrainingConfig.model_validate({"preset": "paper", "reward": "game"})
    cells = cells_of(config)
    orders: list[tuple[object, object]] = []
    for step in range(1, 41):
        turns = played(config, step=step)
        assert [(t.game, t.round) for t in turns] == [(0, r) for r in range(5)]
        asked = [cells.prompts[t.prompt] for t in turns]
        assert {p.labels for p in asked} == {"action1/action2"}
        assert {p.decision.stem for p in asked} == {""}
        orders += [(p.option_order, p.answer_order) for p in asked]
    counts = Counter(orders)
    assert len(counts) == 4  # two orders each, drawn for every round
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    repeated = np.mean([a == b for a, b in pairwise(orders)])
    assert 0.13 < repeated < 0.40  # one in four where each round draws anew


def test_the_agents_draws_are_not_those_of_anything_else(configure: Configure) -> None:
    """Own answers and a random opponent's moves are independent."""
    turns = played(configure(opponent="random", sampling=sampling(2000, 1)))
    table = np.zeros((3, 2))
    for t in turns:
        table[MOVES.index(t.answer.move), "CD".index(t.others[0])] += 1
    assert stats.chi2_contingency(table).pvalue > 1e-3
    by_state = np.zeros((4, 3))
    for t in turns:
        by_state[t.state, MOVES.index(t.answer.move)] += 1
    assert stats.chi2_contingency(by_state).pvalue > 1e-3
    first = stream(0, "answer", 1, 0).random()
    assert turns[0].answer.move == MOVES[int(first >= P[0]) + int(first >= P[0] + P[1])]
