"""One test case: the path of its traversal, its teacher, what went wrong and what it took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, median
from typing import Literal

from kdsearch.agenda import Agenda, CaseView, Outcome, OutputsTraining, TestScore
from kdsearch.analysis.comparisons import chosen_over_erm
from kdsearch.analysis.cost import CaseTrainings, Spent, spent
from kdsearch.analysis.erm import Erm, tuned_erm
from kdsearch.analysis.gains import NoGainError
from kdsearch.analysis.scores import contenders, score_on_test, tested, value_label
from kdsearch.search import (
    CHECKPOINT,
    Candidate,
    Checkpoint,
    Choice,
    Trial,
    Tuned,
    ValidationScore,
)
from kdsearch.study import TestCase


class State(StrEnum):
    """How far a test case has come."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    BLOCKED = "blocked"


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A trial of a choice, with its scores: means over the seeds."""

    temperature: float | None
    learning_rate: float
    validation: ValidationScore | None
    test: TestScore | None
    key: str
    """Of its training under the first seed."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A choice after its tuning: its best trial by validation, and that one's scores."""

    choice: Choice
    value: str
    validation: ValidationScore | None
    test: TestScore | None
    temperature: float | None
    """The tuned τ_t; None where it is inactive, or where no trial has a score."""
    learning_rate: float | None
    epoch: int | None
    """Of the best trial under the first seed, the best one by validation."""
    trials: int
    key: str | None
    """Of the best trial's training, under the first seed."""
    spread: float | None
    """The standard deviation of the test score between the seeds; None of a single one."""
    tried: tuple[Tried, ...]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A decision of the traversal; the first candidate is the value held before it."""

    parameter: str
    candidates: tuple[Evaluated, ...]
    winner: int
    """The position of the winner among the candidates."""


@dataclass(frozen=True, kw_only=True)
class UnderSeeds:
    """What a case chose, trained under each of the study's winner seeds."""

    by_seed: Mapping[int, TestScore | None]
    """The test score under each; None where there is none, or not yet."""
    test: TestScore | None
    """Their mean; None where one is missing."""
    spread: float | None
    """Their standard deviation."""

    @property
    def missing(self) -> tuple[int, ...]:
        """The seeds without a score."""
        return tuple(seed for seed, test in self.by_seed.items() if test is None)


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a model takes."""

    parameters: int
    bytes: int | None
    """Of its weights, in full precision."""
    examples_per_second: float | None
    """How fast it scores the test split on a worker; of several workers' speeds the median."""


@dataclass(frozen=True, kw_only=True)
class TeacherScore:
    """A teacher's checkpoint and its own scores, where they are known."""

    size: Size | None
    checkpoint: Checkpoint
    epoch: int | None
    validation: ValidationScore | None
    test: TestScore | None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A training without a score."""

    key: str
    training: str
    state: Literal["diverged", "failed"]


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """Everything known about a test case."""

    case: TestCase
    state: State
    reason: str | None
    """Why it is unfinished or blocked."""
    metric: str | None
    """How exactly its scores are computed; None before there is any."""
    teachers: tuple[TeacherScore, ...]
    coinciding: bool
    """Whether the teacher's two checkpoints are one."""
    path: tuple[Step, ...]
    winner: Evaluated | None
    """What the traversal chose, by validation."""
    winner_under_seeds: UnderSeeds | None
    """None where the study has no winner seeds, or nothing that was chosen has a score."""
    best_on_test: TestScore | None
    """The case's own best: the highest test score of its candidates (Figures 1 and 3)."""
    stable: Evaluated | None
    lazy: Evaluated | None
    erm: Erm | None
    """The student without a teacher, where the study asks for it."""
    over_erm: float | None
    """The relative gain of the winner over it, on test."""
    gap_closed: float | None
    """The share of the gap from it to the winner's teacher that the winner closes, on test; None
    where the teacher is no better."""
    size: Size | None
    """The student's."""
    failures: tuple[Failure, ...]
    cost: tuple[Spent, ...]
    """A training that cases share counts in each of them."""


