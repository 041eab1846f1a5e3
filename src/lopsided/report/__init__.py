"""Makes HTML and plots from the files of run folders; nothing is trained or measured again."""

from lopsided.report.html import write_report
from lopsided.report.merged import read_finished, write_merged_report

__all__ = ["read_finished", "write_merged_report", "write_report"]
