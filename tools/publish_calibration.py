"""Put the tables of a finished calibration into its page of the documentation.

Usage: publish_calibration.py docs/calibration.md RUN [RUN ...], where a RUN is the folder that
``moralscope calibrate --out`` wrote. Runs of different tests are joined; of a test that several
hold, the last counts. What stands before the mark is left as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from moralscope.core.tables import conform, read_table
from moralscope.evidence.calibrating.pages import calibration_page
from moralscope.evidence.calibrating.procedures import PROCEDURES

MARK = "<!-- Written by tools/publish_calibration.py from here on. -->"


def main(page: Path, runs: list[Path]) -> None:
    """Replace what stands after the mark."""
    before, mark, _ = page.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        sys.exit(f"{page} lacks the line: {MARK}")
    text = f"{before}{MARK}\n\n## Result\n\n{calibration_page(joined(runs))}"
    page.write_text(text, encoding="utf-8")
    print(f"{page} holds the figures of {', '.join(str(run) for run in runs)}")


def joined(runs: list[Path]) -> pl.DataFrame:
    """One calibration table of several runs, tests in the order of the package."""
    found: dict[str, pl.DataFrame] = {}
    for run in runs:
        table = read_table("calibration", run / "tables")
        for name in table.get_column("test").unique().to_list():
            found[name] = table.filter(pl.col("test") == name)
    return conform("calibration", pl.concat([found[name] for name in PROCEDURES if name in found]))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
