"""Published statements asked of planted tables, for the tests of each of them."""

from __future__ import annotations

import polars as pl
import synthetic

from moralscope.evidence.claims import setting_of
from moralscope.evidence.hypotheses.grammar import Hypothesis, not_registered
from moralscope.evidence.hypotheses.judging import hypothesis_findings
from moralscope.evidence.judged import claim_rows

Claim = dict[str, object]


def ask(planted: synthetic.Tables, *, draws: int = 499, **said: object) -> Claim:
    """The claim about one published statement, by itself."""
    hypothesis = Hypothesis.model_validate({"id": "claim", **said})
    setting = setting_of(planted, draws=draws)
    named = not_registered([hypothesis], "published")
    return claim_rows(setting, hypothesis_findings(setting, named))[0]


def recomputed(tables: synthetic.Tables, claim: Claim) -> float:
    """What the claim's query gives."""
    found = pl.SQLContext(dict(tables)).execute(str(claim["query"]), eager=True)
    return float(found["estimate"][0])


def without(tables: synthetic.Tables, *names: str) -> synthetic.Tables:
    return {name: frame for name, frame in tables.items() if name not in names}
