"""What was found, as a page that opens from disk and as Markdown."""

from lfpc.report.page import write_report
from lfpc.report.tables import results_markdown

__all__ = ["results_markdown", "write_report"]
