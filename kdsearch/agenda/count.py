"""How many trainings a study needs, before it runs and while it does."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

from kdsearch.agenda.agenda import Agenda
from kdsearch.agenda.training import SIGNALS, OutputsTraining
from kdsearch.agenda.view import CaseView
from kdsearch.search import (
    CHECKPOINT,
    DATA,
    OBJECTIVE,
    Axis,
    Bounds,
    Checkpoint,
    Choice,
    Coincidence,
    Inner,
    Objective,
    Space,
    Strategy,
    Targets,
    Trial,
    Value,
    Written,
    coincidences,
    count_bounds,
    is_active,
    lazy_choice,
    local_temperatures,
    possible,
)
from kdsearch.study import (
    SPLITS,
    Augmentation,
    Resolved,
    Study,
    TestCase,
    asked_layers_of,
    checkpoints_of,
    one_teacher,
    search_of,
    seen_views,
    space_of,
    start_of,
    teacher_of,
)

_MOST_COUNTED = 20_000
"""Of a larger grid the points are counted, of which a few may be one trial."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The trainings of one test case. Teachers are shared by the cases of a dataset."""

    case: TestCase
    teachers: int
    outputs: Bounds
    """The passes of its teacher over a split, or over what it wrote."""
    sequences: Bounds
    """How often its teacher writes."""
    students: Bounds
    """Of both phases, and of what it chose under further seeds."""
    grid: int
    """The students of its whole grid, each point trained under every seed."""


def case_counts(study: Study, case: TestCase, inner: Inner | None = None) -> Counts:
    """The fewest and the most trainings of `case`, with the study's inner tuning or another."""
    teacher, space = teacher_of(study, case), space_of(study, case, inner)
    names = space.values(CHECKPOINT) if teacher else ()
    # A pair that is given may be one model; of one that is fine-tuned, only its training tells.
    coincide = coincidences(names)
    if teacher and teacher.given:
        coincide = (_coinciding({name: teacher.given[name] for name in names}),)
    if search_of(study, case).flips:
        trials = _students(space, lazy_choice(space, f"{study.seed}/{case}"), coincide)
    else:
        trials = _trials(space, search_of(study, case).walk, coincide)
    outputs, sequences = passes(study, [case])
    return Counts(
        case=case,
        teachers=len(teacher.fine_tune.learning_rate) if teacher and not teacher.there else 0,
        outputs=outputs,
        sequences=sequences,
        students=_under_seeds(study, trials, len(study.further_seeds)),
        grid=len(study.student_seeds) * _grid_size(space),
    )


def sharing(study: Study, cases: Sequence[TestCase]) -> list[list[TestCase]]:
    """The cases in groups: those of one may ask for the same students.

    They are searches for one student, taught by the same, which share no training unless they have
    an objective in common.
    """
    groups: list[tuple[set[str], list[TestCase]]] = []
    for case in cases:
        kinds, members = {*search_of(study, case).distance}, [case]
        alike = [
            group
            for group in groups
            if group[0] & kinds and replace(group[1][0], search=case.search) == case
        ]
        for group in alike:
            groups.remove(group)
            kinds, members = kinds | group[0], [*group[1], *members]
        groups.append((kinds, members))
    return [members for _, members in groups]


def passes(study: Study, cases: Sequence[TestCase]) -> tuple[Bounds, Bounds]:
    """The passes of a teacher over a split or over what it wrote, and how often it writes.

    They are shared by its `cases` (see `one_teacher`); none of a case without a teacher.
    """
    if cases[0].teacher is None:
        return Bounds(fewest=0, most=0), Bounds(fewest=0, most=0)
    checkpoints = _checkpoints(study, cases[0])
    fewest, most = checkpoints.fewest, checkpoints.most
    viewed = views_passed(study, cases)
    first = {each for case in cases for each in _firstwritten_for(study, case)}
    every = {each for case in cases for each in written_for(space_of(study, case))}
    return (
        Bounds(
            fewest=len(SPLITS) * fewest + sum(reads for _, reads in first) + len(viewed.first),
            most=len(SPLITS) * most + most * (sum(reads for _, reads in every) + len(viewed.every)),
        ),
        Bounds(
            fewest=len({targets for targets, _ in first}),
            most=most * len({targets for targets, _ in every}),
        ),
    )


