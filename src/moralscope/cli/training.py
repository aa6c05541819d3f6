"""Train one agent from its file: the command ``train``.

The agent goes into one folder: adapter, fingerprint, settings, tables and card. A folder that is
finished with the same settings is left as it is; with others it is refused. What is under way
lies in ``.work`` inside it, and the same command goes on from there. Among several processes
(``accelerate launch -m moralscope train ...``) the first alone draws and writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.console import Console

from moralscope.cli.drawing import say
from moralscope.cli.progress import drawn
from moralscope.cli.words import counted, duration, size
from moralscope.core.errors import ConfigError
from moralscope.core.files import require_writable, write_json, write_text
from moralscope.core.progress import Progress, silent
from moralscope.core.tables import read_table, write_table
from moralscope.studies.doctor import require_model_stack
from moralscope.studies.resources import measured
from moralscope.training.agent_file import (
    AgentFile,
    agent_yaml,
    differing,
    held_back_prompts,
    read_agent,
)
from moralscope.training.diagnostics import (
    Diagnosis,
    Row,
    before_training,
    diagnose,
    diagnose_last,
    diagnosed,
)
from moralscope.training.finished import (
    ADAPTER_CONFIG,
    AGENT,
    SETTINGS,
    TRAINABLE,
    adapter_size,
    missing_files,
    read_finished,
)

if TYPE_CHECKING:
    import polars as pl

    from moralscope.training.trackers import Tracker

DONE, INTERRUPTED = 0, 130
WORK = ".work"
SMOKE_STEPS = 10
_FREE = {"device", "checkpoint_every"}
"""Settings by which two trainings may differ and still be the same."""


def print_schema() -> int:
    """Print the JSON Schema of agent files."""
    schema = json.dumps(AgentFile.model_json_schema(), indent=2)
    Console().print(schema, soft_wrap=True, markup=False, highlight=False)
    return DONE


def train_file(path: Path | None, out: Path | None, *, smoke: bool, track: str | None) -> int:
    """Train the agent of a file.

    Args:
        path: the agent file; None is refused.
        out: the agent's folder; ``runs/`` and its name by default.
        smoke: only try ten steps, in a temporary folder, and say what the whole would take.
        track: ``trackio`` or ``wandb``.

    Raises:
        ConfigError: the file cannot be used, or the folder holds another agent.
    """
    if path is None:
        raise ConfigError(
            "There is no agent to train",
            seen="no file",
            allowed="moralscope train AGENT.yaml",
            remedy="write a file with one line, reward: deontological, and give its name",
        )
    agent = read_agent(path)
    require_model_stack()
    folder = out or Path("runs") / agent.name
    try:
        with _terminable():
            return _smoke(agent) if smoke else _train_into(agent, folder, track)
    except KeyboardInterrupt as stop:
        kept = f"Interrupted. Checkpoints are kept in {folder / WORK}: the same command goes on."
        told = "Interrupted. Nothing was kept." if smoke else str(stop) or kept
        say(_consoles()[1], told)
        return INTERRUPTED


def _train_into(agent: AgentFile, folder: Path, track: str | None) -> int:
    _refuse_another(agent, folder)
    console, errors = _consoles()
    if not missing_files(folder):
        say(console, "Already trained with these settings: nothing to compute.")
        _complete(agent, folder)
        return _conclude(agent, folder, console)
    require_writable(folder)
    _train(agent, folder, errors, track)
    return _conclude(agent, folder, console)


def _complete(agent: AgentFile, folder: Path) -> None:
    """Do what an interruption just after the last step left undone."""
    if not _is_main():
        return
    if not (folder / "diagnostics.parquet").is_file():
        table = read_table("training", folder)
        write_table("diagnostics", diagnosed(agent.name, agent.training, table), folder)
    shutil.rmtree(folder / WORK, ignore_errors=True)


def _train(agent: AgentFile, folder: Path, console: Console, track: str | None) -> None:
    from moralscope.training.trackers import open_tracker  # noqa: PLC0415 -- only when asked for

    for found in before_training(agent.training):
        _warn(console, found)
    tracker = None
    if track is not None and _is_main():
        settings = agent.model_dump(mode="json")
        tracker = open_tracker(track, name=agent.name, settings=settings, folder=folder)
    with drawn(console) as progress:
        try:
            table = _run(agent, folder, progress, _watching(console, tracker))
        finally:
            if tracker is not None:
                tracker.finish()
    if _is_main():
        write_table("diagnostics", diagnosed(agent.name, agent.training, table), folder)
        write_text(folder / AGENT, agent_yaml(agent))


def _run(
    agent: AgentFile,
    folder: Path,
    progress: Progress,
    watch: Callable[[Sequence[Row]], None] | None,
) -> pl.DataFrame:
    """The training itself; returns the table ``training``."""
    from moralscope.models.loading import load_model, locate_model  # noqa: PLC0415 -- imports torch
    from moralscope.training.distribution import joined_processes  # noqa: PLC0415 -- the same
    from moralscope.training.loop import train_agent  # noqa: PLC0415 -- the same
    from moralscope.training.targets import count_trainable  # noqa: PLC0415 -- the same

    base = load_model(locate_model(agent.model), dtype=agent.dtype, device=_device(agent.device))
    count = count_trainable(base.model, agent.lora)
    with joined_processes(cpu=agent.device == "cpu") as processes:
        table = train_agent(
            agent.name,
            agent.training,
            base,
            out=folder,
            work=folder / WORK,
            fingerprint_prompts=held_back_prompts(agent),
            max_nodes=agent.max_nodes,
            processes=processes,
            progress=progress if _is_main() else silent,
            watch=watch,
        )
    if _is_main():
        write_json(folder / TRAINABLE, count.to_json())
    return table


def _watching(console: Console, tracker: Tracker | None) -> Callable[[Sequence[Row]], None]:
    """What looks at each step: diagnoses are told when they show, each once an agent."""
    told: dict[str, set[str]] = {}

    def watch(rows: Sequence[Row]) -> None:
        last = rows[-1]["step"]
        for newest in [row for row in rows[-2:] if row["step"] == last]:
            who = str(newest["agent"])
            known = told.setdefault(who, set())
            for found in diagnose_last([r for r in rows if r["agent"] == who], known=known):
                known.add(found.kind)
                _warn(console, found)
        if tracker is not None:
            tracker.log(int(str(last)), next(r for r in rows[-2:] if r["step"] == last))

    return watch


def _warn(console: Console, found: Diagnosis) -> None:
    when = f"step {found.step}" if found.step else "before training"
    say(console, f"{found.kind} ({when}): {found.sentence}. To do: {found.advice}.", "yellow")


def _conclude(agent: AgentFile, folder: Path, console: Console) -> int:
    """Write the card and say where everything is."""
    if not _is_main():
        return DONE
    from moralscope.reports.cards import write_card  # noqa: PLC0415 -- reads what training wrote

    card = write_card(folder)
    found = read_finished(folder)
    if found.diagnostics is not None and found.diagnostics.height:
        kinds = ", ".join(found.diagnostics.get_column("diagnosis").unique(maintain_order=True))
        count = counted(found.diagnostics.height, "warning")
        say(console, f"{count} about this training: {kinds}; the card says more.", "yellow")
    last = found.training.tail(1).to_dicts()[0]
    say(
        console,
        f"{agent.name}: {counted(int(last['step']), 'step')}, reward {last['reward_mean']:.2f}, "
        f"P(cooperate) {last['cooperation']:.2f}, legal mass {last['legal_mass']:.2f}",
    )
    say(console, f"Table: {folder / 'training.parquet'}")
    say(console, f"Card: {card}")
    say(console, f"Adapter: {folder}", "bold")
    return DONE


def _refuse_another(agent: AgentFile, folder: Path) -> None:
    """Refuse a folder that holds an agent trained with other settings, or one from elsewhere.

    Raises:
        ConfigError: it does; the settings that differ are named.
    """
    asked = agent.model_dump(mode="json")
    if (folder / AGENT).is_file():
        before = yaml.safe_load((folder / AGENT).read_text(encoding="utf-8"))
    elif (folder / SETTINGS).is_file():
        before = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        asked = agent.training.model_dump(mode="json")
    elif (folder / ADAPTER_CONFIG).is_file():
        raise ConfigError(
            "The folder holds an adapter that was not trained by this command",
            seen=str(folder),
            allowed="an empty or new folder, or one that this command has begun",
            remedy="give another --out",
        )
    else:
        return
    changed = {k: v for k, v in differing(before, asked).items() if k not in _FREE}
    if changed:
        named = [f"{key}: {old} there, {new} now" for key, (old, new) in changed.items()]
        more = f"; and {len(named) - 6} more" if len(named) > 6 else ""
        raise ConfigError(
            "The folder holds an agent that was trained with other settings",
            seen=f"{folder}: {'; '.join(named[:6])}{more}",
            allowed="the same settings, for which nothing is computed again",
            remedy="give another --out, or go back to those settings",
        )


def _smoke(agent: AgentFile) -> int:
    """Ten steps in a temporary folder; then how long, how large, and what shows so far."""
    console, errors = _consoles()
    steps = min(SMOKE_STEPS, agent.steps)
    changes = {"steps": steps, "phase_steps": None, "keep_steps": ()}
    short = AgentFile.model_validate(agent.model_dump() | changes)
    early = before_training(agent.training)
    with (
        tempfile.TemporaryDirectory(prefix="moralscope-smoke-") as temporary,
        measured() as cost,
    ):
        folder = Path(temporary)
        with drawn(errors) as progress:
            table = _run(short, folder, progress, None)
        adapter = adapter_size(folder) if _is_main() else None
        saved = _saving(folder) if _is_main() else ""
    rows = [row for row in table.to_dicts() if row["agent"] == agent.name]
    if adapter is None:
        return DONE
    seconds = [float(row["seconds"]) for row in rows]
    each = statistics.median(seconds[1:] or seconds)
    large = size(adapter.bytes) + saved
    whole = each * agent.steps + (cost.seconds - sum(seconds))
    for line in (
        f"Tried {counted(steps, 'step')} of {agent.steps}; nothing was kept.",
        f"A step takes {_brief(each)} (median without the first).",
        f"The whole run takes about {duration(whole)}, loading and saving included.",
        f"Memory at its peak: {_memory(agent, cost.peak_memory_gib)}.",
        f"The adapter has {counted(adapter.parameters, 'parameter')}: {large}.",
    ):
        say(console, line)
    found = (*early, *diagnose(rows))
    for one in found:
        _warn(console, one)
    if not found:
        say(console, "No warning so far.", "green")
    return DONE


def _saving(folder: Path) -> str:
    """What the adapter's sites save, where they are not every linear layer."""
    count = json.loads((folder / TRAINABLE).read_text())
    if count["parameters"] == count["all_linear"]:
        return ""
    return f", {1 - count['share']:.0%} fewer than on every linear layer"


def _brief(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _memory(agent: AgentFile, host_gib: float) -> str:
    told = f"{size(host_gib * 2**30)} of this process"
    if agent.device.startswith("cuda"):
        import torch  # noqa: PLC0415 -- it is loaded by now

        told += f", {size(torch.cuda.max_memory_allocated(agent.device))} on the GPU"
    return told


def _consoles() -> tuple[Console, Console]:
    """For results and for progress; silent in all but the first of several processes."""
    quiet = not _is_main()
    return Console(quiet=quiet), Console(stderr=True, quiet=quiet)


def _is_main(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the first of the processes that a launcher started, or the only one."""
    return environment.get("RANK", environment.get("LOCAL_RANK", "0")) == "0"


def _device(wanted: str, environment: Mapping[str, str] = os.environ) -> str:
    """Each of several processes takes its own GPU."""
    own = environment.get("LOCAL_RANK")
    return f"cuda:{own}" if wanted == "cuda" and own is not None else wanted


@contextlib.contextmanager
def _terminable() -> Generator[None]:
    """Take SIGTERM for an interruption while the block runs.

    The loop itself stops at a safe point; this is for the time before and after it.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread, where signals do not arrive
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
