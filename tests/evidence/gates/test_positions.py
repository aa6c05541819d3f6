"""A patch at or after the first scored token cannot act on what predicts it."""

import polars as pl
import pytest
import synthetic
from gating import gate

from moralscope.evidence.gates.judging import judge_gates

SUBJECT = "patching game>utilitarian"
WHOLE = pl.Series("first_patched", [None], dtype=pl.Int64)


def placed(
    sound: synthetic.Tables, patched: int | None, scored: int | None, positions: str = "answer_span"
) -> synthetic.Tables:
    """Patches that all start at one position, of answers that are scored from another."""
    changed = sound["patching"].with_columns(
        positions=pl.lit(positions),
        first_patched=pl.lit(patched, pl.Int64),
        first_scored=pl.lit(scored, pl.Int64),
    )
    return {**sound, "patching": changed}


@pytest.mark.parametrize(("patched", "passed"), [(0, True), (40, True), (41, False), (42, False)])
def test_a_patch_starts_before_the_first_scored_token(
    sound: synthetic.Tables, patched: int, passed: bool
) -> None:
    row = gate(placed(sound, patched, 41), "position", SUBJECT)
    patches = 8 * sound["prompts"].height
    assert (row["measured"], row["threshold"], row["passed"]) == (
        0.0 if passed else float(patches), 0.0, passed,
    )  # fmt: skip
    if not passed:
        assert f"{patches} of {patches} patches start at or after the first scored token" in str(
            row["advice"]
        )
        assert f"at position {patched}, scored from 41" in str(row["advice"])
        assert "Patch at the last token of the prompt or before" in str(row["advice"])


def test_one_late_patch_is_enough_and_is_named(sound: synthetic.Tables) -> None:
    here = (pl.col("prompt") == "s3w01") & (pl.col("site") == "L0.mlp")
    late = synthetic.set_values(
        placed(sound, 12, 41), "patching", here & (pl.col("source") == "game"),
        first_patched=pl.lit(45),
    )  # fmt: skip
    row = gate(late, "position", SUBJECT)
    assert (row["measured"], row["passed"]) == (1.0, False)
    assert "(on prompt 's3w01' at position 45, scored from 41)" in str(row["advice"])
    assert gate(late, "position", "patching utilitarian>game")["passed"] is True


def test_the_full_swap_is_no_patch_at_a_position(sound: synthetic.Tables) -> None:
    swap = synthetic.set_values(
        placed(sound, 12, 41), "patching", pl.col("site") == "all", first_patched=pl.lit(99)
    )
    assert gate(swap, "position", SUBJECT)["passed"] is True


@pytest.mark.parametrize(("positions", "start"), [("answer_span", "last"), ("all", "first")])
def test_named_positions_say_where_they_start(
    sound: synthetic.Tables, positions: str, start: str
) -> None:
    subject = SUBJECT if positions == "answer_span" else f"{SUBJECT} all"
    row = gate(placed(sound, None, None, positions), "position", subject)
    assert row["passed"] is True
    assert f"start at the {start} token of the prompt" in str(row["advice"])


@pytest.mark.parametrize(
    ("patched", "scored", "missing"),
    [(None, 41, "first_patched not"), (12, None, "first_scored not"),
     (None, None, "first_patched and first_scored not")],
)  # fmt: skip
def test_positions_that_are_not_known_are_not_available(
    sound: synthetic.Tables, patched: int | None, scored: int | None, missing: str
) -> None:
    row = gate(placed(sound, patched, scored, "last"), "position", f"{SUBJECT} last")
    assert row["passed"] is None
    assert f"Not available: {missing} recorded for patches at 'last'" in str(row["advice"])
    assert "absolute positions in the rendered prompt" in str(row["advice"])


def test_patches_across_prompts_are_judged_too(sound: synthetic.Tables) -> None:
    across = placed(sound, 41, 41)["patching"].with_columns(source_prompt=pl.lit("elsewhere"))
    gates = judge_gates({"patching": across})
    assert gates.get_column("gate").to_list() == ["position", "position"]
    assert not gates.get_column("passed").any()
