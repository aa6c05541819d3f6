"""How is an agent trained? The one loop: draw, score, differentiate, step, record.

1. Score the training prompts with the base: the reference of the KL term.
2. Each step draws a batch, packs it into a prompt tree, scores it with the adapter active, and
   hands the log-probabilities to the objective, a function.
3. Adam updates the adapter. Every few steps the state is checkpointed; the same call resumes.
4. The trained adapter is saved with its fingerprint, resolved configuration and training table.

Deterministic given the configuration, on one machine with one number of threads.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from moralscope.core.decision import Prompt
from moralscope.core.errors import AgentError
from moralscope.core.files import write_text
from moralscope.core.hashing import sha256_file, sha256_value
from moralscope.core.progress import Progress, ProgressEvent, silent
from moralscope.core.tables import from_rows, write_table
from moralscope.games import expected_rewards, get_game, get_opponent, get_reward
from moralscope.models.fingerprint import make_fingerprint, write_fingerprint
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import EncodedPrompt, encode_all
from moralscope.models.roster import WEIGHTS
from moralscope.models.scoring import MAX_NODES, make_packs, option_log_probabilities, score
from moralscope.training.batches import draw_batch, state_index, training_prompts
from moralscope.training.checkpoints import FOLDER, load_checkpoint, save_checkpoint
from moralscope.training.config import ComputeDtype, TrainingConfig
from moralscope.training.lora import adapted, save_adapter, trainable
from moralscope.training.objectives import Batch, Objective, exact_objective

CONFIG_FILE = "training.json"

Watch = Callable[[Sequence[Mapping[str, object]]], None]
"""Told of every step: the rows of the table ``training`` so far, those before a resume included."""


def train_agent(
    name: str,
    config: TrainingConfig,
    base: LoadedModel,
    *,
    out: Path,
    work: Path,
    fingerprint_prompts: Sequence[Prompt] = (),
    max_nodes: int = MAX_NODES,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> pl.DataFrame:
    """Train one agent and save it as a PEFT adapter folder.

    Args:
        name: the agent's name in tables.
        config: what to train.
        base: the base model; unchanged afterwards.
        out: folder for the adapter, its fingerprint, configuration and training table.
        work: scratch folder that survives an interruption; the same call resumes from it.
        fingerprint_prompts: prompts to fingerprint beside the training prompts.
        max_nodes: largest packed forward, in tree nodes.
        progress: called after each step.
        watch: called after each step with the rows so far, to diagnose or to track them.

    Returns:
        The table ``training``.

    Raises:
        ConfigError: an unknown name, or a batch that cannot be balanced.
        AgentError: the loss is not finite.
    """
    prompts = tuple(training_prompts(config))
    encoded = encode_all(base.tokenizer, prompts)
    reference = torch.as_tensor(_reference(base, encoded, max_nodes), device=base.device)
    with adapted(base, config.lora, config.seed) as wrapped:
        task = _Task(name, config, base, prompts, encoded, reference, _objective(config), max_nodes)
        rows = _optimise(task, wrapped, work, progress, watch)
        save_adapter(wrapped, out, base.source.name)
        extra = [p for p in fingerprint_prompts if p.name not in {q.name for q in prompts}]
        fingerprinted = (*encoded, *encode_all(base.tokenizer, extra))
        scores = score(
            base.model,
            fingerprinted,
            max_nodes=max_nodes,
            task=f"fingerprint {name}",
            progress=progress,
        )
    digest = sha256_file(out / WEIGHTS)
    write_fingerprint(out, make_fingerprint(base, digest, fingerprinted, scores.log_odds))
    write_text(out / CONFIG_FILE, json.dumps(config.model_dump(mode="json"), indent=2) + "\n")
    table = from_rows("training", rows)
    write_table("training", table, out)
    shutil.rmtree(work / FOLDER, ignore_errors=True)
    return table


def _objective(config: TrainingConfig) -> Objective:
    opponent = get_opponent(config.opponent)
    rewards = expected_rewards(get_reward(config.reward), get_game(config.game), opponent)
    return exact_objective(
        rewards,
        opponent,
        kl_coefficient=config.kl_coefficient,
        weighting=config.visitation,
    )


def _reference(base: LoadedModel, encoded: Sequence[EncodedPrompt], max_nodes: int) -> Any:
    scores = score(base.model, encoded, max_nodes=max_nodes)
    return [
        [float(p), float(n)]
        for p, n in zip(scores.log_p_positive, scores.log_p_negative, strict=True)
    ]


@dataclass(frozen=True)
class _Task:
    """What one training run works with."""

    name: str
    config: TrainingConfig
    base: LoadedModel
    prompts: Sequence[Prompt]
    encoded: Sequence[EncodedPrompt]
    reference: torch.Tensor
    objective: Objective
    max_nodes: int

    @property
    def identity(self) -> str:
        """What checkpoints of this run are recognised by: all that its course depends on."""
        course = [self.name, self.config.model_dump(mode="json"), self.base.source.sha256]
        texts = [prompt.sha256 for prompt in self.encoded]
        return sha256_value([*course, self.base.dtype, self.max_nodes, texts])


def _optimise(
    task: _Task, wrapped: Any, work: Path, progress: Progress, watch: Watch | None
) -> list[dict[str, object]]:
    config = task.config
    parameters = trainable(wrapped)
    optimiser = torch.optim.Adam(parameters.values(), lr=config.learning_rate)
    rows = load_checkpoint(work, parameters, optimiser, task.identity)
    for step in range(len(rows) + 1, config.steps + 1):
        started = time.perf_counter()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, step)
        chosen = draw_batch(config, task.prompts, step)
        states = torch.tensor(
            [state_index(task.prompts[i]) for i in chosen], device=task.base.device
        )
        encoded = [task.encoded[i] for i in chosen]
        log_p = batch_log_p(
            task.base, encoded, dtype=config.compute_dtype, max_nodes=task.max_nodes
        )
        batch = Batch(log_p, task.reference[list(chosen)].to(log_p.dtype), states)
        loss, signals = task.objective(batch)
        if not bool(torch.isfinite(loss)):
            raise AgentError(
                f"Training {task.name!r} broke down at step {step}",
                seen=f"loss {float(loss.detach())}",
                allowed="a finite loss",
                remedy="lower learning_rate or raise kl_coefficient; the last checkpoint is kept",
            )
        _descend(loss, optimiser)
        rows.append(
            {
                "agent": task.name,
                "training_seed": config.seed,
                "step": step,
                "visitation": config.visitation,
                "reward_mean": signals.reward_mean,
                "cooperation": signals.cooperation,
                "legal_mass": signals.legal_mass,
                "kl": signals.kl,
                "loss": float(loss.detach()),
                "seconds": time.perf_counter() - started,
            }
        )
        every = 10 if config.checkpoint_every == "auto" else config.checkpoint_every
        if step % every == 0 and step < config.steps:
            save_checkpoint(work, parameters, optimiser, rows, task.identity)
        note = f"reward {signals.reward_mean:.2f}, P(cooperate) {signals.cooperation:.2f}"
        progress(ProgressEvent(f"train {task.name}", step, config.steps, note))
        if watch is not None:
            watch(rows)
    return rows


def _descend(loss: Any, optimiser: Any) -> None:
    """One optimiser step (both arguments are only partly typed by torch)."""
    loss.backward()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The rate of a step, counted from 1; linear decay reaches zero after the last."""
    if config.schedule == "constant":
        return config.learning_rate
    return config.learning_rate * (1.0 - (step - 1) / config.steps)


def batch_log_p(
    base: LoadedModel,
    encoded: Sequence[EncodedPrompt],
    *,
    dtype: ComputeDtype = "float32",
    max_nodes: int = MAX_NODES,
) -> torch.Tensor:
    """Log-probabilities of a batch in its order, with gradient: one packed forward a pack.

    Returns:
        Of defecting and of cooperating, shape ``(prompts, 2)``, in nats.
    """
    narrow = dtype == "bfloat16"
    result: list[torch.Tensor] = []
    order: list[int] = []
    with torch.autocast(base.device.split(":")[0], dtype=torch.bfloat16, enabled=narrow):
        for pack in make_packs(encoded, max_nodes):
            result.append(option_log_probabilities(base.model, pack))
            order += pack.members
    inverse = torch.empty(len(order), dtype=torch.long)
    inverse[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(result)[inverse.to(result[0].device)]
