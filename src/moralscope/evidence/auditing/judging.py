"""What stands in tables of any size? Gates and claims, judged one sweep at a time.

A family of tests lies within one sweep, one pair of agents or one agent with its base, so patches,
attributions and attention are read and judged by these parts, each with the small tables that it
needs; what remains is judged at once. Gates of all parts are merged, and the claims are corrected
for each other together (``claims.judge_findings``), so that judging in parts gives what judging
whole would give.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from moralscope.core.errors import TableError
from moralscope.core.progress import Progress, ProgressEvent
from moralscope.core.tables import from_rows
from moralscope.evidence.auditing.normalising import Normalised
from moralscope.evidence.auditing.settings import AuditSettings
from moralscope.evidence.claims import FINDERS, find_all, judge_findings, setting_of
from moralscope.evidence.designing.table import QUESTIONS, design_table
from moralscope.evidence.designs import base_of, trained_agents
from moralscope.evidence.gates.copies import repeated_rows
from moralscope.evidence.gates.judging import judge_gates
from moralscope.evidence.hypotheses.grammar import Hypothesis, Named, not_registered
from moralscope.evidence.hypotheses.judging import hypotheses_table, hypothesis_findings
from moralscope.evidence.ledger import Finding, Setting

Frames = dict[str, pl.DataFrame]

IN_PARTS = ("patching", "attribution", "attention")
"""Tables that are never in memory as a whole."""

WHOLE = 3_000_000
"""Most rows of any other table that are judged."""

_BESIDE = ("agents", "prompts", "controls", "replicas", "completeness", "agreement")
"""Small tables that claims about inner results consult."""

BASIS = "stated in the settings of the audit, after the tables existed"
"""When hypotheses of an audit were named."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the rows of a table that is judged in parts.

    Attributes:
        table: which.
        subject: whom it is about, for messages.
        rows: the filter that chooses them.
    """

    table: str
    subject: str
    rows: pl.Expr


@dataclass(slots=True)
class Judged:
    """What an audit found.

    Attributes:
        gates, claims, design, hypotheses: the tables of these names.
        failed: (question, subject) to the reason for which it could not be judged.
        found: table to the number of claims that its parts gave; ``""``: the small tables.
    """

    gates: pl.DataFrame
    claims: pl.DataFrame
    design: pl.DataFrame
    hypotheses: pl.DataFrame
    failed: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    found: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Judge:
    """What judging needs to know beside the tables."""

    alpha: float
    seed: int
    draws: int
    margin: float | None
    settings: AuditSettings
    progress: Progress

    def setting(self, tables: Mapping[str, pl.DataFrame]) -> Setting:
        """What claims are made from."""
        return setting_of(
            tables, alpha=self.alpha, seed=self.seed, draws=self.draws, margin=self.margin
        )


def judge(known: Normalised, how: Judge) -> Judged:
    """Gates, claims, designs and hypotheses of normalised tables.

    Raises:
        ConfigError: a hypothesis names what the tables do not have, or a level is out of range.
    """
    small = small_tables(known, how.settings)
    parts = tuple(_parts(known, small))
    failed: dict[tuple[str, str], str] = {}
    gates, designs = _gates_and_designs(known, how, small, parts, failed)
    findings: list[Finding] = []
    found: dict[str, int] = {}
    with_gates = {**small, "gates": gates}
    if known.prompts.prompts is not None:
        for table, made in _findings(known, how, with_gates, parts, failed):
            found[table] = found.get(table, 0) + len(made)
            findings += made
    named = not_registered(how.settings.hypotheses, BASIS)
    setting = how.setting(with_gates)
    findings += [f for each in named for f in _hypothesis(known, how, with_gates, each)]
    claims = judge_findings(setting, findings)
    return Judged(gates, claims, designs, hypotheses_table(named), failed, found)


def small_tables(known: Normalised, settings: AuditSettings) -> Frames:
    """The tables that are judged as a whole; prompts only where scenarios are known."""
    small = {
        name: known.scan(name).collect()
        for name in known.tables
        if name not in IN_PARTS and known.rows[name] <= WHOLE
    }
    small.pop("prompts", None)
    if known.prompts.prompts is not None:
        small["prompts"] = known.prompts.prompts
    if "agents" in small:
        small["agents"] = _in_dtype(small["agents"], settings, "decisions")
    return small


def _in_dtype(agents: pl.DataFrame, settings: AuditSettings, table: str) -> pl.DataFrame:
    """The agents with the dtype in which a table's values were stored, where that was said."""
    said = settings.dtype_of(table)
    return agents if said is None else agents.with_columns(dtype=pl.lit(said))


