"""What may a step use, and what do finished stages hold?

A step reads the outputs of the stages it needs, calls one package, and writes tables (or an
adapter folder) into its own folder. The source of the file that a step stands in is part of its
stage's key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from moralscope.core.progress import Progress
from moralscope.core.schemas import SCHEMAS
from moralscope.core.tables import conform, read_table
from moralscope.studies.workbench import Workbench
from moralscope.training.course import KEPT_FOLDER

TRAIN = "train-"


@dataclass(frozen=True)
class Context:
    """What a step may use.

    Attributes:
        out: its output folder.
        work: scratch that survives an interruption.
        needs: output folders of the stages it needs, by name.
        bench: models and prompts in memory.
        progress: where to report.
    """

    out: Path
    work: Path
    needs: Mapping[str, Path]
    bench: Workbench
    progress: Progress

    @property
    def trained(self) -> dict[str, Path]:
        """Adapter folders of the agents trained here, by agent; earlier states among them."""
        whole = {
            name.removeprefix(TRAIN): folder
            for name, folder in self.needs.items()
            if name.startswith(TRAIN)
        }
        earlier = {
            name: whole[made.of] / KEPT_FOLDER / f"step-{made.step:08d}"
            for name, entry in self.bench.study.agents.items()
            if (made := entry.derived) is not None and made.step is not None and made.of in whole
        }
        return {**whole, **earlier}


Step = Callable[[Context], None]


def gather(folders: Iterable[Path]) -> dict[str, pl.DataFrame]:
    """Tables from stage folders, parts of one table put together in the folders' order."""
    listed = list(folders)
    found: dict[str, pl.DataFrame] = {}
    for name in SCHEMAS:
        parts = [read_table(name, f) for f in listed if (f / f"{name}.parquet").is_file()]
        if parts:
            found[name] = conform(name, pl.concat(parts))
    return found
