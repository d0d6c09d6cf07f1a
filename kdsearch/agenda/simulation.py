"""A study on simulated slots: how long it takes, and how much of the slots' time is work.

The search is walked with made-up scores, in the agenda's order.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, product
from zlib import crc32

from kdsearch.agenda.speed import Kind, Speeds, kinds_of
from kdsearch.search import (
    DATA,
    LAZY_VALUES,
    Candidate,
    Choice,
    Decision,
    Held,
    Progress,
    Trial,
    ValidationScore,
    Wanted,
    alternatives,
    lazy_choice,
    rewards,
    rounds_after,
    stable_choice,
    stable_values,
    tune,
)
from kdsearch.study import (
    EPOCHS,
    SPLITS,
    Augmentation,
    Role,
    Study,
    TestCase,
    cases_before,
    cases_behind,
    checkpoints_of,
    one_teacher,
    search_of,
    seen_views,
    space_of,
    start_cases,
    start_of,
    test_cases,
)


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What a simulated search took, in seconds of its own clock."""

    slots: int
    trainings: int
    makespan: float
    """From its start to its end."""
    busy: float
    """The sum over the trainings."""

    @property
    def utilisation(self) -> float:
        """The share of the slots' time that was work."""
        return self.busy / (self.slots * self.makespan)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A simulated training. A trial is trained under several seeds, each a job of its own."""

    walk: Walk
    """Of the case that wants it; of several, the one whose students take longest."""
    role: Role
    what: object
    """Tells it from the others of its walk and role."""
    rounds: int
    """Of students that follow one another from it on, itself included."""
    passes: int = 1
    """How often it goes over the split: of outputs on views, once for each."""

    @property
    def kind(self) -> Kind:
        """What takes about as long."""
        kind = self.walk.kinds[self.role]._replace(views=self.passes)
        match self.role, self.what:
            case "student", (Trial() as trial, _):
                return kind._replace(epochs=dict(trial.settings).get(EPOCHS, kind.epochs))
        return kind


@dataclass(kw_only=True)
class _Branch:
    """A choice that a walk tunes beside others."""

    choice: Choice
    later: int = 0
    """The rounds of the decisions that follow."""
    lacks: int = 0
    candidate: Candidate | None = None
    """Once it is tuned."""


class Walk:
    """The way of a test case through made-up scores. It does at once what it can do."""

    def __init__(self, study: Study, case: TestCase) -> None:
        self.case = case
        self.kinds = kinds_of(study, case, case.dataset)
        self.search = search_of(study, case)
        self.space = space_of(study, case)
        self.rounds = max(self.search.walk(self.space, {}).wanted.values())
        self.held = self.space.defaults()
        self.decisions: list[Decision] = []
        self.finished = False
        self._lazy = lazy_choice(self.space, f"{study.seed}/{case}") if self.search.flips else None
        self._scores: dict[Trial, ValidationScore] = {}
        self._asked: set[Trial] = set()
        self._waiting: dict[Trial, list[_Branch]] = defaultdict(list)
        self._branches: list[_Branch] = []
        self._steps = self._decide()

    def start(self) -> Wanted:
        """What can run once the teacher is ready."""
        wanted: dict[Trial, int] = {}
        self._go_on(wanted)
        return wanted

    def scored(self, trial: Trial) -> Wanted:
        """What can run now that `trial` has a score."""
        self._scores[trial] = self.score(trial)
        wanted: dict[Trial, int] = {}
        if not self.search.flips:
            if self._asked <= self._scores.keys():
                self._go_on(wanted)
            return wanted
        for branch in self._waiting.pop(trial, ()):
            branch.lacks -= 1
            if not branch.lacks:
                self._tune(branch, wanted)
        self._go_on(wanted)
        return wanted

    def score(self, trial: Trial) -> ValidationScore:
        """A made-up one, which follows from the case and the trial."""
        return ValidationScore(crc32(f"{self.case} {trial}".encode()) / 2**32)

    def chosen(self) -> Trial | None:
        """The trial that its first phase chose, once that is finished."""
        flips = self.search.flips
        progress = self.progress if flips else self.search.walk(self.space, self._scores)
        return progress.winner.best

    def lazy(self) -> Wanted:
        """The lazy baseline, which nothing waits for."""
        if self._lazy is None:
            return {}
        found = tune(self._lazy, self.space, self._scores, fixed=LAZY_VALUES)
        return {} if isinstance(found, Candidate) else found

    def stable(self, values: Held) -> Wanted:
        """The stable configuration, once every case is traversed."""
        branch = _Branch(choice=stable_choice(self.space, values))
        self._steps, self.finished = iter([[branch]]), False
        return self.start()

    @property
    def progress(self) -> Progress:
        """The first phase, finished."""
        return Progress(decisions=tuple(self.decisions))

    def _decide(self) -> Iterator[list[_Branch]]:
        for axis in self.space.compared:
            found = alternatives(self.space, self.held, axis)
            if not found:
                continue
            later = rounds_after(self.space, self.held, axis)
            branches = [_Branch(choice=choice, later=later) for _, choice in found]
            yield branches
            candidates = tuple(
                replace(branch.candidate, value=value)
                for (value, _), branch in zip(found, branches, strict=True)
                if branch.candidate
            )
            winner = max(candidates, key=lambda candidate: candidate.score or 0.0)
            self.held[axis.name] = winner.value
            self.decisions.append(Decision(axis=axis.name, candidates=candidates, winner=winner))

    def _go_on(self, wanted: dict[Trial, int]) -> None:
        if not self.search.flips:
            progress = self.search.walk(self.space, self._scores)
            self.finished = progress.finished
            self._asked |= progress.wanted.keys()
            wanted |= progress.wanted
            return
        while not self.finished and all(branch.candidate for branch in self._branches):
            self._branches = next(self._steps, [])
            self.finished = not self._branches
            for branch in self._branches:
                self._tune(branch, wanted)

    def _tune(self, branch: _Branch, wanted: dict[Trial, int]) -> None:
        found = tune(branch.choice, self.space, self._scores)
        if isinstance(found, Candidate):
            branch.candidate = found
            return
        branch.lacks = len(found)
        for trial, rounds in found.items():
            self._waiting[trial].append(branch)
            if trial not in self._asked:
                self._asked.add(trial)
                wanted[trial] = rounds + branch.later


class Simulation:
    """A search of `study` on so many slots, where each job takes its `seconds`.

    `sizes` is what the search knows of them at its start. A `Kind` has a data set's name in place
    of the digest of its rows.
    """

    def __init__(
        self,
        study: Study,
        slots: int,
        seconds: Callable[[Job], float],
        sizes: Mapping[Kind, float],
    ) -> None:
        self._study = study
        self._slots = slots
        self._seconds = seconds
        self.speeds = Speeds(sizes)
        self.walks = [Walk(study, case) for case in test_cases(study)]
        self._by_teacher: dict[object, list[Walk]] = defaultdict(list)
        """The walks that share a teacher; those without one by themselves."""
        for walk in self.walks:
            self._by_teacher[self._teacher(walk)].append(walk)
        of = {walk.case: walk for walk in self.walks}
        self._behind = {
            case: [[of[each] for each in way] for way in ways]
            for case, ways in cases_behind(study, of).items()
        }
        """See `cases_behind`."""
        self._starts = {
            (case.dataset, case.teacher): Walk(study, case)
            for case in start_cases(study)
            if (case.dataset, case.teacher) not in self._by_teacher
        }
        """Of what students start from and nobody learns from, by data set and teacher."""
        self._trained: set[tuple[str, str | None]] = set()
        """The data sets and teachers whose trainings have ended."""
        self._unstarted: dict[tuple[str, str | None], list[Walk]] = defaultdict(list)
        """The walks whose students start from one of the others."""
        self._ready: dict[tuple[object, ...], deque[Job]] = defaultdict(deque)
        """What is equally urgent is in one queue."""
        self._urgencies: dict[tuple[object, ...], float] = {}
        """Of the queues."""
        self._started: set[tuple[object, ...]] = set()
        self._done: Counter[tuple[object, ...]] = Counter()
        self._chose: set[int] = set()
        """The walks whose choices are made, by their identity."""
        self._stable: set[str | None] = set()
        """The searches whose stable configurations are asked for."""
        self._longest = {
            teacher: max(walks, key=lambda walk: self.speeds.seconds(walk.kinds["student"]))
            for teacher, walks in self._by_teacher.items()
        }
        self._of_teachers: set[tuple[object, ...]] = set()
        """What teachers have said and written."""
        self._held_up: list[tuple[Walk, Trial, int]] = []
        """The students that wait for more of it, with their rounds."""
        self._views: dict[tuple[object, ...], tuple[Augmentation, ...]] = {}

    def run(self) -> Simulated:
        """Run it to its end."""
        self._begin()
        running: list[tuple[float, int, float, Job]] = []
        order, clock, busy = count(), 0.0, 0.0
        while running or self._ready:
            while len(running) < self._slots and (job := self._take()) is not None:
                seconds = self._seconds(job)
                heapq.heappush(running, (clock + seconds, next(order), seconds, job))
                busy += seconds
            clock, _, seconds, job = heapq.heappop(running)
            if self.speeds.learn(job.kind, seconds):
                self._urgencies = {k: self.urgency(jobs[0]) for k, jobs in self._ready.items()}
            self._go_on(job)
        return Simulated(slots=self._slots, trainings=len(self._started), makespan=clock, busy=busy)

    def urgency(self, job: Job) -> float:
        """The highest runs first: as `Agenda.requests` has it."""
        own = self.speeds.path(job.walk.kinds, job.role, job.rounds)
        ways = self._behind.get(job.walk.case, ())
        later = (sum(self.speeds.path(w.kinds, "outputs", w.rounds) for w in way) for way in ways)
        return own + max(later, default=0.0)

    def with_teacher(self, walk: Walk) -> Wanted:
        """What a case can run once its teacher is ready."""
        return {**walk.lazy(), **walk.start()}

    def with_stable(self, walk: Walk, values: Held) -> Wanted:
        """What a case can run once all are traversed."""
        return walk.stable(values)

    def _begin(self) -> None:
        for walks in self._by_teacher.values():
            case = walks[0].case
            if case.teacher is None:
                self._ask_first(walks[0])
            if case.teacher is None or cases_before(self._study, case):
                continue
            longest = self._longest[self._teacher(walks[0])]
            of_teacher = self._rates(longest)
            for rate in of_teacher:
                self._ask(Job(walk=longest, role="teacher", what=rate, rounds=longest.rounds))
            if not of_teacher:
                self._ask_outputs(longest)
        for walk in self._starts.values():
            for rate in self._rates(walk):
                self._ask(Job(walk=walk, role="teacher", what=rate, rounds=walk.rounds))

    def _teacher(self, walk: Walk) -> object:
        return one_teacher(self._study, walk.case) if walk.case.teacher else walk.case

    def _rates(self, walk: Walk) -> tuple[float, ...]:
        teacher = self._study.teachers[walk.case.taught]
        return teacher.fine_tune.learning_rate if teacher.model else ()

    def _ask(self, job: Job) -> None:
        key = (id(job.walk), job.role, job.rounds)
        self._ready[key].append(job)
        if key not in self._urgencies:
            self._urgencies[key] = self.urgency(job)

    def _take(self) -> Job | None:
        while self._ready:
            key = max(self._urgencies, key=self._urgencies.__getitem__)
            job = self._ready[key].popleft()
            if not self._ready[key]:
                del self._ready[key], self._urgencies[key]
            name = (id(job.walk), job.role, job.what)
            # A trial may be asked for twice, at first as the lazy one.
            if name not in self._started:
                self._started.add(name)
                return job
        return None

    def _go_on(self, job: Job) -> None:
        match job.role, job.what:
            case "teacher", _:
                if self._all_done(job, len(self._rates(job.walk))):
                    self._end_teacher(job.walk)
            case "outputs" | "sequences", _:
                self._of_teachers.add((id(job.walk), job.role, job.what))
                held_up, self._held_up = self._held_up, []
                for walk, trial, rounds in held_up:
                    self._ask_students(walk, {trial: rounds})
            case "student", (Trial() as trial, seed) if seed in self._study.student_seeds:
                if self._all_done(job, len(self._study.student_seeds), trial):
                    self._ask_students(job.walk, job.walk.scored(trial))
                    self._ask_winner(job.walk)
        search = job.walk.case.search
        if not job.walk.finished or not job.walk.search.flips or search in self._stable:
            return
        walks = [walk for walk in self.walks if walk.case.search == search]
        if all(walk.finished for walk in walks):
            self._stable.add(search)
            axes = dict.fromkeys(axis.name for walk in walks for axis in walk.space.voted)
            values = stable_values(rewards([walk.progress for walk in walks], axes))
            for walk in walks:
                self._ask_students(walk, self.with_stable(walk, values))

    def _all_done(self, job: Job, needed: int, trial: Trial | None = None) -> bool:
        key = (id(job.walk), job.role, trial)
        self._done[key] += 1
        return self._done[key] == needed

    def _end_teacher(self, walk: Walk) -> None:
        name = walk.case.dataset, walk.case.teacher
        self._trained.add(name)
        if name in self._starts:  # it is scored, and teaches nobody
            self._ask(Job(walk=walk, role="outputs", what="test", rounds=1))
        else:
            self._ask_outputs(walk)
        for other in self._unstarted.pop(name, ()):
            self._ask_first(other)

    def _ask_first(self, walk: Walk) -> None:
        """Ask for a case's first students; not before what they start from is trained."""
        start = start_of(self._study, walk.case)
        if start is not None and (start.dataset, start.teacher) not in self._trained:
            self._unstarted[start.dataset, start.teacher].append(walk)
            return
        taught = walk.case.teacher is not None
        self._ask_students(walk, self.with_teacher(walk) if taught else walk.start())

    def _ask_outputs(self, walk: Walk) -> None:
        for what in product(SPLITS, checkpoints_of(self._study, walk.case)):
            self._ask(Job(walk=walk, role="outputs", what=what, rounds=walk.rounds))
        for taught in self._by_teacher[self._teacher(walk)]:
            self._ask_first(taught)

    def _ask_students(self, walk: Walk, wanted: Wanted) -> None:
        for trial, rounds in wanted.items():
            lacking = self._lacking(walk, trial, rounds)
            if lacking is not None:
                self._held_up.append((walk, trial, rounds))
                self._ask(lacking)
                continue
            for seed in self._study.student_seeds:
                self._ask(Job(walk=walk, role="student", what=(trial, seed), rounds=rounds))

    def _lacking(self, walk: Walk, trial: Trial, rounds: int) -> Job | None:
        """What a trial's students still wait for, the first of it."""
        if trial.checkpoint is None:
            return None
        targets = trial.objective.parameters.get("targets", DATA)
        longest = self._longest[self._teacher(walk)]
        said = targets if trial.objective.reads_outputs else DATA
        before: list[tuple[Role, object]] = [("outputs", "train" if said == DATA else said)]
        if targets != DATA:
            before.insert(0, ("sequences", targets))
        if trial.objective.reads_outputs:
            before += [("outputs", each) for each in self._seen(walk, trial)]
        for role, of in before:
            what = of, trial.checkpoint
            if (id(longest), role, what) not in self._of_teachers:
                passes = of.views if isinstance(of, Augmentation) else 1
                return Job(walk=longest, role=role, what=what, rounds=rounds, passes=passes)
        return None

    def _seen(self, walk: Walk, trial: Trial) -> tuple[Augmentation, ...]:
        """The augmentations whose views a trial's students see."""
        at = {n: value for n, value in trial.settings if n == "augmentation"}
        two_views = bool(trial.objective.parameters.get("two_views"))
        known = (walk.case, *at.values(), two_views)
        if known not in self._views:
            self._views[known] = seen_views(self._study, walk.case, at, two_views=two_views)
        return self._views[known]

    def _ask_winner(self, walk: Walk) -> None:
        if not walk.finished or id(walk) in self._chose:
            return
        self._chose.add(id(walk))
        for way in self._behind.get(walk.case, ()):
            if len(way) == 1:
                self._ask_outputs(way[0])
        trial = walk.chosen()
        for seed in self._study.further_seeds:
            self._ask(Job(walk=walk, role="student", what=(trial, seed), rounds=1))
