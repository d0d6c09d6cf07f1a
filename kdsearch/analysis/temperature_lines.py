"""What students scored over the temperature: a line for all that was trained alike but for τ.

At every temperature of a line the learning rate, and whatever else the search tunes, is the best by
validation; the test score is that of the same trainings. No choice looks at a test score.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, stdev
from typing import Literal

from kdsearch.agenda import Agenda, CaseView, Outcome, Softmax, StudentTraining
from kdsearch.analysis.erm import settings_of
from kdsearch.analysis.measures import ByName, over_seeds
from kdsearch.analysis.origins import (
    StudentOrigin,
    TeacherOrigin,
    start_found,
    student_origin,
    teacher_origin,
)
from kdsearch.analysis.scores import on_test, score_digits
from kdsearch.search import (
    TIED,
    Checkpoint,
    Objective,
    Trial,
    ValidationScore,
    Value,
    best_trial,
    parameters_of,
)
from kdsearch.study import SPECS, TestCase

FEWEST = 3
"""Of so many temperatures on an axis a search is a sweep."""
OF_OPTIMIZER = frozenset({"optimizer", "momentum", "nesterov", "weight_decay"})
"""The factors that go with an optimizer."""
OF_TEACHER = frozenset({"teacher", "checkpoint"})
OF_OBJECTIVE = frozenset({"objective"}).union(*map(parameters_of, Objective.kinds))
SUPERVISION = "supervision"
"""The factor of a control: what of the teacher is learnt, where that is not its softmax."""
TRIALS = "trials"
"""The factor of how many were tried at each temperature: only lines tuned alike are compared."""
_SWEPT = "temperature"
_ENTROPIES = ("relative_entropy", "relative_entropy_without_top")
PointState = Literal["scored", "unfinished", "without a score"]
Factors = Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class TemperaturePoint:
    """The students of a line at one temperature."""

    temperature: float | None
    """None where the objective has none."""
    state: PointState
    """`unfinished` until all that was to be tuned has ended."""
    trials: int
    """Of which the best by validation is meant: learning rates, and what else is tuned."""
    learning_rate: float | None = None
    at_end: bool = False
    """Whether it is the lowest or the highest of three or more that were tried."""
    validation: float | None = None
    """The mean over the seeds."""
    validations: tuple[float, ...] = ()
    """Under each seed, as `tests`."""
    tests: tuple[float, ...] = ()
    learnt_temperature: float | None = None
    """The mean over the seeds of what the objective's became, where it learns one."""
    entropies: ByName | None = None
    """The two relative entropies of the student on test, at a temperature of 1."""
    softmax: tuple[Softmax, ...] = ()
    """Of the student on test, under the first seed."""
    key: str | None = None
    """Of its training under the first seed."""

    @cached_property
    def test(self) -> float | None:
        """The mean over the seeds."""
        return fmean(self.tests) if self.tests else None

    @cached_property
    def spread(self) -> float | None:
        """The standard deviation of the test score between the seeds; None of a single one."""
        return stdev(self.tests) if len(self.tests) > 1 else None


def validation_of(point: TemperaturePoint) -> float:
    """By which points are chosen."""
    return point.validation or 0.0


