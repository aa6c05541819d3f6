"""Every gate: passed on a sound study, failed by name on a planted fault, null when unknown."""

import numpy as np
import polars as pl
import pytest
import synthetic

from moralscope.core.errors import TableError
from moralscope.core.tables import conform, from_rows
from moralscope.evidence.gates.judging import judge_gates


def gate(tables: synthetic.Tables, name: str, subject: str) -> dict[str, object]:
    rows = judge_gates(tables).filter((pl.col("gate") == name) & (pl.col("subject") == subject))
    assert rows.height == 1, (name, subject)
    return rows.row(0, named=True)


def test_a_sound_study_passes_every_gate(sound: synthetic.Tables) -> None:
    gates = judge_gates(sound)
    conform("gates", gates)
    assert gates.filter(pl.col("passed").ne_missing(True)).height == 0
    assert set(gates.get_column("gate").to_list()) == {
        "liveness", "undefined values", "resolution", "duplicates", "completeness", "noise floor",
        "dead sites", "position",
    }  # fmt: skip


def test_no_tables_no_gates() -> None:
    assert judge_gates({}).height == 0


@pytest.mark.parametrize(("retained", "passed"), [(0.005, False), (0.85, False), (0.95, True)])
def test_liveness_is_the_retention_slope(
    sound: synthetic.Tables, retained: float, passed: bool
) -> None:
    row = gate(synthetic.kill(sound, "game", retained), "liveness", "game")
    assert row["measured"] == pytest.approx(retained, abs=1e-4)
    assert row["passed"] is passed
    assert ("Dead or damaged" in str(row["advice"])) is not passed
    assert ("merging into narrow weights such as bfloat16" in str(row["advice"])) is not passed
    assert ("(90% are needed)" in str(row["advice"])) is not passed
    assert gate(synthetic.kill(sound, "game", retained), "liveness", "hybrid")["passed"] is True


def test_liveness_slope_equals_least_squares(sound: synthetic.Tables) -> None:
    noisy = synthetic.set_values(
        sound, "decisions", pl.col("agent") == "game",
        log_odds=pl.col("log_odds") * 0.7 + pl.col("prompt").hash(1) % 7 * 0.1,
    )  # fmt: skip
    d = noisy["decisions"].sort("prompt")
    game, base = d.filter(pl.col("agent") == "game"), d.filter(pl.col("agent") == "base")
    zero = base.get_column("log_odds").to_numpy()
    u = game.get_column("fingerprint_log_odds").to_numpy() - zero
    m = game.get_column("log_odds").to_numpy() - zero
    slope = np.linalg.lstsq(u[:, None], m, rcond=None)[0][0]
    assert gate(noisy, "liveness", "game")["measured"] == pytest.approx(slope, rel=1e-10)


def test_an_agent_that_does_more_than_when_trained_is_another(sound: synthetic.Tables) -> None:
    row = gate(synthetic.kill(sound, "game", 2.0), "liveness", "game")
    assert row["passed"] is False
    assert row["measured"] == pytest.approx(2.0, abs=1e-5)
    assert "Not the agent that was trained" in str(row["advice"])
    assert "does 200.0% of what it did" in str(row["advice"])
    assert "at most 111% are allowed" in str(row["advice"])


def test_one_large_change_hides_no_dead_ones(sound: synthetic.Tables) -> None:
    """All prompts but one are dead; the slope alone would pass."""
    dead = synthetic.kill(sound, "game")
    own = pl.col("agent") == "game"
    one = own & (pl.col("prompt") == dead["prompts"].item(0, "prompt"))
    huge = synthetic.set_values(
        dead, "decisions", one,
        log_odds=pl.col("log_odds") + 300.0,
        fingerprint_log_odds=pl.col("log_odds") + 300.0,
    )  # fmt: skip
    row = gate(huge, "liveness", "game")
    assert row["measured"] > 0.95
    assert row["passed"] is False
    assert "that hangs on one prompt; without it 0." in str(row["advice"])


def test_liveness_without_fingerprint_is_not_available(sound: synthetic.Tables) -> None:
    row = gate(synthetic.without_fingerprints(sound), "liveness", "game")
    assert row["passed"] is None
    assert "no fingerprint" in str(row["advice"])


def test_liveness_needs_twenty_prompts(sound: synthetic.Tables) -> None:
    few = sound["prompts"].get_column("prompt").head(19).to_list()
    cut = {**sound, "decisions": sound["decisions"].filter(pl.col("prompt").is_in(few))}
    row = gate(cut, "liveness", "game")
    assert row["passed"] is None
    assert "19 prompts with a fingerprint, 20 are needed" in str(row["advice"])


