"""What exactly do we run when a sweep is compared? With full models, and with adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.adapters import SOURCE, TARGET
from benchmarks.peer_jobs import FullModels
from moralscope.core.site import Site
from moralscope.mechanisms.clean import CleanRun, run_clean
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.segments import ALL
from moralscope.mechanisms.patching.sweeps import Sweep, sweep
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster


@dataclass(frozen=True)
class Ours:
    """One way of ours to run a sweep: its clean runs and itself."""

    clean: Callable[[], tuple[CleanRun, CleanRun]]
    sweep: Callable[[], Sweep]


def full_way(
    models: FullModels, prompts: Sequence[EncodedPrompt], sites: Sequence[Site], positions: str
) -> Ours:
    """Full models on both sides; heads go through the target's projection, as elsewhere."""
    anatomy, theirs = models.anatomy, models.source_anatomy
    keep = positions == ALL
    interventions = [Intervention((site,)) for site in sites]

    def clean() -> tuple[CleanRun, CleanRun]:
        return (
            run_clean(SOURCE, models.source, theirs, prompts, everywhere=keep),
            run_clean(TARGET, models.target, anatomy, prompts, everywhere=keep),
        )

    runs = clean()

    def run() -> Sweep:
        return sweep(models.target, anatomy, *runs, interventions, positions=positions, write="z")

    return Ours(clean, run)


def adapter_way(
    roster: Roster, prompts: Sequence[EncodedPrompt], sites: Sequence[Site], positions: str
) -> Ours:
    """Two agents with adapters, un-merged; the source's own writes are put in."""
    anatomy = roster.anatomy(TARGET)
    keep = positions == ALL
    interventions = [Intervention((site,)) for site in sites]

    def clean() -> tuple[CleanRun, CleanRun]:
        found: list[CleanRun] = []
        for name in (SOURCE, TARGET):
            with roster.speaking(name) as model:
                found.append(run_clean(name, model, anatomy, prompts, everywhere=keep))
        return found[0], found[1]

    runs = clean()

    def run() -> Sweep:
        with roster.speaking(TARGET) as model:
            return sweep(model, anatomy, *runs, interventions, positions=positions)

    return Ours(clean, run)
