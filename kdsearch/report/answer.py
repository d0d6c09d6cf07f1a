"""The top of a report: what the study found, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from kdsearch.analysis import (
    Analysis,
    CaseGain,
    CaseResult,
    Comparison,
    Edge,
    Stable,
    State,
    TeacherEdge,
    Unconverged,
)
from kdsearch.analysis.comparisons import STABLE_OVER_LAZY, STABLE_OVER_RANDOM
from kdsearch.analysis.paper import AT_LEAST_AS_GOOD, CASES, PAPER
from kdsearch.analysis.statistics import FEWEST
from kdsearch.report.choices import tuned_in_words, with_symbols
from kdsearch.report.markdown import count, escape, percent, points, score, table
from kdsearch.report.practice import MOST_NAMED, answer_list, answer_table, lead, rest
from kdsearch.report.under_seeds import sentence
from kdsearch.search import ALPHA, SYMBOLS, TERMS
from kdsearch.study import TestCase

_BEYOND = {"largest": "larger", "smallest": "smaller"}


def answer(analysis: Analysis, folder: str | None = None) -> str:
    """The whole answer as Markdown, its test cases as a table.

    For a terminal there is the study's `folder`, as who sits there would give it: then the cases
    are a list, and commands name it. Else they name the one where a launch puts it.
    """
    cases = answer_table(analysis)
    as_table = [table(cases.headers, cases.rows)] if cases else []
    as_list = filter(None, [answer_list(analysis)])
    middle = as_table if folder is None else as_list
    return "\n\n".join([*lead(analysis), *middle, *below(analysis, folder)])


def below(analysis: Analysis, folder: str | None = None) -> Iterator[str]:
    """What stands below the table: paragraphs of Markdown."""
    yield from rest(analysis, folder)
    if analysis.answer.trainings:
        if analysis.flips:
            yield from _stable(analysis)
            yield from _how_sure(analysis)
        yield from _best(analysis)
    yield from _at_floor(analysis)
    yield from _to_change(analysis)
    yield from _status(analysis)


def hints(
    edges: Iterable[Edge], unconverged: Iterable[Unconverged], teachers: Iterable[TeacherEdge]
) -> Iterator[str]:
    """What of the study file should be changed, and why: a line each."""
    for found in teachers:
        on = f"on {len(found.datasets)} of {count(found.of, 'data set')}"
        if found.end == "last":
            yield (
                f"teacher {found.teacher} was best at its last epoch {on}: train longer, with a "
                f"higher {found.key}"
            )
        else:
            yield (
                f"the chosen learning rate of teacher {found.teacher} is the {found.end} that was "
                f"tried {on}: try {_BEYOND[found.end]} values in {found.key}"
            )
    for edge in edges:
        name = SYMBOLS.get(edge.axis, edge.axis.replace("_", " "))
        name = f"weight of {name}" if edge.axis in TERMS else name
        only = ", of 2 only," if edge.fewest == 2 else ""
        yield (
            f"the chosen {name} is the {edge.end} that was tried{only} in {len(edge.cases)} of "
            f"{count(edge.of, 'case')}: try {_BEYOND[edge.end]} values in {edge.key}"
        )
    for each in unconverged:
        named = [str(case) for case in each.cases[:MOST_NAMED]]
        if more := len(each.cases) - len(named):
            named.append(f"{more} more")
        yield (
            ("" if each.every else f"in {', '.join(named)} ")
            + f"{each.last} of {count(each.students, 'student')} were best at their last epoch: "
            f"train longer, with a higher {each.key}"
        )


def _at_floor(analysis: Analysis) -> list[str]:
    found = [str(case.at_floor) for case in analysis.cases if case.at_floor]
    if not found:
        return []
    lines = [f"- {escape(line)}" for line in found[:MOST_NAMED]]
    if more := len(found) - len(lines):
        lines.append(f"- and {more} more, each marked in the table of cases")
    text = f"**At the floor**: {count(len(found), 'test case')} of {len(analysis.cases)}"
    without = {row.label: row.without for row in analysis.without_floor if row.figure is None}
    gains = [
        f"{percent(median)} % against {other}"
        for label, other in ((STABLE_OVER_LAZY, "lazy"), (STABLE_OVER_RANDOM, "random"))
        if (median := without.get(label)) is not None
    ]
    if gains:
        text += f". Without them the stable configuration’s median gain is {' and '.join(gains)}"
    return [f"{text}.", "\n".join(lines)]


def _to_change(analysis: Analysis) -> list[str]:
    found = hints(analysis.edges, analysis.unconverged, analysis.teacher_edges)
    lines = [f"- {escape(line)}" for line in found]
    return ["**The search may have ended too early**:", "\n".join(lines)] if lines else []


def _best(analysis: Analysis) -> Iterator[str]:
    """Of a study with several searches, or without a stable configuration: what each student is
    best under."""
    cases = [case for case in analysis.cases if case.case in _searched(analysis)]
    if analysis.flips and len({case.case.search for case in cases}) == 1:
        return
    students: dict[tuple[str, str], list[CaseResult]] = {}
    for case in cases:
        if case.winner is not None and case.winner.validation is not None:
            students.setdefault((case.case.dataset, case.case.student), []).append(case)
    if not students:
        if not analysis.flips:
            yield "No search is finished, so there is nothing to choose yet."
        return
    found = [_best_of(each) for each in students.values()]
    lines = found[:MOST_NAMED]
    if more := len(found) - len(lines):
        lines.append(f"- and {more} more, under “What each search chose”")
    yield "Best by validation, of each student under all of its searches:"
    yield "\n".join(lines)


def _searched(analysis: Analysis) -> set[TestCase]:
    return {case.case for case in analysis.answer.cases}


def _best_of(cases: Sequence[CaseResult]) -> str:
    """A line: the case that is best by validation, and the others behind it."""
    best, *others = sorted(cases, key=lambda c: (c.winner and c.winner.validation) or 0.0)[::-1]
    assert best.winner is not None
    text = f"- {escape(best.case)}: {with_symbols(best.winner.choice)}, {_scores(best)}"
    if found := sentence(best.winner_under_seeds, best.digits):
        text += f". {found}"
    if others:
        named = "; ".join(f"{escape(case.case)}, {_scores(case)}" for case in others)
        text += f"{'' if text.endswith('.') else '.'} Behind it: {named}"
    return text


def _scores(case: CaseResult) -> str:
    assert case.winner is not None
    validation, test = case.winner.validation, case.winner.test
    return f"validation {score(validation, case.digits)}, test {score(test, case.digits)}"


def _stable(analysis: Analysis) -> list[str]:
    stable = analysis.stable
    if stable is None:
        return ["No greedy search is finished, so there is no stable configuration to name yet."]
    if not any(spent.scored for spent in analysis.cost if spent.kind == "student"):
        return ["No training has a score, so there is no stable configuration to name."]
    if _nothing_learnt(analysis):
        return ["Every test score is 0: nothing was learnt, so there is no configuration to name."]
    name = f" of {escape(analysis.search)}" if analysis.search else ""
    tuned = tuned_in_words(stable.tuned)
    choice = f"{with_symbols(stable.choice)}, with {tuned} tuned in each case"
    if stable.provisional:
        of = f"{stable.traversals} of {stable.cases} traversals"
        return [
            f"So far, over {of}, the stable configuration{name} would be {choice}. It may still "
            "change, and is only measured in the second phase, after the last traversal."
        ]
    rests = f"It rests on the searches of {count(stable.traversals, 'test case')}."
    lines = [f"**For another data set**: the stable configuration{name} is {choice}. {rests}"]
    lines[0] += _other_alphas(analysis, stable)
    over = [
        _versus(row, other)
        for row, other in (
            (analysis.stable_over_lazy, "the lazy baseline (drawn at random, at temperature 1)"),
            (analysis.stable_over_random, "a random candidate (one draw per case)"),
        )
    ]
    if analysis.stable_over_erm.median is not None:
        over.insert(0, _versus(analysis.stable_over_erm, "training on the labels alone"))
    *some, last = over
    lines.append(
        f"On the test set of the cases that it was chosen from, in the median, it "
        f"{', '.join(some)} and {last}."
    )
    if losers := _losers(analysis):
        lines.append(losers)
    best = analysis.figure_3[-1]
    if best.median is not None and analysis.at_least_as_good is not None:
        whose = "The case’s own best" if best.n == 1 else "A case’s own best"
        median = "" if best.n == 1 else " in the median"
        text = f"{whose} is {percent(best.median)} % above it{median}{_extreme(best, max)}."
        if best.n > 1:
            text += (
                f" It is at least as good as that best in {analysis.at_least_as_good * best.n:.0f} "
                f"of {count(best.n, 'case')} (the paper: {100 * AT_LEAST_AS_GOOD:.0f} % "
                f"of {CASES})."
            )
        lines.append(text)
    return lines


def _other_alphas(analysis: Analysis, stable: Stable) -> str:
    """The cases whose validation is for another α than the stable one, and what test says."""
    other = [
        (decision.candidates[0], case.winner)
        for case in analysis.cases
        for decision in case.path
        if case.winner is not None
        and case.case.search == analysis.search
        and decision.parameter == ALPHA
        and case.winner.choice.get(ALPHA) != stable.choice.get(ALPHA)
    ]
    if not other:
        return ""
    scored = [
        (default.test, winner.test)
        for default, winner in other
        if default.test is not None and winner.test is not None
    ]
    better = sum(test > default for default, test in scored)
    return (
        f" α is not voted on and keeps its default, as in [the paper]({PAPER}), although "
        f"validation prefers another in {count(len(other), 'case')}; on test the other is better "
        f"in {better}."
    )


def _how_sure(analysis: Analysis) -> list[str]:
    """What speaks against taking the answer for certain."""
    stable = analysis.stable
    students = [spent for spent in analysis.cost if spent.kind == "student"]
    scored = any(spent.scored for spent in students)
    if stable is None or not scored or _nothing_learnt(analysis):
        return []
    found = []
    searched = [case for case in analysis.cases if case.case.search == analysis.search]
    if all(case.at_floor for case in searched if case.winner is not None):
        found.append("every test case is at the floor, so that its scores say nothing")
    blocks = analysis.table_3.blocks
    few = blocks < FEWEST
    if few:
        found.append(
            f"it rests on {count(blocks, 'block')} of cases (those of one data set and teacher), "
            f"too few to tell stability from luck (at least {FEWEST})"
        )
    doubtful = [row for row in analysis.table_3.rows if not row.chance.told_apart]
    if doubtful:
        labels = " and ".join(
            filter(
                None,
                [", ".join(escape(row.label) for row in doubtful[:-1]), escape(doubtful[-1].label)],
            )
        )
        found.append(
            f"whether the alternative is better than the default cannot be told from chance for "
            f"{labels} (sign test)"
        )
    against = analysis.stable_over_random.median
    if against is not None and against <= 0:
        found.append("in the median it is no better than a random candidate")
    found += [
        f"the 95 % interval of its gain over {other}, {percent(low)} to {percent(high)} %, "
        "includes 0"
        for row, other in (
            (analysis.stable_over_lazy, "lazy"),
            (analysis.stable_over_random, "random"),
        )
        if row.interval is not None and (low := row.interval[0]) <= 0 <= (high := row.interval[1])
    ]
    if len(analysis.seeds) == 1 and analysis.winner_seeds:
        found.append("every decision rests on one seed; only what each case chose has several")
    elif len(analysis.seeds) == 1:
        found.append("there is one seed, so nothing shows how much two runs differ")
    if not found:
        return [
            "**How sure**: each reward can be told from chance, and the gains’ intervals exclude 0."
        ]
    text = "; ".join(found)
    return [
        f"**How sure**: {'not sure' if few else 'with reservations'}. {text[0].upper()}{text[1:]}."
    ]


def _nothing_learnt(analysis: Analysis) -> bool:
    decisions = (decision for case in analysis.cases for decision in case.path)
    return {each.test for found in decisions for each in found.candidates} <= {0.0, None}


def _versus(row: Comparison, other: str) -> str:
    if row.median is None:
        return f"cannot be compared with {other} (n = 0)"
    cases = f"over {count(row.n, 'case')}"
    size = percent(abs(row.median))
    if size == "0.0":
        return f"is level with {other} {cases}{_extreme(row, min)}"
    gains = "gains" if row.median > 0 else "loses"
    return f"{gains} {size} % against {other} {cases}{_extreme(row, min)}"


def _extreme(row: Comparison, worst: Callable[..., CaseGain]) -> str:
    """The case that lies furthest to the worse side of a median, by name."""
    if row.n < 2:
        return ""
    found = worst(row.gains, key=lambda each: each.gain)
    return f" (at worst {percent(found.gain)} %: {escape(found.case)})"


def _losers(analysis: Analysis) -> str | None:
    """The cases in which the stable configuration is worse than the default, the worst first."""
    found = {
        str(case.case): case.stable_over_default
        for case in analysis.cases
        if case.case.search == analysis.search and case.stable_over_default is not None
    }
    worse = sorted((lost, name) for name, lost in found.items() if lost < 0)
    if not worse:
        return None
    named = [f"{escape(name)} ({points(lost)})" for lost, name in worse[:MOST_NAMED]]
    if more := len(worse) - len(named):
        named.append(f"and {more} more")
    return (
        f"In {len(worse)} of {count(len(found), 'case')} its test score is below that of the "
        f"default, in points of 100: {', '.join(named)}."
    )


def _status(analysis: Analysis) -> list[str]:
    status = analysis.status
    kind = "complete" if status.complete else "partial"
    failed = status.blocked or status.diverged or status.failed
    text = f"**The study is {kind}{', with failures' if failed else ''}**: {status.finished} of "
    text += f"{count(status.cases, 'test case')} finished{without_teacher(analysis)}"
    text += f", {status.unfinished} unfinished" if status.unfinished else ""
    text += f", {status.blocked} blocked" if status.blocked else ""
    text += f"; {count(status.diverged, 'training')} diverged, {status.failed} failed for good."
    missing = [_why(case) for case in analysis.cases if case.state is not State.FINISHED]
    if len(missing) > MOST_NAMED:
        rest = len(missing) - MOST_NAMED
        missing = [*missing[:MOST_NAMED], f"- and {rest} more, all in the table of test cases"]
    return [text, "\n".join(missing)] if missing else [text]


def without_teacher(analysis: Analysis) -> str:
    """How many of the test cases are students on the labels alone, which stand beside others."""
    number = len(analysis.cases) - len(analysis.answer.cases)
    return f" ({number} of them on the labels alone)" if number else ""


def _why(case: CaseResult) -> str:
    return f"- {escape(case.case)} is {case.state}: {escape(case.reason)}"