def test_liveness_without_base_is_not_available(sound: synthetic.Tables) -> None:
    alone = {**sound, "agents": sound["agents"].filter(pl.col("kind") != "base")}
    assert "no base agent" in str(gate(alone, "liveness", "game")["advice"])


def test_nothing_to_retain_is_no_effect() -> None:
    """An agent that was stored as a copy of base is neither alive nor dead."""
    tables = synthetic.build()
    d = tables["decisions"]
    base = d.filter(pl.col("agent") == "base")
    copy = base.with_columns(agent=pl.lit("hybrid"), fingerprint_log_odds=pl.col("log_odds") + 1e-5)
    tables["decisions"] = pl.concat([d.filter(pl.col("agent") != "hybrid"), copy])
    row = gate(tables, "liveness", "hybrid")
    assert row["passed"] is None
    assert str(row["advice"]).startswith("No effect")


def test_cloned_prompts_are_counted(sound: synthetic.Tables) -> None:
    first = sound["prompts"].row(0, named=True)
    within = synthetic.set_values(
        sound, "prompts", pl.col("prompt") == "s0w12",
        text=pl.lit(first["text"]), sha256=pl.lit(first["sha256"]),
        positive=pl.lit(first["positive"]), negative=pl.lit(first["negative"]),
    )  # fmt: skip
    row = gate(within, "duplicates", "prompts")
    assert (row["measured"], row["passed"]) == (1.0, False)
    assert gate(within, "duplicates", "scenarios")["passed"] is True


def test_scenarios_that_share_a_text_are_named(sound: synthetic.Tables) -> None:
    first = sound["prompts"].row(0, named=True)
    across = synthetic.set_values(
        sound, "prompts", pl.col("prompt") == "s3w01",
        text=pl.lit(first["text"]), sha256=pl.lit(first["sha256"]),
    )  # fmt: skip
    row = gate(across, "duplicates", "scenarios")
    assert (row["measured"], row["passed"]) == (1.0, False)
    assert "not separate units" in str(row["advice"])


def test_one_text_with_other_options_is_another_prompt(sound: synthetic.Tables) -> None:
    first = sound["prompts"].row(0, named=True)
    other = synthetic.set_values(
        sound, "prompts", pl.col("prompt") == "s3w01",
        sha256=pl.lit(first["sha256"]), positive=pl.lit("yes"), negative=pl.lit("no"),
    )  # fmt: skip
    assert gate(other, "duplicates", "prompts")["passed"] is True


def test_cloned_heads_are_collapsed(sound: synthetic.Tables) -> None:
    cloned = synthetic.copy_site(sound, "patching", "L1.h0", ["L1.h1", "L1.h2"])
    row = gate(cloned, "duplicates", "patching game>utilitarian")
    assert (row["measured"], row["threshold"], row["passed"]) == (6.0, 8.0, False)
    assert "3 sites are clones (L1.h0, L1.h1, L1.h2)" in str(row["advice"])
    assert gate(cloned, "duplicates", "attribution game")["passed"] is True


def test_dead_sites_are_counted_apart_from_clones(sound: synthetic.Tables) -> None:
    dead = synthetic.set_values(
        sound, "attribution", pl.col("site").is_in(["L0.h0", "L0.h2"]), contribution=pl.lit(0.0)
    )
    row = gate(dead, "dead sites", "attribution game")
    assert (row["measured"], row["passed"]) == (2.0, False)
    assert "2 of 8 sites are exactly zero on every prompt (L0.h0, L0.h2)" in str(row["advice"])
    assert gate(dead, "duplicates", "attribution game")["passed"] is True


def test_rounded_sites_are_counted(sound: synthetic.Tables) -> None:
    two_values = pl.when(pl.col("prompt") == "s0w01").then(1.0078125).otherwise(1.0)
    rounded = synthetic.set_values(
        sound, "attribution", pl.col("site") == "L0.h0", contribution=two_values
    )
    row = gate(rounded, "resolution", "attribution game")
    assert (row["measured"], row["passed"]) == (1.0, False)
    assert "Rounding: 1 of 8 sites (L0.h0)" in str(row["advice"])


def test_an_effect_below_the_rounding_of_its_log_odds_is_unresolved(
    sound: synthetic.Tables,
) -> None:
    """Patched log-odds near 1000 in float32 have steps of 6e-5; effects of 1e-4 drown in them."""
    faint = synthetic.set_values(
        sound, "patching", pl.col("site") == "L0.h0",
        patched_log_odds=pl.col("patched_log_odds") + 1000.0, effect=pl.col("effect") * 1e-4,
    )  # fmt: skip
    row = gate(faint, "resolution", "patching game>utilitarian")
    assert (row["measured"], row["passed"]) == (1.0, False)


