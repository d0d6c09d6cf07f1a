"""What is in effect in a test case, whose data set, teacher and student have a say of their own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, product
from typing import Any

from pydantic import ValidationError

from kdsearch.errors import Problem
from kdsearch.search import Checkpoint, Inner, Space, Value
from kdsearch.study.cases import (
    TestCase,
    known_cases,
    searches_of,
    start_cases,
    teacher_of,
    test_cases,
)
from kdsearch.study.refused import LARGEST
from kdsearch.study.resources import Role
from kdsearch.study.schema import ERM, Student, Study, Teacher
from kdsearch.study.search import Search
from kdsearch.study.section import Section, Unread, as_far_as_read
from kdsearch.study.settings import (
    AXES,
    LORA_RANK,
    SECTIONS,
    UNREAD,
    WORDS,
    WRITTEN,
    TrainingSettings,
    read,
)

Axes = Mapping[str, tuple[Value, ...]]
"""The values of axes, by their names."""
_TOGETHER = (
    *("optimizer", "momentum", "nesterov", "epochs", "schedule", "warmup"),
    *("clip", "clip_per", "augmentation"),
)
"""The axes of which a value may not go with one of another."""
EPOCHS = "epochs"
_OPTIMIZERS = {section: name for name, (section, _) in SECTIONS.items()}


def setting_axes(space: Space) -> Axes:
    """The axes of a space that are settings of a training, layers or the learning rate."""
    every = (*space.compared, *space.tuned)
    return {axis.name: axis.values for axis in every if axis.name in AXES}


def rates(study: Study, case: TestCase) -> tuple[float, ...] | None:
    """The learning rates of a case's students in place of its search's: the student's, else the
    data set's. None where neither has any."""
    return study.students[case.student].learning_rate or study.datasets[case.dataset].learning_rate


def search_of(study: Study, case: TestCase) -> Search:
    """The search of a test case."""
    return study.every_search[case.search]


def place_of(case: TestCase) -> str:
    """Where a study file has the search of a test case."""
    return "search" if case.search is None else f"searches.{case.search}"


def space_of(study: Study, case: TestCase, inner: Inner | None = None) -> Space:
    """The grid of a test case: the study's, less what the case's teacher does not have.

    `inner` is another inner tuning than the study's, to compare the two.
    """
    teacher = teacher_of(study, case)
    there = teacher.there if teacher else ()
    space = search_of(study, case).space(there, rates(study, case))
    if nested_epochs(study, case):
        compared, tuned = (
            tuple(axis for axis in axes if axis.name != EPOCHS)
            for axes in (space.compared, space.tuned)
        )
        space = replace(space, compared=compared, tuned=tuned)
    return replace(space, inner=inner) if inner else space


def checkpoints_of(study: Study, case: TestCase) -> tuple[Checkpoint, ...]:
    """Those of a case's teacher on its data set that any of the study's searches asks for."""
    there = study.teachers[case.taught].there
    if len(there) == 1:
        return there
    blocks = (
        block
        for block in study.test_cases
        if case.dataset in (block.dataset or study.datasets)
        and case.teacher in (block.teacher or study.teachers)
    )
    names = {name for block in blocks for name in searches_of(study, block, taught=True)}
    asked = (study.every_search[name].teacher or () for name in study.every_search if name in names)
    every = tuple(map(Checkpoint, dict.fromkeys(chain.from_iterable(asked))))
    return tuple(name for name in every if not there or name in there)


def nested_epochs(study: Study, case: TestCase) -> tuple[int, ...] | None:
    """The values of an axis of epochs, ascending, where one training stands for them all.

    At a constant rate without warm-up the first epochs of a training are a training of that many
    epochs, and the best epoch of the longest is the best of them all. None where there is no such
    axis, or where it is one like the others.
    """
    axes = search_of(study, case).axes
    every = {"schedule": study.training.schedule, "warmup": study.training.warmup}
    for _, change in _changes(study, case, "student"):
        every |= read({name: value for name, value in change.items() if name in every})
    constant = every == {"schedule": "constant", "warmup": 0}
    if EPOCHS not in axes or not constant or axes.keys() & every.keys():
        return None
    return tuple(sorted(axes[EPOCHS]))


def effective_settings(study: Study, case: TestCase, role: Role) -> TrainingSettings:
    """A case's settings for a role, not yet for its task: those of the study, changed by others.

    A student's own win over its data set's, and a teacher's do, which its outputs share. Raises
    pydantic's `ValidationError` where they do not go together.
    """
    changes = [change for _, change in _changes(study, case, role)]
    nested = nested_epochs(study, case) if role == "student" else None
    if nested is not None:
        changes.append({EPOCHS: nested[-1], "stops": None})
    return study.training.but(*changes)


def source_of(study: Study, case: TestCase, role: Role, setting: str) -> str:
    """Where the study says what a setting is in effect: `students.small.training.epochs`."""
    for where, change in reversed(_changes(study, case, role)):
        if setting in change:
            return f"{where}.{setting}"
    return f"training.{setting}"


