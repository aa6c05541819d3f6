"""How is an agent trained in a game? Play or score, judge, differentiate, step, record.

1. Score the training prompts with the base: the reference of the KL term.
2. Each step hands the learners to the method (``exact`` or ``sampled``), which moves their
   adapters once or several times and reports what it saw.
3. The loop (``course``) takes the steps and keeps their state, so that the same call goes on.
4. The trained adapter is saved with its fingerprint, resolved configuration and tables.

Deterministic given the configuration, on one machine with one number of threads and processes:
every draw is a function of seed and step, so nothing depends on where a run was interrupted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from moralscope.core.decision import Prompt
from moralscope.core.files import write_text
from moralscope.core.hashing import sha256_file
from moralscope.core.progress import Progress, silent
from moralscope.core.tables import from_rows, write_table
from moralscope.models.fingerprint import make_fingerprint, write_fingerprint
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import encode_all
from moralscope.models.roster import WEIGHTS
from moralscope.models.scoring import MAX_NODES, score
from moralscope.training.checkpoints import Snapshot
from moralscope.training.config import TrainingConfig
from moralscope.training.course import (
    Course,
    Tables,
    Watch,
    follow,
    kept_folder,
    move_kept,
    scheduled_rate,
)
from moralscope.training.distribution import ALONE, Processes
from moralscope.training.exact import exact_step
from moralscope.training.learners import Learner, Seat, restore, state_tensors, state_values
from moralscope.training.lora import save_adapter, speaking
from moralscope.training.sampled import sampled_step
from moralscope.training.seating import frozen_digest, learners_of, phase_of, seats_of
from moralscope.training.session import Session, StepReport

CONFIG_FILE = "training.json"
OPPONENT_FOLDER = "opponent"


def train_agent(
    name: str,
    config: TrainingConfig,
    base: LoadedModel,
    *,
    out: Path,
    work: Path,
    fingerprint_prompts: Sequence[Prompt] = (),
    max_nodes: int = MAX_NODES,
    processes: Processes = ALONE,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> pl.DataFrame:
    """Train one agent, and the opponent that learns beside it, and save PEFT adapter folders.

    Args:
        name: the agent's name in tables.
        config: what to train.
        base: the base model; unchanged afterwards.
        out: folder for the adapter, its fingerprint, configuration and tables. A learning
            opponent's are in its subfolder ``opponent``, adapters of ``keep_steps`` in
            ``checkpoints/step-N``.
        work: scratch folder that survives an interruption; the same call resumes from it.
        fingerprint_prompts: prompts to fingerprint beside the training prompts.
        max_nodes: largest packed forward, in tree nodes.
        processes: who shares the work; the first of them writes.
        progress: called after each step.
        watch: called after each step with the rows so far, to diagnose or to track them.

    Returns:
        The table ``training``.

    Raises:
        ConfigError: an unknown name, a batch that cannot be balanced, or a checkpoint in ``work``
            of a training with other settings or of another version.
        AgentError: the loss is not finite.
        OutputError: a checkpoint or result cannot be written; earlier checkpoints are kept.
        Stopped: the run was asked to stop; its state is saved.
    """
    seats = seats_of(name, config, base, max_nodes=max_nodes)
    with learners_of(seats, config, base, processes=processes, max_nodes=max_nodes) as ready:
        session, learners = ready
        run = _Run(name, config, session, learners, work)
        rows = follow(_course(run), progress, watch)
        if processes.is_main:
            _save(run, out, fingerprint_prompts, progress)
    table = from_rows("training", rows["training"])
    if processes.is_main:
        if "plays" in rows:
            write_table("plays", from_rows("plays", rows["plays"]), out)
        move_kept(work, out)
        # Last: a folder with this table is finished, and nothing is computed for it again.
        write_table("training", table, out)
        shutil.rmtree(work, ignore_errors=True)
    processes.barrier()
    return table


@dataclass(frozen=True)
class _Run:
    """One call of ``train_agent``."""

    name: str
    config: TrainingConfig
    session: Session
    learners: Sequence[Learner]
    work: Path

    @property
    def identity(self) -> dict[str, object]:
        """What checkpoints of this run are recognised by: all that its course depends on."""
        settings = self.config.model_dump(mode="json")
        # How often a checkpoint is written, and which are kept, changes nothing of the course.
        for free in ("checkpoint_every", "keep_steps"):
            settings.pop(free)
        frozen = frozen_digest(self.config)  # a folder can be trained anew under its old name
        if frozen is not None:
            settings["opponent_adapter"] = frozen
        base = self.session.base
        return {
            "name": self.name,
            **settings,
            "base": base.source.sha256,
            "dtype": base.dtype,
            "max_nodes": self.session.max_nodes,
            "processes": self.session.processes.count,
            "prompts": [p.sha256 for learner in self.learners for p in learner.seat.encoded],
        }

    def snapshot(self, step: int, rows: Tables) -> Snapshot:
        """The whole state after a step."""
        tensors = {k: v for learner in self.learners for k, v in state_tensors(learner).items()}
        values = {learner.seat.adapter: state_values(learner) for learner in self.learners}
        tables = {name: from_rows(name, found) for name, found in rows.items()}
        return Snapshot(step, tensors, tables, values)

    def resume(self, snapshot: Snapshot) -> Tables:
        """Put the state back; the rows so far."""
        for learner in self.learners:
            values: Any = snapshot.values[learner.seat.adapter]
            restore(learner, snapshot.tensors, values)
        return {name: table.to_dicts() for name, table in snapshot.tables.items()}


def _course(run: _Run) -> Course:
    config = run.config

    def take(step: int) -> Tables:
        reports = _step(run, step)
        rows = [_row(run, report, step) for report in reports]
        plays = _plays(run, reports, step)
        return {"training": rows, "plays": plays} if plays else {"training": rows}

    return Course(
        name=run.name,
        steps=config.steps,
        checkpoint_every=config.checkpoint_every,
        work=run.work,
        identity=run.identity,
        processes=run.session.processes,
        table="training",
        take=take,
        keep=lambda step: _keep(run, step),
        snapshot=run.snapshot,
        resume=run.resume,
        note=_note,
    )


def _step(run: _Run, step: int) -> list[StepReport]:
    config = run.config
    phase = phase_of(config, len(run.learners[0].seat.rewards), step)
    rate = learning_rate(config, step)
    take = exact_step if config.method == "exact" else sampled_step
    return take(run.session, run.learners, step, phase, rate)


def _row(run: _Run, report: StepReport, step: int) -> dict[str, Any]:
    config = run.config
    seat = next(x.seat for x in run.learners if x.seat.name == report.agent)
    phase = phase_of(config, len(seat.rewards), step)
    return {
        "agent": report.agent,
        "training_seed": config.seed,
        "step": step,
        "phase": phase + 1,
        "reward": seat.rewards[phase].name,
        "visitation": config.visitation if config.method == "exact" else "sampled",
        "learning_rate": learning_rate(config, step),
        **report.values,
    }


def _plays(run: _Run, reports: Sequence[StepReport], step: int) -> list[dict[str, Any]]:
    return [
        {"agent": report.agent, "training_seed": run.config.seed, "step": step, **turn}
        for report in reports
        for turn in report.turns
    ]


def _note(row: Mapping[str, Any]) -> str:
    return (
        f"reward {row['reward_mean']:.2f}, P(cooperate) {row['cooperation']:.2f}, "
        f"legal {row['legal_mass']:.2f}, KL {row['kl']:.2f}"
    )


def _keep(run: _Run, step: int) -> None:
    """Keep the adapters of a step that was asked for, as folders that PEFT reads."""
    if step in run.config.keep_steps:
        for learner in run.learners:
            folder = kept_folder(run.work, step) / _place(learner.seat)
            adapter, base = learner.seat.adapter, run.session.base.source.name
            save_adapter(run.session.wrapped, folder, base, adapter)


def _place(seat: Seat) -> str:
    return OPPONENT_FOLDER if seat.others is None and seat.adapter == OPPONENT_FOLDER else "."


def _save(run: _Run, out: Path, more: Sequence[Prompt], progress: Progress) -> None:
    """Write every learner's adapter with its fingerprint and configuration."""
    base = run.session.base
    for learner in run.learners:
        seat, folder = learner.seat, out / _place(learner.seat)
        save_adapter(run.session.wrapped, folder, base.source.name, seat.adapter)
        extra = [p for p in more if p.name not in {q.name for q in seat.prompts}]
        fingerprinted = (*seat.encoded, *encode_all(base.tokenizer, extra))
        with speaking(run.session.wrapped, seat.adapter):
            scores = score(
                base.model,
                fingerprinted,
                max_nodes=run.session.max_nodes,
                task=f"fingerprint {seat.name}",
                progress=progress,
            )
        digest = sha256_file(folder / WEIGHTS)
        made = make_fingerprint(base, digest, fingerprinted, scores.log_odds)
        write_fingerprint(folder, made)
        settings = seat.config.model_dump(mode="json")
        write_text(folder / CONFIG_FILE, json.dumps(settings, indent=2) + "\n")


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The rate of a step, counted from 1; linear decay reaches zero after the last."""
    return scheduled_rate(
        config.learning_rate, config.schedule, config.warmup, step=step, steps=config.steps
    )
