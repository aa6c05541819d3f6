"""The command ``moralscope``: one verb per task.

Every command ends by saying where its result is. Exit codes: 0 done, 1 this machine lacks
something (``doctor``), a test misses its limit (``calibrate``), a run is not what it says it is
(``verify``) or two runs differ (``diff``), 2 something was wrong with what was asked, 3 some stages
of a run failed and all else is there, 130 interrupted.

Help, and the answer to a misspelt command, must come at once: what a command needs is imported
when it runs, never here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from moralscope import __version__
from moralscope.cli import results
from moralscope.cli.drawing import draw_error, say
from moralscope.core.errors import MoralscopeError

DONE, REFUSED, INTERRUPTED = 0, 2, 130
ENGINES = "Where stages are computed: local, local:N, ray, or ray:ADDRESS."
WAIT = "Wait for another run that is at work in the same folder."

app = App(
    name="moralscope",
    help="What did fine-tuning change inside an LLM agent, and which findings survive a sceptic?",
    help_epilogue="Start with: moralscope demo",
    help_format="plaintext",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: the words after ``moralscope``; those of this process by default.
    """
    try:
        return app(arguments, exit_on_error=False) or DONE
    except CycloptsError:
        return REFUSED  # already explained on stderr, with the nearest right word
    except MoralscopeError as error:
        draw_error(Console(stderr=True), error)
        return REFUSED
    except KeyboardInterrupt:
        kept = "Interrupted. Finished stages are kept: the same command goes on from there."
        say(Console(stderr=True), kept)
        return INTERRUPTED


@app.command(sort_key=0)
def demo(
    *,
    out: Annotated[Path, Parameter(help="Where the run goes.")] = Path("runs/demo"),
    engine: Annotated[str, Parameter(help=ENGINES)] = "local",
    wait: Annotated[bool, Parameter(help=WAIT)] = True,
) -> int:
    """Run the main job on the small default model: train, measure, explain, test, report."""
    from moralscope.cli.studying import run_demo  # noqa: PLC0415

    return run_demo(out, engine=engine, wait=wait)


@app.command(sort_key=1)
def run(
    study: Annotated[Path, Parameter(help="The study file, YAML.")],
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="Where the run goes; runs/ and the file's name by default.")
    ] = None,
    engine: Annotated[str, Parameter(help=ENGINES)] = "local",
    preset: Annotated[
        str | None, Parameter(help="What supplies keys that the file leaves out: small or paper.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        Parameter(
            name="--set", negative="", help="Set a key anew, KEY=VALUE, dots between nested keys."
        ),
    ] = None,
    wait: Annotated[bool, Parameter(help=WAIT)] = True,
    dry_run: Annotated[
        bool,
        Parameter(negative="", help="Only say what would be computed, how long and how large."),
    ] = False,
) -> int:
    """Run a study from its file; the same command goes on where it was stopped."""
    from moralscope.cli.studying import run_file  # noqa: PLC0415

    return run_file(
        study,
        out,
        engine=engine,
        preset=preset,
        changes=changes or (),
        wait=wait,
        dry_run=dry_run,
    )


@app.command(sort_key=2)
def explain(
    agents: Annotated[
        list[str],
        Parameter(help="base, a hub id, a model or adapter folder, or NAME=any of these."),
    ],
    /,
    *,
    base: Annotated[
        str | None, Parameter(help="Base model; what the adapters name, or default, unless given.")
    ] = None,
    prompts: Annotated[
        list[Path] | None,
        Parameter(negative="", help="Your own decisions, YAML or JSONL; games by default."),
    ] = None,
    methods: Annotated[
        str,
        Parameter(
            help="Which of lens, attribution, attribution_change, patching, approximations, paths "
            "and circuits, joined by commas."
        ),
    ] = "lens,attribution,attribution_change,patching",
    pairs: Annotated[
        str | None,
        Parameter(help="What to patch into what, SOURCE>TARGET joined by commas."),
    ] = None,
    sites: Annotated[str, Parameter(help="Kinds of site to patch, joined by commas.")] = "head,mlp",
    positions: Annotated[
        str, Parameter(help="answer_span, all, or named spans, joined by commas.")
    ] = "answer_span",
    write: Annotated[str, Parameter(help="What a patched head gets: write or z.")] = "write",
    changes: Annotated[
        str | None,
        Parameter(
            help="Patch from changed prompts too: opponent_previous, own_previous, payoffs, labels,"
            " or changes that your prompts declare."
        ),
    ] = None,
    scenarios: Annotated[int, Parameter(help="How many scenarios to use.")] = 20,
    memory: Annotated[float, Parameter(help="GiB that a patching pass may use.")] = 2.0,
    dtype: Annotated[str, Parameter(help="Of the weights: float32, bfloat16 or nf4.")] = "float32",
    device: Annotated[str, Parameter(help="A torch device.")] = "cpu",
    out: Annotated[Path, Parameter(help="Where the results go.")] = Path("runs/explain"),
    dry_run: Annotated[
        bool,
        Parameter(negative="", help="Only say what would be computed, how long and how large."),
    ] = False,
) -> int:
    """Look inside models without a study: lens, attribution, patching, as tables and figures."""
    from moralscope.cli.explaining import explain_agents  # noqa: PLC0415

    wanted = {
        "base": base, "prompts": prompts, "methods": methods, "pairs": pairs, "sites": sites,
        "positions": positions, "write": write, "changes": changes, "scenarios": scenarios,
        "memory_gib": memory, "dtype": dtype, "device": device,
    }  # fmt: skip
    return explain_agents(agents, wanted, out, dry_run=dry_run)


