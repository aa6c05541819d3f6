"""What does an explanation say in words and numbers? Blocks, from which text and page are made.

Every number carries its unit and sign. The two renderings cannot say different things, because both
are made from this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from moralscope.core.decision import PromptSet
from moralscope.core.errors import MoralscopeError
from moralscope.explaining.ranking import rank
from moralscope.reports.numbers import plain, probability, signed

SHOWN = 5
"""Sites of each agent or pair in a summary."""

RARE = 0.05
"""Probability of both answers together below which the summary says that they are rare."""

Tables = Mapping[str, pl.DataFrame]
Refusals = tuple[tuple[str, str, MoralscopeError], ...]


@dataclass(frozen=True)
class Block:
    """One part of a summary.

    Attributes:
        heading: what it is about.
        lines: sentences.
        columns: of its table; none for no table.
        rows: cells as text, one for each column.
        words: how many of the first columns are words and not numbers.
    """

    heading: str
    lines: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    words: int = 1


@dataclass(frozen=True)
class Summary:
    """A heading, its blocks, and what may not be concluded."""

    title: str
    lead: str
    blocks: tuple[Block, ...]
    caution: str


def summarise(prompts: PromptSet, tables: Tables, *, positions: str, refusals: Refusals) -> Summary:
    """The summary of an explanation.

    Args:
        prompts: what was asked.
        tables: what was measured.
        positions: where patches act.
        refusals: method, subject and reason of what could not be done.
    """
    agents = tables["agents"].get_column("agent").to_list()
    blocks = [_decisions(prompts, tables), *_patching(tables, positions)]
    blocks += [*_attribution(tables), *_lens(tables), *_paths(tables), *_ablation(tables)]
    blocks += [*_agreement(tables), *_controls(tables), *_refused(refusals)]
    count = _count(len(prompts), "prompt")
    return Summary(
        title=f"{', '.join(agents)} on {count}",
        lead="Log-odds and effects are in nats; + is towards the positive answer.",
        blocks=tuple(blocks),
        caution=f"Numbers from {count} describe {'it' if len(prompts) == 1 else 'them'}; they are "
        "no evidence about others. gates() says what the measurement itself allows.",
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _decisions(prompts: PromptSet, tables: Tables) -> Block:
    named = {prompt.name: prompt.decision for prompt in prompts}
    rows = [
        (
            row["prompt"],
            f"{named[row['prompt']].positive.name} / {named[row['prompt']].negative.name}",
            row["agent"],
            signed(row["log_odds"]),
            probability(row["p_positive_given_legal"]),
            probability(row["legal_mass"]),
        )
        for row in tables["decisions"].sort("prompt", maintain_order=True).iter_rows(named=True)
    ]
    order = {name: place for place, name in enumerate(named)}
    rare = tables["decisions"].filter(pl.col("legal_mass") < RARE)
    hint = (
        f"On {_count(rare.get_column('prompt').n_unique(), 'prompt')} both answers together have "
        f"less than {RARE:.0%} of the probability: the model would rather say something else. A "
        "stem, or other forms of the answers, may help."
    )
    return Block(
        "Decisions",
        lines=() if rare.is_empty() else (hint,),
        columns=("prompt", "positive / negative", "agent", "log-odds", "P(positive)",
                 "mass of both"),
        rows=tuple(sorted(rows, key=lambda row: order[row[0]])),
        words=3,
    )  # fmt: skip


def _where(positions: str) -> str:
    known = {"answer_span": "at the answer", "all": "at every token"}
    return known.get(positions, f"at the span {positions}")


def _patching(tables: Tables, positions: str) -> Iterator[Block]:
    if "patching" not in tables:
        return
    table, ranked = tables["patching"], rank(tables, "patching")
    for (source, target), sites in ranked.group_by("source", "target", maintain_order=True):
        mine = table.filter((pl.col("source") == source) & (pl.col("target") == target))
        full = mine.filter(pl.col("kind") == "all")
        single = mine.filter(pl.col("kind") != "all")
        across = mine.filter(pl.col("prompt") != pl.col("source_prompt")).height > 0
        pairs = full.select("source_prompt", "prompt").unique(maintain_order=True).rows()
        shown = ", ".join(f"{s} into {t}" for s, t in pairs[:4]) + (", ..." if pairs[4:] else "")
        flips = f"flips {_flips(full)}; single sites flip {_flips(single)}."
        whom = str(source) if source == target else f"{source} into {target}"
        yield Block(
            f"Patching {whom}, {_where(positions)}"
            + (f", across prompts ({shown})" if across else ""),
            lines=(f"Full swap {signed(_mean(full, 'effect'))} nats, {flips}",),
            columns=("site", "mean effect", "of full swap", "same sign", "range"),
            rows=tuple(_site_rows(sites, "effect")),
        )


def _attribution(tables: Tables) -> Iterator[Block]:
    if "attribution" not in tables:
        return
    ranked = rank(tables, "attribution")
    value = "change" if "change" in ranked.columns else "contribution"
    split = "weights" in ranked.columns
    for (agent,), sites in ranked.group_by("agent", maintain_order=True):
        total = float(sites.get_column(value).sum())
        what = "Change of all components together" if value == "change" else "All components"
        columns = ("site", f"mean {value}", "of the whole", "same sign", "range")
        rows = list(_site_rows(sites, value))
        if split:
            columns = (*columns, "own weights", "its input")
            parts = sites.head(SHOWN).select("weights", "input").rows()
            rows = [
                (*row, *(signed_or_dash(part) for part in pair))
                for row, pair in zip(rows, parts, strict=True)
            ]
        yield Block(
            f"Attribution of {agent}" + (", change from base" if value == "change" else ""),
            lines=(f"{what}: {signed(total)} nats of logit difference.",),
            columns=columns,
            rows=tuple(rows),
        )


def signed_or_dash(value: float | None) -> str:
    """A signed number; null as an en dash."""
    return "\N{EN DASH}" if value is None else signed(value)


def _site_rows(sites: pl.DataFrame, value: str) -> Iterator[tuple[str, ...]]:
    for row in sites.head(SHOWN).iter_rows(named=True):
        share = row["share"]
        yield (
            row["site"],
            signed(row[value]),
            "\N{EN DASH}"
            if share is None
            else f"{100 * share:.0f}%".replace("-", "\N{MINUS SIGN}"),
            f"{row['same_sign']} of {row['prompts']}",
            f"{signed(row['smallest'])} to {signed(row['largest'])}",
        )


def _lens(tables: Tables) -> Iterator[Block]:
    summary = tables.get("stabilisation_summary")
    if summary is None:
        return
    layers = tables["lens"].filter(pl.col("layer") >= 0).get_column("layer").n_unique()
    what = (
        f"Depth from which the reading keeps its sign, of {layers} layers (l + 0.5: after "
        "attention of layer l, l + 1: after its MLP), and from which it exceeds the same lens on "
        "random options and on unrelated questions."
    )
    yield Block(
        "Logit lens",
        lines=(what,),
        columns=("agent", "keeps its sign", "exceeds random options", "exceeds unrelated"),
        rows=tuple(
            (
                row["agent"],
                plain(row["depth"]),
                plain(row["beyond_random_pairs"]),
                plain(row["beyond_unrelated_prompts"]),
            )
            for row in summary.iter_rows(named=True)
        ),
    )


def _paths(tables: Tables) -> Iterator[Block]:
    if "edges" not in tables:
        return
    for pair, sites in rank(tables, "paths").group_by("source", "target", maintain_order=True):
        yield Block(
            f"Paths from {pair[0]} into {pair[1]}, straight to the decision",
            columns=("sender", "mean effect", "of full swap", "same sign", "range"),
            rows=tuple(_site_rows(sites, "effect")),
        )


def _ablation(tables: Tables) -> Iterator[Block]:
    if "ablation" not in tables:
        return
    for (agent,), sites in rank(tables, "ablation").group_by("agent", maintain_order=True):
        rows = [(row[0], row[1], *row[3:]) for row in _site_rows(sites, "effect")]
        yield Block(
            f"Ablation of {agent}: zero in place of a site",
            columns=("site", "mean effect", "same sign", "range"),
            rows=tuple(rows),
        )


def _agreement(tables: Tables) -> Iterator[Block]:
    if "approximations" not in tables:
        return
    table = tables.get("agreement")
    if table is None:
        lines = ("Not compared with exact patches: no site may be ranked by them.",)
        yield Block("Approximations", lines)
        return
    pooled = table.filter(pl.col("kind") == "all")
    yield Block(
        "Approximations against exact patches",
        columns=("pair", "method", "patches", "Pearson", "Spearman"),
        rows=tuple(
            (
                f"{row['source']} into {row['target']}",
                row["method"].replace("_", " "),
                str(row["n"]),
                signed_or_dash(row["pearson"]),
                signed_or_dash(row["spearman"]),
            )
            for row in pooled.iter_rows(named=True)
        ),
        words=2,
    )


_CONTROLS = {
    "write_all": "every site written must give the source",
    "self_patch": "a patch of nothing must do nothing",
}


def _controls(tables: Tables) -> Iterator[Block]:
    rows: list[tuple[str, ...]] = []
    if "controls" in tables:
        worst = (
            tables["controls"]
            .group_by("control", maintain_order=True)
            .agg(pl.col("value").abs().max(), pl.len())
        )
        rows += [
            (_CONTROLS.get(str(name), str(name)), plain(value), str(n))
            for name, value, n in worst.iter_rows()
        ]
    if "completeness" in tables:
        errors = tables["completeness"].get_column("error").abs()
        rows.append(
            (
                "contributions must sum to the logit difference",
                f"{errors.max():.2g}",
                str(len(errors)),
            )
        )
    if rows:
        yield Block(
            "Controls", columns=("what must hold", "largest deviation (nats)", "measured"),
            rows=tuple(rows),
        )  # fmt: skip


def _refused(refusals: Refusals) -> Iterator[Block]:
    if not refusals:
        return
    grouped: dict[str, list[str]] = {}
    for method, subject, error in refusals:
        grouped.setdefault(str(error), []).append(f"{method} {subject}".strip())
    yield Block(
        "Not done",
        lines=tuple(f"{', '.join(whose)}: {why}" for why, whose in grouped.items()),
    )


def _mean(rows: pl.DataFrame, column: str) -> float:
    values = rows.get_column(column)
    return float(values.sum()) / max(1, len(values))


def _flips(rows: pl.DataFrame) -> str:
    return f"{rows.get_column('flipped').sum()} of {rows.height}"