def lora_place(study: Study, case: TestCase, role: Role) -> str | None:
    """Where the study gives a case's trainings of a role adapters; None where none has any."""
    if not _is_trained(study, case, role):
        return None
    ranks = search_of(study, case).axes.get(LORA_RANK) if role == "student" else None
    if ranks is not None:
        adapted = any(rank != WORDS[LORA_RANK] for rank in ranks)
        return f"{place_of(case)}.{LORA_RANK}" if adapted else None
    adapted = effective_settings(study, case, role).lora is not None
    return source_of(study, case, role, "lora") if adapted else None


def uses_lora(study: Study) -> bool:
    """Whether any training of a study has adapters."""
    roles: tuple[Role, ...] = ("teacher", "student")
    cases = (*test_cases(study), *start_cases(study))
    return any(lora_place(study, case, r) for case, r in product(cases, roles))


def axis_key(study: Study, case: TestCase, axis: str) -> str:
    """Where a study file has the values of an axis of a case: `search.temperature.broad`."""
    search, own = search_of(study, case), place_of(case)
    if axis == "learning_rate":
        if study.students[case.student].learning_rate:
            return f"students.{case.student}.{axis}"
        if study.datasets[case.dataset].learning_rate:
            return f"datasets.{case.dataset}.{axis}"
        of_erm = study.erm and case.search == ERM
        if study.learning_rate == search.learning_rate or (of_erm and study.searches):
            return axis
        return f"search.{axis}" if of_erm else f"{own}.{axis}"
    return f"{own}.temperature.broad" if axis == search.space().refined else f"{own}.{axis}"


def epochs_key(study: Study, case: TestCase) -> str:
    """Where a study file has the epochs of a case's students."""
    if nested_epochs(study, case) is not None:
        return f"{place_of(case)}.{EPOCHS}"
    return source_of(study, case, "student", EPOCHS)


def _changes(study: Study, case: TestCase, role: Role) -> list[tuple[str, Mapping[str, Any]]]:
    """What changes the study's settings, and where that stands. The last one wins."""
    dataset, teacher = study.datasets[case.dataset], teacher_of(study, case)
    own = f"teachers.{case.teacher}"
    changes: list[tuple[str, Mapping[str, Any]]] = [
        (f"datasets.{case.dataset}.training", dataset.training),
    ]
    if (length := _said(dataset, "max_length")) is not None:
        changes.append((f"datasets.{case.dataset}", {"max_length": length}))
    if role == "student":
        student = study.students[case.student]
        if teacher is not None:  # it reads what its teacher wrote
            written = {n: value for n, value in teacher.training.items() if n in WRITTEN}
            changes.append((f"{own}.training", written))
        changes.append((f"students.{case.student}.training", student.training))
    elif teacher is not None:
        changes.append((f"{own}.training", teacher.training))
    if teacher is not None and role == "teacher":
        epochs = _said(teacher.fine_tune, "epochs")
        changes += [(f"{own}.fine_tune", {"epochs": epochs})] if epochs is not None else []
    return changes


def _said(section: Section, name: str) -> Any:
    """What a section says, or that it cannot be read."""
    try:
        return getattr(section, name)
    except Unread:
        return UNREAD


def asked_layers(study: Study) -> Iterator[tuple[str, str, Any]]:
    """Where some layers of a model are asked for, which model, and which layers."""
    kinds = (_all_layers(study, kind) for kind in ("teachers", "students"))
    return as_far_as_read(*kinds, _layers_axes(study))


def _all_layers(study: Study, kind: str) -> Iterator[tuple[str, str, Any]]:
    users: Mapping[str, Teacher | Student] = getattr(study, kind)
    yield from as_far_as_read(*(_layers(f"{kind}.{n}.layers", user) for n, user in users.items()))


def _layers(where: str, user: Teacher | Student) -> Iterator[tuple[str, str, Any]]:
    if user.layers is not None and user.model is not None:  # a given teacher is used whole
        yield where, user.model, user.layers


def _layers_axes(study: Study) -> Iterator[tuple[str, str, Any]]:
    yield from as_far_as_read(*(_layers_axis(study, case) for case in known_cases(study)))


def _layers_axis(study: Study, case: TestCase) -> Iterator[tuple[str, str, Any]]:
    for layers in search_of(study, case).axes.get("layers", ()):
        yield f"{place_of(case)}.layers", study.students[case.student].model, layers


def setting_problems(study: Study, place: str) -> Iterator[Problem]:
    """Settings that do not go together, or are of an optimizer that nothing uses.

    As far as the study, which is in the file `place`, could be read.
    """
    roles: tuple[Role, ...] = ("teacher", "student")
    trainings = [*product(known_cases(study), roles), *product(start_cases(study), roles[:1])]
    checked: set[object] = set()
    conflicts = (_conflicts(study, case, role, place, checked) for case, role in trainings)
    yield from as_far_as_read(*conflicts, _unused_sections(study, trainings, place))
    epochs = (_epoch_problems(study, case, place) for case in known_cases(study))
    yield from dict.fromkeys(as_far_as_read(*epochs))


