"""How was the inside looked at? One passage per method that the run used, with its sources."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from moralscope.reports.figure import listing
from moralscope.reports.run import Run
from moralscope.reports.words import Passage, counted


def inner_passages(run: Run) -> tuple[Passage, ...]:
    """A passage for each method whose table is in the run."""
    makers: tuple[tuple[str, Callable[[Run], Passage]], ...] = (
        ("lens", _lens),
        ("attribution", _attribution),
        ("patching", _patching),
        ("edges", _paths),
        ("approximations", _approximations),
        ("circuits", _circuits),
        ("attention", _attention),
        ("norms", _wiring),
        ("update_norms", _weights),
        ("representation_similarity", _representations),
        ("subspaces", _subspaces),
    )
    return tuple(make(run) for table, make in makers if table in run.names)


def _units(run: Run, table: str) -> str:
    """Over how many agents and prompts; empty where the table was not read."""
    frame = run.tables.get(table)
    if frame is None:
        return ""
    parts = [
        counted(frame.get_column(column).n_unique(), noun)
        for column, noun in (("agent", "agent"), ("prompt", "prompt"))
        if column in frame.columns
    ]
    return f" ({' and '.join(parts)})" if parts else ""


def _lens(run: Run) -> Passage:
    return Passage(
        "Logit lens",
        "After every sublayer the residual stream at the token where the options part was read "
        "through the model's own final norm and unembedding [@nostalgebraist2020]"
        f"{_units(run, 'lens')}."
        + (
            " A depth counts as decided only where the reading beats its controls and stays so to "
            "the end."
            if "lens_controls" in run.names
            else ""
        ),
    )


def _attribution(run: Run) -> Passage:
    error, frame = run.tables.get("completeness"), run.tables.get("attribution")
    parts: list[str] = [] if frame is None else frame.get_column("part").unique().to_list()
    split = (
        " The change from base is split into a part of the component's own weights and a part of "
        "its input."
        if {"weights", "input"} <= {*parts}
        else ""
    )
    worst = "" if error is None or error.is_empty() else _largest(error.get_column("error"))
    return Passage(
        "Attribution",
        "With norm scales frozen at their value in the run, the logit difference is the sum of "
        "what embedding, heads, MLPs and biases write along the difference of the options' "
        f"unembedding vectors [@elhage2021; @wang2023]{_units(run, 'attribution')}. Heads are "
        f"decomposed exactly, through the output projection.{worst}" + split,
    )


def _largest(errors: pl.Series) -> str:
    worst = errors.abs().max()
    if not isinstance(worst, float):
        return ""
    return f" The sum misses the logit difference by at most {worst:.1e} nats."


def _patching(run: Run) -> Passage:
    frame = run.tables.get("patching")
    if frame is None:
        size = f"{run.unread['patching']:,} patches"
    else:
        pairs = frame.select("source", "target").unique().height
        size = f"{frame.height:,} patches, {counted(pairs, 'direction')} between agents"
    return Passage(
        "Activation patching",
        "One component of the target writes what it writes in the source, at the tokens of the "
        f"decision [@vig2020; @zhang2024] ({size}). The effect is patched minus baseline "
        "log-odds. The full swap, which turns the target into the source, is the ceiling; "
        "patching an agent into itself must do nothing.",
    )


def _paths(run: Run) -> Passage:
    frame = run.tables.get("edges")
    size = f" ({counted(frame.height, 'effect')})" if frame is not None else ""
    return Passage(
        "Path patching",
        "What a component passes along one path alone, to a later component or straight to the "
        f"decision, was patched with everything else held fixed [@goldowskydill2023]{size}.",
    )


def _approximations(run: Run) -> Passage:
    frame = run.tables.get("approximations")
    methods = (
        ""
        if frame is None or "method" not in frame.columns
        else f": {listing(frame.get_column('method').unique(maintain_order=True).to_list())}"
    )
    return Passage(
        "Approximations",
        "Patches were also estimated from gradients [@syed2023] and relevance "
        f"[@jafari2025]{methods}, and each estimate was held against exact patches.",
    )


def _circuits(run: Run) -> Passage:
    del run
    return Passage(
        "Circuits",
        "Components were added in the order of their effect on one part of the scenarios until "
        "they carried the set share of the full swap [@conmy2023], and the set was judged on the "
        "other scenarios, beside random sets of its size.",
    )


def _attention(run: Run) -> Passage:
    edits = "attention_edits" in run.names
    return Passage(
        "Attention",
        "Attention weights from the last token of the prompt were summed by what the tokens say: "
        "labels, moves, payoffs, goal, the first token apart"
        f"{_units(run, 'attention')}. Agents are compared on log-odds of mass."
        + (
            " Because weights alone do not show use [@jain2019], attention to each kind of token "
            "was masked or amplified, beside the same number of other tokens."
            if edits
            else " Weights alone do not show that the decision depends on them [@jain2019]."
        ),
    )


def _wiring(run: Run) -> Passage:
    causal = "pathways" in run.names
    return Passage(
        "Wiring",
        "The size of what each component writes, and its projection on the decision's direction, "
        f"were correlated between components over prompts{_units(run, 'norms')}. Differences "
        "between agents were held against a null that swaps the agents' labels by scenario, and "
        "hubs against one that keeps degrees."
        + (
            " Pathways that differ, and random ones, were then patched as paths "
            "[@goldowskydill2023]."
            if causal
            else ""
        ),
    )


def _weights(run: Run) -> Passage:
    return Passage(
        "Weights",
        "The update of every matrix was taken from its factors: norms, spectrum, the angles "
        "between the subspaces of two updates against random subspaces of their size, and the "
        f"share that writes to or reads from the decision's direction"
        f"{_units(run, 'update_norms')}.",
    )


def _representations(run: Run) -> Passage:
    del run
    return Passage(
        "Representations",
        "Agents were compared by their changes from the base on the same prompts: cosine and "
        "debiased centred kernel alignment [@kornblith2019], by layer. Two seeds of one reward "
        "are the floor, the base against its fine-tunes the ceiling.",
    )


def _subspaces(run: Run) -> Passage:
    del run
    return Passage(
        "Subspaces",
        "Subspaces whose interchange carries the decision were searched by gradient "
        "[@geiger2024] on some scenarios and judged on others, beside random subspaces and "
        "searches for arbitrary labels, whose luck the search for the true ones must exceed.",
    )
