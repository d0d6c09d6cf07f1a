"""report.md: the answer, the paper's figures and Table 3 beside the study's, and every case."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from kdsearch.agenda import Agenda, TestScore
from kdsearch.analysis import (
    Analysis,
    CaseGain,
    CaseResult,
    Figures,
    Stable,
)
from kdsearch.analysis.cost import Spent
from kdsearch.analysis.measures import CaseMeasures
from kdsearch.analysis.paper import SOURCE
from kdsearch.analysis.scores import value_label
from kdsearch.analysis.smoothing import Smoothing
from kdsearch.analysis.temperature import Temperatures
from kdsearch.report.answer import answer
from kdsearch.report.case import case_section, spent_table
from kdsearch.report.figures import (
    BY_CASE,
    LEAST_P,
    MANY,
    PAPER,
    Figure,
    by_case,
    figures,
    gain_cell,
    identical,
    lines,
    p_cells,
    papers_note,
    too_few,
    with_deciles,
    without_empty,
)
from kdsearch.report.floor import floor_section
from kdsearch.report.generations import generations_section
from kdsearch.report.glossary import glossary_section
from kdsearch.report.levels import levels_section
from kdsearch.report.markdown import (
    NOTHING,
    axes_in_words,
    duration,
    escape,
    percent,
    points,
    reading,
    score,
    signed,
    table,
)
from kdsearch.report.measures import measures_section, names_of
from kdsearch.report.row_words import described
from kdsearch.report.searches import flipping, searches_section
from kdsearch.report.sizes import sizes_section
from kdsearch.report.smoothing import smoothing_section
from kdsearch.report.temperature import temperature_section
from kdsearch.report.trends import trends_section
from kdsearch.report.under_seeds import named
from kdsearch.search import (
    CHECKPOINT,
    OBJECTIVE,
    SYMBOLS,
    Choice,
    Objective,
    is_active,
    shown_value,
)
from kdsearch.study import Doubt, Search


def document(
    analysis: Analysis,
    agenda: Agenda,
    messages: Mapping[str, str],
    doubts: Iterable[Doubt] = (),
    measured: Sequence[CaseMeasures] = (),
    smoothed: Smoothing | None = None,
    tempered: Temperatures | None = None,
) -> str:
    """The content of report.md; `messages` says by key why a training failed.

    `doubts` are the preflight's about data and models; `measured` is what was measured beside the
    scores, `smoothed` distillation beside label smoothing, `tempered` students over the
    temperature.
    """
    sections = [
        f"# {escape(analysis.study)}",
        answer(analysis),
        *searches_section(analysis, agenda),
        *_doubtful(doubts),
        *_how(analysis, agenda),
        *(section for figure in figures(analysis) for section in _figure(figure, analysis)),
        *(section for each in flipping(analysis) for section in _table_3(each)),
        *levels_section(analysis),
        *generations_section(analysis),
        *floor_section(analysis),
        *measures_section(measured),
        *smoothing_section(smoothed),
        *temperature_section(tempered),
        *sizes_section(analysis),
        *trends_section(analysis),
        "## Test cases",
        *(section for case in analysis.cases for section in case_section(analysis, case, messages)),
        *_cost(analysis),
    ]
    glossary = glossary_section(agenda, "\n".join(sections), names_of(measured))
    return "\n\n".join([*sections, *glossary]) + "\n"


DOUBTFUL = "Seen in the data and the models before anything was trained; it may explain a score."


TESTS = (
    "“Median, 95 %” is a bootstrap interval of the median over test cases. p is that of Wilcoxon’s "
    "signed-rank test in the figures and of a sign test in Table 3, both exact: how likely a "
    "result this strong would be if neither side were better. Cases with one data set and teacher "
    "go together: such a block of cases is drawn, or flipped, as one. An interval needs 6 blocks; "
    "“least p” is the smallest p that this many untied blocks can give, and where that "
    "is above 0.05 there is no p (–), nor is there of a row that cannot be below 0. There is no "
    "correction for the number of tests."
)
NOISE = (
    "“± noise” of a gain in one test case is its standard deviation over 1,000 draws of the test "
    "rows with replacement, the same for both sides; rows with one context, premise or source, or "
    "of one `group` of the study, are drawn together. Where there are several seeds the variance "
    "between them is added; with a single one it does not say how far another training would lie "
    "away. It is not known where nothing was kept of the rows: by an earlier version, or since it "
    "could not be written."
)


def _doubtful(doubts: Iterable[Doubt]) -> list[str]:
    lines = [f"- {escape(doubt)}" for doubt in doubts]
    return ["## Doubtful", DOUBTFUL, "\n".join(lines)] if lines else []


def _how(analysis: Analysis, agenda: Agenda) -> list[str]:
    study = agenda.resolved.study
    walked = [_walked(name, each) for name, each in study.every_search.items()]
    seeds = _seeds(study.student_seeds, study.winner_seeds or ())
    if not analysis.flips:
        return ["## How to read this", *walked, seeds, NOISE]
    return [
        "## How to read this",
        "A gain is (target − baseline) / baseline on the test set, in percent, one per test case; "
        f"{_row(analysis)}. Rows labelled “{PAPER}” are those of {SOURCE}. A case without a "
        "comparison is left out of the row, and counted by reason; so is a gain over less than one "
        "row of the test split is worth, which is the largest score over the number of rows.",
        papers_note(analysis),
        *walked,
        seeds,
        *too_few(analysis),
        TESTS,
        NOISE,
    ]


def _row(analysis: Analysis) -> str:
    if not with_deciles(analysis):
        return "a row gives the lowest, the median and the highest of the gains"
    return (
        "a row gives the deciles of the gains, from D0, the minimum, to D10, the maximum, with "
        f"linear interpolation, and of fewer than {MANY} cases these two and the median"
    )


def _walked(name: str | None, search: Search) -> str:
    """How a search went through its axes."""
    whose = "" if name is None else f"{escape(name)}: "
    unit = "; temperature_unit is `logit_scale`" if search.in_logit_scales else ""
    if not search.flips:
        kinds = ", ".join(Objective.kinds[kind].title for kind in search.distance)
        return f"{whose}{kinds}; the strategy is {search.strategy}{unit}."
    space = search.space()
    order = ", ".join(axis.name for axis in space.voted)
    last = ", then α" if search.alpha else ""
    tuned = axes_in_words([axis.name for axis in reversed(space.tuned)])
    text = f"{whose}Parameters were flipped in the order {order}{last}; {tuned} "
    text += f"{'were' if len(space.tuned) > 1 else 'was'} tuned by `{search.inner}` search"
    if any(is_active("gradient_scale", kind) for kind in search.distance):
        text += f"; gradient_scale is `{search.gradient_scale}`"
    return f"{text}{unit}."


def _seeds(seeds: Sequence[int], winner_seeds: Sequence[int]) -> str:
    if len(seeds) > 1:
        text = (
            f"Scores are means over the seeds {named(seeds)}. ± is the standard deviation between "
            "them; for a row, the median over its cases."
        )
    elif winner_seeds:
        text = f"The search has one training per trial, under the seed {seeds[0]}."
    else:
        text = (
            f"The seed is {seeds[0]}. There is one training per trial, so nothing shows how "
            "much two trainings differ; `seeds: [0, 1, 2]` in the study would."
        )
    if winner_seeds:
        text += (
            f" What each case chose was also trained under the seeds {named(winner_seeds)}: its "
            "test score over them is given as mean ± standard deviation, and so are its measures. "
            "No choice and no gain depends on these trainings. If one of them has no score, there "
            "is no mean, and the measures are those of the search."
        )
    return text


def _figure(figure: Figure, analysis: Analysis) -> list[str]:
    """A figure as a section: its rows, what they compare, and the gains of each test case."""
    name = "" if figure.search is None else f": {escape(figure.search)}"
    headers, found = lines(figure, analysis, str)
    rows = [
        (f"{each.row.label} ({PAPER})" if each.paper else each.row.label, *each.cells)
        for each in found
    ]
    words = [f"- {escape(row.label)}: {escape(described(row.label))}" for row in figure.rows]
    return [
        f"## {figure.title}{name}",
        escape(figure.note),
        "\n".join(words),
        table([figure.axis, *headers], rows),
        *_by_case(figure, analysis),
    ]


def _by_case(figure: Figure, analysis: Analysis) -> list[str]:
    headers, rows = by_case_table(figure, analysis)
    if not rows:
        return []
    blank = _left_blank(figure, analysis) if figure.of_erm else []
    return [BY_CASE, table(headers, rows), *blank]


def by_case_table(figure: Figure, analysis: Analysis) -> tuple[list[str], list[tuple[object, ...]]]:
    """The headers and a row per test case: its gains, and what is behind those over ERM."""
    if figure.of_erm:
        return _erm_table(figure, analysis)
    headers = ["test case", *(row.label for row in figure.rows)]
    gains = by_case(figure, analysis)
    return headers, [(case, *map(gain_cell, found)) for case, found in gains.items()]


def _table_3(of: Figures) -> list[str]:
    found = of.table_3
    headers, rows = table_3_table(of)
    name = "" if of.search is None else f": {escape(of.search)}"
    return [
        f"## Rewards (Table 3){name}",
        "R is the number of test cases where the alternative is better than the default by "
        "validation score, minus those where it is worse. Finished traversals: "
        f"{found.traversals}. The stable configuration takes an alternative where R > 0.",
        table(headers, rows),
        *_equal(of),
        *_values(of.stable),
    ]


def table_3_table(of: Figures) -> tuple[list[str], list[tuple[object, ...]]]:
    """The headers of Table 3 and a row per alternative; what says most stands first."""
    headers = ["alternative", "R", "reading", "better", "worse", "equal", "unscored", "p"]
    rows = [
        (
            *(r.label, signed(r.reward), reading(r.chance)),
            *(r.better, r.worse, r.equal, r.unscored),
            *(*p_cells(r.chance), signed(r.paper)),
        )
        for r in of.table_3.rows
    ]
    return without_empty([*headers, LEAST_P, f"R ({PAPER})"], rows)


def _equal(figures: Figures) -> list[str]:
    """Why sides of a comparison may be one, of a search with a teacher."""
    found = figures.table_3
    if figures.stable is None or figures.stable.choice.get(CHECKPOINT) is None:
        return []
    return [
        f"t_hs and t_ll are the same checkpoint in {found.coinciding} of these cases. In "
        f"{found.same_student_temperature} both sides of the τ_s flip are the same trial "
        "(τ_t = 1 won on both)."
    ]


def _values(stable: Stable | None) -> list[str]:
    if stable is None:
        return []
    when = f"so far, {stable.traversals} of {stable.cases} traversals" if stable.provisional else ""
    title = f"stable{f' ({when})' if when else ''}"
    choice = stable.choice
    student = choice.get("student_temperature")
    distance = value_label("distance", choice.get("distance"))
    rows: list[tuple[object, object]] = [
        ("teacher checkpoint", choice.get("teacher") or "none"),
        ("distance", distance),
        ("τ_s", f"inactive under {distance}" if student is None else student),
        *((SYMBOLS.get(name, name), shown_value(choice.get(name))) for name in _others(choice)),
    ]
    return [table(["parameter", title], rows)]


def _others(choice: Choice) -> list[str]:
    """The axes of a choice that are not named before, α last."""
    others = set(choice.names) - {CHECKPOINT, OBJECTIVE, "student_temperature"}
    return sorted(others, key=lambda name: (name == "alpha", name))


def _erm_table(figure: Figure, analysis: Analysis) -> tuple[list[str], list[tuple[object, ...]]]:
    """Of each test case that has a student without a teacher: its scores, the gains, the gap."""
    found = by_case(figure, analysis)
    headers = [
        "test case",
        "labels alone (ERM)",
        "chosen",
        "teacher",
        *(row.label for row in figure.rows),
    ]
    rows: list[tuple[object, ...]] = [
        (
            case.case,
            score(case.erm.test, case.digits),
            score(case.winner.test, case.digits) if case.winner else None,
            score(taught_by(case), case.digits),
            *_over_erm(case, found.get(case.case, [None] * len(figure.rows))),
            _gap_closed(case),
        )
        for case in analysis.cases
        if case.erm is not None and case.case.search == figure.search
    ]
    return [*headers, "gap closed, %"], rows


def _gap_closed(case: CaseResult) -> str:
    if case.gap_closed is not None and identical(case.gap_closed, case.gap_closed_noise):
        return f"{percent(case.gap_closed)}, identical"
    around = f" ± {percent(case.gap_closed_noise.deviation)}" if case.gap_closed_noise else ""
    return f"{percent(case.gap_closed)}{around}"


def _over_erm(case: CaseResult, gains: Sequence[CaseGain | None]) -> Iterator[str]:
    """The gains over ERM; where there is none over so low a score, the points."""
    chosen, *others = map(gain_cell, gains)
    no_gain = case.over_erm is None and case.over_erm_points is not None
    yield f"{NOTHING} ({points(case.over_erm_points)})" if no_gain else chosen
    yield from others


def _left_blank(figure: Figure, analysis: Analysis) -> list[str]:
    cases = [case for case in analysis.cases if case.case.search == figure.search]
    found = [f"- {escape(case.case)}: {why}" for case in cases for why in left_blank(case)]
    return ["Left blank:", "\n".join(found)] if found else []


def left_blank(case: CaseResult) -> Iterator[str]:
    """Why a case has no gain over ERM, or no gap that is closed, where both scores are known."""
    teacher, erm = taught_by(case), case.erm
    if erm is None or erm.test is None or case.over_erm_points is None:
        return
    shown = partial(score, digits=case.digits + 1)  # what is less than a row is worth must show
    if case.over_erm is None:
        yield f"the gain over ERM, whose {shown(erm.test)} is less than one row is worth"
    if teacher is not None and case.gap_closed is None:
        found = f"{shown(teacher)} against {shown(erm.test)}"
        yield f"the gap, since the teacher is not clearly better on the test rows: {found}"


def taught_by(case: CaseResult) -> TestScore | None:
    """The test score of the teacher's checkpoint that taught what the case chose."""
    return case.taught_by.test if case.taught_by else None


def not_asked_for(beside: Spent) -> str:
    """What ran that no decision asked for, as a sentence."""
    return (
        f"{beside.trainings} more, which took {duration(beside.seconds)}, were trained ahead of "
        "decisions that did not ask for them, where slots would have been idle: they are in no "
        "figure."
    )


def _cost(analysis: Analysis) -> list[str]:
    total = sum(each.seconds for each in analysis.cost)
    trainings = sum(each.trainings for each in analysis.cost)
    text = f"{trainings} trainings took {duration(total)} in all, summed over workers; tries that "
    text += "failed are not timed."
    if analysis.beside.trainings:
        text += f" {not_asked_for(analysis.beside)}"
    if analysis.reused:
        text += (
            f" {analysis.reused} times, a training that had already run for another choice or "
            "test case was needed again, and was not repeated."
        )
    if analysis.fused:
        text += f" {analysis.fused} students were trained with others in one pass, each timed at "
        text += "its share."
    return [
        "## Cost",
        text,
        spent_table(analysis.cost),
    ]
