"""What a strategy or an objective refuses of the values that a search gives it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from itertools import product

from kdsearch.search import Objective, ParameterError, Strategy, Value

LARGEST = 100_000
"""The most trials of a grid that is counted before anything starts."""
_STAND_IN = 0.5
"""A number that any parameter without a default may be, in place of what cannot be read or is
refused."""


def needed(kind: type[Objective | Strategy]) -> set[str]:
    """The parameters that have no default."""
    return {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}  # type: ignore[arg-type]


def refused(
    kind: type[Objective | Strategy], values: Mapping[str, tuple[Value, ...]]
) -> Iterator[tuple[str, Value, str]]:
    """Each parameter and value that `kind` refuses anywhere in the grid of `values`, and why.

    `values` may lack parameters. What only a stand-in is refused for is left out; the parameter is
    "" where the values do not go together.
    """
    if math.prod(map(len, values.values())) > LARGEST:
        values = {name: _ends(listed) for name, listed in values.items()}
    names = [*values, *sorted(needed(kind) - values.keys())]
    found: dict[tuple[str, Value], str] = {}
    before = -1
    while len(found) > before:
        before = len(found)
        sound = {n: [v for v in values.get(n, ()) if (n, v) not in found] for n in names}
        for point in product(*(sound[name] or [_stand_in(kind, name)] for name in names)):
            at = dict(zip(names, point, strict=True))
            if not found.keys().isdisjoint(at.items()):
                continue
            try:
                kind(**at)
            except ParameterError as error:
                if sound.get(error.name):
                    found[error.name, at[error.name]] = error.what
            except ValueError as error:
                if all(sound.values()):
                    found["", str(error)] = str(error)
    for (name, value), what in found.items():
        yield name, value, what


def _stand_in(kind: type[Objective | Strategy], name: str) -> Value:
    """What a parameter is in place of values that cannot be read or are refused."""
    [default] = [f.default for f in dataclasses.fields(kind) if f.name == name]  # type: ignore[arg-type]
    return _STAND_IN if default is dataclasses.MISSING else default


def _ends(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """The smallest number and the largest, and what is none: what lies between is alike."""
    numbers = [value for value in values if isinstance(value, int | float)]
    others = [value for value in values if not isinstance(value, int | float)]
    return (*({min(numbers), max(numbers)} if numbers else ()), *others)