@dataclass(frozen=True, kw_only=True)
class TemperatureLine:
    """What was trained alike but for the temperature, and what is tuned at each."""

    case: TestCase
    factors: Factors
    """What it was trained with, by name."""
    points: tuple[TemperaturePoint, ...]
    """By rising temperature."""
    teacher: TeacherOrigin
    outputs: str
    """The key of the outputs of its teacher that its students learn from."""
    student: StudentOrigin
    start: float | None
    """The test score of what its students start from, where that is a training of the study."""
    digits: int
    """How many decimals its scores are shown with."""
    largest: float
    """The largest score that there is, which has 100 points."""

    @property
    def control(self) -> bool:
        """Whether something else of the teacher is learnt than its softmax."""
        return SUPERVISION in self.factors

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Those that it has, ascending."""
        return tuple(p.temperature for p in self.points if p.temperature is not None)

    @cached_property
    def scored(self) -> Mapping[float | None, TemperaturePoint]:
        """Its points with a test score under every seed, by temperature."""
        return {point.temperature: point for point in self.points if point.tests}

    @cached_property
    def best(self) -> TemperaturePoint | None:
        """The best temperature by validation; of equals the lowest."""
        return max((p for p in self.points if p.tests), key=validation_of, default=None)

    @property
    def plateau(self) -> float | None:
        """The lowest temperature whose validation score is as good as the best, but for the spread
        of that between the seeds; None of a single seed."""
        best = self.best
        if best is None or len(best.validations) < 2:
            return None
        least = fmean(best.validations) - stdev(best.validations)
        return next(p.temperature for p in self.points if p.tests and validation_of(p) >= least)

    @property
    def unfinished(self) -> bool:
        """Whether results of it are still to come."""
        return any(point.state == "unfinished" for point in self.points)

    def on_points(self, point: TemperaturePoint) -> tuple[float, ...]:
        """Its test scores under each seed, of 100."""
        return tuple(100 * test / self.largest for test in point.tests)

    def without(self, names: Iterable[str]) -> frozenset[tuple[str, Value]]:
        """Its factors but these: what lines have in common that differ in these alone."""
        left_out = {*names}
        return frozenset((n, value) for n, value in self.factors.items() if n not in left_out)


def temperature_lines(agenda: Agenda) -> tuple[TemperatureLine, ...]:
    """The lines of every exhaustive search with a teacher, where one of them sweeps τ; else none.

    What several searches have alike is one line: the one with the most temperatures.
    """
    views = [v for v in agenda.views() if v.search.strategy == "exhaustive" and v.search.taught]
    if not any(_sweeps(view) for view in views):
        return ()
    found: dict[frozenset[tuple[str, Value]], TemperatureLine] = {}
    for view in views:
        for line in _lines(agenda, view):
            same = found.setdefault(line.without(()), line)
            if len(line.scored) > len(same.scored):
                found[line.without(())] = line
    return tuple(found.values())


def over_datasets(
    lines: Iterable[TemperatureLine],
) -> list[dict[str, dict[int, TemperatureLine]]]:
    """Lines that differ in the data set and the epochs alone, of several data sets: by these."""
    groups: dict[frozenset[tuple[str, Value]], dict[str, dict[int, TemperatureLine]]] = {}
    for line in lines:
        by_dataset = groups.setdefault(line.without(["dataset", "epochs"]), {})
        by_dataset.setdefault(line.factors["dataset"], {})[int(line.factors["epochs"])] = line
    return [dict(sorted(group.items())) for group in groups.values() if len(group) > 1]


def longest(*by_epochs: Mapping[int, TemperatureLine]) -> tuple[TemperatureLine, ...]:
    """Of each the line of the most epochs that all of them have; of the most of its own if none."""
    common = set.intersection(*map(set, by_epochs))
    return tuple(each[max(common or each)] for each in by_epochs)


def _sweeps(view: CaseView) -> bool:
    return _SWEPT in view.space.names and len(view.space.values(_SWEPT)) >= FEWEST


def _lines(agenda: Agenda, view: CaseView) -> Iterator[TemperatureLine]:
    asked, scored = agenda.students(view.case), agenda.scored(view)
    groups: dict[frozenset[tuple[str, Value]], dict[float | None, list[Trial]]] = {}
    for choice in view.space.choices():
        held = frozenset(each for each in choice.values if each[0] != _SWEPT)
        at = groups.setdefault(held, {})
        for trial in view.space.trials(choice):
            if trial in asked:
                at.setdefault(trial.get(_SWEPT), []).append(trial)
    tuned = {axis.name for axis in view.space.tuned}
    start = start_found(agenda, view)
    for held, at in groups.items():
        if not at:
            continue
        first = asked[next(iter(at.values()))[0]][0]
        if first.teaching is None:
            continue
        points = [_point(agenda, asked, scored, *each) for each in at.items()]
        yield TemperatureLine(
            case=view.case,
            factors=_factors(view.case, first, dict(held), tuned)
            | {TRIALS: max(map(len, at.values()))},
            points=tuple(sorted(points, key=lambda p: p.temperature or 0.0)),
            teacher=origin_at(agenda, view, first.taught.checkpoint_name),
            outputs=first.taught.outputs,
            student=student_origin(agenda, view),
            start=start.test if start else None,
            digits=score_digits(agenda, view),
            largest=SPECS[agenda.resolved.datasets[view.case.dataset].task].largest_score,
        )


def _factors(
    case: TestCase, training: StudentTraining, held: Mapping[str, Value], tuned: Iterable[str]
) -> dict[str, Value]:
    """What a line was trained with: its test case, the objective, the settings.

    A parameter that is tied to the temperature is held as such, not at the value that it has.
    """
    objective = training.objective
    own = {name: held.get(name, value) for name, value in objective.chosen.items()}
    if own.get("student_temperature") in (TIED, objective.parameters.get(_SWEPT)):
        own.pop("student_temperature", None)
    found = {
        "dataset": case.dataset,
        "teacher": case.teacher,
        "checkpoint": str(training.taught.checkpoint_name),
        "student": case.student,
        "objective": objective.kind,
        **own,
        **plain_settings(training),
    }
    return {name: value for name, value in found.items() if name not in {*tuned, _SWEPT}}


def plain_settings(training: StudentTraining) -> dict[str, Value]:
    """Its settings as factors: what is left out is none, a section its words."""
    return {
        name: value if isinstance(value, str | int | float) else str(value or "none")
        for name, value in settings_of(training).items()
    }


def _point(
    agenda: Agenda,
    asked: Mapping[Trial, Sequence[StudentTraining]],
    scored: Mapping[Trial, ValidationScore],
    temperature: float | None,
    trials: Sequence[Trial],
) -> TemperaturePoint:
    results = agenda.results
    ended = all(training.key in results for trial in trials for training in asked[trial])
    best = best_trial([trial for trial in trials if trial in scored], scored)
    tested = on_test(agenda, asked[best]) if best is not None and ended else None
    if best is None or tested is None:
        state: PointState = "without a score" if ended else "unfinished"
        return TemperaturePoint(temperature=temperature, state=state, trials=len(trials))
    outcomes = _outcomes(agenda, asked[best])
    return TemperaturePoint(
        temperature=temperature,
        state="scored",
        trials=len(trials),
        learning_rate=best.get("learning_rate"),
        at_end=_is_at_end({t.get("learning_rate") for t in trials}, best.get("learning_rate")),
        validation=scored[best],
        validations=tuple(o.validation for o in outcomes if o.validation is not None),
        tests=tested.by_seed,
        learnt_temperature=_mean_of_all([outcome.learnt_temperature for outcome in outcomes]),
        entropies=over_seeds([o.measures for o in outcomes], _ENTROPIES, taught=False),
        softmax=outcomes[0].softmax,
        key=outcomes[0].key,
    )


def _is_at_end(values: Collection[float], value: float) -> bool:
    return len(values) > 2 and value in (min(values), max(values))


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _outcomes(agenda: Agenda, trainings: Iterable[StudentTraining]) -> list[Outcome]:
    found = (agenda.results.get(training.key) for training in trainings)
    return [outcome for outcome in found if outcome is not None]


def origin_at(agenda: Agenda, view: CaseView, checkpoint: Checkpoint) -> TeacherOrigin:
    """Where the teacher of a case came from, at one of its checkpoints."""
    found = teacher_origin(agenda, view)
    assert found is not None  # the search is taught
    return replace(found, epochs=checkpoint.epoch or found.epochs)
