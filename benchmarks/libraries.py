"""How much faster are exhaustive sweeps than in other libraries, and are they the same numbers?

Two sweeps over all prompts, every site patched by itself with a source's activation:

- *answer span*: every head and MLP, at the last token of the prompt;
- *all positions*: every attention layer and MLP, at every token.

A library takes one forward for each site and prompt. A sample of them is measured, and its median
time is scaled to the whole; ours runs whole. They take turns in one run, and the sampled patches
are compared with ours number by number. The ratio is that of full float32 models on both sides;
ours is timed with un-merged adapters as well, which the libraries cannot load.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peer_jobs import FullModels, Sweeping, single_tokens, write_job
from benchmarks.peer_process import NNSIGHT, TRANSFORMERLENS, Library, Peer
from benchmarks.sampling import spread, spread_cells
from benchmarks.settings import Settings
from benchmarks.timing import Entry, Timed, take_turns
from benchmarks.ways import adapter_way, full_way
from moralscope.mechanisms.patching.segments import ALL, ANSWER_SPAN
from moralscope.mechanisms.patching.sweeps import Sweep
from moralscope.models.rendering import EncodedPrompt
from moralscope.models.roster import Roster

Commands = Mapping[Library, Sequence[str] | str]
"""How each library's driver is started, or why it cannot be."""

READS = ("every", "last")
"""Whether a library computes the logits of every token, as it does unasked, or of the last."""

COMPARED = {
    ANSWER_SPAN: {
        "answer_span_vs_transformerlens": TRANSFORMERLENS,
        "answer_span_vs_nnsight": NNSIGHT,
    },
    ALL: {"all_position_vs_transformerlens": TRANSFORMERLENS},
}
_TOLD = {ANSWER_SPAN: "the answer span", ALL: "all positions"}


@dataclass
class Taking:
    """A library that takes its turns; what it answered, by job, the warm-up first."""

    library: Library
    peer: Peer
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def job(self, name: str, **request: object) -> Callable[[], None]:
        """A turn of this library."""

        def run() -> None:
            answer = self.peer.ask(**request)
            if answer is not None:
                self.answers.setdefault(name, []).append(answer)

        return run

    def seconds(self, name: str) -> list[float]:
        """Seconds of every counted forward of a job."""
        return [s for answer in self.answers[name][1:] for s in answer["seconds"]]

    def log_odds(self, name: str) -> np.ndarray:
        """What the warm-up of a job found."""
        return np.array(self.answers[name][0]["log_odds"])


def compare(
    models: FullModels,
    roster: Roster,
    prompts: Sequence[EncodedPrompt],
    settings: Settings,
    *,
    commands: Commands,
    folder: Path,
) -> dict[str, Entry]:
    """The entries of the comparisons with other libraries, null with a reason where not made.

    Args:
        models: what both sides run.
        roster: agents ``source`` and ``target`` with adapters.
        prompts: what is patched.
        settings: how much is measured.
        commands: how each library's driver is started, or why it cannot be.
        folder: for job and logs.
    """
    reasons = {library: told for library, told in commands.items() if isinstance(told, str)}
    if not all(single_tokens(prompt) for prompt in prompts):
        reasons = dict.fromkeys(commands, "needs options of one token each, which drivers read")
    members = spread(len(prompts), settings.sampled_prompts)
    sweeps = _sweeps(models, members, settings)
    setup = _Setup(models, roster, prompts, members, settings)
    entries: dict[str, Entry] = {}
    with contextlib.ExitStack() as stack:
        takers: dict[Library, Taking] = {}
        if len(reasons) < len(commands):
            threads = torch.get_num_threads()
            job = write_job(models, prompts, members, sweeps, threads=threads, folder=folder)
        for library in commands:
            if library not in reasons:
                log = folder / f"{library.name}.log"
                peer = Peer(commands[library], job, log=log, limit=settings.peer_limit_seconds)
                stack.callback(peer.close)
                takers[library] = Taking(library, peer)
        for sweeping in sweeps:
            keys = COMPARED[sweeping.positions]
            wanted = [takers[library] for library in keys.values() if library in takers]
            found: dict[Library, Entry] = {}
            if any(taking.peer.problem is None for taking in wanted):
                found = _compare_sweep(setup, sweeping, wanted)
            for key, library in keys.items():
                told = reasons.get(library) or takers[library].peer.problem
                entries[key] = found.get(library, {"ratio": None, "reason": told})
    return entries


def _repeats(sweeping: Sweeping, settings: Settings) -> int:
    return settings.long_repeats if sweeping.positions == "all" else settings.repeats


@dataclass(frozen=True)
class _Setup:
    """What every sweep is compared on."""

    models: FullModels
    roster: Roster
    prompts: Sequence[EncodedPrompt]
    members: Sequence[int]
    settings: Settings


def _sweeps(models: FullModels, members: Sequence[int], settings: Settings) -> list[Sweeping]:
    anatomy = models.anatomy
    heads = {"head": settings.sampled_heads, "mlp": settings.sampled_mlps}
    layers = {"attn": settings.sampled_layers, "mlp": settings.sampled_layers}
    components, sublayers = anatomy.component_sites, anatomy.sites("attn", "mlp")
    return [
        Sweeping(components, spread_cells(components, heads, members), ANSWER_SPAN),
        Sweeping(sublayers, spread_cells(sublayers, layers, members), ALL),
    ]


