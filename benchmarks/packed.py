"""How much does one prompt tree save over padded batches? Scoring, training, attribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from benchmarks.adapters import TARGET, randomise
from benchmarks.plain import PaddedBatch, log_odds, option_by_option, pad, padded_log_p
from benchmarks.settings import Settings
from benchmarks.timing import Entry, Timed, take_turns
from moralscope.core.decision import Prompt
from moralscope.games import get_game, get_opponent, get_reward, meet
from moralscope.mechanisms.attribution.contributions import attribution_tables
from moralscope.mechanisms.clean import run_clean
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.models.roster import Roster
from moralscope.models.scoring import make_packs, score
from moralscope.training.answers import Question, read_answers
from moralscope.training.batches import state_index
from moralscope.training.config import LoraSettings
from moralscope.training.lora import adapted, trainable
from moralscope.training.objectives import Batch, exact_objective

ON = "on, un-merged"


BATCH = 16
"""Prompts that are padded to one length."""


def _sizes(prompts: Sequence[EncodedPrompt], *batches: PaddedBatch) -> dict[str, int]:
    """How many tokens each way runs."""
    return {
        "tree": sum(len(pack.tree) for pack in make_packs(prompts)),
        "batch": sum(batch.real_tokens for batch in batches),
        "batch_with_padding": sum(batch.tokens.numel() for batch in batches),
    }


def compare_scoring(
    roster: Roster, sets: Mapping[str, Sequence[EncodedPrompt]], settings: Settings
) -> dict[str, Entry]:
    """The entries ``scoring_vs_padded`` and ``scoring_vs_option_by_option``.

    Args:
        roster: the agents.
        sets: prompt sets by name; the first gives the ratios, the others stand beside it.
        settings: sizes.
    """
    measured = {name: _score_set(roster, prompts, settings) for name, prompts in sets.items()}
    first = next(iter(measured))
    return {
        key: {**measured[first][key], "others": {n: m[key] for n, m in measured.items()
                                                 if n != first}}
        for key in measured[first]
    }  # fmt: skip


def _score_set(
    roster: Roster, prompts: Sequence[EncodedPrompt], settings: Settings
) -> dict[str, Entry]:
    # In batches of one size, so that the peer's activations fit the caches as ours do.
    batches = [pad(prompts[i : i + BATCH]) for i in range(0, len(prompts), BATCH)]
    with roster.speaking(TARGET) as model, torch.no_grad():
        times = take_turns(
            {
                "tree": lambda: score(model, prompts),
                "padded": lambda: torch.cat([padded_log_p(model, batch) for batch in batches]),
                "one by one": lambda: option_by_option(model, prompts),
            },
            settings.repeats,
        )
    told = {
        "scoring_vs_padded": (
            "padded",
            f"padded batches of {BATCH}, options sharing their prompt's row",
        ),
        "scoring_vs_option_by_option": ("one by one", "one forward for each form of each option"),
    }
    ours = times["tree"]
    entries: dict[str, Entry] = {}
    for key, (name, peer) in told.items():
        gap = np.abs(log_odds(times[name].result).numpy() - ours.result.log_odds).max()
        entries[key] = {
            "ratio": times[name].median / ours.median,
            "ours_seconds": ours.median,
            "peer_seconds": times[name].median,
            "ours": f"{len(prompts)} prompts scored as trees, their construction included",
            "peer": peer,
            "tokens": _sizes(prompts, *batches),
            "adapters": ON,
            "deviation": {"max_abs_log_odds": float(gap)},
            "turns": {"tree": ours.seconds, name: times[name].seconds},
        }
    return entries


def compare_six_games(
    roster: Roster, prompts: Sequence[EncodedPrompt], settings: Settings
) -> dict[str, Entry]:
    """The entries ``six_games_vs_padded`` and ``six_games_vs_option_by_option``."""
    measured = _score_set(roster, prompts, settings)
    return {key.replace("scoring", "six_games"): entry for key, entry in measured.items()}


def compare_attribution(
    roster: Roster, prompts: Sequence[EncodedPrompt], settings: Settings
) -> dict[str, Entry]:
    """The entry ``attribution_cost_in_tree_forwards``, over every agent of the roster."""

    def attribute(name: str) -> Any:
        with roster.speaking(name) as model:
            anatomy = roster.anatomy(name)
            run = run_clean(name, model, anatomy, prompts, keep_cache=False)
            return attribution_tables(anatomy, run)

    def forward(name: str) -> Any:
        with roster.speaking(name) as model:
            return score(model, prompts)

    jobs = {"attribution": attribute, "forward": forward}
    times = take_turns(
        {
            f"{job}, {name}": lambda run=run, name=name: run(name)
            for name in roster.specs
            for job, run in jobs.items()
        },
        settings.repeats,
    )
    medians = {job: [times[f"{job}, {name}"].median for name in roster.specs] for job in jobs}
    ours, peer = (sum(medians[job]) for job in jobs)
    each = [a / f for a, f in zip(*medians.values(), strict=True)]
    completeness = pl.concat([times[f"attribution, {n}"].result[1] for n in roster.specs])
    return {
        "attribution_cost_in_tree_forwards": {
            "ratio": ours / peer,
            "each_agent": dict(zip(roster.specs, each, strict=True)),
            "better": "lower",
            "ours_seconds": ours,
            "peer_seconds": peer,
            "ours": f"{len(prompts)} prompts run with capture by each of {len(each)} agents, every "
            "head and MLP attributed, tables written; the agents' median times added",
            "peer": "the same prompts scored by the same agents, each as one tree",
            "adapters": ON,
            "deviation": {
                "max_abs_completeness_error": float(completeness["error"].abs().max()),
                "max_abs_logit_diff": float(completeness["logit_diff"].abs().max()),
            },
            "turns": {name: timed.seconds for name, timed in times.items()},
        }
    }


def compare_training(
    base: LoadedModel, prompts: Sequence[Prompt], settings: Settings
) -> dict[str, Entry]:
    """The entry ``training_step_vs_padded``: forward and backward of the exact objective.

    The optimiser's own step is the same on both sides and left out.
    """
    encoded = encode_all(base.tokenizer, prompts)
    states = torch.tensor([state_index(prompt) for prompt in prompts])
    padded = pad(encoded)
    encounter = meet(get_game("IPD"), get_reward("game"), get_opponent("tit-for-tat"))
    unadapted = score(base.model, encoded)
    reference = torch.tensor(
        np.stack([unadapted.log_p_positive, unadapted.log_p_negative], 1), dtype=torch.float32
    )
    questions = [Question(prompt) for prompt in encoded]
    with adapted(base, LoraSettings(rank=settings.rank), 0) as wrapped:
        randomise(wrapped, 0)
        parameters = list(trainable(wrapped).values())

        def by_tree(narrow: bool) -> Tensor:
            return read_answers(
                base.model, questions, dtype="bfloat16" if narrow else "float32"
            ).log_p

        def step(forward: Callable[[bool], Tensor], narrow: bool) -> Callable[[], Tensor]:
            def run() -> Tensor:
                for parameter in parameters:
                    parameter.grad = None
                batch = Batch(forward(narrow), reference, states)
                loss, _ = exact_objective(batch, encounter, kl_coefficient=0.2)
                _backward(loss)
                return _gradient(parameters)

            return run

        def by_batch(narrow: bool) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
                return padded_log_p(base.model, padded).float()

        times = take_turns(
            {
                "tree": step(by_tree, narrow=False),
                "padded": step(by_batch, narrow=False),
                "tree, bfloat16": step(by_tree, narrow=True),
                "padded, bfloat16": step(by_batch, narrow=True),
            },
            settings.repeats,
        )
    entry = _training_entry(times, len(prompts))
    return {"training_step_vs_padded": {**entry, "tokens": _sizes(encoded, padded)}}


def _backward(loss: Any) -> None:
    """Torch types this only partly."""
    loss.backward()


def _gradient(parameters: Sequence[torch.nn.Parameter]) -> Tensor:
    """All gradients as one vector."""
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def _relative(value: Tensor, reference: Tensor) -> float:
    return float(torch.dist(value, reference) / torch.dist(reference, torch.zeros(())))


def _training_entry(times: dict[str, Timed], prompts: int) -> Entry:
    ours, peer = times["tree"], times["padded"]
    narrow, narrow_peer = times["tree, bfloat16"], times["padded, bfloat16"]
    return {
        "ratio": peer.median / ours.median,
        "ours_seconds": ours.median,
        "peer_seconds": peer.median,
        "ours": f"forward and backward of the exact objective on {prompts} prompts as one tree",
        "peer": "the same as one padded batch",
        "adapters": f"{ON}, trained",
        "deviation": {"gradient_relative": _relative(ours.result, peer.result)},
        "bfloat16": {
            "ratio": narrow_peer.median / narrow.median,
            "ratio_over_padded_float32": peer.median / narrow.median,
            "ours_seconds": narrow.median,
            "peer_seconds": narrow_peer.median,
            "gradient_relative_to_float32": _relative(narrow.result, ours.result),
            "peer_gradient_relative_to_float32": _relative(narrow_peer.result, peer.result),
        },
        "turns": {name: timed.seconds for name, timed in times.items()},
    }
