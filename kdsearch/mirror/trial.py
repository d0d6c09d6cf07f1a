"""A student's training as a trial of Optuna: its parameters, its score, what is told of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from kdsearch.agenda import COMPARES, WINNER, Agenda, Attempt, CaseView, Outcome, StudentTraining
from kdsearch.search import (
    CHECKPOINT,
    LAZY_TEMPERATURE,
    OBJECTIVE,
    TIED,
    Choice,
    Space,
    Trial,
    Value,
)

_MAY_BE_TIED = ("student_temperature", "confidence_temperature")
_LOGARITHMIC = ("temperature", "learning_rate")


@dataclass(frozen=True, kw_only=True)
class Student:
    """A student's training as a test case sees it; a case that shares it may see it otherwise."""

    training: StudentTraining
    trial: Trial
    """Of the search."""
    stage: str
    """The first that asked for it."""
    space: Space


def students_of(agenda: Agenda, view: CaseView) -> Iterator[Student]:
    """The case's students that have a result, each training once."""
    seen = set()
    stages = list(_stages(view))
    for trial, trainings in agenda.students(view.case).items():
        space = view.space
        stage = next((name for name, choice in stages if space.includes(choice, trial)), None)
        if stage is None:
            continue  # a neighbour asked for it, not this case
        for training in trainings:
            if training.key in agenda.results and training.key not in seen:
                seen.add(training.key)
                yield Student(training=training, trial=trial, stage=stage, space=view.space)
    if view.chosen is not None:
        for training in agenda.further(view.case):
            if training.key in agenda.results:
                yield Student(training=training, trial=view.chosen, stage=WINNER, space=view.space)


def state_of(outcome: Outcome | None) -> TrialState:
    """The state of a training's trial; None is the result of one that failed for good."""
    scored = outcome is not None and outcome.validation is not None
    return TrialState.COMPLETE if scored else TrialState.FAIL


def trial_of(student: Student, outcome: Outcome, written: datetime) -> FrozenTrial:
    """The trial of a student's outcome. One that diverged is a failed trial.

    One that does not tell its time ended when its file was `written`.
    """
    cost = outcome.cost
    ended = _local(cost.ended) or written
    return _trial(
        student,
        _local(cost.started) or ended - timedelta(seconds=cost.seconds),
        ended,
        state=state_of(outcome),
        value=outcome.validation,
        intermediate_values={
            epoch.epoch: epoch.validation
            for epoch in outcome.epochs
            if epoch.validation is not None
        },
        told={
            "ended": outcome.state,
            "test": outcome.test,
            "best_epoch": outcome.best_epoch,
            "host": cost.host,
            "device": cost.device,
            "seconds": cost.seconds,
        },
    )


def failed_trial(student: Student, attempt: Attempt, written: datetime) -> FrozenTrial:
    """The trial of a training that failed for good, with its last attempt.

    One that does not tell its time failed when its file was `written`.
    """
    told = {"ended": "failed", "message": attempt.message, "host": attempt.host}
    failed = _local(attempt.ended) or written
    return _trial(student, failed, failed, state=state_of(None), told=told)


def _local(time: datetime | None) -> datetime | None:
    """A time as Optuna has its own: by this machine's clock, without a zone."""
    return time and time.astimezone().replace(tzinfo=None)


def _trial(
    student: Student, started: datetime, ended: datetime, *, told: dict[str, Any], **fields: Any
) -> FrozenTrial:
    training = student.training
    params = _params(student)
    distributions = _distributions(student.space)
    found = optuna.trial.create_trial(
        params=params,
        distributions={name: distributions[name] for name in params},
        user_attrs={
            "key": training.key,
            "configuration": str(training),
            "stage": student.stage,
            "seed": training.seed,
            **told,
        },
        **fields,
    )
    found.datetime_start, found.datetime_complete = started, ended
    return found


def _stages(view: CaseView) -> Iterator[tuple[str, Choice]]:
    """The choices of the case by stage, in the order of asking."""
    for decision in view.progress.decisions:
        for candidate in decision.candidates:
            yield decision.axis or COMPARES, candidate.choice
    if (now := view.progress.pending) is not None:
        for _, choice in now.alternatives:
            yield now.axis or COMPARES, choice
    if view.phase2 is not None:
        yield "stable", view.phase2.stable
        yield "lazy", view.phase2.lazy


def _params(student: Student) -> dict[str, Any]:
    trial, objective = student.trial, student.trial.objective
    every = {OBJECTIVE: objective.kind, **objective.parameters, **dict(trial.settings)}
    if trial.checkpoint is not None:
        every[CHECKPOINT] = trial.checkpoint.value
    params = {name: every[name] for name in student.space.names if name in every}
    for name in params.keys() & {*_MAY_BE_TIED}:
        own, tied = params[name], params["temperature"]
        params[name] = TIED if own == tied else f"{own:g}"
    return params


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    """What each parameter may be in a test case; τ_t may leave the broad values upwards."""
    found = {name: _distribution(name, space.values(name)) for name in space.names}
    if space.refined is not None:
        broad = space.values(space.refined)
        highest = broad[-1] * broad[-1] / broad[-2]
        found[space.refined] = FloatDistribution(
            min(LAZY_TEMPERATURE, broad[0]), max(LAZY_TEMPERATURE, highest), log=True
        )
    return found


def _distribution(name: str, values: Sequence[Value]) -> BaseDistribution:
    if name in _MAY_BE_TIED:
        # Of a trial at τ_t = τ_s, tied is what is said, whichever value led there.
        students = [s if isinstance(s, str) else f"{s:g}" for s in values]
        return CategoricalDistribution(list(dict.fromkeys([TIED, *students])))
    if name == CHECKPOINT:
        return CategoricalDistribution([each.value for each in values])
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return FloatDistribution(min(values), max(values), log=name in _LOGARITHMIC)
    return CategoricalDistribution(values)