def _compare_sweep(
    setup: _Setup, sweeping: Sweeping, takers: Sequence[Taking]
) -> dict[Library, Entry]:
    positions = sweeping.positions
    ways = {
        "full models": full_way(setup.models, setup.prompts, sweeping.sites, positions),
        "adapters": adapter_way(setup.roster, setup.prompts, sweeping.sites, positions),
    }
    jobs: dict[str, Callable[[], Any]] = {}
    # After each way of ours each library once: its ordinary call, then the one that spares logits.
    for reads, (name, way) in zip(READS, ways.items(), strict=True):
        jobs[f"clean runs, {name}"] = lambda way=way: len(way.clean())
        jobs[f"sweep, {name}"] = way.sweep
        for taking in takers:
            patch = taking.job(f"{positions} {reads}", do="patch", cells=positions, reads=reads)
            clean = taking.job(f"{positions} clean {reads}", do="clean", reads=reads)
            jobs[f"{taking.library.name}, logits: {reads}"] = patch
            jobs[f"{taking.library.name}, clean runs, logits: {reads}"] = clean
    times = take_turns(jobs, _repeats(sweeping, setup.settings))
    return {
        taking.library: _entry(times, setup, sweeping, taking)
        for taking in takers
        if taking.peer.problem is None
    }


def _entry(times: Mapping[str, Timed], setup: _Setup, sweeping: Sweeping, taking: Taking) -> Entry:
    positions, prompts = sweeping.positions, setup.prompts
    count = len(sweeping.sites) * len(prompts)
    ours, adapters = times["sweep, full models"], times["sweep, adapters"]
    clean_ours = times["clean runs, full models"].median
    every, last = (taking.seconds(f"{positions} {reads}") for reads in READS)
    clean = [statistics.median(taking.seconds(f"{positions} clean {reads}")) for reads in READS]
    ordinary, spared = statistics.median(every), statistics.median(last)

    def whole(each: float, clean_each: float) -> float:
        """The peer's sweep and its clean runs of source and target over ours."""
        seconds = each * count + clean_each * 2 * len(prompts)
        return seconds / (ours.median + clean_ours)

    return {
        "ratio": ordinary * count / ours.median,
        "ratio_with_clean_runs": whole(ordinary, clean[0]),
        "ours_seconds": ours.median,
        "peer_seconds": ordinary * count,
        "ours": f"{len(sweeping.sites)} sites of {len(prompts)} prompts, all patched at "
        f"{_TOLD[positions]}",
        "peer": f"one forward a patch in {taking.library.name}, called as its documentation does: "
        f"{len(every)} measured, median {ordinary:.4g} s, scaled to {count}",
        "seconds_a_forward": ordinary,
        "measured_forwards": len(every),
        "scaled_to": count,
        "logits_of_the_last_token_alone": {
            "ratio": spared * count / ours.median,
            "ratio_with_clean_runs": whole(spared, clean[1]),
            "seconds_a_forward": spared,
            "note": "the same forwards with logits_to_keep=1 handed through to the model",
        },
        "clean_run_seconds": {"ours, all prompts, both": clean_ours, "peer, a prompt": clean[0]},
        "adapters": "off: full float32 models on both sides, the source a copy with its adapter "
        "merged; heads go through the target's projection (z)",
        "adapters_on": {
            "ratio": ordinary * count / adapters.median,
            "ours_seconds": adapters.median,
            "note": "ours with un-merged adapters on both agents and the source's own writes put "
            "in; the peer still without adapters",
        },
        "deviation": _deviation(ours.result, setup, sweeping, taking),
        "versions": taking.peer.told["versions"],
        "threads": taking.peer.told["threads"],
        "tokens": sorted({len(prompt.tokens) for prompt in prompts}),
        "sample": [f"{sweeping.sites[c.site]} of prompt {c.prompt}" for c in sweeping.cells],
        "turns": {
            "sweep": ours.seconds,
            "sweep, adapters on": adapters.seconds,
            "peer, each forward": every,
            "peer, each forward, logits of the last token alone": last,
        },
    }


def _deviation(found: Sweep, setup: _Setup, sweeping: Sweeping, taking: Taking) -> Entry:
    """Ours against the library's, patch by patch and on the unaltered prompts."""
    positions = sweeping.positions
    mine = np.array([float(found.patched[c.site, c.prompt]) for c in sweeping.cells])
    baseline = found.baseline.numpy()
    every, last = (np.abs(mine - taking.log_odds(f"{positions} {reads}")) for reads in READS)
    clean = taking.log_odds(f"{positions} clean {READS[0]}")
    return {
        "max_abs_log_odds_over_sample": float(every.max()),
        "max_abs_log_odds_over_sample_last_token_alone": float(last.max()),
        "abs_log_odds_of_clean_target": float(np.abs(clean - baseline[list(setup.members)]).max()),
        "largest_effect_in_sample": float(
            np.abs(mine - baseline[[c.prompt for c in sweeping.cells]]).max()
        ),
        "allowed": 1e-4,
    }
