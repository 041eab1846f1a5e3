"""HTML and plots from the files of a run folder; nothing is trained or measured again."""

from lopsided.report.html import write_report

__all__ = ["write_report"]
