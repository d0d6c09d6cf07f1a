"""Reading a study file: every problem at once, each with its path in the file."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from typing_extensions import is_typeddict

from kdsearch.errors import InputError, Problem
from kdsearch.search import OBJECTIVE, Labels
from kdsearch.study.axes import nearest, quoted
from kdsearch.study.cases import (
    TestCase,
    case_count,
    searches_of,
    taught_in,
    test_cases,
)
from kdsearch.study.catalogue import CATALOGUE
from kdsearch.study.effective import (
    Axes,
    asked_layers,
    setting_axes,
    setting_problems,
    space_of,
)
from kdsearch.study.schema import ERM, PATTERNS, Dataset, Study, Teacher
from kdsearch.study.search import Search, search_keys
from kdsearch.study.yaml_file import read_yaml

_MOST_CASES = 10_000


def load_study(path: Path, *, models: Mapping[str, str] | None = None) -> Study:
    """The study in the file `path`; `models` replaces where models come from, by name.

    Raises `InputError` with every problem found.
    """
    try:
        raw = read_yaml(path)
    except FileNotFoundError:
        shipped = ", ".join(shipped_studies())
        remedy = f"`kdsearch new NAME` copies a shipped one: {shipped}"
        raise InputError.one(path, "no such study file", remedy) from None
    if not isinstance(raw, dict):
        raise InputError.one(
            path, "is not a mapping of keys to values", "start with `kdsearch new NAME`"
        )
    letters = unicodedata.normalize("NFKD", path.stem).encode("ascii", "ignore").decode()
    if name := re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9._-]+", "-", letters).strip("-"):
        raw.setdefault("name", name)
    return parse_study(raw, place=str(path), models=models)


def parse_study(
    raw: dict[str, Any], *, place: str, models: Mapping[str, str] | None = None
) -> Study:
    """The study in the mapping `raw`, read from `place`; raises `InputError`."""
    known = raw.get("models")
    problems = []
    for name, location in (models or {}).items():
        if not isinstance(known, dict) or name not in known:
            names = known if isinstance(known, dict) else ()
            problems.append(_unknown("--model", name, names, "a model of this study"))
        else:
            known[name] = location
    try:
        spelt_out = _spelt_out(raw, Study)
        seeds = spelt_out.get("seeds")
        if isinstance(seeds, list) and seeds and isinstance(seeds[0], int):
            spelt_out = {"seed": seeds[0], **spelt_out}
        spelt_out = _with_rates(spelt_out)
        study = Study.model_validate_json(json.dumps(spelt_out))
    except ValidationError as error:
        problems += [_problem(place, detail, raw) for detail in _details(error)]
        raise InputError(problems) from None
    except (TypeError, ValueError, RecursionError) as error:  # of a mapping from elsewhere
        raise InputError.one(place, f"cannot be read: {error}") from None
    problems += _references(study, place)
    if not problems:
        problems += _unsuited(study, place)
    problems += _doubled_searches(study, raw, place)
    problems += [
        Problem(
            place=f"{place}: {'search' if name is None else f'searches.{name}'}",
            what=search.too_large[0],
            remedy=search.too_large[1],
        )
        for name, search in study.every_search.items()
        if search.too_large
    ]
    if not problems:
        axes = {case: setting_axes(space_of(study, case)) for case in test_cases(study)}
        problems += setting_problems(study, place, axes)
        problems += _layer_problems(study, place, axes)
    if problems:
        raise InputError(problems)
    return study


def _doubled_searches(study: Study, raw: dict[str, Any], place: str) -> list[Problem]:
    """A `search` beside `searches`, as a file has it, and students without a teacher twice."""
    problems = []
    resolved = isinstance(raw.get("search"), dict) and "parameters" in raw["search"]
    if study.searches is not None and "search" in raw and not resolved:
        what, remedy = "search and searches exclude each other", "keep one"
        problems.append(Problem(place=f"{place}: search", what=what, remedy=remedy))
    others = [name for name, each in study.every_search.items() if name != ERM]
    labels = [name for name in others if study.every_search[name].distance == (Labels.kind,)]
    if study.erm and labels:
        which = "search" if labels[0] is None else f"searches.{labels[0]}"
        what = f"is short for a search of the labels alone, and {which} is one already"
        problems.append(Problem(place=f"{place}: {ERM}", what=what, remedy="keep one"))
    return problems


def _unsuited(study: Study, place: str) -> list[Problem]:
    """Searches that ask for more trials than the grid of any of their test cases has."""
    problems = []
    for name, search in study.every_search.items():
        cases = [case for case in test_cases(study) if case.search == name]
        sizes = [space_of(study, case).size for case in cases if not search.flips]
        most = max(sizes, default=0)
        if sizes and (asked := search.walk.asks(most)) > most:
            where = "search" if name is None else f"searches.{name}"
            what = f"asks for {asked:,} trials of a grid that has {most:,}"
            remedy = "ask for fewer, or take strategy: exhaustive"
            problems.append(Problem(place=f"{place}: {where}", what=what, remedy=remedy))
    return problems


def _with_rates(raw: dict[str, Any]) -> dict[str, Any]:
    """`raw` with the study's learning rates in each search that has none of its own."""
    if raw.get("learning_rate") is None:
        return raw

    def of(search: Any) -> Any:
        shared = {"learning_rate": raw["learning_rate"]}
        return {**shared, **search} if isinstance(search, dict) else search

    named = raw.get("searches")
    if isinstance(named, dict):
        return {**raw, "searches": {name: of(search) for name, search in named.items()}}
    return {**raw, "search": of(raw.get("search", {}))}


