"""Which results of a folder its study asks for: it may hold those of an earlier version of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from kdsearch.agenda.agenda import Agenda, Results
from kdsearch.agenda.graph import Graph
from kdsearch.agenda.training import OutputsTraining, StudentTraining, Training
from kdsearch.agenda.view import CaseView
from kdsearch.search import (
    CHECKPOINT,
    LAZY_VALUES,
    Axis,
    Objective,
    Space,
    Strategy,
    Trial,
    possible,
)


def asked(agenda: Agenda) -> set[str]:
    """The keys of every training that the study has asked for so far."""
    return {key for view in agenda.views() for key in asked_by(agenda, view)}


def asked_by(agenda: Agenda, view: CaseView) -> Iterator[str]:
    """The keys of every training that a case has asked for so far, for each trial anew."""
    yield from (training.key for training in agenda.graph.teachers(view.case))
    for splits in view.outputs.values():
        yield from (training.key for training in splits)
    for seeds in agenda.students(view.case).values():
        yield from (training.key for training in seeds)
    yield from (training.key for training in agenda.further(view.case))


def used(agenda: Agenda) -> Results:
    """The results of what the study has asked for so far."""
    keys = asked(agenda)
    return {key: result for key, result in agenda.results.items() if key in keys}


def settled(agenda: Agenda) -> bool:
    """Whether the study will ask for nothing more, whatever is tried again."""
    return agenda.complete and None not in used(agenda).values()


def unneeded(agenda: Agenda) -> set[str]:
    """The keys of the results that the study does not ask for, and will not.

    While it is not settled, all of its grid may yet be asked for. What a failed training was is
    not known, so that it may be too.
    """
    others = agenda.results.keys() - asked(agenda)
    if settled(agenda):
        return others
    outcomes = {key for key in others if agenda.results[key] is not None}
    return outcomes - _in_reach(agenda, outcomes)


def spare(agenda: Agenda) -> set[str]:
    """The keys of the outcomes of students of the study's grid that no decision has asked for.

    They ran ahead of one (see `Speculation`), or an earlier version of the study asked for them.
    """
    others = agenda.results.keys() - asked(agenda)
    outcomes = (agenda.results[key] for key in others)
    students = {o.key for o in outcomes if o and isinstance(o.training, StudentTraining)}
    return _in_reach(agenda, students)


def _in_reach(agenda: Agenda, keys: Collection[str]) -> set[str]:
    """Those of the outcomes that a study of this grid may ask for, whatever it has decided."""
    if not keys:
        return set()
    graph, study = agenda.graph, agenda.resolved.study
    seeds = {*study.student_seeds, *study.further_seeds}
    outputs: dict[str, list[tuple[CaseView, OutputsTraining]]] = defaultdict(list)
    for view in agenda.views():
        for training in _outputs(graph, view):
            outputs[training.key].append((view, training))

    def may_be_asked(training: Training) -> bool:
        if isinstance(training, StudentTraining) and training.seed not in seeds:
            return False
        if isinstance(training, StudentTraining) and training.teaching is not None:
            teachers = outputs.get(training.teaching.outputs, ())
            return any(_in_grid(graph, view, teacher, training) for view, teacher in teachers)
        if isinstance(training, StudentTraining):
            return any(_in_grid(graph, view, None, training) for view in agenda.views())
        return training.key in outputs  # teachers are asked for from the start

    outcomes = (agenda.results[key] for key in keys)
    return {o.key for o in outcomes if o is not None and may_be_asked(o.training)}


def _outputs(graph: Graph, view: CaseView) -> Iterator[OutputsTraining]:
    """Those of the case's teacher that it may ask for."""
    if view.ready:
        yield from (training for splits in view.outputs.values() for training in splits)
        return
    for teacher in graph.teachers(view.case):
        for epoch in range(1, teacher.settings.epochs + 1):
            yield from graph.outputs(view.case, graph.checkpoint(teacher, epoch))


def _in_grid(
    graph: Graph, view: CaseView, outputs: OutputsTraining | None, training: StudentTraining
) -> bool:
    """Whether the training is a student of the case's grid, taught by `outputs` or by none.

    Under whichever seed.
    """
    alike = _grid(view.space, view.search.walk).get(training.objective, ())
    return any(
        training.key == student.key
        for trial in alike
        if trial.get("learning_rate") in (None, training.learning_rate)
        for student in graph.students(view.case, trial, outputs)[0].under([training.seed])
    )


@lru_cache(maxsize=64)
def _grid(space: Space, strategy: Strategy) -> Mapping[Objective, Sequence[Trial]]:
    """Every trial that may be asked for, whichever broad temperature is the best, by objective."""
    if strategy.flips:
        lazy = replace(space, tuned=tuple(_lazily(axis) for axis in space.tuned), refined=None)
        bests = (None,) if space.refined is None else space.values(space.refined)
        found = {t for c in space.choices() for best in bests for t in space.trials(c, best)}
        found |= {t for c in lazy.choices() for t in lazy.trials(c)}
    else:
        found = {*possible(space, strategy)[1]}
    grid = defaultdict(list)
    # A checkpoint's name is in no key: that of one will do.
    for trial in {
        replace(trial, checkpoint=space.values(CHECKPOINT)[0]) if trial.checkpoint else trial
        for trial in found
    }:
        grid[trial.objective].append(trial)
    return grid


def _lazily(axis: Axis) -> Axis:
    value = LAZY_VALUES.get(axis.name)
    return axis if value is None else replace(axis, values=(value,))