def _checkpoints(study: Study, case: TestCase) -> Bounds:
    """How many different ones a case's teacher has."""
    teacher, names = study.teachers[case.taught], checkpoints_of(study, case)
    most = len({teacher.given[name] for name in names}) if teacher.given else len(names)
    fewest = most if teacher.given else min(len(names) - len(way) for way in coincidences(names))
    return Bounds(fewest=fewest, most=most)


@dataclass(frozen=True, kw_only=True)
class ViewsPassed:
    """Of a teacher's cases, the augmentations on whose views its outputs are kept."""

    first: frozenset[Augmentation]
    """Of what their searches begin with, of one checkpoint at least."""
    every: frozenset[Augmentation]
    """Of all that they may ask for, of each of so many checkpoints at most."""
    checkpoints: int

    @property
    def views(self) -> Bounds:
        """How often the training split is passed, a view each time."""
        first, every = (sum(a.views for a in each) for each in (self.first, self.every))
        return Bounds(fewest=first, most=every * self.checkpoints)

    @property
    def passes(self) -> Bounds:
        """In how many trainings that is."""
        return Bounds(fewest=len(self.first), most=len(self.every) * self.checkpoints)


def views_passed(study: Study, cases: Iterable[TestCase]) -> ViewsPassed:
    """Those of cases that share a teacher; none of students that see images as they are."""
    cases = tuple(cases)
    first = {
        each
        for case in cases
        for trial in search_of(study, case).walk(space_of(study, case), {}).wanted
        if trial.objective.taught and trial.objective.reads_outputs
        for each in seen_views(
            *(study, case, dict(trial.settings)),
            two_views=bool(trial.objective.parameters.get("two_views")),
        )
    }
    every = {each for case in cases for each in _viewed(study, case)}
    return ViewsPassed(
        first=frozenset(first),
        every=frozenset(every),
        checkpoints=_checkpoints(study, cases[0]).most,
    )


def _viewed(study: Study, case: TestCase) -> Iterator[Augmentation]:
    """All whose views a case's students may see."""
    space = space_of(study, case)
    points: list[dict[str, Value]] = [{}]
    if "augmentation" in space.names:
        points = [{"augmentation": value} for value in space.values("augmentation")]
    for name in space.values(OBJECTIVE):
        kind = Objective.kinds[name]
        if not (kind.taught and kind.reads_outputs):
            continue
        listed = "two_views" in space.names and is_active("two_views", name)
        two = listed and True in space.values("two_views")
        for at in points:
            yield from seen_views(study, case, at, two_views=two)


def _targets(space: Space) -> Iterator[tuple[Targets, bool]]:
    """What students may learn on, and whether a teacher's outputs on that are learnt from."""
    for name in space.values(OBJECTIVE):
        kind = Objective.kinds[name]
        default = next((f.default for f in fields(kind) if f.name == "targets"), DATA)  # type: ignore[arg-type]
        listed = "targets" in space.names and is_active("targets", name)
        for targets in space.values("targets") if listed else (default,):
            yield targets, kind.reads_outputs


def written_for(space: Space) -> Iterator[tuple[Written, bool]]:
    """What a teacher may write for a case, and whether its outputs on that are learnt from."""
    for targets, reads in _targets(space):
        if targets != DATA:
            yield targets, reads


def _firstwritten_for(study: Study, case: TestCase) -> Iterator[tuple[Written, bool]]:
    """The same of what a case begins with having written, whatever comes of it."""
    for trial in search_of(study, case).walk(space_of(study, case), {}).wanted:
        targets = trial.objective.parameters.get("targets", DATA)
        if targets != DATA:
            yield targets, trial.objective.reads_outputs


