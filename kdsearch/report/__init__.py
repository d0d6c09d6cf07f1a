"""The report of a study: a page and Markdown to read, tables for other programs; model cards."""

from kdsearch.report.answer import answer, hints
from kdsearch.report.card import Again, card, distilled_from, made_otherwise
from kdsearch.report.check import check_report
from kdsearch.report.write import analyse_folder, noises_of, write_report

__all__ = [
    "Again",
    "analyse_folder",
    "answer",
    "card",
    "check_report",
    "distilled_from",
    "hints",
    "made_otherwise",
    "noises_of",
    "write_report",
]
