"""The top of a report: what the study found, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kdsearch.analysis import (
    Analysis,
    CandidateScores,
    CaseGain,
    CaseResult,
    Comparison,
    Edge,
    State,
    Unconverged,
)
from kdsearch.analysis.comparisons import STABLE_OVER_LAZY, STABLE_OVER_RANDOM
from kdsearch.analysis.paper import AT_LEAST_AS_GOOD, CASES
from kdsearch.analysis.statistics import FEWEST
from kdsearch.report.markdown import axes_in_words, escape, percent, points, reading, score
from kdsearch.report.under_seeds import sentence
from kdsearch.search import ALPHA, SYMBOLS

_MOST_NAMED = 5
_BEYOND = {"largest": "larger", "smallest": "smaller"}


def answer(analysis: Analysis) -> str:
    """The answer, the study's state, and the cases that are missing from it."""
    found = [*_stable(analysis), *_how_sure(analysis)] if analysis.flips else _best(analysis)
    sections = [
        *_better_without(analysis),
        *found,
        *_at_floor(analysis),
        *_to_change(analysis),
        *_status(analysis),
    ]
    return "\n\n".join(sections)


def _better_without(analysis: Analysis) -> list[str]:
    """The cases in which distillation loses to plain training, which is said before all else."""
    taught = [case for case in analysis.cases if case.case.teacher is not None]
    compared = [case for case in taught if case.over_erm_points is not None]
    lost = [case for case in compared if case.better_without]
    if not lost:
        return []
    named = [
        f"{escape(case.case)} ({score(case.erm.test)} against {score(case.winner.test)})"
        for case in lost[:_MOST_NAMED]
        if case.erm and case.winner
    ]
    if more := len(lost) - len(named):
        named.append(f"and {more} more")
    text = (
        f"**Without a teacher the student is better in {len(lost)} of "
        f"{_count(len(compared), 'case')}**, by test score: {', '.join(named)}."
    )
    if within := sum(map(_within_noise, lost)):
        text += f" In {within} of them it is by less than the noise."
    return [text]


def _within_noise(case: CaseResult) -> bool:
    noise = case.over_erm_noise
    return noise is not None and case.over_erm is not None and abs(case.over_erm) < noise.deviation


def hints(edges: Iterable[Edge], unconverged: Iterable[Unconverged]) -> Iterator[str]:
    """What of the study file should be changed, and why: a line each."""
    for edge in edges:
        name = SYMBOLS.get(edge.axis, edge.axis.replace("_", " "))
        yield (
            f"the chosen {name} is the {edge.end} that was tried in {len(edge.cases)} of "
            f"{_count(edge.of, 'case')}: try {_BEYOND[edge.end]} values in {edge.key}"
        )
    for each in unconverged:
        named = [str(case) for case in each.cases[:_MOST_NAMED]]
        if more := len(each.cases) - len(named):
            named.append(f"{more} more")
        yield (
            ("" if each.every else f"in {', '.join(named)} ")
            + f"{each.last} of {_count(each.students, 'student')} were best at their last epoch: "
            f"train longer, with a higher {each.key}"
        )


def _at_floor(analysis: Analysis) -> list[str]:
    found = [str(case.at_floor) for case in analysis.cases if case.at_floor]
    if not found:
        return []
    lines = [f"- {escape(line)}" for line in found[:_MOST_NAMED]]
    if more := len(found) - len(lines):
        lines.append(f"- and {more} more, each marked in the table of cases")
    text = f"**At the floor**: {_count(len(found), 'test case')} of {len(analysis.cases)}"
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
    lines = [f"- {escape(line)}" for line in hints(analysis.edges, analysis.unconverged)]
    return ["**The search may have ended too early**:", "\n".join(lines)] if lines else []


def _best(analysis: Analysis) -> list[str]:
    """What a study without a stable configuration found: the best of each student."""
    best: dict[tuple[str, str], tuple[CaseResult, CandidateScores]] = {}
    for case in analysis.cases:
        winner, of = case.winner, (case.case.dataset, case.case.student)
        if winner is None or winner.validation is None:
            continue
        if of not in best or winner.validation > (best[of][1].validation or 0.0):
            best[of] = case, winner
    if not best:
        return ["No search is finished, so there is nothing to choose yet."]
    lines = [
        f"- {escape(case.case)}: **{escape(winner)}**, test {score(winner.test)}"
        + (f". {found}" if (found := sentence(case.winner_under_seeds)) else "")
        for case, winner in best.values()
    ]
    return ["Best by validation, of each student under all of its searches:", "\n".join(lines)]