def _parts(known: Normalised, small: Frames) -> Iterator[Part]:
    """Every part, in the order in which they are judged."""
    if "patching" in known.tables:
        pairs = known.scan("patching").select("source", "target").unique().collect()
        both = sorted({tuple(sorted(pair)) for pair in pairs.iter_rows()})
        for first, second in both:
            within = [first, second]
            rows = pl.col("source").is_in(within) & pl.col("target").is_in(within)
            if first != second:  # an agent patched into itself is a part of its own
                rows &= pl.col("source") != pl.col("target")
            yield Part("patching", f"{first} and {second}", rows)
    if "attribution" in known.tables:
        for names in _with_bases(known.scan("attribution"), small.get("agents")):
            yield Part("attribution", " and ".join(names), pl.col("agent").is_in(names))
    if "attention" in known.tables:
        agents = known.scan("attention").select(pl.col("agent").unique()).collect().to_series()
        for name in sorted(agents.to_list()):
            yield Part("attention", name, pl.col("agent") == name)


def _with_bases(frame: pl.LazyFrame, agents: pl.DataFrame | None) -> list[list[str]]:
    """Each trained agent with its base; whoever is left, alone."""
    present: list[str] = sorted(frame.select(pl.col("agent").unique()).collect().to_series())
    found: list[list[str]] = []
    for agent in trained_agents(agents) if agents is not None else []:
        base = base_of(agents, agent) if agents is not None else None
        if agent in present:
            found.append([agent, base] if base is not None and base in present else [agent])
    covered = set(itertools.chain.from_iterable(found))
    return [*found, *([name] for name in present if name not in covered)]


def _rows(known: Normalised, part: Part) -> pl.DataFrame:
    rows = known.scan(part.table).filter(part.rows).collect(engine="streaming")
    if part.table == "patching" and not known.baselines:
        # Nothing that rests on these is kept: see _findings.
        rows = rows.with_columns(
            baseline_log_odds=pl.lit(0.0), patched_log_odds="effect", flipped=pl.lit(value=False)
        )
    return rows