@app.command(sort_key=3)
def evaluate(
    agents: Annotated[
        list[str],
        Parameter(
            help="base, a hub id, a model or adapter folder, policy:STRATEGY, or NAME=any of these."
        ),
    ],
    /,
    *,
    base: Annotated[
        str | None, Parameter(help="Base model; what the adapters name, or default, unless given.")
    ] = None,
    parts: Annotated[
        str | None,
        Parameter(
            help="Which of generalisation, regret, contrasts, robustness, play, tournament, "
            "similarity, paper, answers and side_effects, joined by commas; all by default."
        ),
    ] = None,
    protocol: Annotated[
        str,
        Parameter(
            help="exact: exact probabilities; paper: only the published evaluation, replayed; "
            "all: both."
        ),
    ] = "all",
    games: Annotated[
        str | None, Parameter(help="Games, joined by commas; the six of the package by default.")
    ] = None,
    opponents: Annotated[
        str | None, Parameter(help="Strategies with one step of memory to meet, joined by commas.")
    ] = None,
    strategies: Annotated[
        str | None, Parameter(help="Classical strategies of the tournament, joined by commas.")
    ] = None,
    words: Annotated[
        str, Parameter(help="The labels that agents were trained with, COOPERATE/DEFECT.")
    ] = "action1/action2",
    labels: Annotated[
        str, Parameter(help="Labels that they were not trained with, pairs joined by commas.")
    ] = "action3/action4",
    prompts: Annotated[
        list[Path] | None, Parameter(negative="", help="Your own decisions, YAML or JSONL.")
    ] = None,
    families: Annotated[
        list[Path] | None, Parameter(negative="", help="Your own families of wordings, YAML.")
    ] = None,
    answers: Annotated[int, Parameter(help="Answers sampled for each prompt.")] = 4,
    seed: Annotated[int, Parameter(help="Of everything that is drawn.")] = 0,
    dtype: Annotated[str, Parameter(help="Of the weights: float32, bfloat16 or nf4.")] = "float32",
    device: Annotated[str, Parameter(help="A torch device.")] = "cpu",
    out: Annotated[Path, Parameter(help="Where the results go.")] = Path("runs/evaluate"),
    dry_run: Annotated[
        bool,
        Parameter(negative="", help="Only say what would be computed, how long and how large."),
    ] = False,
) -> int:
    """Measure how agents behave: games, opponents, wordings, regret, play, side effects."""
    from moralscope.cli.evaluating import evaluate_agents  # noqa: PLC0415

    wanted = {
        "base": base, "parts": parts, "protocol": protocol, "games": games,
        "opponents": opponents, "strategies": strategies, "words": words, "labels": labels,
        "prompts": prompts, "families": families, "answers": answers, "seed": seed,
        "dtype": dtype, "device": device,
    }  # fmt: skip
    return evaluate_agents(agents, wanted, out, dry_run=dry_run)


@app.command(sort_key=4)
def train(
    agent: Annotated[Path | None, Parameter(help="The agent file, YAML.")] = None,
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="The agent's folder; runs/ and its name by default.")
    ] = None,
    smoke: Annotated[
        bool,
        Parameter(negative="", help="Only try ten steps and say what the whole would take."),
    ] = False,
    track: Annotated[
        str | None, Parameter(help="Follow it elsewhere too: trackio or wandb.")
    ] = None,
    schema: Annotated[
        bool, Parameter(negative="", help="Only print the JSON Schema of agent files.")
    ] = False,
) -> int:
    """Train one agent from its file; the same command goes on where it was stopped."""
    from moralscope.cli.training import print_schema, train_file  # noqa: PLC0415

    return print_schema() if schema else train_file(agent, out, smoke=smoke, track=track)


@app.command(sort_key=5)
def push(
    folder: Annotated[Path, Parameter(help="The folder of a trained agent.")],
    repo: Annotated[str, Parameter(help="Where it goes on the hub, OWNER/NAME.")],
    /,
    *,
    private: Annotated[
        bool, Parameter(negative="", help="Only for those who may see the repository.")
    ] = False,
) -> int:
    """Upload a trained agent to the hub: adapter, card, fingerprint and settings."""
    from moralscope.cli.pushing import push_agent  # noqa: PLC0415

    return push_agent(folder, repo, private=private)


for place, verb in enumerate(results.VERBS, start=6):
    app.command(verb, sort_key=place)


@app.command(sort_key=12)
def doctor(
    study: Annotated[
        Path | None, Parameter(help="A study file: say what it would need as well.")
    ] = None,
    /,
) -> int:
    """Say what this machine can do and what it lacks, for any study or for a given one."""
    from moralscope.cli.examining import examine_machine  # noqa: PLC0415

    return examine_machine(study)