def _is_trained(study: Study, case: TestCase, role: Role) -> bool:
    teacher = teacher_of(study, case)
    return role == "student" or (teacher is not None and not teacher.there)


def _conflicts(
    study: Study, case: TestCase, role: Role, place: str, checked: set[object]
) -> Iterator[Problem]:
    """Settings of a training that do not go together; not of those that are `checked`."""
    if not _is_trained(study, case, role):
        return
    changes = [where for where, change in _changes(study, case, role) if change]
    try:
        settings = effective_settings(study, case, role)
    except ValidationError as error:
        yield Problem(place=f"{place}: {changes[-1]}", what=_words(error))
        return
    axes = search_of(study, case).axes if role == "student" else {}
    axes = {name: values for name, values in axes.items() if name in AXES}
    if axes and nested_epochs(study, case) is not None:
        del axes[EPOCHS]
    if (settings, tuple(axes.items())) not in checked:
        checked.add((settings, tuple(axes.items())))
        yield from _axis_problems(settings, axes, f"{place}: {place_of(case)}")


def _epoch_problems(study: Study, case: TestCase, place: str) -> Iterator[Problem]:
    """Epochs that a search names as its teacher's checkpoints, and that there will not be."""
    teacher, asked = teacher_of(study, case), search_of(study, case).teacher or ()
    named = {name: epoch for name in asked if (epoch := Checkpoint(name).epoch) is not None}
    where = f"{place}: {place_of(case)}.teacher"
    if teacher is None or not named:
        return
    if teacher.there:
        if len(teacher.there) > 1 and len(named) == len(asked):
            what = f"{case.teacher} is given as t_hs and t_ll, and no epoch of it is"
            yield Problem(place=where, what=what, remedy="name t_hs or t_ll too")
        return
    try:
        last = effective_settings(study, case, "teacher").epochs
    except ValidationError:  # which is said of them
        return
    for name, epoch in named.items():
        if epoch > last:
            key = source_of(study, case, "teacher", EPOCHS)
            what = f"{name} is beyond the {last} of {case.teacher} on {case.dataset} ({key})"
            yield Problem(place=where, what=what, remedy="name an earlier one, or train it longer")


def _unused_sections(
    study: Study, trainings: Iterable[tuple[TestCase, Role]], place: str
) -> Iterator[Problem]:
    """Sections of `training` for an optimizer that none of the trainings they are for uses."""
    every = [search.taught for search in study.every_search.values()]
    if not every or [*known_cases(study)] != [*test_cases(study)]:
        raise Unread
    used: dict[str, set[str]] = {}
    given: dict[str, set[str]] = {"training": set()}
    if study.training.sgd is not None:
        given["training"].add("sgd")
    if study.training.adam != TrainingSettings().adam:
        given["training"].add("adam")
    for case, role in trainings:
        if not _is_trained(study, case, role):
            continue
        changes = [(where, change) for where, change in _changes(study, case, role) if change]
        optimizers: tuple[Any, ...] = (study.training.optimizer,)
        for _, change in changes:
            named = {name: value for name, value in change.items() if name == "optimizer"}
            optimizers = tuple(read(named).values()) or optimizers
        if role == "student":
            optimizers = search_of(study, case).axes.get("optimizer", optimizers)
        for where, change in (("training", {}), *changes):
            used.setdefault(where, set()).update(SECTIONS[name][0] for name in optimizers)
            given.setdefault(where, set()).update(change.keys() & _OPTIMIZERS.keys())
    for where, sections in given.items():
        for section in sorted(sections - used.get(where, sections)):
            remedy = f"remove it, or set optimizer: {_OPTIMIZERS[section]}"
            what = "belongs to an optimizer that is not used"
            yield Problem(place=f"{place}: {where}.{section}", what=what, remedy=remedy)


def _axis_problems(settings: TrainingSettings, axes: Axes, place: str) -> Iterator[Problem]:
    """Axes of another optimizer than those used, and values that do not go together."""
    kinds = [SECTIONS[name][1] for name in axes.get("optimizer", (settings.optimizer,))]
    for name in axes.keys() & {"momentum", "nesterov"}:
        having = [name in kind.model_fields for kind in kinds]
        if not any(having):
            what, remedy = f"{name} belongs to an optimizer that is not used", "set optimizer: sgd"
            yield Problem(place=f"{place}.{name}", what=what, remedy=remedy)
        elif not all(having):  # its values would be so many names of one training
            what, remedy = f"not every optimizer here has {name}", "give each its own search"
            yield Problem(place=f"{place}.{name}", what=what, remedy=remedy)
    names = [name for name in _TOGETHER if name in axes]
    if math.prod(len(axes[name]) for name in names) > LARGEST:
        return  # the grid is larger still, which is said of it
    for point in product(*(axes[name] for name in names)):
        values = dict(zip(names, point, strict=True))
        try:
            settings.at(values)
        except ValidationError as error:
            shown = ", ".join(f"{name} {value}" for name, value in values.items())
            yield Problem(place=place, what=f"{shown}: {_words(error)}")


def _words(error: ValidationError) -> str:
    return "; ".join(detail["msg"].removeprefix("Value error, ") for detail in error.errors())