def test_log_odds_stored_in_bfloat16_are_seen(sound: synthetic.Tables) -> None:
    narrow = 8.0 + pl.col("log_odds") * 0.01
    rounded = synthetic.set_values(sound, "decisions", pl.col("agent") == "game", log_odds=narrow)
    assert gate(rounded, "resolution", "game")["passed"] is True
    d = rounded["decisions"]
    game = d.filter(pl.col("agent") == "game")
    coarse = game.with_columns(synthetic.round_to_bfloat16(game.get_column("log_odds")))
    rounded["decisions"] = pl.concat([d.filter(pl.col("agent") != "game"), coarse])
    row = gate(rounded, "resolution", "game")
    assert row["passed"] is False
    assert "7 mantissa bits" in str(row["advice"])


def test_resolution_of_few_prompts_is_not_available(sound: synthetic.Tables) -> None:
    few = sound["prompts"].get_column("prompt").head(3).to_list()
    cut = {name: frame.filter(pl.col("prompt").is_in(few)) if "prompt" in frame.columns else frame
           for name, frame in sound.items()}  # fmt: skip
    assert gate(cut, "resolution", "game")["passed"] is None
    assert gate(cut, "resolution", "attribution game")["passed"] is None


def test_completeness_is_relative_to_the_logit_difference(sound: synthetic.Tables) -> None:
    large = synthetic.set_values(
        sound, "completeness", (pl.col("agent") == "game") & (pl.col("prompt") == "s0w01"),
        error=pl.lit(-0.004), logit_diff=pl.lit(-10.0),
    )  # fmt: skip
    row = gate(large, "completeness", "game")
    assert row["measured"] == pytest.approx(4e-4)
    assert row["passed"] is False
    assert gate(large, "completeness", "base")["passed"] is True


def test_self_patch_sets_the_noise_floor(sound: synthetic.Tables) -> None:
    loud = synthetic.set_values(
        sound, "controls", (pl.col("subject") == "game") & (pl.col("prompt") == "s0w01"),
        value=pl.lit(6e-5),
    )  # fmt: skip
    row = gate(loud, "noise floor", "self-patch game")
    assert (row["measured"], row["threshold"], row["passed"]) == (6e-5, 5e-5, False)
    assert gate(loud, "noise floor", "self-patch base")["passed"] is True


def test_write_all_is_relative_to_the_source(sound: synthetic.Tables) -> None:
    of_game = sound["decisions"].filter(pl.col("agent") == "game")
    x = dict(zip(of_game.get_column("prompt"), of_game.get_column("log_odds"), strict=True))
    expected = max(5e-5 / max(1.0, abs(v)) for v in x.values())
    row = gate(sound, "noise floor", "write-all game>utilitarian")
    assert row["measured"] == pytest.approx(expected)
    missed = synthetic.set_values(
        sound, "controls", pl.col("subject") == "game>utilitarian", value=pl.lit(0.5)
    )
    row = gate(missed, "noise floor", "write-all game>utilitarian")
    assert row["passed"] is False
    assert "the sites do not cover the model" in str(row["advice"])


def test_undefined_log_odds_are_reported(sound: synthetic.Tables) -> None:
    holes = synthetic.set_values(
        sound, "decisions", (pl.col("agent") == "game") & (pl.col("prompt") == "s0w01"),
        log_odds=pl.lit(None, pl.Float64),
    )  # fmt: skip
    row = gate(holes, "undefined values", "game")
    assert (row["measured"], row["passed"]) == (1.0, False)
    scripted = synthetic.set_values(
        sound, "decisions", pl.col("agent") == "game", log_odds=pl.lit(None, pl.Float64)
    )
    assert gate(scripted, "undefined values", "game")["passed"] is None


