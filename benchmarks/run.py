"""Compare every fast path with the plain way, in one run on one machine: ``make bench``.

Writes ``benchmarks/results.json``: each key with its ratio (the peer's median time over ours, so
higher is better, but for ``attribution_cost_in_tree_forwards``, where lower is), and under
``details`` what was timed, both times, how far the results deviate, and the environment. A
comparison that was not made is null, with the reason.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import answer_span, libraries, memory, packed
from benchmarks.adapters import SOURCE, agents
from benchmarks.peer_jobs import full_models
from benchmarks.peer_process import NNSIGHT, TRANSFORMERLENS, Library, PeerError, driver_command
from benchmarks.settings import QUICK, Settings
from benchmarks.timing import Entry, environment
from moralscope.core.decision import Prompt
from moralscope.core.errors import MoralscopeError
from moralscope.core.files import write_json
from moralscope.games import GAMES, balanced, clusters, structured
from moralscope.models.loading import LoadedModel, load_model, locate_model
from moralscope.models.rendering import encode_all

RESULTS = Path(__file__).parent / "results.json"
KEYS = (
    "answer_span_vs_hooks",
    "answer_span_vs_transformerlens",
    "answer_span_vs_nnsight",
    "answer_span_vs_arithmetic_floor",
    "all_position_vs_transformerlens",
    "attribution_cost_in_tree_forwards",
    "training_step_vs_padded",
    "scoring_vs_padded",
    "scoring_vs_option_by_option",
    "six_games_vs_padded",
    "six_games_vs_option_by_option",
)
_NOT_ASKED = "needs a whole run: a quick one leaves other libraries out"


def _spread(prompts: Sequence[Prompt], wanted: int) -> tuple[Prompt, ...]:
    """At most ``wanted`` prompts, taken evenly."""
    return tuple(prompts[:: max(1, len(prompts) // wanted)][:wanted])


def other_libraries(settings: Settings) -> libraries.Commands:
    """How other libraries are started here, or why they are not."""
    found: dict[Library, Sequence[str] | str] = {}
    for library in (TRANSFORMERLENS, NNSIGHT):
        try:
            found[library] = driver_command(library) if settings.peers else _NOT_ASKED
        except PeerError as problem:
            found[library] = str(problem)
    return found


def run_benchmarks(
    base: LoadedModel, settings: Settings, folder: Path, *, others: libraries.Commands
) -> dict[str, object]:
    """Every comparison on one model.

    Args:
        base: the model, in float32 on the processor; it carries adapters afterwards.
        settings: how much to measure.
        folder: where the agents' adapters are put, and what other libraries are given.
        others: how other libraries are started, or why they are not.

    Returns:
        Ratios by key, ``details`` by key, and what they were measured on.
    """
    started = time.perf_counter()
    where = environment()
    asked = _spread(tuple(structured(assignments=("same",))), settings.structured)
    encoded = encode_all(base.tokenizer, asked)
    varied = encode_all(base.tokenizer, _spread(tuple(balanced(clusters())), settings.balanced))
    details: dict[str, Entry] = dict(packed.compare_training(base, asked, settings))
    plain = copy.deepcopy(base.model)  # before adapters are put around the base's layers
    roster = agents(base, settings.rank, folder, count=settings.agents)
    details.update(answer_span.compare(roster, encoded, settings))
    models = full_models(plain, folder / SOURCE, base.source.folder)
    details.update(
        libraries.compare(models, roster, encoded, settings, commands=others, folder=folder)
    )
    details.update(packed.compare_attribution(roster, encoded, settings))
    sets = {"structured": encoded, "balanced clusters": varied}
    details.update(packed.compare_scoring(roster, sets, settings))
    played = tuple(p for game in GAMES.values() for p in structured(game=game))
    read = encode_all(base.tokenizer, _spread(played, settings.six_games))
    details.update(packed.compare_six_games(roster, read, settings))
    return {
        **{key: details[key]["ratio"] for key in KEYS},
        "details": {key: details[key] for key in KEYS},
        "model": {"name": base.source.name, "sha256": base.source.sha256, "dtype": base.dtype},
        "adapters": f"LoRA, rank {settings.rank}, every linear layer, random A and B, un-merged",
        "settings": settings.as_json(),
        "environment": where,
        "seconds": time.perf_counter() - started,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparisons, write the results and print them."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Compare with the plain way.")
    parser.add_argument("--quick", action="store_true", help="little of everything, to try it")
    parser.add_argument("--model", default="default", help="a hub id or a folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    chosen = parser.parse_args(arguments)
    try:
        base = load_model(locate_model(chosen.model))
        with tempfile.TemporaryDirectory() as folder:
            settings = QUICK if chosen.quick else Settings()
            others = other_libraries(settings)
            results = run_benchmarks(base, settings, Path(folder), others=others)
        if not chosen.quick:
            results["memory"] = memory.measure(chosen.model)
        write_json(chosen.out, results)
    except MoralscopeError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(results, indent=2))
    for key in KEYS:
        ratio = results[key]
        print(f"{key:36} {'not measured' if ratio is None else format(ratio, '.4g')}")
    print(f"Results: {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
