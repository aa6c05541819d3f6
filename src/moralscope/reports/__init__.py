"""Show it: figures, HTML report, model cards."""

from moralscope.reports.build import build_report

__all__ = ["build_report"]
