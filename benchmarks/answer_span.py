"""How much faster are patches as rows than one forward a patch, and are they the same numbers?

All heads and MLPs of one agent are patched with another's writes at the answer span of every
prompt. By hooks this takes one whole forward a patch, so only a sample is run that way and its
time scaled to all of them; rows run every one. Both ways need clean runs of source and target
first; those are timed too and stated apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.adapters import SOURCE, TARGET
from benchmarks.arithmetic import SpanSize, matrix_rate, sweep_operations
from benchmarks.plain import PlainRun, patch_by_hook, plain_run
from benchmarks.sampling import Sampled, spread, spread_cells
from benchmarks.settings import Settings
from benchmarks.timing import Entry, Timed, take_turns
from moralscope.core.site import Site
from moralscope.mechanisms.clean import CleanRun, run_clean, span_of
from moralscope.mechanisms.patching.edits import Intervention
from moralscope.mechanisms.patching.sweeps import Sweep, sweep
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster


def _speaking(roster: Roster, name: str, job: Callable[[Any], Any]) -> Callable[[], Any]:
    """A job that runs with an agent's weights in force."""

    def run() -> Any:
        with roster.speaking(name) as model:
            return job(model)

    return run


def compare(
    roster: Roster, prompts: Sequence[EncodedPrompt], settings: Settings
) -> dict[str, Entry]:
    """The entries ``answer_span_vs_hooks`` and ``answer_span_vs_arithmetic_floor``."""
    anatomy = roster.anatomy(TARGET)
    sites = anatomy.component_sites
    interventions = [Intervention((site,)) for site in sites]
    wanted = {"head": settings.sampled_heads, "mlp": settings.sampled_mlps}
    cells = spread_cells(sites, wanted, spread(len(prompts), settings.sampled_prompts))

    def rows_clean(name: str) -> Callable[[], CleanRun]:
        return _speaking(roster, name, lambda model: run_clean(name, model, anatomy, prompts))

    def hooks_clean(name: str) -> Callable[[], list[PlainRun]]:
        return _speaking(
            roster, name, lambda model: [plain_run(model, anatomy, prompt) for prompt in prompts]
        )

    ours: tuple[CleanRun, CleanRun] = (rows_clean(SOURCE)(), rows_clean(TARGET)())
    theirs: tuple[list[PlainRun], list[PlainRun]] = (hooks_clean(SOURCE)(), hooks_clean(TARGET)())

    def one_by_one(model: Any) -> list[float]:
        return [
            patch_by_hook(
                model, anatomy, prompts[cell.prompt], sites[cell.site],
                source=theirs[0][cell.prompt], target=theirs[1][cell.prompt],
            )
            for cell in cells
        ]  # fmt: skip

    times = take_turns(
        {
            "rows, clean run of source": rows_clean(SOURCE),
            "rows, clean run of target": rows_clean(TARGET),
            "rows": _speaking(
                roster, TARGET, lambda model: sweep(model, anatomy, *ours, interventions)
            ),
            "hooks, clean run of source": hooks_clean(SOURCE),
            "hooks, clean run of target": hooks_clean(TARGET),
            "hooks": _speaking(roster, TARGET, one_by_one),
        },
        settings.repeats,
    )
    hooked = _versus_hooks(times, sites, prompts, cells)
    deviation = _deviation(times, cells, [run.log_odds for run in theirs[1]])
    return {
        "answer_span_vs_hooks": {**hooked, "deviation": deviation},
        "answer_span_vs_arithmetic_floor": _floor(roster, ours[1], sites, times["rows"], settings),
    }


def _deviation(times: dict[str, Timed], cells: Sequence[Sampled], clean: Sequence[float]) -> Entry:
    found: Sweep = times["rows"].result
    rows = np.array([float(found.patched[cell.site, cell.prompt]) for cell in cells])
    hooks = np.array(times["hooks"].result)
    return {
        "max_abs_log_odds_over_sample": float(np.abs(rows - hooks).max()),
        "abs_log_odds_of_clean_target": float(np.abs(found.baseline.numpy() - clean).max()),
        "largest_effect_in_sample": float(
            np.abs(hooks - [clean[cell.prompt] for cell in cells]).max()
        ),
        "allowed": 1e-4,
    }


def _versus_hooks(
    times: dict[str, Timed],
    sites: Sequence[Site],
    prompts: Sequence[EncodedPrompt],
    cells: Sequence[Sampled],
) -> Entry:
    count = len(sites) * len(prompts)
    ours, each = times["rows"].median, times["hooks"].median / len(cells)
    peer = each * count
    clean = {name: t.median for name, t in times.items() if "clean" in name}
    ours_whole = ours + sum(v for k, v in clean.items() if k.startswith("rows"))
    peer_whole = peer + sum(v for k, v in clean.items() if k.startswith("hooks"))
    return {
        "ratio": peer / ours,
        "ratio_with_clean_runs": peer_whole / ours_whole,
        "ours_seconds": ours,
        "peer_seconds": peer,
        "clean_run_seconds": clean,
        "ours": f"{len(sites)} sites of {len(prompts)} prompts, all patched",
        "peer": f"one forward a patch with a hook; {len(cells)} measured in each turn, "
        f"{each:.4g} s each, scaled to {count}",
        "note": "ratio compares the sweeps alone; ratio_with_clean_runs adds to each side its "
        "clean runs of source and target",
        "tokens": sorted({len(prompt.tokens) for prompt in prompts}),
        "sample": [f"{sites[cell.site]} of prompt {cell.prompt}" for cell in cells],
        "adapters": "on, un-merged, both agents",
        "turns": {"rows": times["rows"].seconds, "hooks, sample": times["hooks"].seconds},
    }


def _sizes(run: CleanRun) -> list[SpanSize]:
    """What a row of each prompt is."""
    found: list[SpanSize] = []
    for part in run.packs:
        for position, member in enumerate(part.pack.members):
            prompt = run.prompts[member]
            forms = prompt.positive + prompt.negative
            span = span_of(part, position, len(prompt.tokens), len(forms))
            tokens = {token for form in forms for token in form}
            found.append(SpanSize(len(span.nodes), len(span.prefix), len(tokens)))
    return found


def _floor(
    roster: Roster, run: CleanRun, sites: Sequence[Site], rows: Timed, settings: Settings
) -> Entry:
    sizes = _sizes(run)
    with roster.speaking(TARGET):
        anatomy = roster.anatomy(TARGET)
        operations = sum(sweep_operations(anatomy, sites, size) for size in sizes)
        rate = matrix_rate(anatomy, len(sites) * sizes[0].span, seconds=settings.rate_seconds)
    floor = operations / rate
    return {
        "ratio": floor / rows.median,
        "ours_seconds": rows.median,
        "peer_seconds": floor,
        "operations": operations,
        "operations_a_second": rate,
        "ours": "the sweep of answer_span_vs_hooks, without the clean runs",
        "peer": "the operations that rows need from their sites on, at the best rate of float32 "
        "matrix products measured in this run; no program can reach 1",
        "adapters": "on, un-merged; their factors are counted",
        "deviation": None,
        "turns": {"rows": rows.seconds},
    }