def _under_seeds(study: Study, trials: Bounds, further: int) -> Bounds:
    """The students of so many trials, and of the one that is chosen under `further` seeds."""
    seeds = len(study.student_seeds)
    return Bounds(fewest=seeds * trials.fewest + further, most=seeds * trials.most + further)


def _coinciding(content: Mapping[Checkpoint, str]) -> Coincidence:
    """Which checkpoints are other names of one, by what each of them is."""
    first = {what: name for name, what in reversed([*content.items()])}
    return frozenset((n, first[what]) for n, what in content.items() if first[what] is not n)


@lru_cache(maxsize=1024)
def _trials(space: Space, strategy: Strategy, coincide: tuple[Coincidence, ...]) -> Bounds:
    """Those of a strategy that flips nothing: its first round, or up to the whole grid after it."""
    first, every = possible(space, strategy)
    return Bounds(
        fewest=min(_distinct(first, coincide)),
        most=max(_distinct(every, coincide)),
    )


def _distinct(trials: Iterable[Trial], coincide: tuple[Coincidence, ...]) -> Iterator[int]:
    """How many trainings they are, in each way in which their checkpoints may be the same."""
    found: dict[Trial, set[Checkpoint | None]] = defaultdict(set)
    for trial in trials:
        found[replace(trial, checkpoint=None)].add(trial.checkpoint)
    counts = Counter(map(frozenset, found.values()))
    for way in coincide:
        one: dict[Checkpoint | None, Checkpoint] = {**dict(way)}
        yield sum(n * len({one.get(c, c) for c in names}) for names, n in counts.items())


@lru_cache(maxsize=1024)
def _grid_size(space: Space) -> int:
    """How many trials a grid has; of a refined axis with the neighbourhood of one of its values."""
    if space.refined is not None:
        broad = space.values(space.refined)
        around = Axis(name=space.refined, values=(*broad, *local_temperatures(broad, broad[-1])))
        tuned = (around if axis.name == around.name else axis for axis in space.tuned)
        space = replace(space, tuned=tuple(tuned), refined=None)
    if space.size > _MOST_COUNTED:
        return space.size
    return len({trial for choice in space.choices() for trial in space.trials(choice)})


@lru_cache(maxsize=1024)
def _students(
    space: Space,
    lazy: Choice,
    coincide: tuple[Coincidence, ...],
    decided: frozenset[tuple[str, Value]] = frozenset(),
) -> Bounds:
    """The cases of a study differ in few of these, and are asked for them again and again."""
    return count_bounds(space, decided=dict(decided), lazy=lazy, coincide=coincide)


def remaining(agenda: Agenda, view: CaseView) -> Bounds:
    """The fewest and the most students that a case still has to train."""
    wanted = sum(request.training.kind == "student" for request in view.wanted)
    if view.blocked or view.finished or (view.traversed and not view.search.flips):
        return Bounds(fewest=wanted, most=wanted)
    decisions = view.progress.decisions
    coincide = coincidences(view.space.values(CHECKPOINT) if view.case.teacher else ())
    if view.ready:
        coincide = (_coinciding({name: splits[0].key for name, splits in view.outputs.items()}),)
    if view.search.flips:
        decided = frozenset((each.axis, each.winner.value) for each in decisions if each.axis)
        trials = _students(view.space, agenda.lazy(view), coincide, decided)
    else:
        trials = _trials(view.space, view.search.walk, coincide)
    study = agenda.resolved.study
    further = agenda.further(view.case) if view.traversed else study.further_seeds
    bounds, done = _under_seeds(study, trials, len(further)), agenda.trained(view.case)
    return Bounds(fewest=max(bounds.fewest - done, wanted), most=max(bounds.most - done, wanted))


