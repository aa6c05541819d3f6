"""What can be taken away? Tables as CSV, summaries of them, and what every column means."""

from moralscope.reports.exports.writing import Exported, planned, write_exports

__all__ = ["Exported", "planned", "write_exports"]