def _spelt_out(value: Any, kind: Any) -> Any:
    """`value` as the schema's `kind` wants it: one value as a list of one, 1.0 as the integer 1."""
    kind = _plain_kind(kind)
    items = get_args(kind)
    if _is_section(kind):
        fields = _fields_of(kind)
        return _each(value, lambda key: fields.get(key, Any))
    if get_origin(kind) is dict:
        return _each(value, lambda key: items[1])
    if get_origin(kind) is tuple and Ellipsis in items:
        single = not isinstance(value, list | dict | None) or (
            isinstance(value, dict) and _is_section(_plain_kind(items[0]))
        )
        listed = [value] if single else value
        return (
            [_spelt_out(item, items[0]) for item in listed] if isinstance(listed, list) else value
        )
    whole = kind is int and isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def _each(value: Any, kind_of: Callable[[str], Any]) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _spelt_out(inner, kind_of(key)) for key, inner in value.items()}


def shipped_studies() -> dict[str, Path]:
    """The study files that come with kdsearch, by name: in a checkout and in a wheel."""
    package = Path(str(resources.files("kdsearch")))
    folders = (package / "search_spaces", package.parent / "search_spaces")
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _details(error: ValidationError) -> list[Any]:
    """Its problems, but not that a list is too short once its wrong items are taken out."""
    found = error.errors()
    return [
        detail
        for detail in found
        if detail["type"] != "too_short"
        or not any(
            len(other["loc"]) > len(detail["loc"])
            and other["loc"][: len(detail["loc"])] == detail["loc"]
            for other in found
        )
    ]


