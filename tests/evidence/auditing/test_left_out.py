"""What an audit cannot compare is said claim by claim, and agent by agent."""

from pathlib import Path

import polars as pl
import synthetic

from moralscope.evidence.auditing.audit import Audit, audit

BASE = "agents: {base: {role: base}}"
AGENTS = ["base", "game", "utilitarian"]


def _audited(write, tmp_path: Path, decisions: pl.DataFrame, settings: str) -> Audit:
    (tmp_path / "out").mkdir()
    prompts = synthetic.build()["prompts"].select("prompt", "scenario", "labels", "text")
    bare = decisions.filter(pl.col("agent").is_in(AGENTS)).select("agent", "prompt", "log_odds")
    folder = write({"prompts": prompts, "decisions": bare, "audit.yaml": settings})
    return audit(folder, tmp_path / "out", draws=199)


def test_one_undefined_log_odds_of_the_base_leaves_its_comparisons_unknown(
    write, tmp_path: Path
) -> None:
    """It is neither a certain answer nor none at all, and no claim disappears because of it."""
    sound = synthetic.build()["decisions"]
    first = (pl.col("agent") == "base") & (pl.col("prompt") == pl.col("prompt").first())
    gap = sound.with_columns(log_odds=pl.when(~first).then("log_odds"))
    claims = {
        row["id"]: row for row in _audited(write, tmp_path, gap, BASE).claims.iter_rows(named=True)
    }
    for agent in ("game", "utilitarian"):
        change, alike = claims[f"change:{agent}"], claims[f"alike:base:{agent}"]
        assert change["estimate"] is None
        assert alike["estimate"] is None
        assert change["verdict"] == alike["verdict"] == "artefact"
        assert "undefined values (base): 1 of " in change["reason"]
    assert claims["alike:game:utilitarian"]["estimate"] is not None
    assert claims["difference:game:utilitarian"]["estimate"] is not None


def test_an_agent_without_a_base_among_several_is_named(write, tmp_path: Path) -> None:
    two = "agents: {base: {role: base}, game: {role: base}}"
    done = _audited(write, tmp_path, synthetic.build()["decisions"], two)
    row = done.coverage.filter(pl.col("subject") == "utilitarian").row(0, named=True)
    assert not row["ran"]
    assert "nothing says from which of base, game it was trained" in row["sentence"]
    assert "change:utilitarian" not in done.claims.get_column("id").to_list()
