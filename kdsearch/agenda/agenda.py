"""The agenda: a pure function of a study and of the results so far.

    agenda(study, results) -> the trainings that can run now, most urgent first | complete

It holds no state of its own but a cache: a new result re-decides only the cases that wait for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from operator import itemgetter
from statistics import fmean
from typing import TypeVar

from kdsearch.agenda.graph import Graph
from kdsearch.agenda.outcome import Outcome
from kdsearch.agenda.speed import Speeds, kind_of, kinds_of, sizes
from kdsearch.agenda.training import (
    CheckpointSpec,
    OutputsTraining,
    StudentTraining,
    TeacherTraining,
    Training,
)
from kdsearch.agenda.view import (
    COMPARES,
    LAZY,
    TRAINS_TEACHER,
    WINNER,
    CaseView,
    Phase2,
    Request,
)
from kdsearch.search import (
    CHECKPOINT,
    LAZY_VALUES,
    Candidate,
    Checkpoint,
    Choice,
    Held,
    Labels,
    Reward,
    Scores,
    Space,
    Trial,
    ValidationScore,
    Wanted,
    lazy_choice,
    rewards,
    stable_choice,
    stable_values,
    tune,
)
from kdsearch.study import Resolved, Role, TestCase, search_of, space_of, test_cases

Results = Mapping[str, Outcome | None]
"""By key: an outcome, None for a training that failed for good, absent while unknown."""


_LONG = 200
"""So many students of a round that whole choices wait for are not looked through at each result."""
_Some = TypeVar("_Some", bound=Training)
_Alike = tuple[Role, int]
"""The role of a training and its rounds."""


class Agenda:
    """The cached agenda. `results` may be given at once, or one by one with `add`."""

    def __init__(self, resolved: Resolved, results: Results | None = None) -> None:
        self.resolved = resolved
        self.cases = test_cases(resolved.study)
        self.graph = Graph(resolved)
        """What makes the trainings of its cases."""
        self._results: dict[str, Outcome | None] = dict(results or {})
        study = resolved.study
        self._searches = {case: search_of(study, case) for case in self.cases}
        self._lazy = {
            case: lazy_choice(space_of(study, case), f"{study.seed}/{case}")
            for case in self.cases
            if self._searches[case].flips
        }
        self._without_teacher = {
            (case.dataset, case.student): case
            for case in reversed(self.cases)
            if case.teacher is None and self._searches[case].distance == (Labels.kind,)
        }
        self._kinds = {
            case: kinds_of(study, case, resolved.datasets[case.dataset].splits["train"].digest)
            for case in self.cases
        }
        self._speeds = Speeds(sizes(resolved))
        for result in self._results.values():
            self._learn(result)
        self._views: dict[TestCase, CaseView] = {}
        self._wanted: dict[TestCase, dict[_Alike, list[Request]]] = {}
        """What the views want; what is equally urgent is together."""
        self._waiting: dict[str, set[TestCase]] = defaultdict(set)
        self._trainings: dict[TestCase, dict[Trial, tuple[StudentTraining, ...]]] = defaultdict(
            dict
        )
        self._winners: dict[TestCase, tuple[StudentTraining, ...]] = {}
        self._stable: dict[str | None, Held] = {}
        """Of each search, once it is decided."""

    @property
    def results(self) -> Results:
        """The results so far."""
        return self._results

    def add(self, key: str, result: Outcome | None) -> None:
        """Take in a result: an outcome, or None for a training that failed for good."""
        self._results[key] = result
        self._learn(result)
        for case in self._waiting.pop(key, ()):
            view = self._views.pop(case, None)
            if view is not None and not view.search.flips:
                left = tuple(r for r in view.wanted if r.training.key != key)
                if len(left) >= _LONG and all(r.role == "student" for r in view.wanted):
                    self._keep(replace(view, wanted=left))

    def durations(self) -> dict[TestCase, dict[Role, float]]:
        """The seconds that each case's trainings take, by what has ended so far."""
        return {
            case: {role: self._speeds.seconds(kind) for role, kind in kinds.items()}
            for case, kinds in self._kinds.items()
        }

    @property
    def longest(self) -> Mapping[Role, float]:
        """The seconds of the longest training of each role so far; 0 before the first."""
        return self._speeds.longest

    def requests(self) -> tuple[Request, ...]:
        """What can run now, each training once, that with the longest path after it first.

        A path is in seconds, learnt from the trainings that ended. Nothing waits for the lazy
        baseline and for what a case chose under further seeds, whose path is their own length.
        """
        self.views()
        groups = [
            (self._urgency(case, *alike), requests)
            for case in self.cases
            for alike, requests in self._wanted[case].items()
        ]
        once: dict[str, Request] = {}
        for _, requests in sorted(groups, key=itemgetter(0), reverse=True):
            for request in requests:
                once.setdefault(request.training.key, request)
        return tuple(once.values())

    @property
    def complete(self) -> bool:
        """Whether nothing is left to run: all is decided, or blocked for good."""
        return not self.requests()

    def views(self) -> tuple[CaseView, ...]:
        """Where each case stands, in the order of the study file."""
        for case in self.cases:
            if case not in self._views:
                self._keep(self._first_phase(case))
        for name in self.flipping:
            views = [v for v in self._views.values() if v.case.search == name]
            if name not in self._stable and all(v.blocked or v.traversed for v in views):
                self._stable[name] = stable_values(self.rewards(name))
            if name in self._stable:
                for view in views:
                    if view.traversed and view.phase2 is None:
                        self._keep(self._second_phase(view, self._stable[name]))
        return tuple(self._views[case] for case in self.cases)

    @property
    def flipping(self) -> tuple[str | None, ...]:
        """The searches that flip one axis at a time, which have rewards and a second phase."""
        return tuple(dict.fromkeys(case.search for case in self._lazy))

    def views_of(self, search: str | None) -> tuple[CaseView, ...]:
        """Where the cases of a search stand that flips one axis at a time; () of another."""
        return tuple(v for v in self.views() if v.case.search == search and v.search.flips)

    def without_teacher(self, case: TestCase) -> CaseView | None:
        """The case of the same student that learns from the labels alone; None where none does."""
        other = self._without_teacher.get((case.dataset, case.student))
        if other is not None and other not in self._views:
            self.views()
        return self._views[other] if other else None

    def is_erm(self, case: TestCase) -> bool:
        """Whether it is the student on the labels alone that others are compared with."""
        return case == self._without_teacher.get((case.dataset, case.student))

    def rewards(self, search: str | None = None) -> tuple[Reward, ...]:
        """The rewards (Table 3) over the traversals of a search that are finished."""
        views = [self._views.get(case) for case in self.cases if case.search == search]
        finished = [v for v in views if v is not None and v.traversed]
        axes = dict.fromkeys(axis.name for view in finished for axis in view.space.voted)
        return rewards([v.progress for v in finished], axes)

    def stable(self, search: str | None = None) -> Held | None:
        """Where the stable configuration leaves the default; None before the second phase."""
        self.views()
        return self._stable.get(search)

    def trainings(self, view: CaseView, trial: Trial) -> tuple[StudentTraining, ...]:
        """The trainings of a trial in a case whose teacher is ready: one under each seed."""
        known = self._trainings[view.case]
        if trial not in known:
            outputs = None
            if trial.checkpoint is not None:
                outputs = view.outputs[trial.checkpoint][0]
            known[trial] = self.graph.students(view.case, trial, outputs)
        return known[trial]

    def training(self, view: CaseView, trial: Trial) -> StudentTraining:
        """The training of a trial under the first seed."""
        return self.trainings(view, trial)[0]

    def students(self, case: TestCase) -> Mapping[Trial, tuple[StudentTraining, ...]]:
        """Every trial that the case has asked for so far, with its trainings."""
        return self._trainings[case]

    def winners(self, case: TestCase) -> tuple[StudentTraining, ...]:
        """The trainings of what the case chose, under each of the study's winner seeds.

        Nothing where the study has none, while its search is not finished, and where nothing that
        it chose from has a score.
        """
        return self._winners.get(case, ())

    def further(self, case: TestCase) -> tuple[StudentTraining, ...]:
        """Those of `winners` whose seed the search did not have."""
        further = self.resolved.study.further_seeds
        return tuple(training for training in self.winners(case) if training.seed in further)

    def scores(self, view: CaseView) -> Scores:
        """The validation scores of a case's trials, for a case whose teacher is ready."""
        return _Scores(self, view)

    def scored(self, view: CaseView) -> dict[Trial, ValidationScore]:
        """The trials that the case has asked for so far and that have a score, with it."""
        scores, asked = self.scores(view), tuple(self.students(view.case))
        known = {trial: scores[trial] for trial in asked if trial in scores}
        return {trial: score for trial, score in known.items() if score is not None}

    def lazy(self, view: CaseView) -> Choice:
        """What is drawn for the case's lazy baseline."""
        return self._lazy[view.case]

    def _learn(self, result: Outcome | None) -> None:
        if result is not None:
            self._speeds.learn(kind_of(result.training), result.cost.seconds)

    def _urgency(self, case: TestCase, role: Role, rounds: int) -> float:
        return self._speeds.path(self._kinds[case], role, rounds)

    def _keep(self, view: CaseView) -> None:
        self._views[view.case] = view
        wanted: dict[_Alike, list[Request]] = defaultdict(list)
        self._wanted[view.case] = wanted
        for request in view.wanted:
            wanted[request.training.kind, request.rounds].append(request)
            self._waiting[request.training.key].add(view.case)

    def trained(self, *cases: TestCase) -> int:
        """How many students of these cases have a result; one that they share counts once."""
        # Two trials may be one training, where the teacher's checkpoints coincide.
        found = (t.key for c in cases for seeds in self._trainings[c].values() for t in seeds)
        students = {*found, *(training.key for c in cases for training in self.further(c))}
        return len(students & self._results.keys())

    def _first_phase(self, case: TestCase) -> CaseView:
        space, search = space_of(self.resolved.study, case), self._searches[case]
        view = CaseView(case=case, search=search, space=space, wanted=())
        trainings = self.graph.teachers(case)
        unknown = self._unknown(trainings)
        if unknown:
            rounds = max(search.walk(space, {}).wanted.values())
            return replace(view, wanted=_wanted(case, TRAINS_TEACHER, unknown, rounds))
        chosen = self._best_teacher(trainings)
        if trainings and chosen is None:
            return replace(view, blocked="no training of its teacher succeeded")
        checkpoints = self._checkpoints(case, space, chosen)
        outputs = {name: self.graph.outputs(case, c) for name, c in checkpoints.items()}
        view = replace(view, ready=True, teacher_training=chosen, outputs=outputs)
        scores = _Scores(self, view)
        progress = search.walk(space, scores)
        view = replace(view, progress=progress)
        # Students wait for the outputs on the training split.
        every = {t.key: t for splits in zip(*outputs.values(), strict=True) for t in splits}
        rounds = max(progress.wanted.values(), default=0)
        wanted = _wanted(case, "outputs", self._unknown(every.values()), rounds)
        if progress.pending is not None:
            stage = progress.pending.axis or COMPARES
            wanted += self._ready(view, scores, stage, progress.wanted)
        if search.flips:  # the lazy baseline needs no traversal; it may meet one
            lazy = tune(self.lazy(view), space, scores, fixed=LAZY_VALUES)
            if not isinstance(lazy, Candidate):
                keys = {request.training.key for request in wanted}
                requests = self._ready(view, scores, LAZY, lazy)
                wanted += tuple(r for r in requests if r.training.key not in keys)
        if view.chosen is not None:
            seeds = self.resolved.study.winner_seeds or ()
            self._winners[case] = self.training(view, view.chosen).under(seeds)
            wanted += _wanted(case, WINNER, self._unknown(self.further(case)))
        return replace(view, wanted=wanted)

    def _second_phase(self, view: CaseView, stable: Held) -> CaseView:
        scores = _Scores(self, view)
        choice, lazy = stable_choice(view.space, stable), self.lazy(view)
        found = tune(choice, view.space, scores)
        lazy_found = tune(lazy, view.space, scores, fixed=LAZY_VALUES)
        wanted = view.wanted
        if not isinstance(found, Candidate):
            requests = self._ready(view, scores, "stable", found)
            keys = {request.training.key for request in requests}
            wanted = (*requests, *(r for r in wanted if r.training.key not in keys))
        phase2 = Phase2(
            stable=choice,
            stable_tuned=found if isinstance(found, Candidate) else None,
            lazy=lazy,
            lazy_tuned=lazy_found if isinstance(lazy_found, Candidate) else None,
        )
        return replace(view, wanted=wanted, phase2=phase2)

    def _unknown(self, trainings: Iterable[_Some]) -> list[_Some]:
        return [training for training in trainings if training.key not in self._results]

    def _ready(
        self, view: CaseView, scores: _Scores, stage: str, missing: Wanted
    ) -> tuple[Request, ...]:
        """What of `missing` can run now, under every seed."""
        return tuple(
            request
            for trial, rounds in missing.items()
            if scores.can_run(trial)
            for request in _wanted(
                view.case,
                stage,
                self._unknown(self.trainings(view, trial)),
                rounds,
            )
        )

    def _best_teacher(self, trainings: tuple[TeacherTraining, ...]) -> TeacherTraining | None:
        """Of several learning rates, the one of the highest validation score."""
        best: tuple[ValidationScore, TeacherTraining] | None = None
        for training in trainings:
            outcome = self._results[training.key]
            if outcome is None or outcome.validation is None:
                continue
            if best is None or outcome.validation > best[0]:
                best = (outcome.validation, training)
        return best[1] if best else None

    def _checkpoints(
        self, case: TestCase, space: Space, chosen: TeacherTraining | None
    ) -> dict[Checkpoint, CheckpointSpec]:
        if case.teacher is None:
            return {}
        if chosen is None:
            given = self.resolved.study.teachers[case.teacher].given
            return {name: self.graph.given(case, given[name]) for name in space.values(CHECKPOINT)}
        outcome = self._results[chosen.key]
        assert outcome is not None
        epochs = {
            Checkpoint.HIGHEST_SCORE: outcome.best_epoch,
            Checkpoint.LOWEST_LOSS: outcome.lowest_loss_epoch,
        }
        return {
            name: self.graph.checkpoint(chosen, epoch)
            for name in space.values(CHECKPOINT)
            if (epoch := epochs[name]) is not None
        }


