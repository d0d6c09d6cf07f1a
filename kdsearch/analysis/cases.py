"""One test case: the path of its traversal, its teacher, what went wrong and what it took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from kdsearch.agenda import Agenda, CaseView, OutputsTraining, TestScore
from kdsearch.analysis.comparisons import chosen_over_erm, chosen_over_teacher
from kdsearch.analysis.cost import CaseTrainings, Spent
from kdsearch.analysis.erm import Erm, tuned_erm
from kdsearch.analysis.floor import AtFloor, Facts, at_floor
from kdsearch.analysis.gains import NoGainError, Relative
from kdsearch.analysis.gap import gap_closed
from kdsearch.analysis.kept import KeptTokens, kept_of
from kdsearch.analysis.noise import Noise, Noises
from kdsearch.analysis.origins import Start, start_found
from kdsearch.analysis.path import Difference, Step, over_default, steps
from kdsearch.analysis.scores import (
    candidate_on_test,
    case_candidates,
    leading_trial,
    on_test,
    points,
    score_digits,
    tied_candidates,
    tied_trials,
    value_label,
)
from kdsearch.analysis.speeds import ModelSpeeds, Size
from kdsearch.search import (
    CHECKPOINT,
    Candidate,
    Checkpoint,
    Choice,
    Held,
    Trial,
    ValidationScore,
    shown_at,
    significant,
)
from kdsearch.study import TestCase


class State(StrEnum):
    """How far a test case has come."""

    FINISHED = "finished"
    UNFINISHED = "unfinished"
    BLOCKED = "blocked"


@dataclass(frozen=True, kw_only=True)
class TrialScores:
    """A trial with its scores: means over the seeds."""

    temperature: float | None
    learning_rate: float
    further_tuned: Held
    """The values of the other axes that are tuned."""
    validation: ValidationScore | None
    test: TestScore | None
    key: str
    """Of its training under the first seed."""


@dataclass(frozen=True, kw_only=True)
class CandidateScores:
    """A candidate with the scores of its best trial by validation."""

    choice: Choice
    value: str
    validation: ValidationScore | None
    test: TestScore | None
    temperature: float | None
    """The tuned τ_t; None where it is inactive, or where no trial has a score."""
    effective_temperature: float | None
    """By which the teacher's logits are divided, where τ_t is in units of its logit scale, or where
    it is learnt; under several seeds, in the training of the first."""
    learning_rate: float | None
    further_tuned: Held
    """The best trial's values of the other axes that are tuned."""
    epoch: int | None
    """Of the best trial under the first seed, the best one by validation."""
    trials: int
    tied: int
    """How many trainings of these share the best validation score; 0 without one. Where it is more
    than one, their order decided."""
    key: str | None
    """Of the best trial's training, under the first seed."""
    size: Size | None
    """Of that student."""
    spread: float | None
    """The standard deviation of the test score between the seeds; None of a single one."""
    tried: tuple[TrialScores, ...]
    """Its trials."""

    def __str__(self) -> str:
        return shown_at(self.choice, self.further_tuned)


@dataclass(frozen=True, kw_only=True)
class DecisionScores:
    """A decision with its candidates' scores; the first has the value held before it."""

    parameter: str
    candidates: tuple[CandidateScores, ...]
    winner: int
    """The position of the winner among the candidates."""
    tied: int
    """How many trainings of the candidates share the winner's validation score; as above."""


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
class TeacherScore:
    """A teacher's checkpoint and its own scores, where they are known."""

    size: Size | None
    checkpoint: Checkpoint
    epoch: int | None
    validation: ValidationScore | None
    test: TestScore | None
    kept: KeptTokens | None = None
    """Of its outputs; None where all is."""


