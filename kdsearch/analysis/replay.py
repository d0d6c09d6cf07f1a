"""A strategy replayed on what an exhaustive search recorded: what it would have cost and chosen."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from kdsearch.agenda import Agenda, CaseView, TestScore
from kdsearch.analysis.scores import on_test
from kdsearch.errors import InputError, shortened_list
from kdsearch.search import (
    Axis,
    Progress,
    Space,
    Strategy,
    Trial,
    ValidationScore,
    best_trial,
)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What became of a trial."""

    validation: ValidationScore | None
    """The mean over the seeds; None if a training diverged or failed."""
    test: TestScore | None
    keys: tuple[str, ...]
    """Of its trainings, one under each seed; none if they could not start.

    Trials that differ in teacher checkpoints that coincide are the same trainings.
    """


_NOTHING = Recorded(validation=None, test=None, keys=())

Table = Mapping[Trial, Recorded]
"""Every trial of a grid, in the grid's order."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What a strategy came to."""

    progress: Progress
    rounds: tuple[tuple[Trial, ...], ...]
    """The trials it asked for; those of a round can run side by side."""
    trainings: int
    """How many these are, under every seed; equal ones count once."""
    chosen: Trial | None
    """None if nothing that it asked for has a score."""
    validation: ValidationScore | None
    test: TestScore | None
    validation_regret: float | None
    """The best validation score of the grid minus that of the choice: at least 0."""
    test_regret: float | None
    """The test score of the trial with that best validation score minus that of the choice.

    May be negative: no maximum is taken over test scores.
    """


def recorded(agenda: Agenda, view: CaseView) -> Table:
    """The outcomes of a test case whose exhaustive search is complete."""
    scores, trainings = agenda.scores(view), agenda.students(view.case)
    trials = dict.fromkeys(t for choice in view.space.choices() for t in view.space.trials(choice))
    table = {}
    for trial in trials:
        students = trainings.get(trial, ())
        test = on_test(agenda, students)
        table[trial] = Recorded(
            validation=scores[trial],
            test=test.mean if test else None,
            keys=tuple(student.key for student in students),
        )
    return table


def regrouped(space: Space, tuned: Collection[str], refined: Axis | None = None) -> Space:
    """A space of the same axes, of which those named in `tuned` are tuned and the others compared.

    They keep their order, but α comes last, as the greedy search compares its last axis in any
    case. `refined` is one of the tuned axes, with its broad values. Raises `ValueError` if these
    are fewer than two or do not ascend.
    """
    axes = {axis.name: axis for axis in (*space.compared, *space.tuned)}
    if refined is not None:
        axes[refined.name] = refined
    others = [axis for name, axis in axes.items() if name not in tuned]
    return replace(
        space,
        compared=tuple(sorted(others, key=lambda axis: axis.name == "alpha")),
        tuned=tuple(axis for name, axis in axes.items() if name in tuned),
        refined=refined.name if refined else None,
    )


def replay(strategy: Strategy, space: Space, table: Table) -> Replayed:
    """Walk `space` to the end of the strategy, which sees the validation scores of `table`.

    `space` has the trials of the table, whichever of its axes are compared. Raises `InputError`,
    with their names, for trials that are not in the table.
    """
    known: dict[Trial, ValidationScore | None] = {}
    rounds: list[tuple[Trial, ...]] = []
    while not (progress := strategy(space, known)).finished:
        rounds.append(tuple(progress.wanted))
        if unknown := [str(trial) for trial in progress.wanted if trial not in table]:
            what = "the strategy asks for what is outside the recorded grid"
            remedy = "refine around values whose neighbourhood the grid has"
            raise InputError.one(shortened_list(unknown), what, remedy)
        known |= {trial: table[trial].validation for trial in progress.wanted}
    best = best_trial(table, {trial: row.validation for trial, row in table.items()})
    chosen = progress.winner.best
    ideal, found = (table[trial] if trial else _NOTHING for trial in (best, chosen))
    return Replayed(
        progress=progress,
        rounds=tuple(rounds),
        trainings=len({key for trial in known for key in table[trial].keys}),
        chosen=chosen,
        validation=found.validation,
        test=found.test,
        validation_regret=_less(ideal.validation, found.validation),
        test_regret=_less(ideal.test, found.test),
    )


def _less(score: float | None, other: float | None) -> float | None:
    return None if score is None or other is None else score - other
