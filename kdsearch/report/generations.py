"""Generations of students, each taught by what the one before it chose: their scores."""

from __future__ import annotations

from typing import Any

from kdsearch.agenda import Agenda
from kdsearch.analysis import Analysis, Generation, Line
from kdsearch.report.markdown import NOTHING, points, score, table
from kdsearch.report.marks import metric_name

TITLE = "Generations"
_NOTE = (
    "The teacher of a later generation is the student that the one before it chose by validation, "
    "under the first seed (born-again networks: Furlanello et al., 2018). Each generation has a "
    "search of its own, which began when the one before it had chosen. Points are what its test "
    "score has over that of the generation before, the largest score being 100; ± is a standard "
    "deviation, over what is named behind it."
)
_HEADERS = (
    "test case",
    "generation",
    "its teacher, test",
    "validation",
    "test",
    "over the one before, points",
)


def generations_section(analysis: Analysis) -> list[str]:
    """The section of report.md; empty of a study in which no student teaches."""
    if not analysis.generations:
        return []
    rows = [_row(each, line.digits) for line in analysis.generations for each in line.generations]
    return [f"## {TITLE}", _NOTE, table(_HEADERS, dict.fromkeys(rows))]


def generations_charts(analysis: Analysis, agenda: Agenda) -> list[dict[str, Any]]:
    """What the page's script draws of each data set that has generations."""
    by_dataset: dict[str, list[Line]] = {}
    for line in analysis.generations:
        by_dataset.setdefault(line.generations[0].case.dataset, []).append(line)
    return [
        {
            "dataset": dataset,
            "metric": metric_name(agenda.resolved.datasets[dataset].metric),
            "digits": lines[0].digits,
            "lines": [
                {"name": _name(line), "tests": [each.test for each in line.generations]}
                for line in lines
            ],
        }
        for dataset, lines in by_dataset.items()
    ]


def _name(line: Line) -> str:
    first, last = line.generations[0].case, line.generations[-1].case
    by = "" if first.search is None else f" by {first.search}"
    return f"{first.student}{by}, {first.teacher} → {last.teacher}"


def _row(found: Generation, digits: int) -> tuple[object, ...]:
    gain = points(found.over_before)
    if (noise := found.over_before_noise) is not None:
        gain += f" ± {noise.deviation:.1f} ({noise.of})"
    return (
        found.case,
        found.number,
        score(found.teacher, digits),
        score(found.validation, digits),
        score(found.test, digits),
        NOTHING if found.number == 1 else gain,
    )
