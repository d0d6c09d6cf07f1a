"""Augmentations of a study: which its students see, and what they do not go together with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from pydantic import ValidationError

from kdsearch.errors import Problem
from kdsearch.search import Objective, Value
from kdsearch.study.augmentation import LIGHT, Augmentation
from kdsearch.study.cases import TestCase, known_cases, start_cases, teacher_of
from kdsearch.study.effective import effective_settings, place_of, search_of, source_of
from kdsearch.study.known import has_images, task_of
from kdsearch.study.resources import Role
from kdsearch.study.schema import ERM, Study
from kdsearch.study.section import as_far_as_read
from kdsearch.study.settings import AUGMENTATION

_TWO_VIEWS = "two_views"


def seen_views(
    study: Study, case: TestCase, at: Mapping[str, Value], *, two_views: bool = False
) -> tuple[Augmentation, ...]:
    """The augmentations whose views a case's students see at these values of axes.

    Of two views of each example, that of the weak one too.
    """
    values = {name: value for name, value in at.items() if name == AUGMENTATION}
    settings = effective_settings(study, case, "student").at(values)
    task = task_of(case.dataset, study.datasets[case.dataset])
    strong = settings.for_task(task).augmentation
    if strong is None:
        return ()
    weak = strong.weak if two_views else None
    return (strong,) if weak is None else (weak, strong)


def augmentation_problems(study: Study, place: str) -> Iterator[Problem]:
    """What augmentations do not go together with, as far as the study could be read."""
    cases = tuple(known_cases(study))
    teachers = (_readable(_of_teacher(study, place, c)) for c in (*cases, *start_cases(study)))
    students = (_readable(_of_students(study, place, case)) for case in cases)
    yield from dict.fromkeys(as_far_as_read(*teachers, *students))


def _readable(problems: Iterator[Problem]) -> Iterator[Problem]:
    with suppress(ValidationError):  # settings that do not go together, which is said of them
        yield from problems


def _of_students(study: Study, place: str, case: TestCase) -> Iterator[Problem]:
    own = effective_settings(study, case, "student")
    names = search_of(study, case).axes.get(AUGMENTATION)
    where = f"{place_of(case)}.{AUGMENTATION}"
    if names is None:
        where = source_of(study, case, "student", AUGMENTATION)
    every = [own.at({AUGMENTATION: name}).augmentation for name in names or ()]
    every = every if names else [own.augmentation]
    if not any(every):
        if _takes_two(study, case) and _has_images(study, case):
            yield _alike(place, case, f"{where} is none")
        return
    if _has_images(study, case):
        yield from _of_views(study, place, case, where, every)
    else:
        yield _no_images(study, place, case, where)


def _of_teacher(study: Study, place: str, case: TestCase) -> Iterator[Problem]:
    role: Role = "teacher"
    teacher = teacher_of(study, case)
    if teacher is None or teacher.there:
        return
    augmentation = effective_settings(study, case, role).augmentation
    where = source_of(study, case, role, AUGMENTATION)
    if augmentation is None:
        return
    if not _has_images(study, case):
        yield _no_images(study, place, case, where)
    elif augmentation.mixes:
        what = f"{case.teacher} is fine-tuned on labels, and {_MIXED}"
        remedy = f"give it its own: teachers.{case.teacher}.training: {{augmentation: {LIGHT}}}"
        yield Problem(place=f"{place}: {where}", what=what, remedy=remedy)


_MIXED = "a mixed image (mixup, cutmix) is part of two and has no label"


def _of_views(
    study: Study, place: str, case: TestCase, where: str, every: list[Augmentation | None]
) -> Iterator[Problem]:
    search = search_of(study, case)
    if any(each is not None and each.mixes for each in every):
        for kind in filter(search.learns_labels_by, search.distance):
            yield _labels(place, case, where, kind)
    if _takes_two(study, case):
        for each in every:
            if each is None or each.weak in (None, each):
                which = "none" if each is None else "no stronger than crop and flip"
                which = "without crop and flip" if each and each.weak is None else which
                yield _alike(place, case, f"{where} is {which}")


def _labels(place: str, case: TestCase, where: str, kind: str) -> Problem:
    free = Objective.kinds[kind].unlabelled_at
    what = f"{kind} learns from labels, and under {where} {_MIXED}"
    if case.search == ERM:
        remedy = f"leave it out; a search of {kind} with {AUGMENTATION}: [{LIGHT}] is the same"
        return Problem(place=f"{place}: {ERM}", what=what, remedy=remedy)
    own = f"give it a search of its own with {AUGMENTATION}: [{LIGHT}]"
    values = " and ".join(f"{name}: [{value}]" for name, value in free or ())
    remedy = f"set {values}, or {own}" if values else own
    return Problem(place=f"{place}: {place_of(case)}.distance", what=what, remedy=remedy)


def _alike(place: str, case: TestCase, which: str) -> Problem:
    what = (
        "needs a weak view, of crop and flip alone, and a strong one of each image, but "
        f"{which}, so that there are no two"
    )
    remedy = f"set {AUGMENTATION}: full, or such as {{like: light, randaugment: {{n: 2}}}}"
    return Problem(place=f"{place}: {place_of(case)}.{_TWO_VIEWS}", what=what, remedy=remedy)


def _takes_two(study: Study, case: TestCase) -> bool:
    return True in search_of(study, case).axes.get(_TWO_VIEWS, ())


def _has_images(study: Study, case: TestCase) -> bool:
    return has_images(case.dataset, study.datasets[case.dataset])


def _no_images(study: Study, place: str, case: TestCase, where: str) -> Problem:
    task = task_of(case.dataset, study.datasets[case.dataset])
    what = f"{case.dataset} is for {task}, whose rows have no images"
    remedy = "give it where the task is image_classification: datasets.NAME.training.augmentation"
    return Problem(place=f"{place}: {where}", what=what, remedy=remedy)
