"""Labels by their names: as the data writes them, and as two lists of them agree."""

from __future__ import annotations

import operator
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from kdsearch.errors import shortened
from kdsearch.study.cells import BadRowError, listed

_WHOLE = re.compile(r"(-?[0-9]+)\.0+")
"""A whole number as pandas writes it in a column that once lacked a value."""
_FRACTION = re.compile(r"-?[0-9]*\.[0-9]+(e-?[0-9]+)?", re.I)


def numbers_of(
    labels: tuple[str, ...], noun: str, *, names_only: bool = False
) -> Callable[[Any], int]:
    """From a label's name or number in the data to its number."""
    numbers = {name: number for number, name in enumerate(labels)}
    plain = [_plain(name) for name in labels]
    if any(name.lstrip("-").isdigit() for name in plain):
        numbers = {name: i for i, name in enumerate(plain) if plain.count(name) == 1} | numbers
    elif not names_only:
        numbers |= {str(number): number for number in range(len(labels))}
    lowered = [name.lower() for name in labels]
    truths = {n: lowered.index(n) for n in ("true", "false") if lowered.count(n) == 1}

    def number_of(value: Any) -> int:
        found = None
        if isinstance(value, str | int | float) or is_whole(value):
            text = str(value)
            plain = str(int(value)) if is_whole(value) else _plain(text)
            found = numbers.get(text, numbers.get(plain, truths.get(text.lower())))
        if found is None and noun == "label" and (other := _other_task(value)):
            raise BadRowError(f"its label {shortened(value)} {other}", "give each row one label")
        if found is None:
            known = ", ".join(f"{i} {short_label(name)}" for i, name in enumerate(labels[:50]))
            known += ", …" if len(labels) > 50 else ""
            raise BadRowError(f"unknown {noun} {shortened(value)}", f"available: {known}")
        return found

    return number_of


def _plain(text: str) -> str:
    """1.0 as 1, other text as it is."""
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def _other_task(value: Any) -> str | None:
    """What a label that is none of the study's belongs to instead."""
    fraction = isinstance(value, float) and not value.is_integer()
    if fraction or (isinstance(value, str) and _FRACTION.fullmatch(value.strip())):
        return "is a fractional number: kdsearch does not do regression"
    in_brackets = isinstance(value, str) and value.lstrip().startswith("[")
    if not isinstance(value, str) or in_brackets:
        value = listed(value)
    if isinstance(value, list | tuple):
        return "is a list: kdsearch does not handle multi-label data"
    return None


def short_label(name: str) -> str:
    """A label's name for a message."""
    return name if len(name) <= 50 else f"{name[:50]}…"


def spelt_as(names: tuple[str, ...], wanted: Sequence[str]) -> tuple[str, ...]:
    """`names`, those that differ from `wanted` in case alone as they stand there.

    Only where some of `wanted` are not in `names` as they are, and all of them are without case,
    one to one.
    """
    folded = [name.casefold() for name in names]
    spelling = {name.casefold(): name for name in wanted}
    unique = len({*folded}) == len(names) and len(spelling) == len(wanted)
    if {*wanted} <= {*names} or not unique or not spelling.keys() <= {*folded}:
        return names
    return tuple(spelling.get(fold, name) for fold, name in zip(folded, names, strict=True))


def two_spellings(names: Iterable[str]) -> Iterator[list[str]]:
    """Names that differ only in case, in spaces around them, or in how accents are encoded."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        found[unicodedata.normalize("NFC", name).strip().casefold()].append(name)
    return (alike for alike in found.values() if len(alike) > 1)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number: an integer, of any kind, or a float such as 1.0."""
    if isinstance(value, bool):
        return False
    if isinstance(value, float):
        return value.is_integer()
    try:
        operator.index(value)
    except TypeError:  # an array says that it can, and cannot
        return False
    return True
