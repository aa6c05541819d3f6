"""Does the wheel work elsewhere? Installs it, without the model stack, where nothing else is.

Checks in a fresh environment, away from the source tree: the command starts and shows its help,
every package that is meant to work without torch imports, both inside the promised time, tables of
another tool are audited, and a command that needs the model stack says how to install it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 0.3
WITHOUT_TORCH = ("core", "games", "evidence", "behaviour", "reports", "cli")


def main(wheel: Path) -> None:
    """Install ``wheel`` into a temporary environment and try it; any failure ends the program."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python, command = _install(wheel, folder)
        imports = ", ".join(f"moralscope.{package}" for package in WITHOUT_TORCH)
        _run(folder, python, "-c", f"import {imports}")
        _require("torch" not in _run(folder, python, "-m", "pip", "list"), "torch came along")
        _within(folder, python, "-c", "import moralscope")
        _within(folder, command, "--help")
        _audit(folder, command)
        refused = subprocess.run(
            [command, "demo", "--out", str(folder / "demo")],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        _require(refused.returncode != 0, "demo claims to work without the model stack")
        told = " ".join((refused.stdout + refused.stderr).split())
        _require('pip install "moralscope[models]"' in told, f"no remedy in: {told}")
    print(f"{wheel.name} installs and runs on its own")


def _install(wheel: Path, folder: Path) -> tuple[str, str]:
    venv.create(folder / "env", with_pip=True)
    binaries = folder / "env" / "bin"
    python = str(binaries / "python")
    _run(
        folder, python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--constraint", str(ROOT / "constraints.txt"), str(wheel.resolve()),
    )  # fmt: skip
    return python, str(binaries / "moralscope")


def _run(folder: Path, *command: str) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    _require(result.returncode == 0, f"{' '.join(command)} failed: {result.stderr}")
    return result.stdout


def _audit(folder: Path, command: str) -> None:
    """Audit a table of two agents in eight scenarios; the change in it must be found."""
    tables = folder / "tables"
    tables.mkdir()
    rows = ["agent,prompt,scenario,log_odds"]
    for number in range(8):
        for agent, change in (("base", 0.0), ("tuned", 2.0 + 0.01 * number)):
            rows.append(f"{agent},p{number},s{number},{0.37 * number + change}")
    (tables / "decisions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    _run(folder, command, "audit", str(tables), "--out", str(folder / "audit"))
    claims = json.loads((folder / "audit" / "claims.json").read_text(encoding="utf-8"))
    verdicts = {claim["id"]: claim["verdict"] for claim in claims}
    _require(verdicts.get("change:tuned") == "supported", f"the audit found {verdicts}")
    _require((folder / "audit" / "report.html").is_file(), "the audit left no report")


def _within(folder: Path, *command: str) -> None:
    _run(folder, *command)  # the first start compiles
    seconds: list[float] = []
    for _ in range(7):
        start = time.perf_counter()
        _run(folder, *command)
        seconds.append(time.perf_counter() - start)
    told = f"{' '.join(command[1:])}: {min(seconds):.2f} s, {START_SECONDS} s allowed"
    _require(min(seconds) <= START_SECONDS, told)
    print(told)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        sys.exit(f"wheel check: {otherwise}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
