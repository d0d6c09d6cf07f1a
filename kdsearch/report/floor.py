"""What the reports say of test cases at the floor: which, and the numbers without them."""

from __future__ import annotations

from kdsearch.analysis import Analysis, Figures, Without
from kdsearch.report.markdown import escape, percent, table
from kdsearch.report.searches import flipping


def floor_section(analysis: Analysis) -> list[str]:
    """A section of report.md for a study with cases at the floor and with figures."""
    tables = [_table(each) for each in flipping(analysis) if each.without_floor]
    if not tables:
        return []
    return [
        "## Without the cases at the floor",
        "At the floor is a case none of whose students scores more on validation than takes no "
        "learning: one and the same label for every row of a classification, a hundredth of the "
        "largest score elsewhere. Such cases count in all else that is said here, as in the paper. "
        "R and the medians without them, to see what hangs on them:",
        *(text for texts in tables for text in texts),
    ]


def _table(found: Figures) -> list[str]:
    name = [] if found.search is None else [f"### {escape(found.search)}"]
    headers = ["R, or median gain in %", "n", "all cases", "n", "without them"]
    rows = [
        (_name(row), row.n, _value(row, row.value), row.n_without, _value(row, row.without))
        for row in found.without_floor
    ]
    return [*name, table(headers, rows)]


def _name(row: Without) -> str:
    if row.reward:
        return f"R of {row.label}"
    return row.label if row.figure is None else f"{row.label} (Figure {row.figure})"


def _value(row: Without, value: float | None) -> str:
    if value is None or not row.reward:
        return percent(value)
    return f"{value:+.0f}" if value else "0"
