"""The laboratory: every test keeps its level, a wrong one is found out, finished tests stay."""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from moralscope.core.errors import ConfigError
from moralscope.core.progress import ProgressEvent
from moralscope.evidence.calibrating import intervals, one_sample, procedures, running
from moralscope.evidence.calibrating.cells import (
    CLUSTERS,
    CONDITIONS,
    COVERED,
    POWER,
    Cell,
    Procedure,
    Rate,
    error_rate,
)
from moralscope.evidence.calibrating.procedures import PROCEDURES
from moralscope.evidence.calibrating.running import calibrate

WHOLE = [name for name in PROCEDURES if name == "claims" or name.startswith("gate_")]
RUNS = 25


@pytest.fixture(scope="module")
def small() -> pl.DataFrame:
    """Every test but those on whole studies, at small size."""
    return calibrate([name for name in PROCEDURES if name not in WHOLE], runs=RUNS)


def only(procedure: Procedure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it the laboratory's only test."""
    monkeypatch.setattr(procedures, "PROCEDURES", {procedure.name: procedure})


def coin(chance: float, seen: list[Cell]) -> Procedure:
    """A test that rejects by chance, and notes in which cells it was simulated."""

    def simulate(cell: Cell) -> Iterable[Rate]:
        seen.append(cell)
        false = (cell.rng("coin").random(cell.runs) < chance).astype(np.float64)
        yield error_rate(false, attainable=0.05, note="a coin")

    return Procedure("coin", "a coin", simulate)


def test_every_test_keeps_its_level_and_every_interval_its_coverage(small: pl.DataFrame) -> None:
    beyond = small.filter(pl.col("passed").not_())
    assert beyond.is_empty(), beyond.rows()


def test_every_cell_of_every_test_has_a_rate_or_a_reason(small: pl.DataFrame) -> None:
    bars = small.filter(pl.col("quantity") != POWER)
    for name in small.get_column("test").unique().to_list():
        cells = bars.filter(pl.col("test") == name).select("condition", "clusters").rows()
        assert sorted(cells) == sorted((c, n) for c in CONDITIONS for n in CLUSTERS), name
    silent = bars.filter(pl.col("value").is_null() & ~pl.col("note").str.contains("[a-z]{4}"))
    assert silent.is_empty()


def test_randomisation_tests_apply_everywhere(small: pl.DataFrame) -> None:
    everywhere = (
        "sign_flip", "max_t_12", "max_t_300", "holm_12", "benjamini_hochberg", "multiverse",
        "permute_labels", "exchange_max_t_12", "seed_replicate", "label_swap_count",
        "label_swap_max_t", "label_swap_hub", "tost", "associate",
    )  # fmt: skip
    rows = small.filter(pl.col("test").is_in(everywhere))
    assert rows.get_column("value").null_count() == 0
    assert rows.get_column("test").n_unique() == len(everywhere)


def test_a_test_that_never_rejects_is_seen_for_what_it_is(small: pl.DataFrame) -> None:
    """Five clusters reach no p below 2/2^5: no error, no attainable size, and no power."""
    five = small.filter((pl.col("test") == "sign_flip") & (pl.col("clusters") == 5))
    errors = five.filter(pl.col("quantity") == "type_I")
    assert errors.get_column("attainable").to_list() == [0.0] * 4
    assert five.get_column("value").to_list() == [0.0] * 8
    forty = small.filter(
        (pl.col("test") == "sign_flip")
        & (pl.col("clusters") == 40)
        & (pl.col("quantity") == POWER)
        & (pl.col("condition") == "independent")
    )
    assert forty.get_column("value").to_list() == [1.0]


def test_power_grows_with_units(small: pl.DataFrame) -> None:
    for name in ("sign_flip", "max_t_12", "permute_labels", "tost", "label_swap_max_t"):
        rows = small.filter(
            (pl.col("test") == name)
            & (pl.col("quantity") == POWER)
            & (pl.col("condition") == "independent")
        ).sort("clusters")
        few, many = rows.get_column("value")[0], rows.get_column("value")[-1]
        assert many > few + 0.4, name


def test_a_correction_that_is_left_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve raw p instead of the adjusted ones."""
    honest = one_sample.max_t

    def raw(y: np.ndarray, rng: np.random.Generator, draws: int) -> object:
        result = honest(y, rng, draws)
        return replace(result, p_adjusted=result.p)

    monkeypatch.setattr(one_sample, "max_t", raw)
    found = calibrate(["max_t_12"], runs=20)
    wrong = found.filter((pl.col("quantity") == "family_wise") & (pl.col("clusters") > 5))
    assert wrong.get_column("passed").sum() < wrong.height // 3
    independent = wrong.filter(pl.col("condition") == "independent")
    assert not independent.get_column("passed").any()
    # 1 - .95^12 = .46 for columns that are independent.
    assert independent.get_column("value").to_list() == pytest.approx([0.46] * 3, abs=0.2)


def test_an_interval_that_is_too_short_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Student's quantile at 80% instead of 95%."""
    honest = PROCEDURES["cluster_t"]

    def simulate(cell: Cell) -> Iterable[Rate]:
        with monkeypatch.context() as patch:
            short = intervals.cluster_t
            patch.setattr(intervals, "cluster_t", lambda y: short(y, 0.8))
            return list(honest.simulate(cell))

    only(replace(honest, simulate=simulate), monkeypatch)
    found = calibrate(runs=40).filter(pl.col("condition") == "independent")
    assert found.get_column("quantity").unique().to_list() == [COVERED]
    assert not found.get_column("passed").any()


def test_a_miss_is_looked_at_again_with_studies_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Cell] = []
    only(coin(0.5, seen), monkeypatch)
    found = calibrate(runs=50)
    assert [(c.runs, c.round) for c in seen[:2]] == [(50, 0), (200, 1)]
    assert set(found.get_column("runs").to_list()) == {200}
    assert not found.get_column("passed").any()
    note = str(found.get_column("note")[0])
    assert note.startswith("a coin; simulated again: 0.")
    assert note.endswith("of 50 studies missed the limit")


