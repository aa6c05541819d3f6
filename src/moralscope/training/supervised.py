"""How is a narrow lesson taught? Supervised fine-tuning on answers alone, in the one loop.

1. Every example is read as it would be asked, and its answer is what is learned
   (``supervised_examples``).
2. Where nothing below some layer is trained, what enters that layer is computed once
   (``cached_below``).
3. The loop (``course``) takes the steps (``supervised_step``) and keeps their state, so that the
   same call goes on; the path of a small adapter is recorded (``adapter_record``).
4. The adapter, or the whole model, is saved with its fingerprint, configuration and rows.

Deterministic given the configuration, on one machine with one number of threads and processes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moralscope.core.decision import Prompt
from moralscope.core.errors import ConfigError
from moralscope.core.files import atomic_folder, write_json, write_text
from moralscope.core.hashing import sha256_value
from moralscope.core.progress import Progress, silent
from moralscope.models.fingerprint import make_fingerprint, write_fingerprint
from moralscope.models.loading import LoadedModel
from moralscope.models.rendering import encode_all
from moralscope.models.scoring import MAX_NODES, score
from moralscope.training import adapter_record
from moralscope.training.adapter_record import AdapterRecorder
from moralscope.training.cached_below import KeptStream, keep_stream, layer_to_cache
from moralscope.training.checkpoints import Snapshot
from moralscope.training.course import Course, Row, Tables, Watch, follow, kept_folder, move_kept
from moralscope.training.distribution import ALONE, Processes
from moralscope.training.lora import ADAPTER
from moralscope.training.optimising import put_back, state_of
from moralscope.training.recomputing import recomputing
from moralscope.training.supervised_batches import Corpus, corpus_of
from moralscope.training.supervised_config import SupervisedConfig
from moralscope.training.supervised_examples import Chat, EncodedChat, encode_chats, encode_text
from moralscope.training.supervised_step import Lesson, take_step
from moralscope.training.supervised_weights import Trained, trained_weights

SETTINGS_FILE = "supervised.json"
ROWS_FILE = "supervised_steps.json"

_TABLE = "supervised"
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Cached:
    """What was kept of the frozen layers.

    Attributes:
        layer: the layer whose input was kept, at least 1.
        bytes: that it took.
        mapped: whether it was a file that is mapped into memory.
    """

    layer: int
    bytes: int
    mapped: bool


@dataclass(frozen=True, slots=True)
class Taught:
    """What a training came to.

    Attributes:
        rows: one for each step, see ``supervised_step.take_step``, with ``seconds``.
        parameters: how many numbers were trained.
        cached: what was kept of the frozen layers; None where all were run.
        recorded: whether the adapter's path lies in ``adapter_record``.
    """

    rows: tuple[Mapping[str, Any], ...]
    parameters: int
    cached: Cached | None
    recorded: bool


def train_supervised(
    name: str,
    config: SupervisedConfig,
    base: LoadedModel,
    examples: Sequence[Chat],
    *,
    out: Path,
    work: Path,
    texts: Sequence[str] = (),
    fingerprint_prompts: Sequence[Prompt] = (),
    max_nodes: int = MAX_NODES,
    processes: Processes = ALONE,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> Taught:
    """Teach a lesson, and save what was trained.

    Args:
        name: the agent's name in tables.
        config: how.
        base: the base model; unchanged afterwards.
        examples: chats whose last turn is learned.
        out: folder for the PEFT adapter, or for the checkpoint ``model`` where all weights are
            trained, its fingerprint, ``supervised.json`` (the configuration),
            ``supervised_steps.json`` (the rows; written last), ``adapter_record``, and weights of
            ``keep_steps`` in ``checkpoints/step-N``.
        work: scratch folder that survives an interruption; the same call resumes from it.
        texts: of the KL term, plain; given if and only if its coefficient is above 0.
        fingerprint_prompts: decisions to fingerprint; without any there is no fingerprint.
        max_nodes: largest packed forward, in tree nodes.
        processes: who shares the work; the first of them writes.
        progress: called after each pack of the cache and after each step.
        watch: called after each step with the rows so far.

    Raises:
        ConfigError: settings that the model or the examples do not allow, or a checkpoint in
            ``work`` of a training with other settings.
        PromptError: an example or a text that cannot be learned from.
        AgentError: the loss is not finite, or the record is damaged.
        OutputError: something cannot be written; earlier checkpoints are kept.
        Stopped: the run was asked to stop; its state is saved.
    """
    with lesson_of(
        name, config, base, examples,
        texts=texts, work=work, max_nodes=max_nodes, processes=processes, progress=progress,
    ) as lesson:  # fmt: skip
        course = _course(lesson, work, _identity(lesson, base))
        taught = _taught(lesson, follow(course, progress, watch)[_TABLE])
        if processes.is_main:
            _save(lesson, base, out, fingerprint_prompts, progress)
    if processes.is_main:
        _finish(taught, work, out)
    processes.barrier()
    return taught


@contextlib.contextmanager
def lesson_of(
    name: str,
    config: SupervisedConfig,
    base: LoadedModel,
    examples: Sequence[Chat],
    *,
    work: Path,
    texts: Sequence[str] = (),
    max_nodes: int = MAX_NODES,
    processes: Processes = ALONE,
    progress: Progress = silent,
) -> Generator[Lesson]:
    """A training at its beginning; the base leaves the block as it entered it.

    Arguments and errors are those of ``train_supervised``.
    """
    chats, corpus = _read(config, base, examples, texts)
    _check_steps(config, len(chats))
    with (
        trained_weights(base, config) as trained,
        recomputing(base.model, on=config.gradient_checkpointing),
    ):
        kept: KeptStream | None = None
        layer = layer_to_cache(base.model, config.cache_below) if trained.wrapped else None
        if layer is not None:
            kept = keep_stream(
                base.model,
                corpus,
                layer,
                dtype=config.compute_dtype,
                max_nodes=max_nodes,
                most_bytes=int(config.cache_gib * _GIB),
                folder=work,
                progress=progress,
            )
        parameters = trained.parameters.values()
        rate, decay = config.learning_rate, config.weight_decay
        yield Lesson(
            name=name,
            config=config,
            model=base.model,
            trained=trained,
            optimiser=torch.optim.AdamW(parameters, lr=rate, weight_decay=decay),
            chats=chats,
            texts=tuple(texts),
            corpus=corpus,
            kept=kept,
            recorder=_recorder(config, trained, work) if processes.is_main else None,
            processes=processes,
            max_nodes=max_nodes,
        )


def _taught(lesson: Lesson, rows: Sequence[Row]) -> Taught:
    kept = lesson.kept
    return Taught(
        tuple(rows),
        sum(p.numel() for p in lesson.trained.parameters.values()),
        None if kept is None else Cached(kept.layer, kept.bytes, kept.mapped),
        lesson.recorder is not None,
    )


def _read(
    config: SupervisedConfig, base: LoadedModel, examples: Sequence[Chat], texts: Sequence[str]
) -> tuple[tuple[EncodedChat, ...], Corpus]:
    if bool(texts) != (config.kl_coefficient > 0):
        raise ConfigError(
            "The KL term has a coefficient without texts, or texts without a coefficient",
            seen=f"kl_coefficient {config.kl_coefficient}, {len(texts)} texts",
            allowed="both, or neither",
            remedy="give texts that have nothing to do with the lesson, or leave both out",
        )
    chats = encode_chats(
        base.tokenizer, examples, max_tokens=config.max_tokens, learn_end=config.learn_end
    )
    plain = [encode_text(base.tokenizer, text, max_tokens=config.max_tokens) for text in texts]
    return chats, corpus_of(chats, plain)


def _check_steps(config: SupervisedConfig, examples: int) -> None:
    never = [step for step in config.keep_steps if step > config.steps(examples)]
    if never:
        raise ConfigError(
            "A step that is to be kept is never taken",
            seen=f"keep_steps {never}, {examples} examples, {config.steps(examples)} steps",
            allowed=f"steps from 1 to {config.steps(examples)}",
            remedy="correct keep_steps, or raise epochs",
        )


def _recorder(config: SupervisedConfig, trained: Trained, work: Path) -> AdapterRecorder | None:
    if trained.wrapped is None or config.record is False:
        return None
    found = AdapterRecorder(work / adapter_record.FOLDER, trained.wrapped, ADAPTER)
    few = found.numbers <= adapter_record.FEW
    return found if config.record is True or few else None


def _course(lesson: Lesson, work: Path, identity: Mapping[str, object]) -> Course:
    config, recorder, trained = lesson.config, lesson.recorder, lesson.trained

    def take(step: int) -> Tables:
        if recorder is not None and not recorder.begun:
            recorder.begin(step - 1)
        return {_TABLE: [take_step(lesson, step)]}

    def keep(step: int) -> None:
        if step in config.keep_steps:
            trained.save(kept_folder(work, step))

    def snapshot(step: int, tables: Tables) -> Snapshot:
        if recorder is not None:
            recorder.sync()
        tensors = state_of(ADAPTER, trained.parameters, lesson.optimiser)
        return Snapshot(step, tensors, {}, {"rows": tables[_TABLE]})

    def resume(found: Snapshot) -> Tables:
        put_back(ADAPTER, trained.parameters, lesson.optimiser, found.tensors)
        rows: Any = found.values["rows"]
        return {_TABLE: list(rows)}

    return Course(
        name=lesson.name,
        steps=lesson.steps,
        checkpoint_every=config.checkpoint_every,
        work=work,
        identity=identity,
        processes=lesson.processes,
        table=_TABLE,
        take=take,
        keep=keep,
        snapshot=snapshot,
        resume=resume,
        note=_note,
    )


def _identity(lesson: Lesson, base: LoadedModel) -> dict[str, object]:
    """What checkpoints of this training are recognised by: all that its course depends on."""
    settings = lesson.config.model_dump(mode="json")
    # How often a checkpoint is written, which are kept and where the cache lies changes nothing.
    for free in ("checkpoint_every", "keep_steps", "cache_gib"):
        settings.pop(free)
    return {
        "name": lesson.name,
        "method": "supervised",
        **settings,
        "base": base.source.sha256,
        "dtype": base.dtype,
        "max_nodes": lesson.max_nodes,
        "processes": lesson.processes.count,
        "examples": sha256_value([chat.sha256 for chat in lesson.chats]),
        "texts": sha256_value(list(lesson.texts)),
    }


def _note(row: Row) -> str:
    apart = "" if row["kl"] is None else f", KL {row['kl']:.3f}"
    return f"loss {row['loss']:.3f} nats{apart}, gradient {row['gradient_norm']:.2g}"


def _save(
    lesson: Lesson, base: LoadedModel, out: Path, prompts: Sequence[Prompt], progress: Progress
) -> None:
    """Write what was trained with its fingerprint and configuration."""
    lesson.trained.save(out)
    if prompts:
        encoded = encode_all(base.tokenizer, prompts)
        scores = score(
            base.model,
            encoded,
            max_nodes=lesson.max_nodes,
            task=f"fingerprint {lesson.name}",
            progress=progress,
        )
        digest = lesson.trained.digest(out)
        write_fingerprint(out, make_fingerprint(base, digest, encoded, scores.log_odds))
    settings = lesson.config.model_dump(mode="json")
    write_text(out / SETTINGS_FILE, json.dumps(settings, indent=2) + "\n")


def _finish(taught: Taught, work: Path, out: Path) -> None:
    record = work / adapter_record.FOLDER
    if taught.recorded:
        with atomic_folder(out / adapter_record.FOLDER) as place:
            shutil.copytree(record, place, dirs_exist_ok=True)
    move_kept(work, out)
    # Last: a folder with this file is finished, and nothing is computed for it again.
    write_json(out / ROWS_FILE, [dict(row) for row in taught.rows])
    shutil.rmtree(work, ignore_errors=True)
