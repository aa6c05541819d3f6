"""How much faster are patches as rows than one forward a patch, and are they the same numbers?

All heads and MLPs of one agent are patched with another's writes at the answer span of one
prompt. By hooks this takes one whole forward a site, so only a sample of sites is run that way
and its time scaled to all of them; rows run every site. Both ways need a clean run of source
and target first; those are timed too and stated apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.adapters import SOURCE, TARGET
from benchmarks.arithmetic import SpanSize, matrix_rate, sweep_operations
from benchmarks.plain import PlainRun, patch_by_hook, plain_run
from benchmarks.settings import Settings
from benchmarks.timing import Timed, take_turns
from moralscope.core.site import Site
from moralscope.core.streams import stream
from moralscope.mechanisms.clean import CleanRun, run_clean, span_of
from moralscope.mechanisms.edits import Intervention
from moralscope.mechanisms.patching import sweep_prompt
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster

Entry = dict[str, object]


def sample_sites(sites: Sequence[Site], settings: Settings) -> tuple[int, ...]:
    """Indices of the sites that are patched by hooks as well: heads and MLPs, at random."""
    rng = stream(0, "benchmark", "sites")
    chosen: list[int] = []
    for kind, wanted in (("head", settings.sampled_heads), ("mlp", settings.sampled_mlps)):
        found = [i for i, site in enumerate(sites) if site.kind == kind]
        picked = rng.choice(len(found), size=min(wanted, len(found)), replace=False)
        chosen += [found[i] for i in picked]
    return tuple(sorted(chosen))


def _speaking(roster: Roster, name: str, job: Callable[[Any], Any]) -> Callable[[], Any]:
    """A job that runs with an agent's weights in force."""

    def run() -> Any:
        with roster.speaking(name) as model:
            return job(model)

    return run


def compare(roster: Roster, prompt: EncodedPrompt, settings: Settings) -> dict[str, Entry]:
    """The entries ``answer_span_vs_hooks`` and ``answer_span_vs_arithmetic_floor``."""
    anatomy = roster.anatomy(TARGET)
    sites = anatomy.component_sites
    sample = sample_sites(sites, settings)
    interventions = [Intervention((site,)) for site in sites]

    def rows_clean(name: str) -> Callable[[], Any]:
        return _speaking(roster, name, lambda model: run_clean(name, model, anatomy, [prompt]))

    def hooks_clean(name: str) -> Callable[[], Any]:
        return _speaking(roster, name, lambda model: plain_run(model, anatomy, prompt))

    ours: tuple[CleanRun, CleanRun] = (rows_clean(SOURCE)(), rows_clean(TARGET)())
    theirs: tuple[PlainRun, PlainRun] = (hooks_clean(SOURCE)(), hooks_clean(TARGET)())

    def sweep(model: Any) -> tuple[float, torch.Tensor]:
        return sweep_prompt(model, anatomy, ours[0], ours[1], member=0, interventions=interventions)

    def one_by_one(model: Any) -> list[float]:
        return [
            patch_by_hook(model, anatomy, prompt, sites[i], source=theirs[0], target=theirs[1])
            for i in sample
        ]

    times = take_turns(
        {
            "rows, clean run of source": rows_clean(SOURCE),
            "rows, clean run of target": rows_clean(TARGET),
            "rows": _speaking(roster, TARGET, sweep),
            "hooks, clean run of source": hooks_clean(SOURCE),
            "hooks, clean run of target": hooks_clean(TARGET),
            "hooks": _speaking(roster, TARGET, one_by_one),
        },
        settings.repeats,
    )
    baseline, patched = times["rows"].result
    by_hooks = np.array(times["hooks"].result)
    deviation = {
        "max_abs_log_odds_over_sample": float(
            np.abs(patched[list(sample)].numpy() - by_hooks).max()
        ),
        "abs_log_odds_of_clean_target": abs(baseline - theirs[1].log_odds),
        "largest_effect_in_sample": float(np.abs(by_hooks - theirs[1].log_odds).max()),
        "allowed": 1e-4,
    }
    part = ours[1].packs[0]
    span = span_of(part, 0, len(prompt.tokens), len(prompt.positive + prompt.negative))
    size = SpanSize(len(span.nodes), len(span.prefix), len(set(part.pack.token.tolist())))
    floor = _floor(roster, sites, size, times["rows"], settings)
    versus_hooks = _versus_hooks(times, len(sites), sample, sites, prompt)
    return {
        "answer_span_vs_hooks": {**versus_hooks, "deviation": deviation},
        "answer_span_vs_arithmetic_floor": floor,
    }


def _versus_hooks(
    times: dict[str, Timed],
    n_sites: int,
    sample: Sequence[int],
    sites: Sequence[Site],
    prompt: EncodedPrompt,
) -> Entry:
    ours, each = times["rows"].median, times["hooks"].median / len(sample)
    peer = each * n_sites
    clean = {name: t.median for name, t in times.items() if "clean" in name}
    ours_whole = ours + sum(v for k, v in clean.items() if k.startswith("rows"))
    peer_whole = peer + sum(v for k, v in clean.items() if k.startswith("hooks"))
    return {
        "ratio": peer / ours,
        "ratio_with_clean_runs": peer_whole / ours_whole,
        "ours_seconds": ours,
        "peer_seconds": peer,
        "clean_run_seconds": clean,
        "ours": f"{n_sites} sites of one prompt of {len(prompt.tokens)} tokens, all patched",
        "peer": f"one forward a site with a hook; {len(sample)} sites measured, {each:.4g} s "
        f"each, scaled to {n_sites}",
        "note": "ratio compares the sweeps alone; ratio_with_clean_runs adds to each side its "
        "clean runs of source and target",
        "sample": [str(sites[i]) for i in sample],
        "adapters": "on, un-merged, both agents",
        "turns": {"rows": times["rows"].seconds, "hooks, sample": times["hooks"].seconds},
    }


def _floor(
    roster: Roster, sites: Sequence[Site], size: SpanSize, rows: Timed, settings: Settings
) -> Entry:
    with roster.speaking(TARGET):
        anatomy = roster.anatomy(TARGET)
        operations = sweep_operations(anatomy, sites, size)
        rate = matrix_rate(anatomy, len(sites) * size.span, seconds=settings.rate_seconds)
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
