"""Which results of a folder its study asks for: it may hold those of an earlier version of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from kdsearch.agenda.agenda import Agenda, Results
from kdsearch.agenda.graph import Graph
from kdsearch.agenda.training import (
    CheckpointSpec,
    ModelSpec,
    OutputsTraining,
    SequencesTraining,
    StudentTraining,
    TeacherTraining,
    Teaching,
    Training,
)
from kdsearch.agenda.view import CaseView
from kdsearch.search import (
    CHECKPOINT,
    LAZY_VALUES,
    Axis,
    Checkpoint,
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
    yield from (training.key for training in agenda.graph.of_start(view.case, view.start))
    for splits in view.outputs.values():
        yield from (training.key for training in splits)
    yield from (training.key for training in agenda.waited_for(view.case))
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
    passes: set[str] = set()
    taught: dict[tuple[object, ...], list[tuple[CaseView, OutputsTraining]]] = defaultdict(list)
    for view in agenda.views():
        for training in _outputs(agenda, view):
            passes.add(training.key)
            if training.split == "train":
                taught[_identity(training.checkpoint)].append((view, training))

    waited_for: dict[tuple[object, ...], set[str]] = {}

    def may_be_asked(training: Training) -> bool:
        match training:
            case TeacherTraining():
                return False  # they are asked for from the start
            case StudentTraining(teaching=None):
                found = (_in_grid(graph, view, None, training) for view in agenda.views())
                return training.seed in seeds and any(found)
            case StudentTraining():
                teachers = taught.get(_identity(training.taught.teacher), ())
                found = (_in_grid(graph, view, outputs, training) for view, outputs in teachers)
                return training.seed in seeds and any(found)
        if training.key in passes:
            return True
        own = _identity(training.checkpoint)
        if own not in waited_for:
            waited_for[own] = {k for each in taught.get(own, ()) for k in _waited_for(graph, *each)}
        return training.key in waited_for[own]

    outcomes = (agenda.results[key] for key in keys)
    return {o.key for o in outcomes if o is not None and may_be_asked(o.training)}


def _outputs(agenda: Agenda, view: CaseView) -> Iterator[OutputsTraining]:
    """Those of the case's teacher that it may ask for."""
    graph = agenda.graph
    if view.ready:
        yield from (training for splits in view.outputs.values() for training in splits)
        return
    for start in graph.starts(view.case):
        for epoch in range(1, start.settings.epochs + 1):
            *_, scored = graph.of_start(view.case, graph.checkpoint(start, epoch))
            assert isinstance(scored, OutputsTraining)
            yield scored
    if view.case.teacher is None:
        return
    if Checkpoint.WINNER in view.space.values(CHECKPOINT):
        # Which student it will be is not known: any of the case before that has taught.
        kept = view.search.axes.get("layers", (None,))
        models = [_content(graph.student(view.case, layers)) for layers in kept]
        taught = {checkpoint.training: checkpoint for checkpoint in _checkpoints(agenda)}
        for checkpoint in taught.values():
            is_student = checkpoint.training is not None and checkpoint.epoch is None
            if is_student and _content(checkpoint.model) in models:
                yield from graph.outputs(view.case, checkpoint)
        return
    for teacher in graph.teachers(view.case):
        for epoch in range(1, teacher.settings.epochs + 1):
            yield from graph.outputs(view.case, graph.checkpoint(teacher, epoch))


def _checkpoints(agenda: Agenda) -> Iterator[CheckpointSpec]:
    """Those that any outcome is of, or was taught by."""
    for result in agenda.results.values():
        match result.training if result is not None else None:
            case OutputsTraining(checkpoint=found) | SequencesTraining(checkpoint=found):
                yield found
            case StudentTraining(teaching=Teaching(teacher=found)):
                yield found


def _content(model: ModelSpec) -> ModelSpec:
    """A model without what the study calls it."""
    return model.model_copy(update={"name": "", "tokenizer_name": None})


def _identity(checkpoint: CheckpointSpec) -> tuple[object, ...]:
    """Equal of checkpoints that are one, whatever the study calls them."""
    return checkpoint.training, checkpoint.epoch, checkpoint.model.weights


def _waited_for(graph: Graph, view: CaseView, outputs: OutputsTraining) -> set[str]:
    """The keys of what students of the case may wait for that `outputs` teach."""
    trials = (trial for alike in _grid(view.space, view.search.walk).values() for trial in alike)
    return {
        training.key
        for trial in trials
        if trial.checkpoint
        for training in graph.prerequisites(view.case, trial, outputs)
    }


def _in_grid(
    graph: Graph, view: CaseView, outputs: OutputsTraining | None, training: StudentTraining
) -> bool:
    """Whether the training is a student of the case's grid, taught by `outputs` or by none.

    Under whichever seed.
    """
    start, starts = training.start, {each.key for each in graph.starts(view.case)}
    if start.training not in starts if start else starts:
        return False
    alike = _grid(view.space, view.search.walk).get(training.objective, ())
    return any(
        training.key == student.key
        for trial in alike
        if trial.get("learning_rate") in (None, training.learning_rate)
        for student in graph.students(view.case, trial, outputs, start)[0].under([training.seed])
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
