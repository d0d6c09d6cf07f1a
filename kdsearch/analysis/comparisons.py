"""What Figures 1, 2 and 3 compare: each function gives the gain in one test case.

Where a case has no such comparison they raise `NoGainError`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from kdsearch.agenda import Agenda, CaseView
from kdsearch.analysis.erm import tuned_erm
from kdsearch.analysis.gains import Comparison, LeftOut, NoGainError, Relative, compare, gain
from kdsearch.analysis.noise import Noises
from kdsearch.analysis.paper import MAXIMUM, OVER_ANOTHER_RANDOM, OVER_RANDOM
from kdsearch.analysis.scores import (
    CaseCandidates,
    TestScores,
    candidate_on_test,
    case_candidates,
    on_test,
    over_label,
    row_worth,
    value_label,
)
from kdsearch.search import CHECKPOINT, Decision, Value
from kdsearch.study import SPECS, TestCase

ALPHA = "alpha"
FIGURE_2 = ("distance", "teacher", "student_temperature")
"""The parameters of Figure 2 but α, in its order."""

BEST_ALPHA = "best α by validation"
STABLE_OVER_LAZY = "stable over lazy"
STABLE_OVER_RANDOM = "stable over random (second draw)"
CHOSEN_OVER_ERM = "chosen over ERM"
STABLE_OVER_ERM = "stable over ERM"

SecondPhase = Literal["stable", "lazy"]


def figure_1(agenda: Agenda, noises: Noises, search: str | None = None) -> tuple[Comparison, ...]:
    """Figure 1: the cost of a bad choice, and beside the paper's draw its expectation."""
    rows = {
        "best over worst": best_over_worst,
        OVER_RANDOM: best_over_random,
        "best over the expectation": best_over_expectation,
    }
    return tuple(
        compare(
            *(label, agenda.views_of(search), partial(in_case, agenda), noises),
            figure=1,
            maximum=True,
        )
        for label, in_case in rows.items()
    )


def best_over_worst(agenda: Agenda, view: CaseView) -> Relative:
    """Figure 1: the best candidate over the worst, both by test score."""
    found = _candidates(agenda, view)
    return gain_in(agenda, view, found.best, found.worst)


def best_over_random(agenda: Agenda, view: CaseView) -> Relative:
    """Figure 1: the best candidate over one drawn from the candidates."""
    found = _candidates(agenda, view)
    return gain_in(agenda, view, found.best, found.drawn(draw_seed(agenda, view.case, "figure 1")))


def best_over_expectation(agenda: Agenda, view: CaseView) -> Relative:
    """Beside Figure 1: the best candidate over the mean of all, free of the draw's luck."""
    found = _candidates(agenda, view)
    return gain_in(agenda, view, found.best, found.expectation)


def figure_2(agenda: Agenda, noises: Noises, search: str | None = None) -> tuple[Comparison, ...]:
    """Figure 2: each parameter's alternatives over its default, and α in two readings."""
    views = agenda.views_of(search)
    if not views:
        return ()
    space = agenda.resolved.study.every_search[search].space()
    rows: dict[str, Callable[[CaseView], Relative]] = {}
    names = [axis.name for axis in space.compared]
    maximum = None
    if ALPHA in names and len(space.values(ALPHA)) > 1:
        alpha = value_label(ALPHA, space.values(ALPHA)[0])
        rows[f"{BEST_ALPHA} over {alpha}"] = partial(selected_alpha, agenda)
        maximum = f"{MAXIMUM}, over {alpha}"
        rows[maximum] = partial(maximum_alpha, agenda)
    papers = [axis for axis in FIGURE_2 if axis in names]
    for axis in (*papers, *(name for name in names if name not in (*papers, ALPHA))):
        default, *alternatives = space.values(axis)
        for value in alternatives:
            label = over_label(axis, value, default)
            rows[label] = partial(flip, agenda, axis=axis, alternative=value)
    return tuple(
        compare(label, views, in_case, noises, figure=2, maximum=label == maximum)
        for label, in_case in rows.items()
    )


def flip(agenda: Agenda, view: CaseView, *, axis: str, alternative: Value) -> Relative:
    """Figure 2: an alternative over the default, as the traversal met them."""
    found = _decision(view, axis)
    target = next((c for c in found.candidates if c.value == alternative), None)
    if target is None:
        raise NoGainError(LeftOut.ABSENT)
    return gain_in(
        agenda,
        view,
        candidate_on_test(agenda, view, target),
        candidate_on_test(agenda, view, found.candidates[0]),
    )


