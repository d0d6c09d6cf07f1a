"""What is wrong between the sections of a study, as far as these could be read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from kdsearch.errors import Problem
from kdsearch.search import Labels
from kdsearch.study.asked import as_catalogued
from kdsearch.study.augmenting import augmentation_problems
from kdsearch.study.caching import cache_problems
from kdsearch.study.cases import (
    TestCase,
    case_count,
    cases_before,
    known_cases,
    taught_in,
    test_cases,
)
from kdsearch.study.catalogue import CATALOGUE
from kdsearch.study.effective import (
    asked_layers,
    lora_place,
    place_of,
    search_of,
    setting_problems,
    space_of,
)
from kdsearch.study.image_sizes import size_problems
from kdsearch.study.schema import ERM, Dataset, Model, Student, Study, Teacher, TestCases
from kdsearch.study.search import Search
from kdsearch.study.section import as_far_as_read
from kdsearch.study.wording import unknown

_MOST_CASES = 10_000


def reference_problems(study: Study, raw: dict[str, Any], place: str) -> Iterator[Problem]:
    """Names that stand for nothing, and parts that do not go together.

    Of the study that was read of `raw`, from `place`.
    """
    return as_far_as_read(
        _of_datasets(study, place),
        _of_models(study, place),
        _of_teachers(study, place),
        _of_students(study, place),
        _of_blocks(study, place),
        _of_searches(study, raw, place),
        _of_cases(study, place),
    )


def _check(where: str, name: str | None, known: Collection[str], what: str) -> Iterator[Problem]:
    if name is not None and name not in known:
        yield unknown(where, name, known, what)


def _of_datasets(study: Study, place: str) -> Iterator[Problem]:
    checks = (_dataset(f"{place}: datasets.{n}", n, each) for n, each in study.datasets.items())
    yield from as_far_as_read(*checks)


def _dataset(where: str, name: str, dataset: Dataset) -> Iterator[Problem]:
    if dataset.files is not None or dataset.grammar is not None:
        return
    entry = dataset.catalogue or name
    yield from _check(where, entry, CATALOGUE, "in the catalogue and has no files")
    if entry not in CATALOGUE:
        return
    task = CATALOGUE[entry].task
    if dataset.task is None:
        for what in as_catalogued(dataset, CATALOGUE[entry]).task_problems(task):
            yield Problem(place=where, what=what)
    elif dataset.task != task:
        what, remedy = f"{entry} is for {task}", "remove task"
        yield Problem(place=f"{where}.task", what=what, remedy=remedy)


def _of_models(study: Study, place: str) -> Iterator[Problem]:
    named = study.models.items()
    checks = (_tokenizer(study, f"{place}: models.{n}.tokenizer", each) for n, each in named)
    yield from as_far_as_read(*checks)


def _tokenizer(study: Study, where: str, model: Model) -> Iterator[Problem]:
    if model.config is None or model.tokenizer == "words":
        return
    yield from _check(where, model.tokenizer, study.models, "a model")
    other = study.models.get(model.tokenizer)
    if other is not None and other.config is not None:
        what = "a randomly initialised model has no tokenizer"
        yield Problem(place=where, what=what, remedy="name a pretrained model, or words")


def _of_teachers(study: Study, place: str) -> Iterator[Problem]:
    for name, teacher in study.teachers.items():
        where = f"{place}: teachers.{name}"
        fields = ("model", "checkpoint", "t_hs", "t_ll")
        checks = (_teachers_model(study, where, teacher, field) for field in fields)
        yield from as_far_as_read(*checks, _student_of(study, where, name, teacher))


def _teachers_model(study: Study, where: str, teacher: Teacher, field: str) -> Iterator[Problem]:
    name = getattr(teacher, field)
    yield from _check(f"{where}.{field}", name, study.models, "a model")
    given = field != "model" and name in study.models and teacher.single_form
    if given and study.models[name].random:
        what = f"{name} is randomly initialised, so it cannot be fine-tuned already"
        yield Problem(place=where, what=what, remedy="give a path or a Hub id")


def _student_of(study: Study, where: str, name: str, teacher: Teacher) -> Iterator[Problem]:
    """A teacher that is a student of none, or in the end of itself."""
    other = teacher.student_of
    where = f"{where}.student_of"
    yield from _check(where, other, study.teachers, "a teacher of this study")
    way = [name]
    while other in study.teachers and other not in way:
        way.append(other)
        other = study.teachers[other].student_of
    if other == name:
        what = f"goes round in a circle: {' → '.join([*way, name])}"
        yield Problem(place=where, what=what, remedy="begin with a model or a checkpoint")


def _of_students(study: Study, place: str) -> Iterator[Problem]:
    named = study.students.items()
    checks = (
        check(study, f"{place}: students.{name}", each)
        for name, each in named
        for check in (_students_model, _start)
    )
    yield from as_far_as_read(*checks)


def _students_model(study: Study, where: str, student: Student) -> Iterator[Problem]:
    yield from _check(f"{where}.model", student.model, study.models, "a model of this study")


def _start(study: Study, where: str, student: Student) -> Iterator[Problem]:
    """A start that is no training of the student's own model."""
    where = f"{where}.start"
    yield from _check(where, student.start, study.teachers, "a teacher of this study")
    teacher = study.teachers.get(student.start or "")
    if teacher is None or not teacher.single_form:
        return
    if teacher.model is None:
        what = f"{student.start} is not fine-tuned here, so that no training of it can be a start"
        yield Problem(place=where, what=what, remedy="name a teacher that has a model")
    elif (teacher.model, teacher.layers) != (student.model, student.layers):
        its, own = (_with_layers(each.model, each.layers) for each in (teacher, student))
        what = f"{student.start} has the model {its}, and the student {own}"
        yield Problem(place=where, what=what, remedy="give both the same model and layers")


