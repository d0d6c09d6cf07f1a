"""The figures of the page: what its template shows of them, and what its script draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdsearch.analysis import Analysis, CaseGain, Comparison
from kdsearch.report.document import by_case_table
from kdsearch.report.figures import (
    MANY,
    Figure,
    Line,
    figures,
    identical,
    lines,
    short_names,
    with_deciles,
)
from kdsearch.study import TestCase


@dataclass(frozen=True, kw_only=True)
class OnPage:
    """A figure with its tables as the template needs them."""

    figure: Figure
    title: str
    headers: list[str]
    lines: list[Line]
    drawn: bool
    """Whether any test case has any of its gains."""
    by_case: tuple[list[str], list[tuple[object, ...]]]
    """The headers and the rows of the table of test cases."""


def figures_on_page(analysis: Analysis) -> list[OnPage]:
    """What stands on the page of each figure."""
    return [_on_page(figure, analysis) for figure in figures(analysis)]


def _on_page(figure: Figure, analysis: Analysis) -> OnPage:
    headers, found = lines(figure, analysis, _short(figure).__getitem__)
    return OnPage(
        figure=figure,
        title=figure.title + ("" if figure.search is None else f": {figure.search}"),
        headers=headers,
        lines=found,
        drawn=any(row.gains for row in figure.rows),
        by_case=by_case_table(figure, analysis),
    )


def figure_charts(analysis: Analysis) -> dict[str, Any]:
    """What the script draws, by figure. Gains are in percent, those of a row ascending."""
    looks = _looks(analysis)
    many = with_deciles(analysis)
    return {figure.id: _chart(figure, looks, many=many) for figure in figures(analysis)}


def _chart(figure: Figure, looks: Mapping[object, int], *, many: bool) -> dict[str, Any]:
    """A test case has the same number in all figures, whichever search's it is."""
    short = _short(figure)
    return {
        "axis": figure.axis,
        "many": many,
        "cases": [[short[case], str(case), looks[_model(case)]] for case in short],
        "rows": [_row(row, list(short)) for row in figure.rows],
    }


def _row(row: Comparison, cases: list[TestCase]) -> dict[str, Any]:
    gains = sorted(row.gains, key=lambda each: each.gain)
    return {
        "label": row.label,
        "n": row.n,
        "line": row.n >= MANY,
        "median": None if row.median is None else 100 * row.median,
        "gains": [[cases.index(each.case), *_gain(each)] for each in gains],
        "intervals": [[100 * low, 100 * high] for low, high in row.intervals or ()],
        "paper": row.paper.percent if row.paper else None,
    }


def _gain(each: CaseGain) -> tuple[float, float | None, float, bool]:
    """A gain and its noise in percent, the points, and whether both sides are identical."""
    noise = 100 * each.noise.deviation if each.noise else None
    return 100 * each.gain, noise, each.points, identical(each.gain, each.noise)


def _short(figure: Figure) -> Mapping[TestCase, str]:
    return short_names(each.case for row in figure.rows for each in row.gains)


def _looks(analysis: Analysis) -> dict[object, int]:
    """The number of the colour of each test case."""
    numbers: dict[object, int] = {}
    compared = {e.case for f in figures(analysis) for row in f.rows for e in row.gains}
    for case in analysis.cases:
        if case.case in compared:
            numbers.setdefault(_model(case.case), len(numbers))
    return numbers


def _model(case: TestCase) -> tuple[str, str | None, str]:
    return case.dataset, case.teacher, case.student