def test_an_attention_category_that_never_fires_is_dead() -> None:
    rows = [
        {"agent": "base", "prompt": "p", "layer": 0, "head": h, "category": c, "mass": m * (h + 1)}
        for h in range(2)
        for c, m in (("labels", 0.2), ("payoffs", 0.0))
    ]
    row = gate({"attention": pl.DataFrame(rows)}, "dead channel", "base")
    assert (row["measured"], row["passed"]) == (1.0, False)
    assert "No head ever attends to payoffs" in str(row["advice"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_undefined_numbers_are_refused(sound: synthetic.Tables, bad: float) -> None:
    broken = synthetic.set_values(sound, "patching", pl.col("site") == "L0.h0", effect=pl.lit(bad))
    with pytest.raises(TableError, match="not finite in column 'effect'"):
        judge_gates(broken)


def test_an_incomplete_sweep_is_refused(sound: synthetic.Tables) -> None:
    hole = (pl.col("site") == "L0.h0") & (pl.col("prompt") == "s4w11")
    broken = {**sound, "patching": sound["patching"].filter(~hole)}
    with pytest.raises(TableError, match="'L0.h0' was not measured on every prompt"):
        judge_gates(broken)


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(TableError, match="did you mean 'decisions'"):
        judge_gates({"decision": pl.DataFrame()})


def test_resolution_of_an_unknown_format_is_not_available(sound: synthetic.Tables) -> None:
    quantised = {**sound, "agents": sound["agents"].with_columns(dtype=pl.lit("int4"))}
    assert gate(quantised, "resolution", "game")["passed"] is None
    assert "dtype int4 is not known" in str(gate(quantised, "resolution", "game")["advice"])
    assert gate(quantised, "resolution", "patching game>utilitarian")["passed"] is None
    bare = {"attribution": sound["attribution"]}
    assert gate(bare, "resolution", "attribution game")["passed"] is None


def test_rounding_shows_in_numbers_of_an_unknown_format(sound: synthetic.Tables) -> None:
    """Log-odds and sizes of steps that only bfloat16 has, in tables that name no such format."""
    quantised = {**sound, "agents": sound["agents"].with_columns(dtype=pl.lit("int4"))}
    two_values = pl.when(pl.col("prompt") == "s0w01").then(1.0078125).otherwise(1.0)
    rounded = synthetic.set_values(
        quantised, "attribution", pl.col("site") == "L0.h0", contribution=two_values
    )
    row = gate(rounded, "resolution", "attribution game")
    assert (row["measured"], row["passed"]) == (1.0, False)
    steps = 8.0 + (pl.col("prompt").hash(3) % 5).cast(pl.Float64) * 2.0**-4
    coarse = synthetic.set_values(quantised, "decisions", pl.col("agent") == "game", log_odds=steps)
    row = gate(coarse, "resolution", "game")
    assert row["passed"] is False
    assert "(7 mantissa bits)" in str(row["advice"])


def test_patches_without_their_log_odds_are_judged_by_their_effects(
    sound: synthetic.Tables,
) -> None:
    bare = sound["patching"].with_columns(
        baseline_log_odds=pl.lit(None, pl.Float64), patched_log_odds=pl.lit(None, pl.Float64)
    )
    row = gate({**sound, "patching": bare}, "resolution", "patching game>utilitarian")
    assert (row["measured"], row["passed"]) == (0.0, True)
    rounded = synthetic.set_values(
        {"patching": bare}, "patching", pl.col("site") == "L0.h0", effect=pl.lit(0.5)
    )
    row = gate({**sound, **rounded}, "resolution", "patching game>utilitarian")
    assert (row["measured"], row["passed"]) == (1.0, False)


def test_single_answer_tokens_need_no_sum(sound: synthetic.Tables) -> None:
    first = {**sound, "attribution": sound["attribution"].with_columns(token=pl.lit(0))}
    assert gate(first, "duplicates", "attribution game")["passed"] is True
    two = pl.concat([first["attribution"], first["attribution"].with_columns(token=pl.lit(1))])
    with pytest.raises(TableError, match="no contributions to the whole answer"):
        judge_gates({"attribution": two})


def test_a_full_swap_alone_is_no_sweep(sound: synthetic.Tables) -> None:
    swap = sound["patching"].filter(pl.col("site") == "all")
    assert judge_gates({"patching": swap}).height == 0


@pytest.mark.parametrize(
    ("trained", "known", "passed"),
    [
        ("action1/action2", True, True),
        ("action1/action2,action2/action1", True, True),
        ("X/Y,action1/action2", True, False),
        ("X/Y", False, None),
    ],
)
def test_labels_of_training_have_to_be_among_those_asked(
    sound: synthetic.Tables, trained: str, known: bool, passed: bool | None
) -> None:
    row = {
        "agent": "game", "known": known, "families": "structured", "templates": "structured",
        "labels": trained, "table_orders": "original", "games": "IPD",
    }  # fmt: skip
    asked = {**sound, "trained_on": from_rows("trained_on", [row])}
    asked["prompts"] = asked["prompts"].with_columns(
        labels=pl.Series(["action1/action2", "action2/action1"] * asked["prompts"].height)
        .head(asked["prompts"].height)
    )  # fmt: skip
    found = judge_gates({name: asked[name] for name in ("prompts", "trained_on")}).filter(
        pl.col("gate") == "trained labels"
    )
    if passed is None:
        assert found.is_empty()  # what stands in for an unknown training is asked by construction
    else:
        assert found.get_column("passed").to_list() == [passed]
        if not passed:
            assert "trained with X/Y, which no prompt here uses" in found.get_column("advice")[0]