def _with_layers(model: str | None, layers: object) -> str:
    return f"{model}" if layers is None else f"{model} with the layers {layers}"


def _of_starts(study: Study, place: str) -> Iterator[Problem]:
    """Students that start from a training, and of which not all weights would go on from there."""
    checks = (_of_start(study, case, place) for case in known_cases(study))
    yield from dict.fromkeys(as_far_as_read(*checks))


def _of_start(study: Study, case: TestCase, place: str) -> Iterator[Problem]:
    start = study.students[case.student].start
    if start is None:
        return
    own = f"{case.student} starts from a training of {start}"
    if "layers" in search_of(study, case).axes:
        what = f"{own}, which has the layers that it has"
        yield Problem(place=f"{place}: {place_of(case)}.layers", what=what, remedy="remove it")
    where = None
    with suppress(ValidationError):  # settings that do not go together, which is said of them
        where = lora_place(study, case, "student")
    if where is not None:
        what = f"{own}, and its adapters would be of use with those weights alone"
        yield Problem(place=f"{place}: {where}", what=what, remedy="train all of its weights")


def _of_blocks(study: Study, place: str) -> Iterator[Problem]:
    for i, block in enumerate(study.test_cases):
        where = f"{place}: test_cases[{i}]"
        fields = ("dataset", "teacher", "student", "search")
        names = (_names(study, where, block, field) for field in fields)
        yield from as_far_as_read(*names, _teacher_of_none(study, where, block))


def _names(study: Study, where: str, block: TestCases, field: str) -> Iterator[Problem]:
    names = getattr(block, field) or ()
    known: Collection[str]
    if field == "search":
        known = [*(study.searches or ()), *([ERM] if ERM in names and study.erm else ())]
    else:
        known = getattr(study, f"{field}s")
    for name in names:
        yield from _check(f"{where}.{field}", name, known, f"a {field} of this study")


def _teacher_of_none(study: Study, where: str, block: TestCases) -> Iterator[Problem]:
    """A teacher of searches that have none."""
    named = [name for name in block.search or () if name in study.every_search]
    if block.teacher and named and not any(study.every_search[name].taught for name in named):
        searches = "searches" if len(named) > 1 else "search"
        has = "have" if len(named) > 1 else "has"
        what = f"{searches} {' and '.join(named)} {has} no teacher"
        yield Problem(place=f"{where}.teacher", what=what, remedy="remove it")


def _of_searches(study: Study, raw: dict[str, Any], place: str) -> Iterator[Problem]:
    yield from as_far_as_read(_search_twice(study, raw, place), _erm_twice(study, place))
    for name, search in study.every_search.items():
        where = f"{place}: {'search' if name is None else f'searches.{name}'}"
        yield from as_far_as_read(_too_large(search, where), _unsuited(study, name, search, where))