def test_a_fair_coin_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Cell] = []
    only(coin(0.03, seen), monkeypatch)
    found = calibrate(runs=400)
    assert len(seen) == 16
    assert found.get_column("passed").all()


def test_what_does_not_apply_is_said_and_not_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Cell] = []

    def refuses(condition: str, clusters: int) -> str | None:
        return "no reason" if condition == "rounded" or clusters == 40 else None

    only(replace(coin(0.01, seen), excluded=refuses), monkeypatch)
    found = calibrate(runs=20)
    absent = found.filter(pl.col("value").is_null())
    assert absent.height == 4 + 3
    assert set(absent.get_column("note").to_list()) == {"Not applicable: no reason."}
    assert absent.get_column("passed").null_count() == 7
    assert len(seen) == 9


def test_equal_seeds_give_equal_tables_and_others_do_not() -> None:
    first, again = (calibrate(["cluster_t"], runs=20, seed=3) for _ in range(2))
    assert first.equals(again)
    assert not first.equals(calibrate(["cluster_t"], runs=20, seed=4))


def test_names_do_not_change_what_a_test_gives() -> None:
    alone = calibrate(["tost"], runs=20)
    together = calibrate(["stated_odds", "tost"], runs=20)
    assert alone.equals(together.filter(pl.col("test") == "tost"))


def test_finished_tests_stay_until_runs_or_seed_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Cell] = []
    only(coin(0.01, seen), monkeypatch)
    first = calibrate(runs=20, keep=tmp_path)
    assert calibrate(runs=20, keep=tmp_path).equals(first)
    assert len(seen) == 16
    calibrate(runs=21, keep=tmp_path)
    calibrate(runs=20, seed=1, keep=tmp_path)
    assert len(seen) == 48


def test_finished_tests_are_simulated_anew_when_the_code_changed_or_a_file_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Cell] = []
    only(coin(0.01, seen), monkeypatch)
    first = calibrate(runs=20, keep=tmp_path)
    kept = next(tmp_path.rglob("calibration.parquet"))
    kept.write_bytes(kept.read_bytes()[:100])
    assert calibrate(runs=20, keep=tmp_path).equals(first)
    assert len(seen) == 32
    monkeypatch.setattr(running, "code_version", lambda package: f"another {package}")
    calibrate(runs=20, keep=tmp_path)
    assert len(seen) == 48


def test_progress_counts_cells(tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    calibrate(["stated_odds"], runs=20, keep=tmp_path, progress=events.append)
    assert [event.done for event in events] == list(range(1, 17))
    assert {(e.task, e.total, e.note) for e in events} == {("calibrate", 16, "stated_odds")}
    events.clear()
    calibrate(["stated_odds"], runs=20, keep=tmp_path, progress=events.append)
    assert [event.done for event in events] == [16]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"names": ["sign_flips"]}, "did you mean 'sign_flip'"),
        ({"names": []}, "No test was named"),
        ({"runs": 19}, "20 to 1,000,000 in each cell"),
        ({"runs": 2_000_000}, "out of range"),
        ({"seed": -1}, "A seed cannot be negative"),
    ],
)
def test_bad_settings_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        calibrate(**wrong)  # type: ignore[arg-type]


def test_sizes_are_not_timid() -> None:
    """An exact test rejects nearly as often as its design allows."""
    cell = Cell("sign_flip", "heavy_tailed", 10, 2_000, 5)
    rate = next(iter(PROCEDURES["sign_flip"].simulate(cell)))
    assert rate.value is not None
    assert rate.attainable is not None
    assert abs(rate.value - rate.attainable) < 3 * math.sqrt(0.05 * 0.95 / 2_000)
