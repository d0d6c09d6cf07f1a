"""The two rounds of the teacher's temperature (§2): broad values, then a neighbourhood."""

from __future__ import annotations

from collections.abc import Sequence

from kdsearch.search.objectives import significant


def local_temperatures(broad: Sequence[float], best: float) -> tuple[float, ...]:
    """Four temperatures linearly around `best`, one of the ascending `broad` values.

    Two lie evenly inside the interval below `best` and two inside the one above it. Above the last
    broad value the interval has the ratio of the last two, so that the search may leave the range
    upwards; below the first there is none, and all four lie above. At least two broad values.
    """
    position = broad.index(best)
    upper = broad[position + 1] if position + 1 < len(broad) else best * (broad[-1] / broad[-2])
    if position == 0:
        return _inside(best, upper, 4)
    return (*_inside(broad[position - 1], best, 2), *_inside(best, upper, 2))


def middle(broad: Sequence[float]) -> float:
    """The middle broad value, where coordinate tuning searches the learning rate.

    Of an even number of values it is the lower of the two in the middle.
    """
    return broad[(len(broad) - 1) // 2]


def _inside(low: float, high: float, count: int) -> tuple[float, ...]:
    step = (high - low) / (count + 1)
    return tuple(significant(low + step * (i + 1)) for i in range(count))