def _wanted(
    case: TestCase, stage: str, trainings: Iterable[Training], rounds: int = 1
) -> tuple[Request, ...]:
    return tuple(Request(training=t, case=case, stage=stage, rounds=rounds) for t in trainings)


class _Scores(Mapping[Trial, ValidationScore | None]):
    """The validation scores of a case's trials, looked up in the results by key.

    A trial's score is the mean over the seeds; if one of them has none, neither has the trial.
    Teacher checkpoints that coincide have one key, so their trials have one score.
    """

    def __init__(self, agenda: Agenda, view: CaseView) -> None:
        self._agenda = agenda
        self._view = view
        self._known: dict[Trial, ValidationScore | None] = {}

    def __getitem__(self, trial: Trial) -> ValidationScore | None:
        if trial not in self._known:
            self._known[trial] = self._score(trial)
        return self._known[trial]

    def _score(self, trial: Trial) -> ValidationScore | None:
        results = self._agenda.results
        if trial.checkpoint is not None:
            outputs = self._outputs(trial.checkpoint)
            if outputs is None or (outputs.key in results and not self.can_run(trial)):
                return None  # without the teacher's outputs there is nothing to learn from
        outcomes = [results[t.key] for t in self._agenda.trainings(self._view, trial)]
        scores = [outcome.validation if outcome else None for outcome in outcomes]
        scored = [score for score in scores if score is not None]
        return ValidationScore(fmean(scored)) if len(scored) == len(scores) else None

    def can_run(self, trial: Trial) -> bool:
        """Whether the outputs that the trial's student learns from are there."""
        if trial.checkpoint is None:
            return True
        outputs = self._outputs(trial.checkpoint)
        outcome = self._agenda.results.get(outputs.key) if outputs else None
        return outcome is not None and outcome.state == "scored"

    def _outputs(self, checkpoint: Checkpoint) -> OutputsTraining | None:
        """On the training split; None of a checkpoint that the teacher's training did not keep."""
        splits = self._view.outputs.get(checkpoint)
        return splits[0] if splits else None

    def __iter__(self) -> Iterator[Trial]:
        raise TypeError("scores are looked up, not listed")

    __len__ = __iter__  # type: ignore[assignment]