@dataclass(frozen=True, kw_only=True)
class UnscoredTraining:
    """A training without a score."""

    key: str
    training: str
    state: Literal["diverged", "failed"]
    wrote_nothing: str | None = None
    """Of a teacher that diverged only in that: why, and what helps."""

    @property
    def what(self) -> str:
        """What became of it, in words."""
        return self.wrote_nothing or self.state


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """Everything known about a test case."""

    case: TestCase
    state: State
    reason: str | None
    """Why it is unfinished or blocked."""
    at_floor: AtFloor | None
    """What all of its students score, where that takes no learning."""
    metric: str | None
    """How exactly its scores are computed; None before there is any."""
    digits: int
    """How many decimals its scores are shown with: more would say what its test split cannot."""
    teachers: tuple[TeacherScore, ...]
    coinciding: bool
    """Whether t_hs and t_ll are one."""
    logit_scales: Mapping[Checkpoint, float]
    """Of its checkpoints, where temperatures are in units of them, as far as they are known."""
    path: tuple[DecisionScores, ...]
    steps: tuple[Step, ...]
    """What each decision brought; empty where whole choices are compared."""
    over_default: Difference | None
    """What they brought in all so far; None without any."""
    winner: CandidateScores | None
    """What the traversal chose, by validation."""
    winner_under_seeds: UnderSeeds | None
    """None where the study has no winner seeds, or nothing that was chosen has a score."""
    best_on_test: TestScore | None
    """The case's own best: the highest test score of its candidates (Figures 1 and 3)."""
    stable: CandidateScores | None
    lazy: CandidateScores | None
    stable_over_default: float | None
    """What the stable configuration has more than the default one, in points on test."""
    erm: Erm | None
    """The student without a teacher, where the study asks for it."""
    over_erm: float | None
    """The relative gain of the winner over it, on test."""
    over_erm_points: float | None
    """The same in points."""
    over_erm_noise: Noise | None
    over_teacher: float | None
    """The relative gain of the winner over the checkpoint that taught it, on test."""
    over_teacher_noise: Noise | None
    gap_closed: float | None
    """The share of the gap from it to the winner's teacher that the winner closes, on test; None
    where the split cannot tell that gap from none."""
    gap_closed_noise: Noise | None
    stable_gap_closed: float | None
    """The same of the stable configuration."""
    stable_gap_closed_noise: Noise | None
    size: Size | None
    """The student's that was chosen; while its search goes on, of the best so far."""
    failures: tuple[UnscoredTraining, ...]
    cost: tuple[Spent, ...]
    """A training that cases share counts in each of them."""
    start: Start | None = None
    """Where its students start; None where that are their model's own weights."""

    @property
    def taught_by(self) -> TeacherScore | None:
        """The checkpoint that taught what the case chose; None without either."""
        return self.teacher(self.winner.choice.get(CHECKPOINT)) if self.winner else None

    def teacher(self, checkpoint: Checkpoint | None) -> TeacherScore | None:
        """Its teacher's checkpoint of this name."""
        return next((each for each in self.teachers if each.checkpoint is checkpoint), None)


def case_results(
    agenda: Agenda, noises: Noises, facts: Facts, speeds: ModelSpeeds
) -> tuple[CaseResult, ...]:
    """Every test case, in the order of the study file."""
    return tuple(case_result(agenda, view, noises, facts, speeds) for view in agenda.views())


def case_result(
    agenda: Agenda, view: CaseView, noises: Noises, facts: Facts, speeds: ModelSpeeds
) -> CaseResult:
    """The test case of `view`."""
    state, reason = state_of(view)
    path = _path(agenda, view, speeds)
    trainings = CaseTrainings(agenda, view)
    every = trainings.teachers | trainings.outputs | trainings.sequences | trainings.students
    results = agenda.results
    phase2 = view.phase2
    stable = _second_phase(agenda, view, phase2.stable_tuned, speeds) if phase2 else None
    task = agenda.resolved.datasets[view.case.dataset].task
    candidates = case_candidates(agenda, view)
    best = candidates.best if candidates else None
    winner = path[-1].candidates[path[-1].winner] if view.traversed else None
    leading = leading_trial(agenda, view)
    first = [agenda.training(view, leading).key] if leading else []
    teachers = teacher_scores(agenda, view, speeds)
    erm = _erm(agenda, view, speeds)
    on_test = erm.on_test if erm else None
    chosen = view.progress.winner if view.traversed else None
    closed = gap_closed(agenda, view, chosen, on_test, noises)
    tuned = phase2.stable_tuned if phase2 else None
    by_stable = gap_closed(agenda, view, tuned, on_test, noises)
    over_erm = _relative(chosen_over_erm, agenda, view)
    over_teacher = _relative(chosen_over_teacher, agenda, view)
    return CaseResult(
        case=view.case,
        state=state,
        reason=reason,
        at_floor=at_floor(agenda, view, facts),
        digits=score_digits(agenda, view),
        metric=next((o.metric for key in every if (o := results[key]) is not None), None),
        teachers=teachers,
        coinciding=view.coinciding,
        logit_scales=_logit_scales(agenda, view),
        path=path,
        steps=steps(agenda, view, noises),
        over_default=over_default(agenda, view, noises),
        winner=winner,
        winner_under_seeds=_under_seeds(agenda, view),
        best_on_test=best.mean if best else None,
        stable=stable,
        lazy=_second_phase(agenda, view, phase2.lazy_tuned, speeds) if phase2 else None,
        stable_over_default=_points(task, stable, path[0].candidates[0] if path else None),
        erm=erm,
        over_erm=over_erm.gain if over_erm else None,
        over_erm_points=_points(task, winner, erm),
        over_erm_noise=_noise(noises, over_erm),
        over_teacher=over_teacher.gain if over_teacher else None,
        over_teacher_noise=_noise(noises, over_teacher),
        gap_closed=closed.share if closed else None,
        gap_closed_noise=closed.noise if closed else None,
        stable_gap_closed=by_stable.share if by_stable else None,
        stable_gap_closed_noise=by_stable.noise if by_stable else None,
        # Of the best, if anything: layers may be an axis.
        size=speeds.size(results[key] for key in [*first, *trainings.students]),
        failures=failures(agenda, every),
        cost=trainings.spent,
        start=start_found(agenda, view),
    )


