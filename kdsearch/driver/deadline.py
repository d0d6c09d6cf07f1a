"""What a search that must end in time may still start."""

from __future__ import annotations

import time
from dataclasses import dataclass

from kdsearch.agenda import Agenda
from kdsearch.study import Role

_TO_END = 10.0
"""Seconds for the report, and for Ray to end."""


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """The moment by which a search should have ended."""

    at: float
    """On `time.monotonic`'s clock, which no one sets."""

    def in_time(self, agenda: Agenda) -> list[Role]:
        """The roles whose trainings would end in time if they started now.

        Each is taken to need as long as the longest of its role so far. One that is cut off after
        all goes on from its own checkpoint at the next launch.
        """
        left = self.at - time.monotonic() - _TO_END
        return [role for role, seconds in agenda.longest.items() if seconds < left]
