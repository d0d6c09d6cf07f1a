"""Which layers of a model are kept: so many at even distances, the first, or those that are named.

`3` is that many of the whole model, evenly spaced, the last among them; an encoder-decoder keeps
half of them on each side. `first 3` and `0+2+4` name layers from 0; an encoder-decoder keeps the
same on both sides.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import PlainValidator

_FIRST = re.compile(r"first ([1-9][0-9]{0,3})")
_NAMED = re.compile(r"[0-9]{1,4}(\+[0-9]{1,4})+")


def _canonical(value: object) -> int | str:
    """`0+1+2` as `first 3`, so that layers have one name. Raises `ValueError`."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31:
        return value
    if isinstance(value, str) and (_FIRST.fullmatch(value) or _NAMED.fullmatch(value)):
        numbers = named_layers(value) or ()
        if numbers == tuple(range(len(numbers))):
            return f"first {len(numbers)}"
        if list(numbers) == sorted(set(numbers)):
            return "+".join(map(str, numbers))
    raise ValueError(
        "expected a number (3: evenly spaced), first 3, or 0+2+4: these layers, counted from 0, "
        "in ascending order"
    )


Layers = Annotated[int | str, PlainValidator(_canonical)]


def named_layers(layers: int | str) -> tuple[int, ...] | None:
    """The numbers of the layers that are named, from 0; None where they are evenly spaced."""
    if isinstance(layers, int):
        return None
    if first := _FIRST.fullmatch(layers):
        return tuple(range(int(first[1])))
    return tuple(map(int, layers.split("+")))


def kept_layers(layers: int | str, total: int) -> tuple[int, ...]:
    """The numbers, from 0, of the layers that are kept of so many."""
    named = named_layers(layers)
    return evenly_spaced(total, int(layers)) if named is None else named


def evenly_spaced(total: int, kept: int) -> tuple[int, ...]:
    """`kept` of the indices 0 … total − 1, evenly spaced, the last among them."""
    return tuple(round((i + 1) * total / kept) - 1 for i in range(kept))


def shown_layers(layers: int | str) -> str:
    """Such as `3 layers`, `the first 3 layers` and `the layers 0+2+4`."""
    if isinstance(layers, int):
        return f"{layers} layers"
    return f"the {layers} layers" if _FIRST.fullmatch(layers) else f"the layers {layers}"