def case_results(agenda: Agenda) -> tuple[CaseResult, ...]:
    """Every test case, in the order of the study file."""
    return tuple(case_result(agenda, view) for view in agenda.views())


def case_result(agenda: Agenda, view: CaseView) -> CaseResult:
    """The test case of `view`."""
    state, reason = state_of(view)
    path = _path(agenda, view)
    trainings = CaseTrainings(agenda, view)
    every = trainings.teachers | trainings.outputs | trainings.students
    results = agenda.results
    phase2 = view.phase2
    candidates = contenders(agenda, view)
    best = candidates.best if candidates else None
    winner = path[-1].candidates[path[-1].winner] if view.traversed else None
    teachers = teacher_scores(agenda, view)
    erm = tuned_erm(agenda, view)
    return CaseResult(
        case=view.case,
        state=state,
        reason=reason,
        metric=next((o.metric for key in every if (o := results[key]) is not None), None),
        teachers=teachers,
        coinciding=view.coinciding,
        path=path,
        winner=winner,
        winner_under_seeds=_under_seeds(agenda, view),
        best_on_test=best.mean if best else None,
        stable=_second_phase(agenda, view, phase2.stable, phase2.stable_tuned) if phase2 else None,
        lazy=_second_phase(agenda, view, phase2.lazy, phase2.lazy_tuned) if phase2 else None,
        erm=erm,
        over_erm=_over_erm(agenda, view),
        gap_closed=gap_closed(winner, erm, teachers),
        size=size_of([results[key] for key in trainings.students]),
        failures=failures(agenda, every),
        cost=(
            spent("teacher", (results[key] for key in trainings.teachers)),
            spent("outputs", (results[key] for key in trainings.outputs)),
            spent("student", (results[key] for key in trainings.students)),
        ),
    )


def _under_seeds(agenda: Agenda, view: CaseView) -> UnderSeeds | None:
    trainings = agenda.winners(view.case)
    if not trainings:
        return None
    found = tested(agenda, trainings)
    outcomes = ((each.seed, agenda.results.get(each.key)) for each in trainings)
    return UnderSeeds(
        by_seed={seed: outcome.test if outcome else None for seed, outcome in outcomes},
        test=found.mean if found else None,
        spread=found.spread if found else None,
    )


def _over_erm(agenda: Agenda, view: CaseView) -> float | None:
    try:
        return chosen_over_erm(agenda, view).gain
    except NoGainError:
        return None


def gap_closed(
    winner: Evaluated | None, erm: Erm | None, teachers: Iterable[TeacherScore]
) -> float | None:
    """The share of the gap from the student without a teacher to the teacher that is closed."""
    if winner is None or erm is None or winner.test is None or erm.test is None:
        return None
    teacher = next(
        (t.test for t in teachers if t.checkpoint is winner.choice.get(CHECKPOINT)), None
    )
    if teacher is None or teacher <= erm.test:
        return None
    return (winner.test - erm.test) / (teacher - erm.test)


def size_of(outcomes: Iterable[Outcome | None]) -> Size | None:
    """The size of the model that all of `outcomes` trained or scored; None before there is one."""
    known = [outcome for outcome in outcomes if outcome is not None and outcome.parameters]
    if not known:
        return None
    first = known[0]
    assert first.parameters is not None
    speeds = [speed for o in known if (speed := o.cost.examples_per_second) is not None]
    return Size(
        parameters=first.parameters,
        bytes=first.model_bytes,
        examples_per_second=median(speeds) if speeds else None,
    )


def state_of(view: CaseView) -> tuple[State, str | None]:
    """How far a case has come, and why not further."""
    if view.blocked is not None:
        return State.BLOCKED, view.blocked
    if view.wanted:
        stages = ", ".join(dict.fromkeys(request.stage for request in view.wanted))
        return State.UNFINISHED, f"trainings to run next: {len(view.wanted)}, for: {stages}"
    if not view.finished:
        return State.UNFINISHED, "its second phase waits for the traversals of the other cases"
    return State.FINISHED, None