def _gates_and_designs(
    known: Normalised,
    how: Judge,
    small: Frames,
    parts: Sequence[Part],
    failed: dict[tuple[str, str], str],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    gates: list[pl.DataFrame] = []
    if made := _tried(failed, ("gates", ""), lambda: judge_gates(small)):
        gates.append(made[0])
    designs = _designs(failed, ("designs", ""), small, how, QUESTIONS)
    for done, part in enumerate(parts):
        how.progress(ProgressEvent("gates", done, len(parts), f"{part.table} {part.subject}"))
        tables = _beside(small, how.settings, part) | {part.table: _rows(known, part)}
        key = ("gates", f"{part.table} {part.subject}")
        if made := _tried(failed, key, lambda t=tables: judge_gates(t)):
            gates.append(made[0])
        designs += _designs(failed, ("designs", key[1]), tables, how, ("sites",))
    if parts:
        how.progress(ProgressEvent("gates", len(parts), len(parts)))
    extra = _own_gates(known)
    merged = _merged([*gates, extra])
    once = pl.concat(designs or [from_rows("design", [])])
    once = once.unique(["question", "subject"], keep="first", maintain_order=True)
    return _without_texts(merged, known), once


def _designs(
    failed: dict[tuple[str, str], str],
    key: tuple[str, str],
    tables: Frames,
    how: Judge,
    questions: Sequence[str],
) -> list[pl.DataFrame]:
    return _tried(failed, key, lambda: design_table(tables, alpha=how.alpha, questions=questions))


def _beside(small: Frames, settings: AuditSettings, part: Part) -> Frames:
    """The small tables that a part is judged with."""
    frames = {name: small[name] for name in _BESIDE if name in small}
    if part.table == "attribution":
        frames |= {name: small[name] for name in ("decisions", "lens") if name in small}
    if "agents" in frames:
        frames["agents"] = _in_dtype(frames["agents"], settings, part.table)
    return frames


def _tried(
    failed: dict[tuple[str, str], str],
    key: tuple[str, str],
    make: Callable[[], pl.DataFrame],
) -> list[pl.DataFrame]:
    """What was made, in a list; an empty one, with the reason noted, where tables forbid it."""
    try:
        return [make()]
    except TableError as cause:
        failed[key] = f"{cause.problem} ({cause.seen}). Next: {cause.remedy}."
        return []


def _own_gates(known: Normalised) -> pl.DataFrame:
    """Gates on the files themselves: repeated rows and undefined values."""
    rows = [
        repeated_rows(table, known.rows[table] + count, count).row()
        for table, count in known.repeated.items()
        if count
    ]
    rows += [
        {
            "gate": "undefined values", "subject": f"{table}.{column}", "measured": float(count),
            "threshold": 0.0, "passed": False,
            "advice": f"{count} values of {column} are NaN; they are undefined, never zero. Find "
            "out what they were divided by.",
        }
        for (table, column), count in known.undefined.items()
    ]  # fmt: skip
    return from_rows("gates", rows)


def _merged(gates: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One row for each gate and subject: a result before none, a later one before an earlier."""
    numbered = pl.concat(gates).with_row_index("order")
    first = numbered.group_by("gate", "subject").agg(pl.col("order").min().alias("first"))
    best = (
        numbered.sort(pl.col("passed").is_null(), -pl.col("order").cast(pl.Int64))
        .unique(["gate", "subject"], keep="first", maintain_order=True)
        .join(first, on=["gate", "subject"])
        .sort("first")
    )
    return best.drop("order", "first")


def _without_texts(gates: pl.DataFrame, known: Normalised) -> pl.DataFrame:
    """Copies among prompts cannot be looked for where their texts are not known."""
    if known.prompts.texts:
        return gates
    about = pl.col("subject").is_in(["prompts", "scenarios"]) & (pl.col("gate") == "duplicates")
    rows = [
        {
            "gate": "duplicates", "subject": subject, "measured": None, "threshold": 0.0,
            "passed": None,
            "advice": "Not available: the texts of the prompts are not in the tables; add the "
            "column text to the prompts, so that copies of a text are found.",
        }
        for subject in ("prompts", "scenarios")
    ]  # fmt: skip
    return pl.concat([gates.filter(~about), from_rows("gates", rows)])


def _findings(
    known: Normalised,
    how: Judge,
    small: Frames,
    parts: Sequence[Part],
    failed: dict[tuple[str, str], str],
) -> Iterator[tuple[str, list[Finding]]]:
    """Claims of the small tables under their finder's name, then those of each part."""
    setting = how.setting(small)
    for name, find in FINDERS.items():
        try:
            yield name, list(find(setting))
        except TableError as cause:
            failed["claims", name] = f"{cause.problem} ({cause.seen}). Next: {cause.remedy}."
    for done, part in enumerate(parts):
        how.progress(ProgressEvent("claims", done, len(parts), f"{part.table} {part.subject}"))
        beside = _beside(small, how.settings, part) | {"gates": small["gates"]}
        beside = {name: frame for name, frame in beside.items() if name != "decisions"}
        try:
            made = find_all(how.setting(beside | {part.table: _rows(known, part)}))
        except TableError as cause:
            reason = f"{cause.problem} ({cause.seen}). Next: {cause.remedy}."
            failed["claims", f"{part.table} {part.subject}"] = reason
            continue
        yield part.table, [f for f in made if known.baselines or not f.id.startswith("flips:")]
    if parts:
        how.progress(ProgressEvent("claims", len(parts), len(parts)))


def _hypothesis(known: Normalised, how: Judge, small: Frames, named: Named) -> list[Finding]:
    """The finding about one hypothesis, from the rows of the agents that it is about."""
    tables = dict(small)
    for table in IN_PARTS:
        if table in known.tables:
            part = Part(table, named.hypothesis.id, _about(table, named.hypothesis, small))
            tables[table] = _rows(known, part)
    return hypothesis_findings(how.setting(tables), [named])


def _about(table: str, hypothesis: Hypothesis, small: Frames) -> pl.Expr:
    """The rows of a hypothesis's agents and their bases; all where it names none."""
    if not hypothesis.agents or "agents" not in small:
        return pl.lit(value=True)
    agents = small["agents"]
    names = {
        *hypothesis.agents,
        *(b for a in hypothesis.agents if (b := base_of(agents, a)) is not None),
    }
    columns = ("source", "target") if table == "patching" else ("agent",)
    return pl.all_horizontal(pl.col(column).is_in(sorted(names)) for column in columns)
