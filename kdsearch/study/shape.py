"""The shape of a study file: what its sections may say, and what is right of one with problems."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from typing_extensions import is_typeddict

from kdsearch.study.schema import Study
from kdsearch.study.search import AS_FAR_AS_READ, Search, search_keys
from kdsearch.study.section import Place, Section, Unread, without
from kdsearch.study.settings import UNREAD


def spelt_out(value: Any, kind: Any) -> Any:
    """`value` as the schema's `kind` wants it: one value as a list of one, 1.0 as the integer 1."""
    kind = _plain(kind)
    items = get_args(kind)
    if _is_section(kind):
        fields = _fields(kind)
        return _each(value, lambda key: fields.get(key, Any))
    if get_origin(kind) is dict:
        return _each(value, lambda key: items[1])
    if get_origin(kind) is tuple and Ellipsis in items:
        single = not isinstance(value, list | dict | None) or (
            isinstance(value, dict) and _is_section(_plain(items[0]))
        )
        listed = [value] if single else value
        return [spelt_out(item, items[0]) for item in listed] if isinstance(listed, list) else value
    whole = kind is int and isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def _each(value: Any, kind_of: Callable[[str], Any]) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: spelt_out(inner, kind_of(key)) for key, inner in value.items()}


def keys_at(place: Iterable[str | int]) -> tuple[str, ...]:
    """The keys that a study file may have at `place`; none where it has no section."""
    kind: Any = Study
    for part in place:
        if _is_section(kind):
            kind = _fields(kind).get(str(part), Any)
        else:  # dict[str, X] or tuple[X, ...]: the item's type
            kind = next((a for a in get_args(kind)[::-1] if a is not Ellipsis), Any)
        kind = _plain(kind)
    if kind is Search:
        return search_keys()
    return tuple(_fields(kind)) if _is_section(kind) else ()


def nearest_key(name: str, known: Collection[str]) -> str | None:
    """The key that was meant by an unknown one, if it is like any."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def sound(kind: Any, content: Any, wrong: Collection[Place], place: Place = ()) -> Any:
    """What is right of the `content` at `place`, as the schema's `kind`.

    `wrong` are the places of all problems. A field that has one is missing from its section, so
    that reading it raises `Unread`; in changes of settings `UNREAD` stands in its place. A section
    is there even if all its fields are missing, so that its name stands for something.

    Raises `Unread` where nothing is right.
    """
    if not any(each[: len(place)] == place for each in wrong):
        return _adapter(kind).validate_json(json.dumps(content))
    kind = _plain(kind)
    items, here = get_args(kind), isinstance(content, dict)
    if kind is Search:
        try:
            return Search.model_validate(content, context=AS_FAR_AS_READ)
        except ValidationError:  # it is no section, or has one in the wrong form
            return _sound_section(Search, None, wrong, place)
    if is_typeddict(kind) and here:
        changed = {name: each for name, each in content.items() if name in _fields(kind)}
        lost = {each[len(place)] for each in wrong if each[: len(place)] == place != each}
        right = {name: each for name, each in changed.items() if name not in lost}
        read = _adapter(kind).validate_json(json.dumps(right))
        return {name: read.get(name, UNREAD) for name in changed}
    if isinstance(kind, type) and issubclass(kind, Section):
        return _sound_section(kind, content if here else None, wrong, place)
    if place not in wrong and get_origin(kind) is dict and _is_section(_plain(items[1])):
        return {n: sound(items[1], each, wrong, (*place, n)) for n, each in content.items()}
    if place not in wrong and get_origin(kind) is tuple and _is_section(_plain(items[0])):
        return tuple(sound(items[0], each, wrong, (*place, i)) for i, each in enumerate(content))
    raise Unread


_adapter = cache(TypeAdapter)
"""Making one takes far longer than using it."""


def _sound_section(
    kind: type[Section], content: dict[str, Any] | None, wrong: Collection[Place], place: Place
) -> Section:
    fields = kind.model_fields
    values: dict[str, Any] = {}
    lost = set(fields) if content is None else meant(content, fields)
    for name, field in fields.items():
        if content is None or name not in content:
            lost |= {name} if field.is_required() else set()
            continue
        try:
            of_field: Any = field.annotation
            of_field = Annotated[of_field, *field.metadata] if field.metadata else of_field
            values[name] = sound(of_field, content[name], wrong, (*place, name))
        except Unread:
            lost.add(name)
    made = kind.model_construct(**values)
    without(made, lost)
    return made


def sections(value: Any, place: Place = ()) -> Iterator[tuple[Place, Section]]:
    """Every section within `value`, itself too, and where it is."""
    parts: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, Section):
        yield place, value
        parts = [(n, each) for n, each in vars(value).items() if n in type(value).model_fields]
    elif isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, tuple):
        parts = enumerate(value)
    for name, each in parts:
        yield from sections(each, (*place, name))


def meant(content: Collection[str], known: Collection[str]) -> set[str]:
    """The keys that the unknown ones of a section stand for, as far as it does not have them."""
    near = {nearest_key(name, known) for name in content if name not in known}
    return {name for name in near if name is not None and name not in content}


def _plain(kind: Any) -> Any:
    """A type without what is annotated, and without that it may be absent."""
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = next(a for a in get_args(kind) if a is not NoneType)
    return kind


def _is_section(kind: object) -> bool:
    return is_typeddict(kind) or (isinstance(kind, type) and issubclass(kind, BaseModel))


def _fields(section: Any) -> dict[str, Any]:
    """The keys of a section and their types."""
    if is_typeddict(section):
        return get_type_hints(section, include_extras=True)
    return {name: field.annotation for name, field in section.model_fields.items()}