def selected_alpha(agenda: Agenda, view: CaseView) -> Relative:
    """Figure 2: the α of the highest validation score, the default included, over the default."""
    decision, default, _ = _scored_alphas(agenda, view)
    return gain_in(agenda, view, candidate_on_test(agenda, view, decision.winner), default)


def maximum_alpha(agenda: Agenda, view: CaseView) -> Relative:
    """Figure 2, as the paper's row seems to be: the maximum by test score over all α."""
    _, default, others = _scored_alphas(agenda, view)
    scored = others if default is None else [default, *others]
    return gain_in(agenda, view, max(scored, key=lambda test: test.mean), default)


def figure_3(agenda: Agenda, noises: Noises, search: str | None = None) -> tuple[Comparison, ...]:
    """Figure 3: how far each way to choose lags behind the test case's own best."""
    rows = {
        "best over lazy": best_over_lazy,
        OVER_ANOTHER_RANDOM: best_over_another_random,
        "best over stable": best_over_stable,
    }
    return tuple(
        compare(
            *(label, agenda.views_of(search), partial(in_case, agenda), noises),
            figure=3,
            maximum=in_case is best_over_another_random,
        )
        for label, in_case in rows.items()
    )


def best_over_lazy(agenda: Agenda, view: CaseView) -> Relative:
    """Figure 3: the best candidate, frozen before the second phase, over the lazy baseline."""
    return _over_second_phase(agenda, view, "lazy")


def best_over_another_random(agenda: Agenda, view: CaseView) -> Relative:
    """Figure 3: the best candidate over a draw of its own, not that of Figure 1."""
    found = _traversed(agenda, view)
    return gain_in(agenda, view, found.best, found.drawn(draw_seed(agenda, view.case, "figure 3")))


def best_over_stable(agenda: Agenda, view: CaseView) -> Relative:
    """Figure 3: the best candidate, frozen before the second phase, over the stable one."""
    return _over_second_phase(agenda, view, "stable")


def stable_over_others(
    agenda: Agenda, noises: Noises, search: str | None = None
) -> tuple[Comparison, Comparison]:
    """What the stable configuration gains over the lazy baseline, and over Figure 3's draw."""
    views = agenda.views_of(search)
    return (
        compare(STABLE_OVER_LAZY, views, partial(stable_over_lazy, agenda), noises),
        compare(STABLE_OVER_RANDOM, views, partial(stable_over_random, agenda), noises),
    )


def stable_over_lazy(agenda: Agenda, view: CaseView) -> Relative:
    """The stable configuration over the lazy baseline."""
    return gain_in(
        agenda, view, _second_phase(agenda, view, "stable"), _second_phase(agenda, view, "lazy")
    )


def stable_over_random(agenda: Agenda, view: CaseView) -> Relative:
    """The stable configuration over the draw of Figure 3."""
    stable, found = _second_phase(agenda, view, "stable"), _traversed(agenda, view)
    return gain_in(agenda, view, stable, found.drawn(draw_seed(agenda, view.case, "figure 3")))


def over_erm(
    agenda: Agenda, noises: Noises, search: str | None = None
) -> tuple[Comparison, Comparison]:
    """What distillation brings: over the same student without a teacher.

    The first row has what each case's traversal chose by validation.
    """
    views = agenda.views_of(search)
    return (
        compare(CHOSEN_OVER_ERM, views, partial(chosen_over_erm, agenda), noises),
        compare(STABLE_OVER_ERM, views, partial(stable_over_erm, agenda), noises),
    )


def chosen_over_erm(agenda: Agenda, view: CaseView) -> Relative:
    """What the traversal chose over the student without a teacher, each by validation."""
    erm = _erm(agenda, view)
    if view.blocked is not None:
        raise NoGainError(LeftOut.BLOCKED)
    if not view.traversed:
        raise NoGainError(LeftOut.UNFINISHED)
    return gain_in(agenda, view, candidate_on_test(agenda, view, view.progress.winner), erm)


