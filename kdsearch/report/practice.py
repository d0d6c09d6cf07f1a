"""The practitioner's part of the answer: is distilling worth it, and how to get the student."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kdsearch.analysis import (
    DEVIATIONS,
    Analysis,
    Answer,
    CaseAnswer,
    CaseResult,
    State,
    Take,
    Unconverged,
    Verdict,
)
from kdsearch.report.markdown import NOTHING, count, duration, escape, points, score
from kdsearch.report.under_seeds import named
from kdsearch.search import shown_at

MOST_NAMED = 5
_MOST_LINES = 8
"""Of commands: with more cases the first of each kind stands for the others."""
_LISTED = 12
"""Cases on a terminal."""
OPTIONS = {Take.CHOSEN: [], Take.ERM: ["--erm"], Take.BEST_SO_FAR: ["--best-so-far"]}
"""Of `export`."""


def lead(analysis: Analysis) -> Iterator[str]:
    """What stands above the table: paragraphs of Markdown."""
    found = analysis.answer
    if not found.trainings:
        yield "**Nothing has been trained yet**, so there is no answer."
        return
    lost = list(_better_without(found))
    yield from lost
    status = analysis.status
    if not status.complete:
        finished = f"{status.finished} of {count(status.cases, 'test case')} finished"
        yield f"**This is the answer so far**: {finished}, and what is not may still change."
    said = bool(lost) and found.compared == 1
    if not said and any(case.case.teacher is not None for case in found.cases):
        yield _headline(found)
    yield from _trained_otherwise(found)
    yield " ".join([*_medians(found), _cost(found)])
    seeds = len(analysis.seeds) > 1
    if trust := " ".join(_trust(found, seeds=seeds, unconverged=analysis.unconverged)):
        yield f"**How far to trust it**: {trust}"


def _trust(found: Answer, *, seeds: bool, unconverged: Sequence[Unconverged]) -> Iterator[str]:
    """What speaks against taking the difference from the labels alone for certain."""
    if found.compared:
        yield from _trials(found)
        if not seeds:
            yield (
                "Each was trained under one seed, and another one may give another result; "
                "`seeds: [0, 1, 2]` in the study file shows how much."
            )
        if last := sum(each.last for each in unconverged):
            students = sum(each.students for each in unconverged)
            yield (
                f"{last} of {count(students, 'student')} were best at their last epoch: trained "
                "longer, another may be the better one."
            )
    if found.generated:
        every = len({case.case.dataset for case in found.cases}) == len(found.generated)
        which = "The rows" if every else f"The rows of {', '.join(map(escape, found.generated))}"
        images = len(found.generated_images)
        kinds = {"images": images, "sentences": len(found.generated) - images}
        what = " and ".join(kind for kind, some in kinds.items() if some)
        yield f"{which} are generated {what}, which say nothing about real data."


def _better_without(found: Answer) -> Iterator[str]:
    """The cases in which distillation loses, which is said before all else."""
    compared = [case for case in found.cases if case.counts and not case.so_far]
    lost = [case for case in compared if case.verdict is Verdict.WORSE]
    if not lost:
        return
    yield (
        f"**Without a teacher the student is better in {len(lost)} of "
        f"{count(len(compared), 'case')}**, by test score: {_named(lost, _against)}."
    )


def _trained_otherwise(found: Answer) -> Iterator[str]:
    """The cases whose two students differ in more than the teacher."""
    if cases := [case for case in found.cases if case.points is not None and case.other_settings]:
        yield (
            f"**More than the teacher differs** in {_named(cases, _other_settings)}. What that "
            "changes is part of the difference."
        )


def _other_settings(case: CaseAnswer) -> str:
    mine, plain = (
        shown_at("", {each.name: value for each, value in held if value is not None}).strip()
        for held in (
            [(each, each.student) for each in case.other_settings],
            [(each, each.erm) for each in case.other_settings],
        )
    )
    what = f"{escape(mine)}, its student on the labels alone with {escape(plain)}"
    return f"{escape(case.case)} (trained with {what})"


def _against(case: CaseAnswer) -> str:
    scores = score(case.erm_test, case.digits), score(case.test, case.digits)
    return f"{escape(case.case)} ({' against '.join(scores)})"


def _named(cases: Sequence[CaseAnswer], name: Callable[[CaseAnswer], str]) -> str:
    names = [name(case) for case in cases[:MOST_NAMED]]
    if more := len(cases) - len(names):
        names.append(f"and {more} more")
    return ", ".join(names)


def _headline(found: Answer) -> str:
    """Whether distilling beats training on the labels alone."""
    if not found.has_erm:
        return (
            "**Whether distilling is worth it is not known**: this study trains no student on the "
            "labels alone. `erm: true` in the study file, and the same launch again, adds it; what "
            "is trained already is kept."
        )
    floor = sum(case.at_floor and case.case.teacher is not None for case in found.cases)
    without = f" {count(floor, 'case').capitalize()} at the floor, where no score says anything, "
    without = f"{without}{'is' if floor == 1 else 'are'} left out." if floor else ""
    if not found.compared:
        why = "no test case has a test score of both students"
        why += " yet" if any(case.state is State.UNFINISHED for case in found.cases) else ""
        if floor:
            why = "every test case that could say so is at the floor"
        return f"**Whether distilling is worth it is not known**: {why}."
    so_far = any(case.so_far for case in found.cases if case.counts)
    of = f" of {count(found.compared, 'test case')}"
    said = [
        (FURTHER[verdict] if k else f"{FIRST[verdict]} in {{}}").format(number)
        for k, (verdict, number) in enumerate(found.verdicts.items())
    ]
    if found.compared == 1:
        [case] = [case for case in found.cases if case.counts]
        assert case.verdict is not None  # it has points
        verdict = _begun(FIRST[case.verdict], so_far=so_far)
        unclear = ", noise not known" if _noise_unknown(case) else ""
        gain = f"{_points(case)} points (of 100) on test{unclear}"
        return f"**{verdict}** in {escape(case.case)}: {gain}.{without}"
    first, *others = said
    first = _begun(first, so_far=so_far)
    unknown = sum(map(_noise_unknown, found.cases))
    if unknown:
        others.append(f"the noise is not known in {unknown}")
    text = f"**{first}{of}**{''.join(f'; {each}' for each in others)}."
    text += f" In the median it brings {points(found.points)} points (of 100) on test, at worst "
    return f"{text}{points(found.least_points)} ({escape(found.least_case)}).{without}"


def _begun(text: str, *, so_far: bool) -> str:
    """A sentence's first words, which say what may still change."""
    if so_far:
        return f"So far, {text[0].lower()}{text[1:]}"
    return text[0].upper() + text[1:]


