"""The figures as report.md and the page share them: their rows, and how these are read.

Of few test cases every one is named; from `MANY` on there are deciles. Gains for which higher is
better and those for which lower is stand in figures of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from kdsearch.analysis import Analysis, CaseGain, Comparison, Figures, LeftOut
from kdsearch.analysis.noise import Noise, NoiseOf
from kdsearch.analysis.paper import CASES
from kdsearch.analysis.statistics import Chance
from kdsearch.report.markdown import NOTHING, p_value, percent, points
from kdsearch.report.searches import flipping
from kdsearch.study import TestCase

MANY = 12
"""From so many test cases in a row on its deciles say more than its cases by name."""
PAPER = f"paper, {CASES} cases"
LEFT_OUT = {reason: str(reason) for reason in LeftOut} | {
    LeftOut.ABSENT: "without it",
    LeftOut.ZERO_BASELINE: "over 0",
    LeftOut.SMALL_BASELINE: "over less than a row’s worth",
}
BY_CASE = (
    "Gains by test case, in percent, ± noise where it is known; in brackets the difference of the "
    "scores in points, the largest score being 100. Identical are two sides that score alike "
    "on every row: one student, or students that give the same answers."
)
_DECILES = tuple(f"D{k}" for k in range(11))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a search: comparisons that are better in one direction."""

    id: str
    title: str
    note: str
    rows: tuple[Comparison, ...]
    search: str | None
    """The search's name; None of a study's single one."""
    lower_is_better: bool = False
    of_erm: bool = False
    """Whether it compares with the student without a teacher."""

    @property
    def axis(self) -> str:
        """What its gains are, and which way is better."""
        return _AHEAD if self.lower_is_better else "gain, % (higher is better)"


_AHEAD = "how far the best is ahead, % (lower is better)"


def figures(analysis: Analysis) -> list[Figure]:
    """The figures of every search that has any; first what distillation brings."""
    found = [figure for each in flipping(analysis) for figure in figures_of(each, analysis)]
    return sorted(found, key=lambda figure: not figure.of_erm)


def figures_of(found: Figures, analysis: Analysis) -> Iterator[Figure]:
    """The figures of a search, which is the study's first or one of its further ones."""
    number = "" if found is analysis else f"-{analysis.further.index(found)}"
    yield Figure(
        id=f"figure-1{number}",
        title="The cost of a bad choice (Figure 1)",
        note="How far the best choice of a test case, by test score, is ahead of others: the "
        "less, the less a bad choice costs. Candidates are the choices compared at the default α "
        "and the one of the best α by validation. Only part of the grid is trained, so the true "
        "cost may be higher. No gain here can be below 0, so there is no p.",
        rows=found.figure_1,
        search=found.search,
        lower_is_better=True,
    )
    yield Figure(
        id=f"figure-2{number}",
        title="Each parameter (Figure 2)",
        note="What an alternative gains over the default, as the traversals met them. Below 0 the "
        "default is better.",
        rows=found.figure_2,
        search=found.search,
    )
    yield Figure(
        id=f"figure-3{number}",
        title="Behind a case’s own best (Figure 3)",
        note="How far each way of choosing lags behind the best of the test case, which is the "
        "traversal’s best candidate by test score, fixed before the second phase: below 0 is what "
        "is better than that.",
        rows=found.figure_3,
        search=found.search,
        lower_is_better=True,
    )
    yield Figure(
        id=f"stable{number}",
        title="What the stable configuration gains",
        note="The same scores as in Figure 3, seen from the stable configuration; these rows are "
        "not in the paper.",
        rows=(found.stable_over_lazy, found.stable_over_random),
        search=found.search,
    )
    if any(case.erm is not None for case in analysis.cases):
        yield Figure(
            id=f"erm{number}",
            title="What distillation brings",
            note="The gain over the same student trained on the labels alone, without a teacher "
            "(ERM), its learning rate tuned by validation. Chosen is what the search chose, also "
            "by validation. The gap is the one from ERM to the teacher that taught; there is none "
            "where the teacher is not clearly better on the test rows.",
            rows=(found.best_over_erm, found.stable_over_erm),
            search=found.search,
            of_erm=True,
        )


def with_deciles(analysis: Analysis) -> bool:
    """Whether the test cases are so many that the figures show deciles, not each by its name."""
    return any(row.n >= MANY for each in flipping(analysis) for row in each.comparisons)


def papers_note(analysis: Analysis) -> str:
    """Why the paper's gains are not the yardstick of a study such as this one."""
    last, of = (
        sum(getattr(each, name) for each in analysis.unconverged) for name in ("last", "students")
    )
    here = f" ({last} of {of} students here were best at their last epoch)" if of else ""
    return (
        "The paper’s students were trained on the full data sets until they had converged; where "
        f"those of a study were not{here}, its gains cannot be compared with the paper’s."
    )


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a figure's table: a row of the study's, or the paper's own below it."""

    row: Comparison
    paper: bool
    cells: tuple[object, ...]
    """Behind the row's name."""


