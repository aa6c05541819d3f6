"""Which families of tests are controlled? Unit means, as the claims themselves are tested on them.

A family is what one claim corrects for: all changes from base, or all sites of a sweep. Its unit
means are formed by the same functions as for the claims, so what the controls say of the test they
say of the one in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from moralscope.evidence.controls.gates import CHANGES
from moralscope.evidence.findings.behaviour import Contrast, behaviour, contrast_units
from moralscope.evidence.findings.patching import found_sweeps
from moralscope.evidence.findings.sites import sites_to_test
from moralscope.evidence.ledger import Setting
from moralscope.evidence.statistics.resampling import EXACT_UNITS, Array, max_t
from moralscope.evidence.units import inference_family, matrix, on_family

MAX_COLUMNS = 40
"""Columns of a wide family that are used where every sign pattern is enumerated."""

NARROW_DRAWS = 999
"""Random patterns of each test of a family of up to ``MAX_COLUMNS`` columns."""

WIDE_DRAWS = 199
"""Random patterns of each test of a wider family."""


@dataclass(frozen=True, eq=False)
class Family:
    """A family of tests.

    Attributes:
        name: how it is called.
        what: what its columns are, in the plural.
        values: (G, K) means per unit of replication, columns without spread left out.
        left_out: how many columns were not used, to keep enumeration short.
    """

    name: str
    what: str
    values: Array
    left_out: int = 0

    def adjusted_p(self, values: Array, rng: np.random.Generator, draws: int) -> Array:
        """(K,) adjusted p of some values of this shape, by the family's own test."""
        most = NARROW_DRAWS if values.shape[1] <= MAX_COLUMNS else WIDE_DRAWS
        return max_t(values, rng, min(draws, most)).p_adjusted


def families(setting: Setting) -> Iterator[Family]:
    """Changes from base, and every sweep of patches, as far as the tables have them."""
    changes = change_means(setting)
    if changes is not None:
        yield _family(setting, CHANGES, "agents", changes)
    if not setting.has("prompts", "patching"):
        return
    patching, prompts = setting.tables["patching"], setting.tables["prompts"]
    family = inference_family(prompts, patching.get_column("prompt"))
    if family is None:
        return
    for sweep in found_sweeps(setting, on_family(patching, prompts, family)):
        singles = sweep.rows.filter(pl.col("site") != "all")
        units = matrix(singles, "scenario", "site", "effect")
        chosen = sites_to_test(units, [sweep.faults])
        values = units.keep(chosen).values
        yield _family(setting, f"patching {sweep.name}", "sites", values)


def change_means(setting: Setting) -> Array | None:
    """(G, K) scenario means of every agent's change from its base, nats; None without any."""
    found = behaviour(setting)
    if found is None or not found.bases:
        return None
    changes = [Contrast(f"change:{a}", a, b, b) for a, b in found.bases.items()]
    return contrast_units(found, changes).values


def _family(setting: Setting, name: str, what: str, values: Array) -> Family:
    spread = values[:, np.ptp(values, axis=0) > 0.0] if len(values) else values
    wide = spread.shape[1] - MAX_COLUMNS
    if len(spread) > EXACT_UNITS or wide <= 0:
        return Family(name, what, spread)
    rng = setting.rng("controls", "columns", name)
    kept = np.sort(rng.choice(spread.shape[1], MAX_COLUMNS, replace=False))
    return Family(name, what, spread[:, kept], wide)