def _logit_scales(agenda: Agenda, view: CaseView) -> Mapping[Checkpoint, float]:
    if not view.search.in_logit_scales:
        return {}
    first = ((name, agenda.results.get(of[0].key)) for name, of in view.outputs.items())
    return {name: outcome.logit_scale for name, outcome in first if outcome and outcome.logit_scale}


def _erm(agenda: Agenda, view: CaseView, speeds: ModelSpeeds) -> Erm | None:
    """The student without a teacher, with its size."""
    erm = tuned_erm(agenda, view)
    if erm is None or erm.key is None:
        return erm
    return replace(erm, size=speeds.size([agenda.results[erm.key]]))


def _under_seeds(agenda: Agenda, view: CaseView) -> UnderSeeds | None:
    trainings = agenda.winners(view.case)
    if not trainings:
        return None
    found = on_test(agenda, trainings)
    outcomes = ((each.seed, agenda.results.get(each.key)) for each in trainings)
    return UnderSeeds(
        by_seed={seed: outcome.test if outcome else None for seed, outcome in outcomes},
        test=found.mean if found else None,
        spread=found.spread if found else None,
    )


def _points(
    task: str, target: CandidateScores | None, baseline: CandidateScores | Erm | None
) -> float | None:
    """On test; None where a side has no score."""
    if target is None or baseline is None or target.test is None or baseline.test is None:
        return None
    return points(task, target.test, baseline.test)


def _relative(
    in_case: Callable[[Agenda, CaseView], Relative], agenda: Agenda, view: CaseView
) -> Relative | None:
    try:
        return in_case(agenda, view)
    except NoGainError:
        return None


def _noise(noises: Noises, found: Relative | None) -> Noise | None:
    return noises.of_gain(found.target, found.baseline) if found else None


def state_of(view: CaseView) -> tuple[State, str | None]:
    """How far a case has come, and why not further."""
    if view.blocked is not None:
        return State.BLOCKED, view.blocked
    if view.wanted:
        stages = ", ".join(dict.fromkeys(request.stage for request in view.wanted))
        number = len({request.training.key for request in view.wanted})
        return State.UNFINISHED, f"trainings to run next: {number}, for: {stages}"
    if view.waits_for is not None:
        what = f"its teacher is what {view.waits_for} chooses, whose search is not finished"
        return State.UNFINISHED, what
    if not view.finished:
        return State.UNFINISHED, "its second phase waits for the traversals of the other cases"
    return State.FINISHED, None


def teacher_scores(agenda: Agenda, view: CaseView, speeds: ModelSpeeds) -> tuple[TeacherScore, ...]:
    """The teacher's own scores, from its outputs on the validation and the test split."""
    return tuple(
        _teacher_score(agenda, checkpoint, outputs, speeds)
        for checkpoint, outputs in view.outputs.items()
    )