FIRST = {
    Verdict.BETTER: "Distilling beats training on the labels alone",
    Verdict.WORSE: "Distilling loses to training on the labels alone",
    Verdict.WITHIN_NOISE: "Distilling cannot be told from training on the labels alone",
    Verdict.EQUAL: "Distilling and training on the labels alone come to the same score",
}
"""What a headline begins with."""
FURTHER = {
    Verdict.BETTER: "it beats it in {}",
    Verdict.WORSE: "it loses in {}",
    Verdict.WITHIN_NOISE: "the difference is within the noise in {}",
    Verdict.EQUAL: "the two are equal in {}",
}
"""How it goes on, with the number of cases."""


def _noise_unknown(case: CaseAnswer) -> bool:
    """Whether the case is better or worse by what may be noise."""
    return case.counts and case.noise is None and case.verdict is not Verdict.EQUAL


def _medians(found: Answer) -> Iterator[str]:
    """What a student has of its teacher."""
    parts = [
        f"{share(found.kept)} of its teacher’s test score" if found.kept is not None else "",
        f"{share(found.size)} of its parameters" if found.size is not None else "",
        f"{found.speed:.1f} times its speed" if found.speed is not None else "",
    ]
    *some, last = [part for part in parts if part] or [""]
    if last:
        several = sum(case.case.teacher is not None for case in found.cases) > 1
        who = "In the median a student has " if several else "The student has "
        yield f"{who}{' and '.join(filter(None, [', '.join(some), last]))}."
    known = [c.kept for c in found.cases if c.kept is not None and not c.at_floor]
    if above := sum(kept > 1 for kept in known):
        of = count(len(known), "case")
        yield f"In {above} of {of} the student’s test score is higher than its teacher’s."


def _cost(found: Answer) -> str:
    took = f"{count(found.trainings, 'training')} and the teachers’ passes over the data took "
    return f"{took}{duration(found.seconds)}, summed over workers."


def share(value: float | None) -> str:
    """A share as a whole percentage; with a decimal where it is below ten."""
    if value is None:
        return NOTHING
    return f"{100 * value:.{0 if value >= 0.0995 else 1}f} %"


# -- the table -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AnswerTable:
    """A row per test case; None is a cell without a value."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    positions: tuple[int, ...]
    """Of each row's case among all cases of the study."""

    @property
    def numbered(self) -> tuple[tuple[int, tuple[str | None, ...]], ...]:
        """The rows with their positions."""
        return tuple(zip(self.positions, self.rows, strict=True))


