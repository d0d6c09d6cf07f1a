"""How many trainings a study needs, before it runs and while it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from kdsearch.agenda.agenda import Agenda
from kdsearch.agenda.view import CaseView
from kdsearch.search import (
    CHECKPOINT,
    Axis,
    Bounds,
    Checkpoint,
    Choice,
    Inner,
    Space,
    Strategy,
    Trial,
    Value,
    count_bounds,
    lazy_choice,
    local_temperatures,
    possible,
)
from kdsearch.study import (
    SPLITS,
    Resolved,
    Study,
    Teacher,
    TestCase,
    cache_bytes,
    checkpoints_of,
    effective_settings,
    search_of,
    space_of,
    taught_cases,
    teacher_of,
    weight_files,
)

_MOST_COUNTED = 20_000
"""Of a larger grid the points are counted, of which a few may be one trial."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The trainings of one test case. Teachers are shared by the cases of a dataset."""

    case: TestCase
    teachers: int
    outputs: Bounds
    students: Bounds
    """Of both phases, and of what it chose under further seeds."""
    grid: int
    """The students of its whole grid, each point trained under every seed."""


def case_counts(study: Study, case: TestCase, inner: Inner | None = None) -> Counts:
    """The fewest and the most trainings of `case`, with the study's inner tuning or another."""
    teacher, space = teacher_of(study, case), space_of(study, case, inner)
    names = space.values(CHECKPOINT) if teacher else ()
    # A pair that is given may be one model; of one that is fine-tuned, only its training tells.
    given = {teacher.given[name] for name in names} if teacher and teacher.given else None
    may_coincide = given is None and len(names) > 1
    coincide = None if may_coincide else given is not None and len(given) < len(names)
    if search_of(study, case).flips:
        trials = _students(space, lazy_choice(space, f"{study.seed}/{case}"), coincide)
    else:
        trials = _trials(space, search_of(study, case).walk, coincide)
    return Counts(
        case=case,
        teachers=len(teacher.fine_tune.learning_rate) if teacher and not teacher.given else 0,
        outputs=_outputs(study, case) if teacher else Bounds(fewest=0, most=0),
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


def _outputs(study: Study, case: TestCase) -> Bounds:
    """The passes of a case's teacher, which other cases share, over every split."""
    teacher, names = study.teachers[case.taught], checkpoints_of(study, case)
    most = len({teacher.given[name] for name in names}) if teacher.given else len(names)
    fewest = most if teacher.given else min(most, 1)
    return Bounds(fewest=len(SPLITS) * fewest, most=len(SPLITS) * most)


def _under_seeds(study: Study, trials: Bounds, further: int) -> Bounds:
    """The students of so many trials, and of the one that is chosen under `further` seeds."""
    seeds = len(study.student_seeds)
    return Bounds(fewest=seeds * trials.fewest + further, most=seeds * trials.most + further)


@lru_cache(maxsize=1024)
def _trials(space: Space, strategy: Strategy, coincide: bool | None) -> Bounds:
    """Those of a strategy that flips nothing: its first round, or up to the whole grid after it."""
    first, every = possible(space, strategy)
    alone, alike = len(set(every)), len(set(map(_without_checkpoint, first)))
    return Bounds(
        fewest=len(first) if coincide is False else alike,
        most=len(set(map(_without_checkpoint, every))) if coincide is True else alone,
    )


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


def _without_checkpoint(trial: Trial) -> Trial:
    return replace(trial, checkpoint=None)


@lru_cache(maxsize=1024)
def _students(
    space: Space,
    lazy: Choice,
    coincide: bool | None,
    decided: frozenset[tuple[str, Value]] = frozenset(),
) -> Bounds:
    """The cases of a study differ in few of these, and are asked for them again and again."""
    return count_bounds(space, decided=dict(decided), lazy=lazy, coincide=coincide)


def checkpoint_models(study: Study, teacher: Teacher) -> list[str]:
    """The model of each checkpoint that a teacher has at most."""
    return list(teacher.given.values()) or [teacher.model or ""] * _checkpoints(study)


def _checkpoints(study: Study) -> int:
    """How many checkpoints of a teacher that is fine-tuned here the searches ask for."""
    return len({name for search in study.every_search.values() for name in search.teacher or ()})


def checkpoint_bytes(resolved: Resolved) -> int:
    """About how many bytes the kept epochs of all teachers take, of those whose size is known."""
    study = resolved.study
    pairs = {(case.dataset, case.taught) for case in taught_cases(study)}
    total = 0
    for _, name in pairs:
        teacher = study.teachers[name]
        path = resolved.models[teacher.model].path if teacher.model else None
        if path is not None:
            kept = _checkpoints(study) * len(teacher.fine_tune.learning_rate)
            total += kept * sum(file.stat().st_size for file in weight_files(Path(path)))
    return total


def cached_bytes(resolved: Resolved, case: TestCase) -> int:
    """About how many bytes the outputs of a case's teacher take, of all its checkpoints."""
    study, data = resolved.study, resolved.datasets[case.dataset]
    teacher = study.teachers[case.taught]
    settings = effective_settings(study, case, "outputs")
    return sum(
        cache_bytes(
            settings,
            data.task,
            study.models[name],
            sum(split.units for split in data.splits.values()),
            len(data.labels),
            resolved.models[name].path,
        )
        for name in checkpoint_models(study, teacher)
    )


def remaining(agenda: Agenda, view: CaseView) -> Bounds:
    """The fewest and the most students that a case still has to train."""
    wanted = sum(request.training.kind == "student" for request in view.wanted)
    if view.blocked or view.finished or (view.traversed and not view.search.flips):
        return Bounds(fewest=wanted, most=wanted)
    decisions = view.progress.decisions
    unknown = not view.ready and Checkpoint.LOWEST_LOSS in view.space.values(CHECKPOINT)
    coincide = None if unknown else view.coinciding
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
    keys |= {t.key for view in views for pair in view.outputs.values() for t in pair}
    unknown = len(keys - agenda.results.keys())
    total = Bounds(fewest=unknown, most=unknown)
    waiting = (view.case for view in views if not view.ready and not view.blocked)
    for case in {(case.dataset, case.teacher): case for case in waiting}.values():
        total += case_counts(agenda.resolved.study, case).outputs
    return sum((bounds for _, bounds in students_left(agenda)), total)
