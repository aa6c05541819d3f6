"""Do the numbers of a run follow from each other? Identities that its tables must keep.

    log_odds  = log p_positive - log p_negative     legal_mass = p_positive + p_negative
    effect    = patched_log_odds - baseline_log_odds
    symmetric, asymmetry = (effect_a_to_b -/+ effect_b_to_a) / 2
    sum of contributions = logit_diff + error       remainder  = log_odds - logit_diff
    n, pearson = those of estimates and exact effects of the same patches

Each is computed anew, from other columns or other tables, by a formula of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from moralscope.studies.verifying.check import NUMBERS, Check, holds, table_file
from moralscope.studies.verifying.opening import Opened

EXACT = 1e-9
"""Relative to the larger of 1 and the number: sums and differences of stored numbers."""

SUMMED = 1e-4
"""The same, of sums over hundreds of contributions."""

PACKED = {"float32": 1e-3}
"""The same, by dtype: what other prompts in the same forward make of a log-odds."""

Tables = Mapping[str, pl.DataFrame]
Residuals = Callable[[Tables], pl.DataFrame]
"""Tables to rows with ``key`` (text), ``stored`` and ``anew``."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Something that holds between numbers of a run.

    Attributes:
        table: whose numbers are tested.
        what: the identity, as a phrase.
        needs: tables that it is computed from.
        both: gives stored and recomputed numbers.
        tolerance: relative to the larger of 1 and the number; None where the two come from
            different forwards.
    """

    table: str
    what: str
    needs: tuple[str, ...]
    both: Residuals
    tolerance: float | None = EXACT


def number_checks(run: Opened) -> Iterator[Check]:
    """Every identity between tables that are there."""
    dtype = "float32" if run.study is None else run.study.dtype
    for identity in IDENTITIES:
        if identity.table not in run.tables:
            continue
        lacking = [name for name in identity.needs if name not in run.tables]
        subject = table_file(identity.table)
        if lacking:
            found = f"the table {lacking[0]} is not there, or is damaged"
            yield Check(NUMBERS, subject, identity.what, passed=None, found=found)
            continue
        allowed = PACKED.get(dtype, 0.5) if identity.tolerance is None else identity.tolerance
        found = _worst(identity.both(run.tables), allowed)
        yield from holds(NUMBERS, subject, identity.what, not found, found)


def _worst(rows: pl.DataFrame, tolerance: float) -> str:
    """The row that is furthest off, in words; empty where all agree."""
    stored, anew = pl.col("stored").cast(pl.Float64), pl.col("anew").cast(pl.Float64)
    bound = tolerance * pl.max_horizontal(pl.lit(1.0), stored.abs(), anew.abs())
    agree = ((stored - anew).abs() <= bound).fill_null(stored.is_null() & anew.is_null())
    # Infinite where the larger of two probabilities is the only one that did not vanish.
    off = rows.with_columns(apart=(stored - anew).abs()).filter(~agree)
    if not off.height:
        return ""
    row = off.sort("apart", descending=True, nulls_last=True).row(0, named=True)
    return f"{row['key']}: {row['stored']} is stored, {row['anew']} follows ({off.height} rows)"


def _named(*columns: str) -> pl.Expr:
    return pl.concat_str(columns, separator=", ").alias("key")


def _within(table: str, stored: pl.Expr, anew: pl.Expr, *key: str) -> Residuals:
    """Both numbers from one table."""

    def both(tables: Tables) -> pl.DataFrame:
        return tables[table].select(_named(*key), stored.alias("stored"), anew.alias("anew"))

    return both


def _log_odds(tables: Tables) -> pl.DataFrame:
    """Where both probabilities are large enough to have a logarithm to this accuracy."""
    rows = tables["decisions"].filter(
        pl.col("log_odds").is_not_null(),
        pl.col("p_positive") > 1e-300,
        pl.col("p_negative") > 1e-300,
    )
    anew = pl.col("p_positive").log() - pl.col("p_negative").log()
    return rows.select(_named("agent", "prompt"), stored="log_odds", anew=anew)


def _given_legal(tables: Tables) -> pl.DataFrame:
    rows = tables["decisions"].filter(pl.col("legal_mass") > 0)
    anew = pl.col("p_positive") / (pl.col("p_positive") + pl.col("p_negative"))
    return rows.select(_named("agent", "prompt"), stored="p_positive_given_legal", anew=anew)


def _sums(tables: Tables) -> pl.DataFrame:
    whole = tables["attribution"].filter(pl.col("part") == "whole", pl.col("token") == -1)
    sums = whole.group_by("agent", "prompt").agg(pl.col("contribution").sum().alias("anew"))
    rows = tables["completeness"].join(sums, on=["agent", "prompt"], how="left")
    stored = pl.col("logit_diff") + pl.col("error")
    return rows.select(_named("agent", "prompt"), stored.alias("stored"), "anew")


def _remainders(tables: Tables) -> pl.DataFrame:
    decided = tables["decisions"].select("agent", "prompt", "log_odds")
    rows = tables["completeness"].join(decided, on=["agent", "prompt"], how="inner")
    anew = pl.col("log_odds") - pl.col("logit_diff")
    return rows.select(_named("agent", "prompt"), stored="remainder", anew=anew)


def _parts(tables: Tables) -> pl.DataFrame:
    """What new weights and new input add to a component, and by how much it has changed."""
    place = ["prompt", "site", "token"]
    agents = tables["agents"].select("agent", "base", untrained=pl.col("kind") == "base")
    rows = tables["attribution"].join(agents, on="agent")
    whole = rows.filter(pl.col("part") == "whole").select(*place, "agent", "base", "contribution")
    bases = rows.filter(pl.col("part") == "whole", pl.col("untrained")).select(
        *place, "base", before="contribution"
    )
    parts = rows.filter(pl.col("part") != "whole").group_by("agent", *place)
    added = parts.agg(pl.col("contribution").sum().alias("stored"))
    both = added.join(whole, on=["agent", *place]).join(bases, on=["base", *place])
    anew = (pl.col("contribution") - pl.col("before")).alias("anew")
    return both.select(_named("agent", "prompt", "site"), "stored", anew)


def _last_reading(tables: Tables) -> pl.DataFrame:
    """The lens at its last depth, where the options part."""
    branch = tables["lens"].filter(pl.col("is_branch"), pl.col("sublayer") == "mlp")
    last = branch.filter(pl.col("layer") == pl.col("layer").max().over("agent", "prompt"))
    rows = tables["stabilisation"].join(
        last.unique(["agent", "prompt"], keep="none"), on=["agent", "prompt"]
    )
    return rows.select(_named("agent", "prompt"), stored="final_logit_diff", anew="logit_diff")


def _mean_depth(tables: Tables) -> pl.DataFrame:
    """Mean over scenarios of the mean depth over their prompts."""
    met = tables["stabilisation"].group_by("agent", "scenario").agg(pl.col("depth").mean())
    means = met.group_by("agent").agg(pl.col("depth").mean().alias("anew"))
    rows = tables["stabilisation_summary"].join(means, on="agent", how="left")
    return rows.select(_named("agent"), pl.col("depth").alias("stored"), "anew")


def _directions(column: str, sign: float) -> Residuals:
    """Half the sum or the difference of two patches, looked up one by one."""

    def both(tables: Tables) -> pl.DataFrame:
        patches = tables["patching"]
        place = ["site", "positions", "write"]
        found = tables["directions"]
        for effect, one, other in (("there", "a", "b"), ("back", "b", "a")):
            ends = {
                "source": f"agent_{one}", "source_prompt": f"prompt_{one}",
                "target": f"agent_{other}", "prompt": f"prompt_{other}",
            }  # fmt: skip
            ours = patches.select(
                *place, pl.col("effect").alias(effect),
                *(pl.col(theirs).alias(name) for theirs, name in ends.items()),
            )  # fmt: skip
            found = found.join(ours, on=[*ends.values(), *place], how="left")
        anew = (pl.col("there") + sign * pl.col("back")) / 2
        return found.select(
            _named("agent_a", "agent_b", "prompt_a", "site"), stored=column, anew=anew
        )

    return both


def _agreement(tables: Tables) -> pl.DataFrame:
    """Pearson's correlation of estimates with exact patches, over sites of each kind and of all."""
    place = ["source", "target", "prompt", "source_prompt", "site", "positions"]
    exact = tables["patching"].filter(pl.col("write") == "write").select(*place, "effect")
    joined = tables["approximations"].join(exact, on=place, how="inner")
    joined = pl.concat([joined, joined.with_columns(kind=pl.lit("all"))])
    by = ["source", "target", "method", "kind"]
    anew = joined.group_by(by).agg(anew=pl.corr("estimate", "effect"), pairs=pl.len())
    rows = tables["agreement"].join(anew, on=by, how="left")
    fit = rows.filter(pl.col("pairs") >= 3, pl.col("pearson").is_not_null())
    return fit.select(_named(*by), stored="pearson", anew="anew")


