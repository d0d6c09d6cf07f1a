"""Token against sequence level: what students gain from the texts that their teacher writes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from kdsearch.agenda import Agenda, CaseView, SequencesTraining, TestScore
from kdsearch.analysis.comparisons import gain_in
from kdsearch.analysis.erm import tuned_erm
from kdsearch.analysis.gains import Comparison, LeftOut, NoGainError, Relative, compare
from kdsearch.analysis.noise import Noise, Noises
from kdsearch.analysis.scores import TestScores, on_test, score_digits
from kdsearch.search import DATA, Objective, SequenceKd, Trial, ValidationScore
from kdsearch.study import TestCase


class Level(StrEnum):
    """At which of a teacher's words a student learns."""

    NONE = "no teacher (ERM)"
    TOKEN = "token level"
    SEQUENCE = "sequence level"
    BOTH = "both levels"
    """The teacher's distribution over each token of the texts that it wrote."""


@dataclass(frozen=True, kw_only=True)
class LevelScores:
    """The best student by validation of a level and a way to write."""

    level: Level
    targets: str
    rows: int | None
    """Of an epoch; None while that is not known."""
    trials: int
    validation: ValidationScore | None
    test: TestScore | None
    gain: float | None
    """Over the best of the token level on the data's own texts; None of that, or without one."""
    noise: Noise | None
    choice: str


@dataclass(frozen=True, kw_only=True)
class Texts:
    """What a teacher's checkpoint wrote."""

    name: str
    """The checkpoint, and how it wrote."""
    texts: int
    """All that it wrote."""
    learnt: int
    left_out: Mapping[str, int]
    """The others, by why they are not learnt from."""
    without: int
    """The rows of the training split for which nothing is left."""


