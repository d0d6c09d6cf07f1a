"""How long a search will still take, from what its trainings took so far."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from kdsearch.agenda import Agenda, StudentTraining, remaining
from kdsearch.search import Bounds


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
        low, high = (duration(seconds) for seconds in self.seconds)
        return f"about {low} left" if low == high else f"about {low} to {high} left"


def estimate(agenda: Agenda, slots: int) -> Estimate:
    """The estimate for `slots` trainings at once: each case at the mean speed of its students."""
    took: dict[str, list[float]] = defaultdict(list)
    for outcome in agenda.results.values():
        if outcome is not None and isinstance(outcome.training, StudentTraining):
            took[_model(outcome.training)].append(outcome.cost.seconds)
    every = [seconds for student in took.values() for seconds in student]
    left, low, high = Bounds(fewest=0, most=0), 0.0, 0.0
    for view in agenda.views():
        bounds = remaining(agenda, view)
        student = agenda.resolved.study.students[view.case.student]
        known = took.get(f"{student.model}/{student.layers}") or every or [0.0]
        mean = sum(known) / len(known)
        left += bounds
        low += bounds.fewest * mean
        high += bounds.most * mean
    done = agenda.trained(*agenda.cases)
    return Estimate(done=done, left=left, seconds=(low / slots, high / slots) if every else None)


def duration(seconds: float) -> str:
    """A time a person can grasp: `40 s`, `7 min`, `3.5 h`, `2.1 days`."""
    if seconds < 90:
        return f"{max(1, round(seconds / 10) * 10 if seconds > 10 else round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def _model(training: StudentTraining) -> str:
    return f"{training.model.name}/{training.model.layers}"
