"""The top of a report: what the study found, and how far it has come."""

from __future__ import annotations

from kdsearch.analysis import Analysis, CandidateScores, CaseResult, Comparison, Stable, State
from kdsearch.analysis.paper import AT_LEAST_AS_GOOD, CASES
from kdsearch.analysis.statistics import FEWEST
from kdsearch.report.markdown import escape, percent, reading, score
from kdsearch.report.under_seeds import sentence
from kdsearch.search import ALPHA

_MOST_NAMED = 5


def answer(analysis: Analysis) -> str:
    """The answer, the study's state, and the cases that are missing from it."""
    found = [*_stable(analysis), *_how_sure(analysis)] if analysis.flips else _best(analysis)
    return "\n\n".join([*found, *_status(analysis)])


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
        f"- {escape(case.case)}: **{escape(winner.choice)}**, test {score(winner.test)}"
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
    choice = f"**{escape(stable.choice)}**, with {_tuned(stable)} tuned in each case"
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
    best = analysis.figure_3[-1]
    if best.median is not None and analysis.at_least_as_good is not None:
        lines.append(
            f"A case's own best is {percent(best.median)} % above it in the median. It is at "
            f"least as good as that best in {100 * analysis.at_least_as_good:.0f} % of "
            f"{_count(best.n, 'case')} (paper: {100 * AT_LEAST_AS_GOOD:.0f} % of {CASES})."
        )
    return lines


def _tuned(stable: Stable) -> str:
    names = {"temperature": "τ_t", "learning_rate": "the learning rate"}
    return " and ".join(names.get(name, name) for name in stable.tuned) or "nothing"


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
        return f"is level with {other} {cases}"
    return f"{'gains' if row.median > 0 else 'loses'} {size} % against {other} {cases}"


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
