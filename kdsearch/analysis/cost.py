"""What a study took, by kind of training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from math import fsum
from typing import Literal, TypeVar

from kdsearch.agenda import (
    Agenda,
    CaseView,
    Outcome,
    OutputsTraining,
    SequencesTraining,
    TeacherTraining,
    Training,
    spare,
    used,
)
from kdsearch.search import Trial
from kdsearch.study import TestCase

Kind = Literal["teacher", "outputs", "sequences", "student"]
_Some = TypeVar("_Some", bound=Training)
KINDS: tuple[Kind, ...] = ("teacher", "outputs", "sequences", "student")


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The trainings of one kind that ended, and how."""

    kind: Kind
    scored: int
    diverged: int
    failed: int
    seconds: float
    """Of those scored and diverged: a failed try leaves no cost."""

    @property
    def trainings(self) -> int:
        """All that ended."""
        return self.scored + self.diverged + self.failed


def cost(agenda: Agenda) -> tuple[Spent, ...]:
    """What the study took so far, each training once."""
    owned = [CaseTrainings(agenda, view) for view in agenda.views()]
    known: dict[str, Kind] = {key: "teacher" for case in owned for key in case.teachers}
    known |= {key: "outputs" for case in owned for key in case.outputs}
    known |= {key: "sequences" for case in owned for key in case.sequences}
    groups: dict[Kind, list[Outcome | None]] = defaultdict(list)
    for key, result in used(agenda).items():
        # All others are known, so what is left is a student.
        groups[known.get(key, "student")].append(result)
    return _by_kind(groups)


def _by_kind(groups: Mapping[Kind, Collection[Outcome | None]]) -> tuple[Spent, ...]:
    """Of each kind; of few studies has a teacher written anything."""
    kinds = (kind for kind in KINDS if kind != "sequences" or groups.get(kind))
    return tuple(spent(kind, groups.get(kind, ())) for kind in kinds)


def beside(agenda: Agenda) -> Spent:
    """What the students took that no decision asked for."""
    return spent("student", (agenda.results[key] for key in spare(agenda)))


def spent(kind: Kind, results: Iterable[Outcome | None]) -> Spent:
    """The sum over `results`, in which None is a training that failed for good."""
    every = list(results)
    outcomes = [outcome for outcome in every if outcome is not None]
    return Spent(
        kind=kind,
        scored=sum(outcome.state == "scored" for outcome in outcomes),
        diverged=sum(outcome.state == "diverged" for outcome in outcomes),
        failed=len(every) - len(outcomes),
        seconds=fsum(outcome.cost.seconds for outcome in outcomes),
    )


def students_of(agenda: Agenda) -> dict[TestCase, list[str]]:
    """The keys of each case's students that have a result, those that cases share in each."""
    views = agenda.views()
    return {view.case: list(CaseTrainings(agenda, view).students) for view in views}


class CaseTrainings:
    """Which trainings with a result belong to a test case, by kind: key to description.

    Cases share trainings: those of their teacher, and equal students.
    """

    def __init__(self, agenda: Agenda, view: CaseView) -> None:
        self._agenda = agenda
        self._view = view

    @cached_property
    def teachers(self) -> dict[str, str]:
        """The fine-tunings of the case's teacher, and of what its student starts from."""
        trainings = (*self._agenda.graph.teachers(self._view.case), *self._beside(TeacherTraining))
        return {t.key: str(t) for t in trainings if t.key in self._agenda.results}

    @cached_property
    def outputs(self) -> dict[str, str]:
        """The outputs of its checkpoints, and what scores where its student starts."""
        pairs = self._view.outputs
        every = [t for outputs in pairs.values() for t in outputs]
        every += self._beside(OutputsTraining)
        return {t.key: str(t) for t in every if t.key in self._agenda.results}

    @cached_property
    def sequences(self) -> dict[str, str]:
        """What they wrote."""
        every = self._beside(SequencesTraining)
        return {t.key: str(t) for t in every if t.key in self._agenda.results}

    def _beside(self, kind: type[_Some]) -> list[_Some]:
        """What its students wait for beside their teacher, and what they start from."""
        agenda, view = self._agenda, self._view
        every = (*agenda.waited_for(view.case), *agenda.graph.of_start(view.case, view.start))
        return [training for training in every if isinstance(training, kind)]

    @cached_property
    def students(self) -> dict[str, str]:
        """Its students."""
        case, results = self._view.case, self._agenda.results
        found: dict[str, str] = {}
        for training in chain.from_iterable(self._agenda.students(case).values()):
            # Of a key that two trials have, one name, whichever of them was asked for first.
            name = str(training)
            if training.key in results:
                found[training.key] = min(name, found.get(training.key, name))
        further = (t for t in self._agenda.further(case) if t.key in results)
        return found | {t.key: f"{t} seed={t.seed}" for t in further}

    @property
    def spent(self) -> tuple[Spent, ...]:
        """What it took; a training that cases share counts in each of them."""
        owned: dict[Kind, dict[str, str]] = {
            "teacher": self.teachers,
            "outputs": self.outputs,
            "sequences": self.sequences,
            "student": self.students,
        }
        results = self._agenda.results
        return _by_kind({kind: [results[key] for key in keys] for kind, keys in owned.items()})


def fused(agenda: Agenda) -> int:
    """How many students were trained with others in one pass."""
    return sum(result is not None and result.fused > 1 for result in used(agenda).values())


def reused(agenda: Agenda) -> int:
    """How often a training was wanted again after it had run for another choice or test case."""
    wanted: list[str] = []
    for view in agenda.views():
        wanted += [t.key for t in agenda.graph.teachers(view.case)]
        outputs = view.outputs
        wanted += [t.key for splits in outputs.values() for t in splits]
        started = agenda.graph.of_start(view.case, view.start)
        wanted += {t.key for t in started} - {*wanted}
        wanted += {t.key for t in agenda.waited_for(view.case)} - {*wanted}
        for trials in _trials_by_choice(view):
            known = [t for t in trials if t.checkpoint is None or t.checkpoint in outputs]
            wanted += [t.key for trial in known for t in agenda.trainings(view, trial)]
        wanted += [t.key for t in agenda.further(view.case)]
    ran = [key for key in wanted if key in agenda.results]
    return len(ran) - len(set(ran))


def _trials_by_choice(view: CaseView) -> Iterable[tuple[Trial, ...]]:
    """The trials of each choice that the case tuned: of one in several decisions, once."""
    yield from (candidate.trials for candidate in view.progress.candidates())
    if view.phase2 is not None:
        done = {candidate.choice for candidate in view.progress.candidates()}
        if view.phase2.stable_tuned is not None and view.phase2.stable not in done:
            yield view.phase2.stable_tuned.trials
        if view.phase2.lazy_tuned is not None:
            yield view.phase2.lazy_tuned.trials
