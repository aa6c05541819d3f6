"""What is sampled is what is scored, and its mean gradient is the exact one."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from moralscope.core.decision import Decision, Message, Option
from moralscope.games import get_game, get_opponent, get_reward, meet, structured, visits
from moralscope.models.forward import full_precision
from moralscope.models.loading import LoadedModel, load_model, locate_model
from moralscope.models.scoring import MAX_NODES
from moralscope.training import sampled
from moralscope.training.answers import Question
from moralscope.training.config import TrainingConfig
from moralscope.training.distribution import ALONE
from moralscope.training.learners import Learner
from moralscope.training.lora import speaking
from moralscope.training.objectives import Batch, exact_objective, policy_table
from moralscope.training.play import Turn, play
from moralscope.training.replies import answering, legal_move, question_of
from moralscope.training.seating import learners_of, seats_of
from moralscope.training.session import Session

Configure = Callable[..., TrainingConfig]


@contextlib.contextmanager
def training(config: TrainingConfig, base: LoadedModel) -> Generator[tuple[Session, Learner]]:
    """One learner whose adapter is not zero."""
    seats = seats_of("a", config, base, max_nodes=MAX_NODES)
    with learners_of(seats, config, base, processes=ALONE, max_nodes=MAX_NODES) as ready:
        session, (learner,) = ready
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in learner.parameters.values():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        yield session, learner


@pytest.fixture(scope="module")
def talkative(tiny_folder: Path) -> LoadedModel:
    """A base that often says the whole label, with a space before it or without."""
    base = load_model(locate_model(str(tiny_folder)), dtype="float64")
    tokenizer, model = base.tokenizer, base.model
    due: list[Tensor] = []
    for prompt in list(structured(stem=False))[::4]:
        chat = [{"role": "user", "content": prompt.decision.messages[0].content}]
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            due.append(model.model(torch.tensor([ids])).last_hidden_state[0, -1])
    mean = torch.stack(due).mean(0)
    with torch.no_grad():
        for word, size in (("action", 8.0), ("Ġaction", 7.5)):
            row = tokenizer.convert_tokens_to_ids(word)
            assert row is not None
            model.lm_head.weight[row] += size * mean / mean.square().sum()
    return base


def plain_distribution(
    session: Session, tokens: Sequence[int]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    model = session.base.model
    with torch.no_grad(), speaking(session.wrapped, "trained"), full_precision(model):
        logits = model(input_ids=torch.tensor([list(tokens)])).logits[0, -1]
    return logits.softmax(-1).numpy()


def chances(
    session: Session, learner: Learner, i: int, length: int
) -> tuple[dict[str | None, float], float]:
    """P of each move by adding up every sequence of tokens that is its text; P of both forms."""
    tokenizer = session.base.tokenizer
    prompt = learner.seat.encoded[i]
    decision = learner.seat.prompts[i].decision
    wanted = {"D": decision.positive.forms[0].strip(), "C": decision.negative.forms[0].strip()}
    found: dict[str | None, float] = {"C": 0.0, "D": 0.0}
    texts = [tokenizer.decode([t], skip_special_tokens=True) for t in range(len(tokenizer))]
    beams: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
    for _ in range(length):
        longer: list[tuple[tuple[int, ...], float]] = []
        for before, p in beams:
            q = plain_distribution(session, (*prompt.tokens, *before))
            for token in range(len(tokenizer)):
                said = "".join(texts[t] for t in before) + texts[token]
                if any(w.startswith(said.strip()) for w in wanted.values()):
                    longer.append(((*before, token), p * float(q[token])))
        beams = longer
    scored = 0.0
    for answer, p in beams:
        said = tokenizer.decode(list(answer), skip_special_tokens=True).strip()
        for move, text in wanted.items():
            found[move] += p * (said == text)
        scored += p * (answer in (prompt.positive[0], prompt.negative[0]))
    found[None] = 1 - found["C"] - found["D"]
    return found, scored


@pytest.mark.parametrize("stem", [True, False])
def test_generated_answers_come_as_often_as_scores_say(
    talkative: LoadedModel, configure: Configure, stem: bool
) -> None:
    config = configure(stem=stem, labels="same", preset="reinforce", actions="generate")
    count = 3000
    with training(config, talkative) as (session, learner):
        answer = answering(session, learner, 1)
        for i in (0, 7):
            rngs = [np.random.default_rng([i, g]) for g in range(count)]
            answers = answer([i] * count, rngs)
            with torch.no_grad():
                log_p = session.read("trained", [Question(learner.seat.encoded[i])]).log_p[0]
            p, p_forms = chances(session, learner, i, 1 if stem else 2)
            assert p_forms == pytest.approx(float(log_p.exp().sum()), rel=1e-8)
            counts = Counter(a.move for a in answers)
            assert min(counts["C"], counts["D"]) > 30
            assert counts[None] > 30
            for move, share in p.items():
                assert stats.binomtest(counts[move], count, share).pvalue > 1e-3  # type: ignore[index]
            if stem:  # one token says it: what is scored is all that is legal
                assert p["D"] == pytest.approx(float(log_p[0].exp()), rel=1e-8)
                assert p["C"] == pytest.approx(float(log_p[1].exp()), rel=1e-8)
            else:  # a space before the label is legal too, and was said
                assert p["C"] + p["D"] > p_forms + 0.01
            for a in answers[:200]:
                text = session.base.tokenizer.decode(list(a.tokens), skip_special_tokens=True)
                assert a.text == text.strip()
                assert len(a.tokens) == (1 if stem else 2)


def test_scored_answers_come_as_often_as_scores_say(
    wide_base: LoadedModel, configure: Configure
) -> None:
    config = configure(preset="reinforce", labels="same")
    with training(config, wide_base) as (session, learner):
        answers = answering(session, learner, 1)(
            [5] * 3000, [np.random.default_rng(g) for g in range(3000)]
        )
        p, _ = chances(session, learner, 5, 1)
    counts = Counter(a.move for a in answers)
    for move, share in p.items():
        assert stats.binomtest(counts[move], 3000, share).pvalue > 1e-3  # type: ignore[index]
    assert {a.tokens for a in answers} == {()}


@pytest.mark.parametrize(
    ("text", "move"),
    [
        ("action2", "D"), ("action1", "C"), ("alt", "C"),
        ("action", None), ("action12", None), ("action2.", None), ("Action2", None),
        ("action 2", None), ("", None), ("2", None), ("action2 action1", None),
    ],
)  # fmt: skip
def test_only_an_option_and_nothing_else_is_legal(text: str, move: str | None) -> None:
    decision = Decision(
        messages=(Message("user", "?"),),
        stem="",
        positive=Option("defect", (" action2",)),
        negative=Option("cooperate", ("action1", " alt")),
    )
    assert legal_move(decision, text) == move


# ---- gradients -------------------------------------------------------------------------------


def directions(learner: Learner, count: int) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(7)
    found: list[list[Tensor]] = []
    for _ in range(count):
        v = [
            torch.randn(p.shape, generator=generator, dtype=p.dtype)
            for p in learner.parameters.values()
        ]
        found.append(v)
    return found


def along(learner: Learner, value: Tensor, vs: Sequence[Sequence[Tensor]]) -> list[float]:
    """Slopes of a scalar along directions of parameter space."""
    parameters = list(learner.parameters.values())
    gradient = torch.autograd.grad(value, parameters, retain_graph=True)
    return [float(sum((g * w).sum() for g, w in zip(gradient, v, strict=True))) for v in vs]


def exact_loss(session: Session, learner: Learner, **settings: object) -> Tensor:
    reading = session.read("trained", [Question(p) for p in learner.seat.encoded])
    others = learner.seat.others
    assert others is not None
    state = torch.tensor(learner.seat.cells.state)
    policy = policy_table(reading.log_p, state, 4)
    loss, _ = exact_objective(
        Batch(reading.log_p, reading.log_p.detach(), state),
        others.encounter(learner.seat.rewards[0], policy, 1),
        **{"kl_coefficient": 0.0, **settings},  # type: ignore[arg-type]
    )
    return loss


def games_of(session: Session, learner: Learner, step: int) -> tuple[Turn, ...]:
    seat = learner.seat
    assert seat.others is not None
    return play(
        seat.config, seat.game, seat.rewards[0], seat.cells, seat.others,
        policy=None, answer=answering(session, learner, step), step=step,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rounds", "horizon", "exact"),
    [
        (1, "bandit", {"weighting": "uniform", "horizon": "bandit"}),
        (3, "reward-to-go", {"weighting": "visitation", "horizon": "reward-to-go"}),
    ],
)
def test_the_mean_sampled_gradient_is_the_exact_one(
    wide_base: LoadedModel,
    configure: Configure,
    rounds: int,
    horizon: str,
    exact: dict[str, object],
) -> None:
    games = 12000 // rounds
    config = configure(
        preset="reinforce", labels="same", reward="hybrid", horizon=horizon, discount=0.9,
        kl_coefficient=0.0, sampling={"games": games, "group": 4, "rounds": rounds},
    )  # fmt: skip
    with training(config, wide_base) as (session, learner):
        vs = directions(learner, 4)
        wanted = along(
            learner, exact_loss(session, learner, rounds=rounds, discount=0.9, **exact), vs
        )
        turns = games_of(session, learner, 1)
        questions = tuple(question_of(learner, turn) for turn in turns)
        reading = session.read("trained", questions)
        played = sampled._judge(session, learner, turns, questions, reading)  # pyright: ignore[reportPrivateUsage]
        loss, _ = sampled._loss(learner, played, reading)  # pyright: ignore[reportPrivateUsage]
        found = along(learner, loss, vs)
        # Slopes of the three log-probabilities of every prompt, to tell the scatter of the mean.
        own = session.read("trained", [Question(p) for p in learner.seat.encoded]).log_p
        three = torch.cat([own, (1 - own.exp().sum(1, keepdim=True)).log()], 1)
        score = np.array([[along(learner, x, vs) for x in row] for row in three])
    moves = ["D", "C", None]
    rows = [(t.prompt, moves.index(t.answer.move)) for t in turns]
    # The estimate by definition: each decision's return less the mean of the group's others.
    points = np.array([t.points for t in turns]).reshape(games // 4, 4, rounds)
    keep = 0.9 if horizon == "reward-to-go" else 0.0
    to_go = points.copy()
    for t in reversed(range(rounds - 1)):
        to_go[:, :, t] += keep * to_go[:, :, t + 1]
    advantage = to_go - (to_go.sum(1, keepdims=True) - to_go) / 3
    each = -advantage.reshape(-1, 1) * np.array([score[i, a] for i, a in rows])
    assert np.allclose(found, each.mean(0), rtol=1e-6, atol=1e-9)
    by_group = each.reshape(games // 4, -1, len(vs)).mean(1)
    error = by_group.std(0, ddof=1) / np.sqrt(len(by_group))
    assert (np.abs(np.array(found) - wanted) < 5 * error).all()
    assert (np.abs(wanted) > 8 * error).any()  # and it is not near zero


def plain_log_p(session: Session, learner: Learner) -> Tensor:
    """Log-probabilities of (D, C), each prompt in a forward of its own."""
    model, rows = session.base.model, []
    with torch.no_grad(), speaking(session.wrapped, "trained"), full_precision(model):
        for prompt in learner.seat.encoded:
            logits = model(input_ids=torch.tensor([prompt.tokens])).logits[0, -1].log_softmax(-1)
            (d,), (c,) = prompt.positive[0], prompt.negative[0]
            rows.append(torch.stack([logits[d], logits[c]]))
    return torch.stack(rows)


def slope(
    session: Session, learner: Learner, v: Sequence[Tensor], value: Callable[[Tensor], float]
) -> float:
    """Central difference of a function of the scores, through the whole model."""
    h, found = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            for p, w in zip(learner.parameters.values(), v, strict=True):
                p.add_(w, alpha=sign * h)
        found.append(value(plain_log_p(session, learner)))
        with torch.no_grad():
            for p, w in zip(learner.parameters.values(), v, strict=True):
                p.sub_(w, alpha=sign * h)
    return (found[0] - found[1]) / (2 * h)


def policy_of(
    log_p: Tensor, state: Sequence[int]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    found = np.zeros((4, 3))
    for s in range(4):
        p = log_p[[i for i, x in enumerate(state) if x == s]].exp().mean(0).numpy()
        found[s] = p[1], p[0], 1 - p.sum()
    return found


def one_coordinate(learner: Learner, part: str) -> list[Tensor]:
    """A direction along one entry of the first matrix of a kind."""
    v = [torch.zeros_like(p) for p in learner.parameters.values()]
    index = next(i for i, name in enumerate(learner.parameters) if part in name)
    v[index].view(-1)[3] = 1.0
    return v


def test_exact_gradients_are_slopes_through_the_whole_model(
    wide_base: LoadedModel, configure: Configure
) -> None:
    config = configure(labels="same", reward="hybrid", kl_coefficient=0.3)
    e = meet(get_game("IPD"), get_reward("hybrid"), get_opponent("tit-for-tat"))
    rounds = 4
    with training(config, wide_base) as (session, learner):
        state = learner.seat.cells.state
        base = learner.reference.double()
        others = learner.seat.others
        assert others is not None

        def bandit(log_p: Tensor) -> float:
            p = policy_of(log_p, state)
            kl = (log_p.exp() * (log_p - base)).sum(1).mean()
            return float((p * e.rewards).sum() / 4 - 0.3 * kl)

        def mean_return(log_p: Tensor) -> float:
            p = policy_of(log_p, state)
            return float((visits(e, p, rounds)[:, :, None] * p * e.rewards).sum() / rounds)

        reading = session.read("trained", [Question(p) for p in learner.seat.encoded])
        batch = Batch(reading.log_p, base, torch.tensor(state))
        first, _ = exact_objective(batch, e, kl_coefficient=0.3)
        second = exact_loss(
            session, learner, weighting="visitation", horizon="reward-to-go", rounds=rounds
        )
        vs = [one_coordinate(learner, part) for part in ("q_proj.lora_A", "down_proj.lora_B")]
        vs += directions(learner, 1)
        wanted = [along(learner, -loss, vs) for loss in (first, second)]
        for slopes, value in zip(wanted, (bandit, mean_return), strict=True):
            assert min(abs(s) for s in slopes) > 1e-4
            for v, expected in zip(vs, slopes, strict=True):
                assert slope(session, learner, v, value) == pytest.approx(
                    expected, rel=1e-5, abs=1e-8
                )
        assert wanted[0] != pytest.approx(wanted[1], rel=1e-2)