def students_left(agenda: Agenda) -> Iterator[tuple[TestCase, Bounds]]:
    """The fewest and the most students that each group of cases that may share some still trains.

    With each comes a case of the group. What two of its searches want now counts once; of what
    they will want later the most counts for each of them.
    """
    views = {view.case: view for view in agenda.views()}
    for cases in sharing(agenda.resolved.study, tuple(views)):
        each = [remaining(agenda, views[case]) for case in cases]
        if len(cases) == 1:
            yield cases[0], each[0]
            continue
        wanted = [
            {r.training.key for r in views[case].wanted if r.training.kind == "student"}
            for case in cases
        ]
        now, twice = len(set().union(*wanted)), sum(map(len, wanted))
        done = agenda.trained(*cases)
        # Of what a search still lacks, another may have trained as much as it trained itself.
        fewest = (
            bounds.fewest + agenda.trained(case) - done
            for case, bounds in zip(cases, each, strict=True)
        )
        most = sum(bounds.most for bounds in each) - twice + now
        yield cases[0], Bounds(fewest=max(now, *fewest), most=most)


def left(agenda: Agenda) -> Bounds:
    """The fewest and the most trainings of every kind that a study still has to run."""
    graph, views = agenda.graph, agenda.views()
    keys = {training.key for view in views for training in graph.teachers(view.case)}
    keys |= {t.key for view in views for t in graph.of_start(view.case, view.start)}
    keys |= {t.key for view in views for pair in view.outputs.values() for t in pair}
    keys |= {t.key for view in views for t in agenda.waited_for(view.case)}
    unknown = len(keys - agenda.results.keys())
    begun = (start_of(agenda.resolved.study, v.case) for v in views if not (v.ready or v.blocked))
    scored = {(start.dataset, start.teacher) for start in begun if start}  # once they are known
    total = Bounds(fewest=unknown, most=unknown + len(scored))
    of_teachers: dict[object, list[CaseView]] = defaultdict(list)
    for view in views:
        if not view.blocked:
            taught_by = one_teacher(agenda.resolved.study, view.case) if view.case.teacher else None
            of_teachers[taught_by].append(view)
    for group in of_teachers.values():
        total += _passes_left(agenda, group)
    return sum((bounds for _, bounds in students_left(agenda)), total)


def _passes_left(agenda: Agenda, views: Sequence[CaseView]) -> Bounds:
    """What a teacher may still have to say and to write, beside what is known of it already."""
    study = agenda.resolved.study
    if views[0].case.teacher is None:
        return Bounds(fewest=0, most=0)
    unfinished = [view for view in views if not view.finished]
    compared = _compared(agenda.resolved, unfinished)
    if not views[0].ready:
        outputs, sequences = passes(study, [view.case for view in views])
        signals = compared * len(checkpoints_of(study, views[0].case))
        return outputs + sequences + Bounds(fewest=0, most=signals)
    every = {each for view in unfinished for each in written_for(view.space)}
    most = sum(reads for _, reads in every) + len({targets for targets, _ in every}) + compared
    most += len({each for view in unfinished for each in _viewed(study, view.case)})
    asked = {
        training.key
        for view in unfinished
        for training in agenda.waited_for(view.case)
        if training.kind == "sequences" or (training.kind == "outputs" and _is_more(training))
    }
    checkpoints = {splits[0].key for view in views for splits in view.outputs.values()}
    return Bounds(fewest=0, most=max(0, most * len(checkpoints) - len(asked)))


def _is_more(training: OutputsTraining) -> bool:
    """Whether it is not one of the passes over each split."""
    viewed = training.settings.augmentation is not None
    return training.sequences is not None or training.signal is not None or viewed


def _compared(resolved: Resolved, views: Iterable[CaseView]) -> int:
    """How many signals of a checkpoint terms may compare, on whatever texts."""
    found = {
        (SIGNALS[term], layers, targets)
        for view in views
        for targets, _ in _targets(view.space)
        for term, layers in asked_layers_of(resolved.study, resolved.models, [view.case])
    }
    return len(found)
