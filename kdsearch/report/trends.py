"""What goes with what over students and teachers: a table of correlations, and of test cases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kdsearch.analysis import Analysis, Trend
from kdsearch.analysis.correlation import DRAWN, FEWEST
from kdsearch.analysis.trends import Absent, Of
from kdsearch.report.markdown import NOTHING, p_value, points, table
from kdsearch.study import TestCase

TITLE = "By size of the student, by score of the teacher"
NOTE = (
    "Scores and gains are on test, in points, the largest score being 100. A gain is that of what "
    "a test case chose over the same student without a teacher (ERM); in percent it would be "
    "larger where that student is worse, whatever distilling brings. Students are compared within "
    "a block, the test cases of one data set, teacher and search; teachers within those of one "
    "data set, student and search. ρ is Spearman’s rank correlation within a block, averaged over "
    "the blocks: 1 if the order is the same in each, −1 if it is reversed. p is two-sided: how "
    "often ρ would be as far from 0 if sizes (scores, agreements) were dealt out at random, in "
    f"all blocks alike. There is none of fewer than {FEWEST} students or teachers, which could "
    "never be told from chance. Left out are blocks that lack one of them, or in which all have "
    "the same."
)
STUDENTS = "Students that teach do not count as further teachers."
AGREEMENT = (
    "Agreement is how often a student’s answer is its teacher’s; where texts are learnt, "
    "multiple choice too, at how many tokens of the data’s own text its likeliest is. Whether it "
    "gives that answer for the same reasons, the fidelity of its rationale, is not measured."
)
LABELS = {
    Of.SIZE: "gain by the student’s parameters",
    Of.TEACHER: "gain by the teacher’s score",
    Of.AGREEMENT: "score by the agreement with the teacher",
}
X = {
    Of.SIZE: "the student’s parameters",
    Of.TEACHER: "the teacher’s test score, points",
    Of.AGREEMENT: "agreement with the teacher, %",
}
HEADERS = ("what", "ρ", "p", "students or teachers", "blocks", "left out")
BY_CASE = ("test case", "parameters", "teacher", "agreement, %", "score", "gain")
_ABSENT = {
    Absent.NO_ERM: "there are no students without a teacher (`erm: true` in the study)",
    Absent.UNKNOWN: "no data set has the values of all {units}, or not yet",
    Absent.SAME: "all {units} have the same",
}


def trends_section(analysis: Analysis) -> list[str]:
    """The section of report.md; empty of a study with one student and one teacher."""
    if not analysis.trends:
        return []
    return [
        f"## {TITLE}",
        " ".join(notes(analysis)),
        table(HEADERS, rows(analysis)),
        *(f"- {line}" for line in absent(analysis)),
        table(BY_CASE, by_case(analysis)),
    ]


def notes(analysis: Analysis) -> list[str]:
    """What is to be known of the numbers."""
    drawn = any(each.correlation and not each.correlation.exact for each in analysis.trends)
    return [
        NOTE,
        *([f"Where there are many of them, {DRAWN:,} ways were drawn."] if drawn else []),
        *([STUDENTS] if analysis.generations else []),
        AGREEMENT,
    ]


def rows(analysis: Analysis) -> Iterator[tuple[object, ...]]:
    """A line for each correlation, under `HEADERS`."""
    for trend in analysis.trends:
        found = trend.correlation
        if found is not None:
            rho = f"{found.rho:+.2f}".replace("-", "−")
            yield (
                LABELS[trend.of],
                rho,
                p_value(found.p),
                found.units,
                found.blocks,
                trend.left_out,
            )


def absent(analysis: Analysis) -> Iterator[str]:
    """Why there is no other."""
    for trend in analysis.trends:
        unit = "teacher" if trend.of is Of.TEACHER else "student"
        if trend.absent is Absent.ONE:
            yield f"No {LABELS[trend.of]}: there is one {unit}."
        elif trend.absent is not None:
            yield f"No {LABELS[trend.of]}: {_ABSENT[trend.absent].format(units=f'{unit}s')}."


def by_case(analysis: Analysis) -> Iterator[tuple[object, ...]]:
    """A line for each test case that is in any of them, under `BY_CASE`."""
    found: dict[TestCase, dict[Of, Any]] = {}
    for trend in analysis.trends:
        for point in trend.points:
            found.setdefault(point.case, {})[trend.of] = point
    for case, of in found.items():
        size, teacher, agreeing = of.get(Of.SIZE), of.get(Of.TEACHER), of.get(Of.AGREEMENT)
        gain = size or teacher
        yield (
            case,
            f"{size.x:,.0f}" if size else NOTHING,
            f"{teacher.x:.1f}" if teacher else NOTHING,
            f"{100 * agreeing.x:.1f}" if agreeing else NOTHING,
            f"{agreeing.y:.1f}" if agreeing else NOTHING,
            points(gain.y) if gain else NOTHING,
        )


def trends_charts(analysis: Analysis) -> list[dict[str, Any]]:
    """What the page's script draws: of each correlation its points, a line for each block."""
    return [_chart(trend) for trend in analysis.trends if trend.correlation is not None]


def _chart(trend: Trend) -> dict[str, Any]:
    lines: dict[tuple[object, ...], list[list[Any]]] = {}
    scale = 100 if trend.of is Of.AGREEMENT else 1
    for point in trend.points:
        case = point.case
        other = case.student if trend.of is Of.TEACHER else case.teacher
        line = lines.setdefault((case.dataset, other, case.search), [])
        line.append([float(f"{scale * point.x:.6g}"), float(f"{point.y:.6g}"), str(case)])
    return {
        "title": LABELS[trend.of],
        "x": X[trend.of],
        "y": "score, points" if trend.of is Of.AGREEMENT else "points over ERM",
        "log": trend.of is Of.SIZE,
        "lines": [
            {
                "dataset": block[0],
                "name": "/".join(str(part) for part in block if part is not None),
                "points": sorted(found),
            }
            for block, found in lines.items()
        ],
    }
