"""What the reports say of token and sequence level: a section of both."""

from __future__ import annotations

from collections.abc import Iterator

from kdsearch.analysis import Analysis, Level, StudentLevels
from kdsearch.report.case import noise_cells
from kdsearch.report.markdown import NOTHING, escape, p_value, percent, score, table

TITLE = "Token and sequence level"
_NOTE = (
    "At token level a student learns what its teacher says of each word of the data; at sequence "
    "level, from texts that the teacher wrote in the place of the labels; at both, what the "
    "teacher says of each word of the texts that it wrote. Each line is the best by validation of "
    "all trials of the student at that level, so that one with more trials had more to choose "
    "from; a gain is over the best at token level, on test. Rows are those of an epoch: where the "
    "teacher wrote several texts for a row of the data, a student also takes more steps, which may "
    "be what it gains by."
)
_TEXTS = (
    "What the teachers wrote. Not learnt from are texts that had not ended at the limit of tokens, "
    "empty ones, and under rejection those with another answer than the label’s and repeated ones; "
    "“without” are the training rows for which nothing was left."
)


def levels_section(analysis: Analysis) -> list[str]:
    """A section for a study in which teachers write; empty for others."""
    found = analysis.levels
    if not found.students:
        return []
    return [f"## {TITLE}", _NOTE, *_over_students(analysis), *_each(analysis), *_written(analysis)]


def _over_students(analysis: Analysis) -> Iterator[str]:
    rows = [
        (each.label, each.n, percent(each.median), p_value(each.chance.p if each.chance else None))
        for each in analysis.levels.comparisons
        if each.n
    ]
    if len(analysis.levels.students) > 1 and rows:
        yield table(["over all students", "n", "median gain on test, %", "p"], rows)
        yield "Both levels are compared with sequence level on texts written in the same way."


def _each(analysis: Analysis) -> Iterator[str]:
    several = len(analysis.levels.students) > 1
    for each in analysis.levels.students:
        if several:
            yield f"### {escape(_name(each))}"
        yield _table(each)


def _name(each: StudentLevels) -> str:
    return f"{each.case.dataset}/{each.case.teacher}/{each.case.student}"


def _table(each: StudentLevels) -> str:
    headers = [
        "level",
        "texts",
        "rows",
        "trials",
        "validation",
        "test",
        "gain, %",
        "± noise",
        "best",
    ]
    rows = [
        (
            row.level,
            row.targets if row.level is not Level.NONE else NOTHING,
            NOTHING if row.rows is None else row.rows,
            row.trials,
            score(row.validation, each.digits),
            score(row.test, each.digits),
            percent(row.gain),
            NOTHING if row.gain is None else noise_cells(row.gain, row.noise)[0],
            row.choice,
        )
        for row in each.rows
    ]
    return table(headers, rows)


def _written(analysis: Analysis) -> Iterator[str]:
    rows = dict.fromkeys(
        (text.name, text.texts, text.learnt, *text.left_out.values(), text.without)
        for each in analysis.levels.students
        for text in each.texts
    )
    if rows:
        headers = ["texts", "written", "learnt from", "unfinished", "empty", "wrong", "repeated"]
        yield _TEXTS
        yield table([*headers, "without"], rows)