def _problem(place: str, detail: Any, raw: Any) -> Problem:
    if detail["type"] == "json_invalid":
        return Problem(
            place=place, what="cannot be read", remedy="does it have half a surrogate pair?"
        )
    keys = detail["loc"][:-1] if detail["loc"][-1:] == ("[key]",) else detail["loc"]
    location = _as_in(raw, keys)
    where = f"{place}: {_path(location)}" if location else place
    if detail["type"] == "extra_forbidden":
        known = detail.get("ctx", {}).get("keys") or _fields_at(location[:-1])
        return _unknown(where, str(location[-1]), known, "a key here")
    if detail["type"] == "missing":
        return Problem(place=where, what="this key is missing")
    if detail["type"] == "too_short":
        context = detail["ctx"]
        what = f"needs at least {context['min_length']}, has {context['actual_length']}"
        return Problem(place=where, what=what)
    if detail["type"] == "too_long":
        context = detail["ctx"]
        what = f"has {context['actual_length']:,} values, more than {context['max_length']:,}"
        return Problem(place=where, what=what)
    if detail["type"] in ("model_type", "dict_type"):
        keys = ", ".join(_fields_at(detail["loc"]))
        remedy = f"its keys: {keys}" if keys else ""
        return Problem(place=where, what="must be a section of keys and values", remedy=remedy)
    if detail["type"] == "tuple_type":
        return Problem(place=where, what="must be a list", remedy="list the values")
    if detail["type"] == "string_pattern_mismatch":
        what, remedy = PATTERNS[detail["ctx"]["pattern"]]
        return Problem(place=where, what=f"{quoted(detail['input'])} is {what}", remedy=remedy)
    what = detail["msg"].removeprefix("Value error, ")
    if detail["type"] != "value_error" and not isinstance(detail["input"], dict | list | tuple):
        what += f", not {quoted(detail['input'])}"
    near = nearest(detail)
    return Problem(place=where, what=what, remedy=f"did you mean {near}?" if near else "")


def _as_in(raw: Any, location: Sequence[str | int]) -> tuple[str | int, ...]:
    """The place of a problem in the file, where one value may stand for a list of one."""
    found: list[str | int] = []
    for part in location:
        if isinstance(part, int) and not isinstance(raw, list):
            continue
        if part == OBJECTIVE and isinstance(raw, dict) and part not in raw and "objective" in raw:
            part = "objective"
        found.append(part)
        there = dict(enumerate(raw)) if isinstance(raw, list) else raw
        raw = there.get(part) if isinstance(there, dict) else None
    return tuple(found)


def _path(location: Sequence[str | int]) -> str:
    text = ""
    for part in location:
        name = part if isinstance(part, int) else _short(part)
        text += f"[{name}]" if isinstance(part, int) else f".{name}" if text else str(name)
    return text


def _short(name: str) -> str:
    """A name on one line of bearable length, as far as a study's own names may be wrong."""
    line = "".join(c if c.isprintable() else "�" for c in name)
    return line if len(line) <= 100 else f"{line[:100]}…"


def _fields_at(location: Sequence[str | int]) -> tuple[str, ...]:
    """The keys that a study file may have at `location`."""
    kind: Any = Study
    for part in location:
        if _is_section(kind):
            kind = _fields_of(kind)[str(part)]
        else:  # dict[str, X] or tuple[X, ...]: the item's type
            kind = [a for a in get_args(kind) if a is not Ellipsis][-1]
        kind = _plain_kind(kind)
    if kind is Search:
        return search_keys()
    return tuple(_fields_of(kind)) if _is_section(kind) else ()


def _plain_kind(kind: Any) -> Any:
    """A type without what is annotated, and without that it may be absent."""
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = next(a for a in get_args(kind) if a is not NoneType)
    return kind


def _is_section(kind: object) -> bool:
    return is_typeddict(kind) or (isinstance(kind, type) and issubclass(kind, BaseModel))


def _fields_of(section: Any) -> dict[str, Any]:
    """The keys of a section and their types."""
    if is_typeddict(section):
        return get_type_hints(section, include_extras=True)
    return {name: field.annotation for name, field in section.model_fields.items()}


def _unknown(where: str, name: str, known: Sequence[str] | Any, what: str) -> Problem:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]}?" if near else f"available: {', '.join(known) or 'none'}"
    return Problem(place=where, what=f"{_short(name)} is not {what}", remedy=remedy)


