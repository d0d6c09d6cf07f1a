"""Which layers of a model are kept: so many at even distances, the first, the last, those named.

`3`, or `even 3`, is that many of the whole model, evenly spaced, the last among them; an
encoder-decoder keeps half of them on each side. `first 3`, `last 3` and `0+2+4` name layers from 0;
an encoder-decoder keeps the same on both sides.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import PlainValidator

_COUNTED = re.compile(r"(even|first|last) ([1-9][0-9]{0,3})")
_LISTED = re.compile(r"[0-9]{1,4}(\+[0-9]{1,4})+")


def _canonical(value: object) -> int | str:
    """`0+1+2` as `first 3` and `even 3` as 3, so that layers have one name. Raises `ValueError`.

    The name is the same whatever model it is of.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31:
        return value
    if isinstance(value, str):
        if counted := _COUNTED.fullmatch(value):
            return int(counted[2]) if counted[1] == "even" else value
        numbers = _listed(value) if _LISTED.fullmatch(value) else []
        if numbers and numbers == list(range(len(numbers))):
            return f"first {len(numbers)}"
        if numbers and numbers == sorted(set(numbers)):
            return "+".join(map(str, numbers))
    raise ValueError(
        "expected a number (3: evenly spaced), first 3, last 3, or 0+2+4: these layers, counted "
        "from 0, in ascending order"
    )


Layers = Annotated[int | str, PlainValidator(_canonical)]


def _listed(layers: str) -> list[int]:
    return list(map(int, layers.split("+")))


def fewest_layers(layers: int | str) -> int:
    """How many layers a model must have to keep these; of those named each side of it."""
    if isinstance(layers, int):
        return layers
    counted = _COUNTED.fullmatch(layers)
    return int(counted[2]) if counted else _listed(layers)[-1] + 1


def kept_layers(layers: int | str, total: int) -> tuple[int, ...]:
    """The numbers, from 0, of the layers that are kept of so many, which are no fewer."""
    if isinstance(layers, int):
        return evenly_spaced(total, layers)
    counted = _COUNTED.fullmatch(layers)
    if counted is None:
        return tuple(_listed(layers))
    count = int(counted[2])
    return tuple(range(count) if counted[1] == "first" else range(total - count, total))


def evenly_spaced(total: int, kept: int) -> tuple[int, ...]:
    """`kept` of the indices 0 … total − 1, evenly spaced, the last among them."""
    return tuple(round((i + 1) * total / kept) - 1 for i in range(kept))


def shown_layers(layers: int | str) -> str:
    """Such as `3 layers`, `the first 3 layers` and `the layers 0+2+4`."""
    if isinstance(layers, int):
        return f"{layers} layers"
    return f"the {layers} layers" if _COUNTED.fullmatch(layers) else f"the layers {layers}"