def chosen_over_teacher(agenda: Agenda, view: CaseView) -> Relative:
    """What the traversal chose over the checkpoint that taught it."""
    if view.blocked is not None:
        raise NoGainError(LeftOut.BLOCKED)
    if not view.traversed:
        raise NoGainError(LeftOut.UNFINISHED)
    winner = view.progress.winner
    outputs = view.outputs.get(winner.choice.get(CHECKPOINT))
    if outputs is None:
        raise NoGainError(LeftOut.ABSENT)
    of_test = [training for training in outputs if training.split == "test"]
    taught = candidate_on_test(agenda, view, winner)
    # A teacher has one seed, which is that of every student's.
    seeds = len(taught.by_seed) if taught else 0
    return gain_in(agenda, view, taught, on_test(agenda, of_test * seeds))


def stable_over_erm(agenda: Agenda, view: CaseView) -> Relative:
    """The stable configuration over the student without a teacher."""
    erm = _erm(agenda, view)
    return gain_in(agenda, view, _second_phase(agenda, view, "stable"), erm)


def _erm(agenda: Agenda, view: CaseView) -> TestScores | None:
    other = agenda.without_teacher(view.case)
    if other is None or other.case == view.case:
        raise NoGainError(LeftOut.ABSENT)
    found = tuned_erm(agenda, view)
    if found is None:
        raise NoGainError(LeftOut.UNFINISHED)
    return found.on_test


def draw_seed(agenda: Agenda, case: TestCase, purpose: str) -> str:
    """The seed of a draw among the candidates of a case."""
    return f"{agenda.resolved.study.seed}/{case}/random of {purpose}"


def gain_in(
    agenda: Agenda, view: CaseView, target: TestScores | None, baseline: TestScores | None
) -> Relative:
    """The gain in a test case, whose data say what its scores are worth."""
    largest = SPECS[agenda.resolved.datasets[view.case.dataset].task].largest_score
    return gain(target, baseline, least=row_worth(agenda, view), largest=largest)


def _traversed(agenda: Agenda, view: CaseView) -> CaseCandidates:
    if view.blocked is not None:
        raise NoGainError(LeftOut.BLOCKED)
    found = case_candidates(agenda, view)
    if found is None:
        raise NoGainError(LeftOut.UNFINISHED)
    return found


def _candidates(agenda: Agenda, view: CaseView) -> CaseCandidates:
    """The candidates of a case in which at least two can be compared."""
    found = _traversed(agenda, view)
    if not found.comparable:
        raise NoGainError(LeftOut.ABSENT if found.choices < 2 else LeftOut.UNSCORED)
    return found


def _decision(view: CaseView, axis: str) -> Decision:
    """The decision on an axis: α's is taken in every case, but may have one value only."""
    if axis not in view.space.names or len(view.space.values(axis)) < 2:
        raise NoGainError(LeftOut.ABSENT)
    if view.blocked is not None:
        raise NoGainError(LeftOut.BLOCKED)
    progress = view.progress
    if not view.ready:
        raise NoGainError(LeftOut.UNFINISHED)
    decision = progress.decision(axis)
    if decision is not None:
        return decision
    order = [each.name for each in view.space.compared]
    now = progress.pending.axis if progress.pending else None
    ahead = now is not None and order.index(axis) >= order.index(now)
    raise NoGainError(LeftOut.UNFINISHED if ahead else LeftOut.ABSENT)


def _scored_alphas(
    agenda: Agenda, view: CaseView
) -> tuple[Decision, TestScores | None, list[TestScores]]:
    """The decision on α, the default's test score and those of the alternatives that have one."""
    decision = _decision(view, ALPHA)
    default, *others = (candidate_on_test(agenda, view, c) for c in decision.candidates)
    scored = [score for score in others if score is not None]
    if not scored:
        raise NoGainError(LeftOut.UNSCORED)
    return decision, default, scored


def _second_phase(agenda: Agenda, view: CaseView, name: SecondPhase) -> TestScores | None:
    if view.blocked is not None:
        raise NoGainError(LeftOut.BLOCKED)
    if view.phase2 is None:
        raise NoGainError(LeftOut.UNFINISHED)
    found = view.phase2.stable_tuned if name == "stable" else view.phase2.lazy_tuned
    if found is None:
        raise NoGainError(LeftOut.UNFINISHED)
    return candidate_on_test(agenda, view, found)


def _over_second_phase(agenda: Agenda, view: CaseView, name: SecondPhase) -> Relative:
    found = _traversed(agenda, view)
    return gain_in(agenda, view, found.best, _second_phase(agenda, view, name))
