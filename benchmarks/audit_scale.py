"""How long does an audit take, and how much memory, when there are millions of rows?

Generates a study of patches between five agents in parts (no more than one sweep in memory), audits
it by the command in a process of its own, and prints seconds and the peak of its resident memory as
JSON. ``python -m benchmarks.audit_scale --rows 10000000``
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

AGENTS = ("base", "game", "deontological", "utilitarian", "hybrid")
SITES = [
    *(f"L{layer}.h{head}" for layer in range(30) for head in range(9)),
    *(f"L{layer}.mlp" for layer in range(30)),
    "all",
]
SCENARIOS = 52
FEW_ROWS = 500_000
"""Up to so many rows, there are two agents."""


def write_study(folder: Path, rows: int, form: str) -> int:
    """Tables of about ``rows`` rows, patches above all; returns how many there are."""
    rng = np.random.default_rng(0)
    agents = AGENTS if rows > FEW_ROWS else AGENTS[:2]
    pairs = list(itertools.permutations(agents, 2))
    per_scenario = max(1, round(rows / (len(pairs) * len(SITES) * SCENARIOS)))
    prompts = [f"s{s}v{v}" for s in range(SCENARIOS) for v in range(per_scenario)]
    scenario = np.repeat(np.arange(SCENARIOS), per_scenario)
    pl.DataFrame({"prompt": prompts, "scenario": [f"s{s}" for s in scenario]}).write_csv(
        folder / "prompts.csv"
    )
    log_odds = {agent: rng.normal(size=len(prompts)) for agent in agents}
    pl.concat(
        pl.DataFrame({"prompt": prompts, "log_odds": log_odds[agent]}).select(
            pl.lit(agent).alias("agent"), "prompt", "log_odds"
        )
        for agent in agents
    ).write_csv(folder / "decisions.csv")
    written = 0
    for source, target in pairs:
        effect = rng.normal(0.0, 0.1, (len(prompts), len(SITES)))
        effect += rng.normal(0.0, 0.1, (SCENARIOS, len(SITES)))[scenario]
        effect[:, 3] -= 1.0
        baseline = np.repeat(log_odds[target], len(SITES))
        sweep = pl.DataFrame(
            {
                "prompt": np.repeat(prompts, len(SITES)),
                "site": SITES * len(prompts),
                "baseline_log_odds": baseline,
                "patched_log_odds": baseline + effect.ravel(),
            }
        ).select(pl.lit(source).alias("source"), pl.lit(target).alias("target"), pl.all())
        path = folder / f"patching-{source}-{target}"
        if form == "csv":
            sweep.write_csv(path.with_suffix(".csv"))
        else:
            sweep.write_parquet(path.with_suffix(".parquet"))
        written += sweep.height
    return written + len(prompts) * (1 + len(agents))


AUDITED = """
import json, sys, time
from pathlib import Path
from moralscope.cli.main import main
told = Path(sys.argv[1])
failed = main(sys.argv[2:])
# The mark of this program alone: a resource usage would hold that of who started it.
(peak,) = [s for s in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in s]
cost = {"cpu_seconds": round(time.process_time(), 1),
        "peak_memory_gib": round(int(peak.split()[1]) / 2**20, 2)}
told.write_text(json.dumps(cost))
sys.exit(failed)
"""


def measure(rows: int, form: str) -> dict[str, object]:
    """Generate, audit, and report the cost."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "tables"
        folder.mkdir()
        written = write_study(folder, rows, form)
        start = time.perf_counter()
        told = Path(name) / "cost.json"
        command = [sys.executable, "-c", AUDITED, str(told), "audit", str(folder)]
        subprocess.run([*command, "--out", str(Path(name) / "out")], check=True)
        seconds = time.perf_counter() - start
        cost = json.loads(told.read_text())
        claims = pl.read_parquet(Path(name) / "out" / "tables" / "claims.parquet").height
    return {
        "rows": written,
        "form": form,
        "seconds": round(seconds, 1),
        "cpu_seconds": cost["cpu_seconds"],
        "peak_memory_gib": cost["peak_memory_gib"],
        "claims": claims,
    }


def main() -> None:
    """Print the cost of one audit as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--form", choices=["parquet", "csv"], default="parquet")
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.rows, chosen.form), indent=2))


if __name__ == "__main__":
    main()
