"""The report of a study: Markdown for reading, JSON and CSV for other programs."""

from kdsearch.report.answer import answer
from kdsearch.report.write import write_report

__all__ = ["answer", "write_report"]
