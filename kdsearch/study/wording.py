"""What pydantic tells of a study file, as problems in words at the places where they stand."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import ValidationError

from kdsearch.errors import Problem
from kdsearch.search import OBJECTIVE
from kdsearch.study.axes import expectation, nearest, quoted
from kdsearch.study.schema import PATTERNS
from kdsearch.study.section import Place
from kdsearch.study.shape import keys_at, meant, nearest_key


def problems_of(error: ValidationError, place: str, raw: Any) -> list[Problem]:
    """The problems of a study file `place`, of which `raw` was read."""
    return [_problem(place, detail, raw) for detail in _causes(error, raw)]


def _causes(error: ValidationError, raw: Any) -> list[Any]:
    """Its details, but not what only follows from others.

    That is a list too short once its wrong items are taken out, a key missing that is misspelt,
    and the study's learning rates in each search.
    """
    found = error.errors()
    return [detail for detail in found if not _follows(detail, found, raw)]


def _follows(detail: Any, found: list[Any], raw: Any) -> bool:
    place = detail["loc"]
    if detail["type"] == "too_short":
        inner = (other["loc"] for other in found if len(other["loc"]) > len(place))
        return any(other[: len(place)] == place for other in inner)
    section = _there(raw, place[:-1])
    if detail["type"] == "missing":
        known = detail.get("ctx", {}).get("keys") or keys_at(place[:-1])
        return isinstance(section, dict) and place[-1] in meant(section, known)
    return _of_the_studys_rates(place, raw)


def _of_the_studys_rates(place: Place, raw: Any) -> bool:
    """Whether this is a place in the learning rates that a search has only from the study."""
    search = place[: 2 if place[:1] == ("searches",) else 1]
    if search[:1] not in (("search",), ("searches",)) or "learning_rate" not in raw:
        return False
    of_search = _there(raw, search) or {}
    return place[len(search) :][:1] == ("learning_rate",) and "learning_rate" not in of_search


def _there(raw: Any, place: Place) -> Any:
    for part in _as_in(raw, place):
        parts = dict(enumerate(raw)) if isinstance(raw, list) else raw
        raw = parts.get(part) if isinstance(parts, dict) else None
    return raw


def _problem(place: str, detail: Any, raw: Any) -> Problem:
    kind, limits, value = detail["type"], detail.get("ctx", {}), detail["input"]
    keys = detail["loc"][:-1] if detail["loc"][-1:] == ("[key]",) else detail["loc"]
    location, where = _as_in(raw, keys), place_in(raw, keys, place)
    remedy = ""
    match kind:
        case "json_invalid":
            what, remedy = "cannot be read", "does it have half a surrogate pair?"
        case "extra_forbidden":
            known = limits.get("keys") or keys_at(location[:-1])
            return unknown(where, str(location[-1]), known, "a key here")
        case "missing":
            what = "this key is missing"
        case "too_short":
            what = f"needs at least {limits['min_length']}, has {limits['actual_length']}"
        case "too_long":
            what = f"has {limits['actual_length']:,} values, more than {limits['max_length']:,}"
        case "model_type" | "dict_type":
            what, names = "must be a section of keys and values", ", ".join(keys_at(detail["loc"]))
            remedy = f"its keys: {names}" if names else ""
        case "tuple_type":
            what, remedy = "must be a list", "list the values"
        case "string_pattern_mismatch":
            what, remedy = PATTERNS[limits["pattern"]]
            what = f"{quoted(value)} is {what}"
        case "value_error" | "section":
            what = expectation(detail)
        case _:
            near = nearest(detail)
            what = f"{expectation(detail)}, not {quoted(value)}"
            remedy = f"did you mean {near}?" if near else ""
    return Problem(place=where, what=what, remedy=remedy)


def place_in(raw: Any, location: Place, place: str) -> str:
    """A location in the study file `place`, of which `raw` was read, as a message says it."""
    path = _path(_as_in(raw, location))
    return f"{place}: {path}" if path else place


def _as_in(raw: Any, location: Place) -> Place:
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


def _path(location: Place) -> str:
    text = ""
    for part in location:
        name = part if isinstance(part, int) else _short(part)
        text += f"[{name}]" if isinstance(part, int) else f".{name}" if text else str(name)
    return text


def _short(name: str) -> str:
    """A name on one line of bearable length, as far as a study's own names may be wrong."""
    line = "".join(c if c.isprintable() else "�" for c in name)
    return line if len(line) <= 100 else f"{line[:100]}…"


def unknown(where: str, name: str, known: Collection[str], what: str) -> Problem:
    """A name that is none of those that are known, with the one that was meant."""
    near = nearest_key(name, known)
    remedy = f"did you mean {near}?" if near else f"available: {', '.join(known) or 'none'}"
    return Problem(place=where, what=f"{_short(name)} is not {what}", remedy=remedy)
