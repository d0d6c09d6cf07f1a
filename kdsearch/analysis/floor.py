"""The floor: scores that take no learning, and the test cases whose students have no others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from kdsearch.agenda import Agenda, CaseView, best_so_far
from kdsearch.analysis.gains import Comparison
from kdsearch.analysis.scores import over_label, score_digits
from kdsearch.search import rewards
from kdsearch.study import (
    SPECS,
    DatasetFacts,
    ResolvedDataset,
    TestCase,
    axis_key,
    epochs_key,
)

Facts = Mapping[str, DatasetFacts]
"""What the preflight found in each data set; nothing is known of one that is absent."""
ROUNDING = 1e-9
"""Of a score above the floor, by which it is not."""


@dataclass(frozen=True, kw_only=True)
class AtFloor:
    """A test case no student of which has a validation score above the floor."""

    case: TestCase
    floor: float
    best: float
    """The highest validation score of its students."""
    teacher: float | None
    """Its teacher's, of its best checkpoint; None where there is none, or it is not known."""
    keys: tuple[str, str]
    """Where the study file has its epochs, and its learning rates."""
    digits: int
    """How many decimals its scores are shown with."""

    def __str__(self) -> str:
        best, floor = (f"{value:.{self.digits}f}" for value in (self.best, self.floor))
        found = f"{self.case}: every student so far scores {best}"
        if self.best:
            found = (
                f"{self.case}: the best student so far scores {best}, and up to "
                f"{floor} takes no learning"
            )
        if self.teacher is not None:
            found += f"; its teacher has {self.teacher:.{self.digits}f}"
        return f"{found}: more epochs, or another learning rate ({', '.join(self.keys)})"


def floor_of(data: ResolvedDataset, facts: DatasetFacts | None) -> float:
    """The highest validation score of a data set that takes no learning.

    Of classification, the best that one and the same label for every row comes to, if the labels'
    counts are known: the majority's share in accuracy, 2 s / (1 + s) in F1 for the label of the
    share s. Of multiple choice what a draw comes to, or always the same text. Of all else, and at
    least, a hundredth of the largest score.
    """
    least = SPECS[data.task].largest_score / 100
    split = facts.splits.get("validation") if facts else None
    if data.metric == "multiple_choice" and split and split.chance:
        return max(least, split.chance)
    counts = split.labels if split else {}
    total = sum(counts.values())
    if not SPECS[data.task].one_label or not total:
        return least
    shares = [counts.get(label, 0) / total for label in data.labels]
    if data.metric == "accuracy":
        return max(least, *shares)
    f1 = [2 * share / (1 + share) for share in shares]
    return max(least, f1[1] if len(f1) == 2 else max(f1) / len(f1))


def at_floor(agenda: Agenda, view: CaseView, facts: Facts) -> AtFloor | None:
    """Whether all of a case's students are at the floor, by validation score.

    Not before each of its learning rates was tried, or something was decided.
    """
    case, study = view.case, agenda.resolved.study
    floor = floor_of(agenda.resolved.datasets[case.dataset], facts.get(case.dataset))
    best = best_so_far(agenda, case)
    if best is None or best > floor + ROUNDING:
        return None
    if not view.progress.decisions:
        rates = {
            trial.get("learning_rate")
            for trial, seeds in agenda.students(case).items()
            if all(training.key in agenda.results for training in seeds)
        }
        if not rates.issuperset(view.space.values("learning_rate")):
            return None
    return AtFloor(
        case=case,
        floor=floor,
        best=best,
        teacher=_teacher(agenda, view),
        keys=(epochs_key(study, case), axis_key(study, case, "learning_rate")),
        digits=score_digits(agenda, view) + 1,  # else a best just below the floor would look as it
    )


def _teacher(agenda: Agenda, view: CaseView) -> float | None:
    every = (outputs.key for splits in view.outputs.values() for outputs in splits)
    outcomes = (agenda.results.get(key) for key in every)
    return max((o.validation for o in outcomes if o and o.validation is not None), default=None)


@dataclass(frozen=True, kw_only=True)
class Without:
    """A number over all cases, and over those that are not at the floor."""

    label: str
    figure: int | None
    """That the row is of; None of a reward, and of what the paper does not compare."""
    reward: bool
    """Whether it is a reward; else it is the median of gains."""
    value: float | None
    n: int
    without: float | None
    n_without: int


def rewards_without(
    agenda: Agenda, search: str | None, floor: Collection[TestCase]
) -> tuple[Without, ...]:
    """The rewards of a search with and without the cases at the `floor`."""
    views = [view for view in agenda.views_of(search) if view.traversed]
    left = [view.progress for view in views if view.case not in floor]
    axes = dict.fromkeys(axis.name for view in views for axis in view.space.voted)
    others = {(r.axis, r.alternative, r.default): r.reward for r in rewards(left, axes)}
    return tuple(
        Without(
            label=over_label(found.axis, found.alternative, found.default),
            figure=None,
            reward=True,
            value=found.reward,
            n=len(views),
            without=others.get((found.axis, found.alternative, found.default)),
            n_without=len(left),
        )
        for found in agenda.rewards(search)
    )


def medians_without(rows: Iterable[Comparison], floor: Collection[TestCase]) -> tuple[Without, ...]:
    """The medians of some rows with and without the cases at the `floor`."""
    found = []
    for row in rows:
        left = [each.gain for each in row.gains if each.case not in floor]
        found.append(
            Without(
                label=row.label,
                figure=row.figure,
                reward=False,
                value=row.median,
                n=row.n,
                without=median(left) if left else None,
                n_without=len(left),
            )
        )
    return tuple(found)