def _stable(analysis: Analysis) -> list[str]:
    stable = analysis.stable
    if stable is None:
        return ["No traversal is finished, so there is no stable configuration to name."]
    if not any(spent.scored for spent in analysis.cost if spent.kind == "student"):
        return ["No training has a score, so there is no stable configuration to name."]
    name = f" of {escape(analysis.search)}" if analysis.search else ""
    choice = f"**{escape(stable.choice)}**, with {axes_in_words(stable.tuned)} tuned in each case"
    if stable.provisional:
        of = f"{stable.traversals} of {stable.cases} traversals"
        return [
            f"So far, over {of}, the stable configuration{name} would be {choice}. It may still "
            "change, and is only measured in the second phase, after the last traversal."
        ]
    rests = f"It rests on {_count(stable.traversals, 'traversal')}."
    lines = [f"The stable configuration{name} is {choice}. {rests}"]
    winners = [
        case.winner.choice
        for case in analysis.cases
        if case.winner is not None and case.case.search == analysis.search
    ]
    if any(choice.get(ALPHA) != stable.choice.get(ALPHA) for choice in winners):
        lines[0] += (
            " α is not voted on and keeps its default, as in the paper, although a case of this "
            "study did better with another."
        )
    over = [
        _versus(row, other)
        for row, other in (
            (analysis.stable_over_lazy, "the lazy baseline"),
            (analysis.stable_over_random, "a random candidate"),
        )
    ]
    lines.append(f"On the test set, in the median, it {over[0]} and {over[1]}.")
    if losers := _losers(analysis):
        lines.append(losers)
    best = analysis.figure_3[-1]
    if best.median is not None and analysis.at_least_as_good is not None:
        lines.append(
            f"A case's own best is {percent(best.median)} % above it in the median"
            f"{_extreme(best, max)}. It is at least as good as that best in "
            f"{100 * analysis.at_least_as_good:.0f} % of {_count(best.n, 'case')} "
            f"(paper: {100 * AT_LEAST_AS_GOOD:.0f} % of {CASES})."
        )
    return lines


def _how_sure(analysis: Analysis) -> list[str]:
    """What speaks against taking the answer for certain."""
    stable = analysis.stable
    students = [spent for spent in analysis.cost if spent.kind == "student"]
    if stable is None or not any(spent.scored for spent in students):
        return []
    found = []
    blocks = analysis.table_3.blocks
    few = blocks < FEWEST
    if few:
        found.append(
            f"it rests on {_count(blocks, 'block')} of cases (those of one data set and teacher), "
            f"too few to tell stability from luck (at least {FEWEST})"
        )
    found += [
        f"the reward of {escape(row.label)} {reading(row.chance)} (sign test)"
        for row in analysis.table_3.rows
        if not row.chance.told_apart
    ]
    found += [
        f"the 95 % interval of its gain over {other}, {percent(low)} to {percent(high)} %, "
        "includes 0"
        for row, other in (
            (analysis.stable_over_lazy, "lazy"),
            (analysis.stable_over_random, "random"),
        )
        if row.interval is not None and (low := row.interval[0]) <= 0 <= (high := row.interval[1])
    ]
    tests = {
        e.test for case in analysis.cases for decision in case.path for e in decision.candidates
    }
    if tests <= {0.0, None}:
        found.append("every test score is 0, so nothing was learnt")
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


def _versus(row: Comparison, other: str) -> str:
    if row.median is None:
        return f"cannot be compared with {other} (n = 0)"
    cases = f"over {_count(row.n, 'case')}"
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
    named = [f"{escape(name)} ({points(lost)})" for lost, name in worse[:_MOST_NAMED]]
    if more := len(worse) - len(named):
        named.append(f"and {more} more")
    return (
        f"In {len(worse)} of {_count(len(found), 'case')} its test score is below that of the "
        f"default, in points of 100: {', '.join(named)}."
    )


def _status(analysis: Analysis) -> list[str]:
    status = analysis.status
    kind = "complete" if status.complete else "partial"
    failed = status.blocked or status.diverged or status.failed
    text = f"**The study is {kind}{', with failures' if failed else ''}**: {status.finished} of "
    text += f"{_count(status.cases, 'test case')} finished"
    text += f", {status.unfinished} unfinished" if status.unfinished else ""
    text += f", {status.blocked} blocked" if status.blocked else ""
    text += f"; {_count(status.diverged, 'training')} diverged, {status.failed} failed for good."
    missing = [_why(case) for case in analysis.cases if case.state is not State.FINISHED]
    if len(missing) > _MOST_NAMED:
        rest = len(missing) - _MOST_NAMED
        missing = [*missing[:_MOST_NAMED], f"- and {rest} more, all in the table of test cases"]
    return [text, "\n".join(missing)] if missing else [text]


def _why(case: CaseResult) -> str:
    return f"- {escape(case.case)} is {case.state}: {escape(case.reason)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
