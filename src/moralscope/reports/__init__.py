"""Show it: figures, HTML report, exports, model cards."""

from moralscope.reports.build import build_report
from moralscope.reports.opened import OpenedRun, open_run

__all__ = ["OpenedRun", "build_report", "open_run"]
