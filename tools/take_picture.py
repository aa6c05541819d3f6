"""What does the report look like? Draws its first screen with a headless Chromium browser."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def main(report: Path, picture: Path) -> None:
    """Write the first screen of ``report`` to ``picture``."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"No browser found. Install one of {', '.join(BROWSERS)}.")
    if not report.is_file():
        sys.exit(f"{report} does not exist. Run `make demo` first.")
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={profile}", "--window-size=1200,1400",
                "--virtual-time-budget=15000", f"--screenshot={picture.resolve()}",
                report.resolve().as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    print(f"{picture}: {picture.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
