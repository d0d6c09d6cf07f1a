"""When a search that must end in time starts nothing new."""

from __future__ import annotations

import time
from dataclasses import dataclass

from kdsearch.agenda import Agenda

_TO_END = 10.0
"""Seconds for the report, and for Ray to end."""


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """The moment by which a search should have ended."""

    at: float
    """On `time.monotonic`'s clock, which no one sets."""

    def near(self, agenda: Agenda) -> bool:
        """Whether a training that starts now may not end in time.

        It is taken to need as long as the longest so far. One that is cut off after all goes on
        from its own checkpoint at the next launch.
        """
        longest = max(
            (o.cost.seconds for o in agenda.results.values() if o is not None), default=0.0
        )
        return time.monotonic() + longest + _TO_END >= self.at