def lines(
    figure: Figure, analysis: Analysis, name: Callable[[TestCase], object]
) -> tuple[list[str], list[Line]]:
    """The headers behind the row's name, and the lines; `name` is what a test case is called.

    A column that says nothing in any row is left out.
    """
    seeds = len(analysis.seeds) > 1
    deciles = with_deciles(analysis)
    worst = max if figure.lower_is_better else min
    of_many = (*_DECILES, f"case of {'D10' if figure.lower_is_better else 'D0'}")
    headers = ["n", *(of_many if deciles else ("median", *ENDS)), INTERVAL, "p"]
    headers += [LEAST_P, *(["± seeds"] if seeds else []), "left out"]
    found = []
    for row in figure.rows:
        if deciles:
            there = _at(worst, row, name)
            gains = (*_deciles(row), there and there[1])
        else:
            ends = (_at(pick, row, name) for pick in (min, max))
            gains = (percent(row.median), *(e and f"{e[0]} ({e[1]})" for e in ends))
        left_out = ", ".join(f"{n} {LEFT_OUT[reason]}" for reason, n in row.left_out.items())
        sure = (_interval(row), *p_cells(row.chance), *([percent(row.spread)] if seeds else []))
        found.append(
            Line(row=row, paper=False, cells=(row.n, *gains, *sure, left_out or None)),
        )
        if row.paper is not None:
            printed = [percent(value / 100) for value in row.paper.percent]
            of_few = (printed[5], printed[0], printed[10])
            nothing = [None] * (len(sure) + 1)
            cells = (CASES, *((*printed, None) if deciles else of_few), *nothing)
            found.append(Line(row=row, paper=True, cells=cells))
    headers, cells_of = without_empty(headers, [line.cells for line in found])
    return headers, [
        replace(line, cells=cells) for line, cells in zip(found, cells_of, strict=True)
    ]


ENDS = ("lowest (case)", "highest (case)")
INTERVAL = "median, 95 %"
LEAST_P = "least p"
_MAY_BE_EMPTY = (INTERVAL, "p", "left out")


def without_empty(
    headers: Sequence[str], rows: Sequence[tuple[object, ...]]
) -> tuple[list[str], list[tuple[object, ...]]]:
    """A table without its columns of certainty that hold nothing; without p there is no least p."""
    empty = {
        header
        for k, header in enumerate(headers)
        if header in _MAY_BE_EMPTY and all(row[k] in (None, NOTHING) for row in rows)
    }
    if "p" in empty:
        empty.add(LEAST_P)
    kept = [k for k, header in enumerate(headers) if header not in empty]
    return [headers[k] for k in kept], [tuple(row[k] for k in kept) for row in rows]


def too_few(analysis: Analysis) -> list[str]:
    """Why no table has an interval or a p, where that is so."""
    found = flipping(analysis)
    compared = [row for each in found for row in each.comparisons if row.n]
    chances = [row.chance for row in compared]
    chances += [row.chance for each in found for row in each.table_3.rows]
    known = any(chance and chance.p is not None for chance in chances)
    if not compared or known or any(row.interval for row in compared):
        return []
    return ["Too few test cases for an interval or a test."]


def _deciles(row: Comparison) -> tuple[object, ...]:
    """Of few cases the ends and the median alone: the rest would be made up between them."""
    found = map(percent, row.deciles or (None,) * 11)
    return tuple(
        value if row.n >= MANY or k in (0, 5, 10) else None for k, value in enumerate(found)
    )


def _at(
    pick: Callable[[Iterable[float]], float], row: Comparison, name: Callable[[TestCase], object]
) -> tuple[str, object] | None:
    """The lowest or the highest gain and the test case that has it, or how many do."""
    if not row.gains:
        return None
    found = pick(each.gain for each in row.gains)
    there = [each.case for each in row.gains if math.isclose(each.gain, found, abs_tol=1e-9)]
    return percent(found), name(there[0]) if len(there) == 1 else f"{len(there)} cases"


def p_cells(chance: Chance | None) -> tuple[str, str]:
    """The p of a test, and the least that it could have."""
    return (p_value(chance.p), p_value(chance.least_p)) if chance else (NOTHING, NOTHING)


def _interval(row: Comparison) -> str | None:
    if row.interval is None:
        return None
    low, high = row.interval
    return f"{percent(low)} to {percent(high)}"


def by_case(figure: Figure, analysis: Analysis) -> dict[TestCase, list[CaseGain | None]]:
    """Of each test case that has any of a figure's gains, its gain of each row."""
    rows = [{each.case: each for each in row.gains} for row in figure.rows]
    of_cases = {each.case: [gains.get(each.case) for gains in rows] for each in analysis.cases}
    return {case: gains for case, gains in of_cases.items() if any(gains)}


def gain_cell(found: CaseGain | None) -> str:
    """A gain in percent with its noise where that is known, and the points in brackets."""
    if found is None:
        return NOTHING
    # No line of the page ends at these spaces; Markdown has plain ones.
    noise = f"\u00a0±\u00a0{percent(found.noise.deviation)}" if found.noise else ""
    if identical(found.gain, found.noise):
        return f"{percent(found.gain)}, identical"
    return f"{percent(found.gain)}{noise} ({points(found.points)})"


def identical(gain: float, noise: Noise | None) -> bool:
    """Whether no draw of the rows tells the two sides apart, such as where they are one student."""
    return gain == 0 and noise is not None and noise.of != NoiseOf.SEEDS and noise.deviation < 1e-12


def short_names(cases: Iterable[TestCase]) -> Mapping[TestCase, str]:
    """Of one search's test cases the parts of their names that tell one from the other."""
    cases = list(dict.fromkeys(cases))
    parts = ("dataset", "teacher", "student")
    for size in range(1, len(parts) + 1):
        for some in combinations(parts, size):
            names = {c: "/".join(filter(None, (getattr(c, part) for part in some))) for c in cases}
            if len(set(names.values())) == len(cases):
                return names
    return {case: str(case) for case in cases}