def answer_table(analysis: Analysis) -> AnswerTable | None:
    """The cases beside one another, without the columns that are empty; None before anything."""
    if not analysis.answer.trainings:
        return None
    results = {case.case: (i, case) for i, case in enumerate(analysis.cases)}
    cases = analysis.answer.cases
    columns: dict[str, list[str | None]] = {"test case": [str(case.case) for case in cases]}
    own = [dict(_cells(case, results[case.case][1], analysis)) for case in cases]
    for name in own[0]:
        cells = [cell[name] for cell in own]
        if any(cell is not None for cell in cells):
            columns[name] = cells
    if {*columns.get("take", [])} <= {TAKES[Take.CHOSEN], None}:
        columns.pop("take", None)
    return AnswerTable(
        headers=tuple(columns),
        rows=tuple(zip(*columns.values(), strict=True)),
        positions=tuple(results[case.case][0] for case in cases),
    )


def answer_list(analysis: Analysis) -> str | None:
    """The same as a list, for where a table has no room; None before anything."""
    found = answer_table(analysis)
    if found is None:
        return None
    rows = [dict(zip(found.headers, row, strict=True)) for row in found.rows]
    lines = [f"- {escape(row['test case'])}: {'; '.join(_in_line(row))}" for row in rows[:_LISTED]]
    if more := len(rows) - len(lines):
        lines.append(f"- and {more} more, in the report")
    return "\n".join(lines)


def _in_line(row: Mapping[str, str | None]) -> Iterator[str]:
    """The cells of a row, each with its words."""
    verdict = row.get("against labels alone")
    if gain := row.get("points"):
        test, plain = row["test score"], row["labels alone"]
        yield f"{verdict}, {gain} points ({test} against {plain} on labels alone)"
    else:
        yield ", ".join(filter(None, [verdict, row.get("test score")]))
    for name, words in (
        ("take", "take: {}"),
        ("of its teacher", "{} of its teacher’s score"),
        ("size", "{} of its size"),
        ("speed", "{} its speed"),
    ):
        if (cell := row.get(name)) and cell != TAKES[Take.CHOSEN]:
            yield words.format(cell)
    if time := row.get("time"):
        yield time


TAKES = {
    Take.CHOSEN: "as chosen",
    Take.ERM: "labels alone",
    Take.BEST_SO_FAR: "best so far",
}


def _cells(
    case: CaseAnswer, result: CaseResult, analysis: Analysis
) -> Iterator[tuple[str, str | None]]:
    yield "chosen", str(case.choice) if case.choice else None
    yield "against labels alone", _verdict(case)
    yield "points", _points(case)
    yield "test score", _spread(case.test, case.spread, case.digits)
    if under := result.winner_under_seeds:
        name = f"over the seeds {named(analysis.winner_seeds)}"
        yield name, _spread(under.test, under.spread, case.digits)
    elif analysis.winner_seeds:
        yield f"over the seeds {named(analysis.winner_seeds)}", None
    yield "labels alone", _spread(case.erm_test, case.erm_spread, case.digits)
    yield "take", TAKES[case.take] if case.take and not case.at_floor else None
    kept = None if case.kept is None else f"{share(case.kept)} ({points(case.kept_points)})"
    yield "of its teacher", kept
    yield "size", None if case.size is None else share(case.size)
    yield "speed", None if case.speed is None else f"{case.speed:.1f}×"
    yield "time", duration(case.seconds) if case.trainings else None


def _verdict(case: CaseAnswer) -> str | None:
    if case.test is None:
        if case.state is State.BLOCKED:
            return "blocked"
        return "nothing yet" if case.so_far else "no score"
    found = None if case.verdict is None else str(case.verdict)
    if found and _noise_unknown(case):
        found += ", noise not known"
    if found and case.other_settings:
        [first, *more] = [each.name for each in case.other_settings]
        found += f", other {'settings' if more else first}"
    if case.so_far:
        found = f"so far {found}" if found else "so far"
    return ", ".join(filter(None, [found, "at the floor" if case.at_floor else ""])) or None


def _points(case: CaseAnswer) -> str | None:
    if case.points is None:
        return None
    known = case.noise is not None and case.verdict is not Verdict.EQUAL
    return points(case.points) + (f" ± {case.noise:.1f}" if known else "")


def _spread(value: float | None, spread: float | None, digits: int) -> str | None:
    if value is None:
        return None
    return score(value, digits) + (f" ± {score(spread, digits)}" if spread is not None else "")