def failures(agenda: Agenda, trainings: dict[str, str]) -> tuple[UnscoredTraining, ...]:
    """Of `trainings` (their descriptions by key, each with a result), those without a score."""
    found = []
    for key, name in trainings.items():
        outcome = agenda.results[key]
        if outcome is None:
            found.append(UnscoredTraining(key=key, training=name, state="failed"))
        elif outcome.state == "diverged":
            nothing = outcome.wrote_nothing
            found.append(
                UnscoredTraining(key=key, training=name, state="diverged", wrote_nothing=nothing)
            )
    # Not in the order in which they were asked for, which depends on what ended first.
    return tuple(sorted(found, key=lambda each: (each.training, each.key)))


def _teacher_score(
    agenda: Agenda,
    checkpoint: Checkpoint,
    outputs: tuple[OutputsTraining, ...],
    speeds: ModelSpeeds,
) -> TeacherScore:
    by_split = {training.split: agenda.results.get(training.key) for training in outputs}
    validation, test = by_split["validation"], by_split["test"]
    return TeacherScore(
        checkpoint=checkpoint,
        epoch=outputs[0].checkpoint.epoch,
        validation=validation.validation if validation else None,
        test=test.test if test else None,
        size=speeds.size([test]),
        kept=kept_of(outputs, agenda.results),
    )


def _path(agenda: Agenda, view: CaseView, speeds: ModelSpeeds) -> tuple[DecisionScores, ...]:
    return tuple(
        DecisionScores(
            parameter=(axis := decision.axis or ""),
            candidates=tuple(
                candidate_scores(
                    agenda,
                    view,
                    each,
                    value_label(axis, each.value) if axis else str(each.choice),
                    speeds,
                )
                for each in decision.candidates
            ),
            winner=decision.candidates.index(decision.winner),
            tied=tied_candidates(agenda, view, decision),
        )
        for decision in view.progress.decisions
    )


def _second_phase(
    agenda: Agenda, view: CaseView, candidate: Candidate | None, speeds: ModelSpeeds
) -> CandidateScores | None:
    if candidate is None:
        return None
    return candidate_scores(agenda, view, candidate, str(candidate.choice), speeds)


def candidate_scores(
    agenda: Agenda, view: CaseView, candidate: Candidate, value: str, speeds: ModelSpeeds
) -> CandidateScores:
    """A candidate with the scores of its best trial; `value` is what it is called."""
    choice, best = candidate.choice, candidate.best
    key = agenda.training(view, best).key if best else None
    found = candidate_on_test(agenda, view, candidate)
    return CandidateScores(
        choice=choice,
        value=value,
        validation=candidate.score,
        test=found.mean if found else None,
        spread=found.spread if found else None,
        tried=tuple(_trial_scores(agenda, view, trial) for trial in candidate.trials)
        if choice.get(CHECKPOINT) in (None, *view.outputs)
        else (),
        temperature=best.get("temperature") if best else None,
        effective_temperature=_effective_temperature(agenda, best, key),
        learning_rate=best.get("learning_rate") if best else None,
        further_tuned=further_tuned(view, best),
        epoch=_best_epoch(agenda, key),
        trials=len(candidate.trials),
        tied=tied_trials(agenda, view, candidate),
        key=key,
        size=speeds.size([agenda.results[key]]) if key else None,
    )


def _effective_temperature(agenda: Agenda, best: Trial | None, key: str | None) -> float | None:
    outcome = agenda.results[key] if key else None
    if best is None or outcome is None:
        return None
    if outcome.learnt_temperature is not None:
        return significant(outcome.learnt_temperature)
    if outcome.logit_scale is None:
        return None
    return significant(best.get("temperature") * outcome.logit_scale)


def further_tuned(view: CaseView, trial: Trial | None) -> Held:
    """The values of the axes that are tuned beside τ_t and the learning rate."""
    values = view.space.tuned_values(trial) if trial else {}
    return {n: value for n, value in values.items() if n not in ("temperature", "learning_rate")}


def _best_epoch(agenda: Agenda, key: str | None) -> int | None:
    outcome = agenda.results[key] if key else None
    return outcome.best_epoch if outcome else None


def _trial_scores(agenda: Agenda, view: CaseView, trial: Trial) -> TrialScores:
    trainings = agenda.trainings(view, trial)
    found = on_test(agenda, trainings)
    return TrialScores(
        temperature=trial.get("temperature"),
        learning_rate=trial.get("learning_rate"),
        further_tuned=further_tuned(view, trial),
        validation=agenda.scores(view)[trial],
        test=found.mean if found else None,
        key=trainings[0].key,
    )
