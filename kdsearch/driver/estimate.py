"""How long a search will still take, from what its trainings took so far."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kdsearch.agenda import Agenda, students_left
from kdsearch.search import Bounds

_YEAR = 365.25 * 86400


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The students done and left, and the seconds left at the least and at the most."""

    done: int
    left: Bounds
    seconds: tuple[float, float] | None
    """None before the first student is trained: nothing is known of their speed."""

    def in_words(self) -> str:
        """Such as `about 3 to 5 min left`."""
        if self.left.most == 0:
            return "done"
        if self.seconds is None:
            return "estimating the time left"
        return f"about {span(*self.seconds)} left"


def estimate(agenda: Agenda, slots: int) -> Estimate:
    """The estimate for `slots` trainings at once, each as long as such took so far."""
    durations, left, low, high = agenda.durations(), Bounds(fewest=0, most=0), 0.0, 0.0
    for case, bounds in students_left(agenda):
        each = durations[case]["student"]
        left += bounds
        low += bounds.fewest * each
        high += bounds.most * each
    known = agenda.longest["student"] > 0
    done = agenda.trained(*agenda.cases)
    return Estimate(done=done, left=left, seconds=(low / slots, high / slots) if known else None)


def duration(seconds: float) -> str:
    """A time a person can grasp: `40 s`, `7 min`, `3.5 h`, `2.1 days`, `9.4 years`."""
    unit, name = _unit(seconds)
    if name == "s":
        return f"{max(1, round(seconds / 10) * 10 if seconds > 10 else round(seconds))} s"
    return f"{seconds / unit:.{0 if name == 'min' or seconds >= 100 * unit else 1}f} {name}"


def span(low: float, high: float) -> str:
    """From a time to a longer one, as rough as an estimate: `3 to 5 min`, `810 to 3,700 days`."""
    unit, name = _unit(high)
    if low < unit or name == "s":
        first, last = duration(low), duration(high)
        return first if first == last else f"{first} to {last}"
    first, last = rough(low / unit), rough(high / unit)
    return f"{first} {name}" if first == last else f"{first} to {last} {name}"


def rough(number: float) -> str:
    """A number of which only two digits count: `0.54`, `7`, `3,700`."""
    if number == 0:
        return "0"
    rounded = round(number, 1 - math.floor(math.log10(number)))
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def _unit(seconds: float) -> tuple[float, str]:
    """What a time is told in, and how long that is."""
    if seconds < 90:
        return 1, "s"
    if seconds < 90 * 60:
        return 60, "min"
    if seconds < 48 * 3600:
        return 3600, "h"
    return (86400, "days") if seconds < 2 * _YEAR else (_YEAR, "years")