# -- below the table -------------------------------------------------------------------------------


def rest(analysis: Analysis, folder: str | None) -> Iterator[str]:
    """What stands below the table: how to read it, what to doubt, and how to get the students.

    `folder` is the study's, as who reads it would give it; without it, where a launch puts it.
    """
    found = analysis.answer
    if not found.trainings:
        return
    compared = any(case.points is not None for case in found.cases)
    yield " ".join(_how_to_read(found, compared=compared, seeds=len(analysis.seeds) > 1))
    if doubtful := [case for case in found.cases if _disagree(case)]:
        yield (
            f"**Validation and test disagree** in {_named(doubtful, lambda c: escape(c.case))}: "
            "one is for the distilled student, the other for the one on the labels alone. There "
            "is a command for each."
        )
    if any(map(_worth_having, found.cases)):
        yield from _commands(analysis, folder)


def _disagree(case: CaseAnswer) -> bool:
    if case.points is None or not case.counts or case.verdict is Verdict.WITHIN_NOISE:
        return False
    return case.points > 0 if case.take is Take.ERM else case.points < 0


def _how_to_read(found: Answer, *, compared: bool, seeds: bool) -> Iterator[str]:
    if any(case.test is not None for case in found.cases):
        yield "Students are chosen by validation score; the scores here are on test."
    if compared:
        yield "Points are of 100, the largest score."
    if any(case.noise is not None for case in found.cases):
        yield (
            "± is a standard deviation: of points over draws of the test rows and over seeds, of "
            "scores between seeds."
            if seeds
            else "± is a standard deviation over draws of the test rows."
        )
        yield f"A difference of less than {DEVIATIONS} of them is within the noise."
    if any(case.kept is not None for case in found.cases):
        yield "The teacher is the checkpoint that taught."
        yield "In brackets are the points that the teacher has more (−) or less (+)."
    if any(case.size is not None for case in found.cases):
        yield "Size is in parameters and speed in examples per second, both against the teacher."
    yield "A training that cases share is counted in each."


def _trials(found: Answer) -> Iterator[str]:
    cases = [case for case in found.cases if case.points is not None]
    many = _range([case.trials for case in cases])
    few = _range([case.erm_trials for case in cases])
    yield f"A searched student is the best of {many} trials, the one on the labels alone of {few}."
    if all(case.trials > case.erm_trials for case in cases):
        yield "That favours the searched one."


def _range(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return str(least) if least == most else f"{least} to {most}"


def _commands(analysis: Analysis, folder: str | None) -> Iterator[str]:
    cases = [case for case in analysis.answer.cases if _worth_having(case)]
    place = usual_folder(analysis)
    text = "To get a student as a Hugging Face folder, with a new folder for PATH"
    if folder is None:
        text += f", run the line where the study is, and give its folder if that is not `{place}`"
    shown = cases
    if len(cases) > _MOST_LINES:
        first = sorted(cases, key=lambda case: case.verdict is not Verdict.BETTER)
        shown = list({case.take: case for case in reversed(first)}.values())
        others = "" if len(shown) == 1 else " under “take”"
        text += f". The others go like the first of their kind{others}, by their names in quotes"
    yield f"{text}:"
    lines = [line for case in shown for line in _lines(case, folder or place)]
    fence = "`" * 3
    while any(fence in line for line in lines):
        fence += "`"
    yield "\n".join([fence, *lines, fence])


def usual_folder(analysis: Analysis) -> str:
    """Where a launch puts the study, if it is not told otherwise."""
    return f"runs/{analysis.study}"


def _worth_having(case: CaseAnswer) -> bool:
    return case.take is not None and not case.at_floor


def _lines(case: CaseAnswer, folder: str) -> Iterator[str]:
    """The command for a case's student; one for each where validation and test disagree."""
    assert case.take is not None
    line = export_line(case, case.take, folder)
    if not _disagree(case):
        yield line
        return
    own = Take.BEST_SO_FAR if case.so_far else Take.CHOSEN
    other = own if case.take is Take.ERM else Take.ERM
    yield f"{line}  # by validation"
    yield f"{export_line(case, other, folder)}  # better on test"


def export_line(case: CaseAnswer, take: Take, folder: str) -> str:
    """The command that hands over the student of a case that is taken."""
    name = str(case.case)
    ending = [*OPTIONS[take], "--to", "PATH"]
    words = [folder, name, *ending]
    if name.startswith("-"):
        words = [*ending, folder, "--", name]
    return shlex.join(["kdsearch", "export", *words])