def _search_twice(study: Study, raw: dict[str, Any], place: str) -> Iterator[Problem]:
    """A `search` beside `searches`, as a file has it."""
    resolved = isinstance(raw.get("search"), dict) and "parameters" in raw["search"]
    if raw.get("searches") is not None and "search" in raw and not resolved:
        what, remedy = "search and searches exclude each other", "keep one"
        yield Problem(place=f"{place}: search", what=what, remedy=remedy)


def _erm_twice(study: Study, place: str) -> Iterator[Problem]:
    """Students without a teacher twice."""
    for name, search in study.every_search.items() if study.erm else ():
        if name != ERM and search.distance == (Labels.kind,):
            which = "search" if name is None else f"searches.{name}"
            what = f"is short for a search of the labels alone, and {which} is one already"
            yield Problem(place=f"{place}: {ERM}", what=what, remedy="keep one")
            return


def _too_large(search: Search, where: str) -> Iterator[Problem]:
    if search.too_large:
        what, remedy = search.too_large
        yield Problem(place=where, what=what, remedy=remedy)


def _unsuited(study: Study, name: str | None, search: Search, where: str) -> Iterator[Problem]:
    """That it asks for more trials than the grid of any of its test cases has."""
    if case_count(study) > _MOST_CASES:  # which is said of them, and to go through them takes long
        return
    cases = [case for case in known_cases(study) if case.search == name]
    sizes = [space_of(study, case).size for case in cases if not search.flips]
    most = max(sizes, default=0)
    if sizes and not search.too_large and (asked := search.walk.asks(most)) > most:
        what = f"asks for {asked:,} trials of a grid that has {most:,}"
        remedy = "ask for fewer, or take strategy: exhaustive"
        yield Problem(place=where, what=what, remedy=remedy)


def _of_cases(study: Study, place: str) -> Iterator[Problem]:
    if case_count(study) > _MOST_CASES:
        what = f"{case_count(study):,} test cases are more than {_MOST_CASES:,}"
        remedy = "name fewer data sets, teachers, students or searches"
        yield Problem(place=f"{place}: test_cases", what=what, remedy=remedy)
        return
    yield from as_far_as_read(
        _cases_twice(study, f"{place}: test_cases"),
        _cases_of_one_name(study, f"{place}: test_cases"),
        setting_problems(study, place),
        cache_problems(study, place),
        augmentation_problems(study, place),
        _of_starts(study, place),
        size_problems(study, place),
        _of_layers(study, place),
        _without_before(study, f"{place}: test_cases"),
    )


def _cases_twice(study: Study, where: str) -> Iterator[Problem]:
    taught: set[TestCase] = set()
    for i, block in enumerate(study.test_cases):
        for case in taught_in(study, block):
            if case in taught:
                what = f"{case} appears twice"
                yield Problem(place=f"{where}[{i}]", what=what, remedy="keep one")
            taught.add(case)


def _cases_of_one_name(study: Study, where: str) -> Iterator[Problem]:
    seen: dict[str, TestCase] = {}
    for case in test_cases(study):
        if seen.get(str(case), case) != case:
            what = f"two have the same name, {case}: one with a teacher, one with a search"
            remedy = "rename the search, or the teacher or student of that name"
            yield Problem(place=where, what=what, remedy=remedy)
        seen[str(case)] = case


def _without_before(study: Study, where: str) -> Iterator[Problem]:
    """Cases whose teacher is what another test case chooses, where the study has none."""
    cases = dict.fromkeys(known_cases(study))
    for case in cases:
        before = cases_before(study, case)[:1]
        if before and before[0].teacher in study.teachers and before[0] not in cases:
            what = f"{case} learns from what {before[0]} chooses, which is no test case"
            yield Problem(place=where, what=what, remedy="add it")


def _of_layers(study: Study, place: str) -> Iterator[Problem]:
    checks = (
        _layers(study, f"{place}: {where}", model)
        for where, model in dict.fromkeys((where, model) for where, model, _ in asked_layers(study))
    )
    yield from as_far_as_read(*checks)


def _layers(study: Study, where: str, name: str) -> Iterator[Problem]:
    if name in study.models and study.models[name].config is not None:
        what = f"{name} is randomly initialised: it has no layers worth keeping"
        remedy = "give the number of layers in a model's config"
        yield Problem(place=where, what=what, remedy=remedy)
