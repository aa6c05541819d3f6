"""Published statements are tested anew on tables that say no more than other tools write."""

from pathlib import Path

import polars as pl
import pytest
import synthetic

from moralscope.evidence.auditing.audit import audit

PAIR = "agents: [game, utilitarian]"
STATEMENTS = f"""agents: {{base: {{role: base}}}}
hypotheses:
  - {{id: effect, quantity: patch_effect, {PAIR}, sites: [L1.mlp], direction: above}}
  - {{id: count, quantity: significant_count, {PAIR}, tables: [patching], published: 1}}
  - {{id: share, quantity: asymmetry_share, {PAIR}, published: 1.0}}
  - {{id: flips, quantity: zero_flips, {PAIR}, published: 0}}
  - {{id: agree, quantity: analyses_correlation, {PAIR}, tables: [attribution, patching],
     published: 0.8}}
"""


def _judged(write, tmp_path: Path, patching: pl.DataFrame) -> dict[str, dict]:
    sound = synthetic.build()
    tables = {name: sound[name] for name in ("prompts", "decisions", "attribution")}
    (tmp_path / "out").mkdir(parents=True)
    folder = write({**tables, "patching": patching, "audit.yaml": STATEMENTS})
    claims = audit(folder, tmp_path / "out", draws=199).claims
    return {
        row["id"].removeprefix("hypothesis:"): row
        for row in claims.iter_rows(named=True)
        if row["id"].startswith("hypothesis:")
    }


@pytest.fixture(scope="module")
def patching() -> pl.DataFrame:
    """Both directions of one pair."""
    return synthetic.build()["patching"].filter(
        pl.col("source").is_in(["game", "utilitarian"])
        & pl.col("target").is_in(["game", "utilitarian"])
    )


def test_patches_without_positions_answer_as_the_usual_ones_do(
    write, tmp_path: Path, patching: pl.DataFrame
) -> None:
    """Where the table has one kind of sweep, nobody has to name it."""
    usual = _judged(write, tmp_path / "usual", patching)
    bare = patching.select("source", "target", "prompt", "site", "baseline_log_odds", "effect")
    found = _judged(write, tmp_path / "bare", bare)
    assert set(found) == {"effect", "count", "share", "flips", "agree"}
    for name, claim in found.items():
        assert "there is no sweep" not in claim["reason"], name
        assert claim["estimate"] == pytest.approx(usual[name]["estimate"], abs=1e-12), name
        assert claim["verdict"] == usual[name]["verdict"], name


def test_among_several_unusual_positions_one_must_be_named(
    write, tmp_path: Path, patching: pl.DataFrame
) -> None:
    both = pl.concat(patching.with_columns(positions=pl.lit(w)) for w in ("all", "moves"))
    found = _judged(write, tmp_path, both)
    for name in ("effect", "count", "share", "flips"):
        assert found[name]["verdict"] == "not identified by this design"
        assert (
            "(there is positions: all, write: write; positions: moves, write: write)"
            in (found[name]["reason"])
        )