def teacher_scores(agenda: Agenda, view: CaseView) -> tuple[TeacherScore, ...]:
    """The teacher's own scores, from its outputs on the validation and the test split."""
    return tuple(
        _teacher_score(agenda, checkpoint, outputs) for checkpoint, outputs in view.outputs.items()
    )


def failures(agenda: Agenda, trainings: dict[str, str]) -> tuple[Failure, ...]:
    """Of `trainings` (their descriptions by key, each with a result), those without a score."""
    found = []
    for key, name in trainings.items():
        outcome = agenda.results[key]
        if outcome is None:
            found.append(Failure(key=key, training=name, state="failed"))
        elif outcome.state == "diverged":
            found.append(Failure(key=key, training=name, state="diverged"))
    # Not in the order in which they were asked for, which depends on what ended first.
    return tuple(sorted(found, key=lambda failure: (failure.training, failure.key)))


def _teacher_score(
    agenda: Agenda, checkpoint: Checkpoint, outputs: tuple[OutputsTraining, ...]
) -> TeacherScore:
    by_split = {training.split: agenda.results.get(training.key) for training in outputs}
    validation, test = by_split["validation"], by_split["test"]
    return TeacherScore(
        checkpoint=checkpoint,
        epoch=outputs[0].checkpoint.epoch,
        validation=validation.validation if validation else None,
        test=test.test if test else None,
        size=size_of([test]),
    )


def _path(agenda: Agenda, view: CaseView) -> tuple[Step, ...]:
    steps = []
    for decision in view.progress.decisions:
        candidates = tuple(
            _candidate(agenda, view, decision.axis or "", each) for each in decision.candidates
        )
        winner = decision.candidates.index(decision.winner)
        steps.append(Step(parameter=decision.axis or "", candidates=candidates, winner=winner))
    return tuple(steps)


def _candidate(agenda: Agenda, view: CaseView, axis: str, candidate: Candidate) -> Evaluated:
    value = value_label(axis, candidate.value) if axis else str(candidate.choice)
    return evaluated(agenda, view, candidate.choice, candidate.tuned, value=value)


def _second_phase(
    agenda: Agenda, view: CaseView, choice: Choice, tuned: Tuned | None
) -> Evaluated | None:
    return None if tuned is None else evaluated(agenda, view, choice, tuned, value=str(choice))


def evaluated(
    agenda: Agenda, view: CaseView, choice: Choice, tuned: Tuned, *, value: str
) -> Evaluated:
    """A tuned choice with the scores of its best trial."""
    best = tuned.best
    key = agenda.training(view, best).key if best else None
    found = score_on_test(agenda, view, tuned)
    return Evaluated(
        choice=choice,
        value=value,
        validation=tuned.score,
        test=found.mean if found else None,
        spread=found.spread if found else None,
        tried=tuple(_tried(agenda, view, trial) for trial in tuned.trials)
        if choice.get(CHECKPOINT) in (None, *view.outputs)
        else (),
        temperature=best.get("temperature") if best else None,
        learning_rate=best.get("learning_rate") if best else None,
        epoch=_best_epoch(agenda, key),
        trials=len(tuned.trials),
        key=key,
    )


def _best_epoch(agenda: Agenda, key: str | None) -> int | None:
    outcome = agenda.results[key] if key else None
    return outcome.best_epoch if outcome else None


def _tried(agenda: Agenda, view: CaseView, trial: Trial) -> Tried:
    trainings = agenda.trainings(view, trial)
    outcomes = [agenda.results.get(training.key) for training in trainings]
    scores = [o.validation for o in outcomes if o is not None and o.validation is not None]
    found = tested(agenda, trainings)
    return Tried(
        temperature=trial.get("temperature"),
        learning_rate=trial.get("learning_rate"),
        validation=ValidationScore(fmean(scores)) if len(scores) == len(outcomes) else None,
        test=found.mean if found else None,
        key=trainings[0].key,
    )