def _references(study: Study, place: str) -> list[Problem]:
    """Names that a part of the study gives and that must stand elsewhere in it."""
    problems = []

    def check(where: str, name: str | None, known: Any, what: str) -> None:
        if name is not None and name not in known:
            problems.append(_unknown(f"{place}: {where}", name, known, what))

    for name, dataset in study.datasets.items():
        if dataset.files is None and dataset.grammar is None:
            entry = dataset.catalogue or name
            check(f"datasets.{name}", entry, CATALOGUE, "in the catalogue and has no files")
            if entry in CATALOGUE:
                problems += _catalogue_problems(f"{place}: datasets.{name}", entry, dataset)
    for name, model in study.models.items():
        if model.config is not None and model.tokenizer != "words":
            check(f"models.{name}.tokenizer", model.tokenizer, study.models, "a model")
            other = study.models.get(model.tokenizer)
            if other is not None and other.config is not None:
                what = "a randomly initialised model has no tokenizer"
                remedy = "name a pretrained model, or words"
                where = f"{place}: models.{name}.tokenizer"
                problems.append(Problem(place=where, what=what, remedy=remedy))
    for name, teacher in study.teachers.items():
        problems += _teacher_problems(study, place, name, teacher, check)
    for name, student in study.students.items():
        check(f"students.{name}.model", student.model, study.models, "a model of this study")
    for i, block in enumerate(study.test_cases):
        for field, known in (
            ("dataset", study.datasets),
            ("teacher", study.teachers),
            ("student", study.students),
            ("search", [name for name in study.every_search if name is not None]),
        ):
            for entry in getattr(block, field) or ():
                check(f"test_cases[{i}].{field}", entry, known, f"a {field} of this study")
        untaught = [name for name in block.search or () if name in study.every_search]
        if block.teacher and untaught and not any(searches_of(study, block, taught=True)):
            searches = "searches" if len(untaught) > 1 else "search"
            has = "have" if len(untaught) > 1 else "has"
            what = f"{searches} {' and '.join(untaught)} {has} no teacher"
            where = f"{place}: test_cases[{i}].teacher"
            problems.append(Problem(place=where, what=what, remedy="remove it"))
    return [*problems, *_case_problems(study, f"{place}: test_cases")]


def _case_problems(study: Study, where: str) -> list[Problem]:
    """Too many test cases, or two of one name."""
    if case_count(study) > _MOST_CASES:
        what = f"{case_count(study):,} test cases are more than {_MOST_CASES:,}"
        return [
            Problem(
                place=where,
                what=what,
                remedy="name fewer data sets, teachers, students or searches",
            )
        ]
    problems = []
    taught: set[TestCase] = set()
    for i, block in enumerate(study.test_cases):
        for case in taught_in(study, block):
            if case in taught:
                what = f"{case} appears twice"
                problems.append(Problem(place=f"{where}[{i}]", what=what, remedy="keep one"))
            taught.add(case)
    seen: dict[str, TestCase] = {}
    for case in test_cases(study):
        if seen.get(str(case), case) != case:
            what = f"two have the same name, {case}: one with a teacher, one with a search"
            remedy = "rename the search, or the teacher or student of that name"
            problems.append(Problem(place=where, what=what, remedy=remedy))
        seen[str(case)] = case
    return problems


def _catalogue_problems(where: str, entry: str, dataset: Dataset) -> list[Problem]:
    task = CATALOGUE[entry].task
    if dataset.task not in (None, task):
        return [Problem(place=f"{where}.task", what=f"{entry} is for {task}", remedy="remove task")]
    try:
        dataset.check_task(task)
    except ValueError as error:
        return [Problem(place=where, what=str(error))]
    return []


def _teacher_problems(
    study: Study, place: str, name: str, teacher: Teacher, check: Any
) -> list[Problem]:
    for field in ("model", "checkpoint", "t_hs", "t_ll"):
        check(f"teachers.{name}.{field}", getattr(teacher, field), study.models, "a model")
    return [
        Problem(
            place=f"{place}: teachers.{name}",
            what=f"{model} is randomly initialised, so it cannot be fine-tuned already",
            remedy="give a path or a Hub id",
        )
        for model in teacher.given.values()
        if model in study.models and study.models[model].config is not None
    ]


def _layer_problems(study: Study, place: str, axes: Mapping[TestCase, Axes]) -> list[Problem]:
    what = "is randomly initialised: it has no layers worth keeping"
    remedy = "give the number of layers in a model's config"
    found = (
        Problem(place=f"{place}: {where}", what=f"{model} {what}", remedy=remedy)
        for where, model, _ in asked_layers(study, axes)
        if study.models[model].config is not None
    )
    return list(dict.fromkeys(found))
