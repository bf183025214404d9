"""Results as pages that open from disk, as figures and as tables."""

from lfpc.report.markup import results_markdown
from lfpc.report.page import write_report
from lfpc.report.reading import read_runs

__all__ = ["read_runs", "results_markdown", "write_report"]