def _effects(table: str, changed: str, *key: str) -> Identity:
    what = f"effect is {changed} minus baseline_log_odds"
    anew = pl.col(changed) - pl.col("baseline_log_odds")
    stored = pl.when(anew.is_null()).then(None).otherwise(pl.col("effect"))
    return Identity(table, what, (), _within(table, stored, anew, *key))


_PATCH = ("source", "target", "prompt", "site")
IDENTITIES = (
    Identity("decisions", "log_odds is that of the probabilities", (), _log_odds),
    Identity(
        "decisions", "legal_mass is the sum of the probabilities", (),
        _within("decisions", pl.col("legal_mass"), pl.col("p_positive") + pl.col("p_negative"),
                "agent", "prompt"),
    ),
    Identity("decisions", "p_positive_given_legal is a share of legal_mass", (), _given_legal),
    _effects("patching", "patched_log_odds", *_PATCH),
    _effects("edges", "patched_log_odds", "source", "target", "prompt", "sender"),
    _effects("ablation", "ablated_log_odds", "agent", "prompt", "site"),
    Identity(
        "patching", "flipped says whether the preferred option changed", (),
        _within("patching", pl.col("flipped").cast(pl.Int8),
                (pl.col("margin") < 0).cast(pl.Int8), *_PATCH),
    ),
    Identity(
        "patching", "margin is patched_log_odds towards the option preferred before", (),
        _within("patching", pl.col("margin").abs(), pl.col("patched_log_odds").abs(), *_PATCH),
    ),
    Identity(
        "completeness", "contributions sum to logit_diff plus error",
        ("attribution",), _sums, SUMMED,
    ),
    Identity(
        "attribution", "weights and input add up to the change from base",
        ("agents",), _parts, SUMMED,
    ),
    Identity(
        "stabilisation", "final_logit_diff is the last reading of the lens",
        ("lens",), _last_reading, SUMMED,
    ),
    Identity(
        "stabilisation_summary", "depth is the mean over scenarios", ("stabilisation",), _mean_depth
    ),
    Identity(
        "completeness", "remainder is log_odds minus logit_diff", ("decisions",), _remainders, None
    ),
    Identity(
        "directions", "symmetric is half the difference of both patches", ("patching",),
        _directions("symmetric", -1.0),
    ),
    Identity(
        "directions", "asymmetry is half the sum of both patches", ("patching",),
        _directions("asymmetry", 1.0),
    ),
    Identity(
        "agreement", "pearson is that of estimates and exact patches",
        ("approximations", "patching"), _agreement, SUMMED,
    ),
)  # fmt: skip
"""What is tested, table by table."""