@dataclass(frozen=True, kw_only=True)
class StudentLevels:
    """The levels of one student under one teacher, over all of its searches."""

    case: TestCase
    """One of these."""
    digits: int
    rows: tuple[LevelScores, ...]
    texts: tuple[Texts, ...]


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The levels in a study; empty where no teacher writes."""

    students: tuple[StudentLevels, ...]
    comparisons: tuple[Comparison, ...]
    """Of the levels, over the students."""

    def __bool__(self) -> bool:
        return bool(self.students)


_Found = tuple[CaseView, Trial, ValidationScore]
_Groups = Mapping[tuple[Level, str], Sequence[_Found]]


def level_of(objective: Objective) -> tuple[Level, str] | None:
    """The level of an objective, and whose texts it is on; None of one that is at neither."""
    targets = objective.parameters.get("targets", DATA)
    if isinstance(objective, SequenceKd):
        return Level.SEQUENCE, targets
    if not objective.taught or not objective.reads_outputs:
        return None
    return (Level.TOKEN if targets == DATA else Level.BOTH), targets


def levels(agenda: Agenda, noises: Noises) -> Levels:
    """The levels of every student whose teacher writes for it, as far as they have scores."""
    students, by_student = [], {}
    for views in _by_student(agenda):
        groups = _groups(agenda, views)
        if any(level is not Level.TOKEN for level, _ in groups):
            by_student[views[0].case] = groups
            students.append(_student(agenda, views, groups, noises))
    firsts = [view for view in agenda.views() if view.case in by_student]
    pairs = (
        (Level.SEQUENCE, Level.TOKEN),
        (Level.BOTH, Level.TOKEN),
        (Level.BOTH, Level.SEQUENCE),
    )
    return Levels(
        students=tuple(students),
        comparisons=tuple(
            compare(
                *(f"{target} over {baseline}", firsts),
                partial(_over, agenda, by_student, target, baseline),
                noises,
            )
            for target, baseline in pairs
            if firsts
        ),
    )


def _by_student(agenda: Agenda) -> Iterator[list[CaseView]]:
    """The test cases of each student under each teacher."""
    found: dict[tuple[str, str | None, str], list[CaseView]] = {}
    for view in agenda.views():
        case = view.case
        if case.teacher is not None:
            found.setdefault((case.dataset, case.teacher, case.student), []).append(view)
    yield from found.values()


def _groups(agenda: Agenda, views: Sequence[CaseView]) -> _Groups:
    """The trials with a score, by their level and whose texts they are on."""
    found: dict[tuple[Level, str], list[_Found]] = {}
    for view in views:
        for trial, validation in agenda.scored(view).items():
            where = level_of(trial.objective)
            if where is not None:
                found.setdefault(where, []).append((view, trial, validation))
    order = [*Level]
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1])))


def _best(agenda: Agenda, found: Sequence[_Found]) -> tuple[_Found, TestScores | None]:
    best = min(found, key=lambda each: (-each[2], str(each[1])))  # whichever was trained first
    view, trial, _ = best
    return best, on_test(agenda, agenda.trainings(view, trial))


def _at(
    agenda: Agenda, groups: _Groups, level: Level, targets: Collection[str] | None = None
) -> TestScores | None:
    """The test scores of the best student by validation of a level, on some texts or on any."""
    found = [
        each
        for (at, on), trials in groups.items()
        if at is level and (targets is None or on in targets)
        for each in trials
    ]
    return _best(agenda, found)[1] if found else None


def _over(
    agenda: Agenda,
    by_student: Mapping[TestCase, _Groups],
    target: Level,
    baseline: Level,
    view: CaseView,
) -> Relative:
    groups = by_student[view.case]
    alike = None
    if baseline is not Level.TOKEN:  # two ways to learn from texts are compared on the same texts
        on = [{targets for at, targets in groups if at is level} for level in (target, baseline)]
        alike = on[0] & on[1]
    sides = [_at(agenda, groups, level, alike) for level in (target, baseline)]
    if None in sides:
        raise NoGainError(LeftOut.ABSENT)
    return gain_in(agenda, view, *sides)


def _student(
    agenda: Agenda, views: Sequence[CaseView], groups: _Groups, noises: Noises
) -> StudentLevels:
    tokens = _at(agenda, groups, Level.TOKEN)
    rows = []
    train = agenda.resolved.datasets[views[0].case.dataset].splits["train"]
    if (erm := tuned_erm(agenda, views[0])) is not None and erm.on_test is not None:
        gain, noise = _gain(agenda, views[0], erm.on_test, tokens, noises)
        rows.append(
            LevelScores(
                level=Level.NONE,
                targets=DATA,
                rows=train.rows - train.unlabelled,
                trials=erm.trials,
                validation=erm.validation,
                test=erm.test,
                gain=gain,
                noise=noise,
                choice="",
            )
        )
    for (level, targets), trials in groups.items():
        (view, trial, validation), test = _best(agenda, trials)
        over = None if level is Level.TOKEN else tokens
        gain, noise = _gain(agenda, view, test, over, noises)
        rows.append(
            LevelScores(
                level=level,
                targets=targets,
                rows=train.rows if targets == DATA else _written(agenda, view, trial),
                trials=len(trials),
                validation=validation,
                test=test.mean if test else None,
                gain=gain,
                noise=noise,
                choice=str(trial),
            )
        )
    return StudentLevels(
        case=views[0].case,
        digits=score_digits(agenda, views[0]),
        rows=tuple(rows),
        texts=tuple(_texts(agenda, views)),
    )


def _gain(
    agenda: Agenda,
    view: CaseView,
    target: TestScores | None,
    baseline: TestScores | None,
    noises: Noises,
) -> tuple[float | None, Noise | None]:
    try:
        found = gain_in(agenda, view, target, baseline)
    except NoGainError:
        return None, None
    return found.gain, noises.of_gain(found.target, found.baseline)


def _written(agenda: Agenda, view: CaseView, trial: Trial) -> int | None:
    """How many texts of its teacher a student learns on."""
    sequences = agenda.training(view, trial).taught.sequences
    outcome = agenda.results.get(sequences) if sequences else None
    return outcome.wrote.rows if outcome and outcome.wrote else None


def _texts(agenda: Agenda, views: Sequence[CaseView]) -> Iterator[Texts]:
    every = {
        training.key: training
        for view in views
        for training in agenda.waited_for(view.case)
        if isinstance(training, SequencesTraining)
    }
    case = views[0].case
    whose = f"{case.dataset}/{case.teacher}"
    if views[0].before:  # of each student another
        whose += f"/{case.student}"
    for key, training in sorted(every.items(), key=lambda item: str(item[1])):
        outcome = agenda.results.get(key)
        if outcome is not None and outcome.wrote is not None:
            wrote, of = outcome.wrote, (each for view in views for each in view.outputs.items())
            name = next(name for name, [first, *_] in of if first.checkpoint == training.checkpoint)
            yield Texts(
                name=f"{whose} {name}, {training.how}",
                texts=wrote.texts,
                learnt=wrote.rows,
                left_out=wrote.left_out,
                without=wrote.without,
            )
