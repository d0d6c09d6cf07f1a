"""What a search tells Ray of itself, for Prometheus. docs/watching.md has the same table."""

from __future__ import annotations

import time
from collections import Counter as Count
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ray.util.metrics import Counter, Gauge

from kdsearch.agenda import (
    AHEAD,
    STAGES,
    Agenda,
    Attempt,
    Outcome,
    Request,
    answered,
    best_so_far,
    remaining,
    stage_of,
)
from kdsearch.engine.base import Fleet

_SECONDS_BETWEEN = 5.0
"""Ray passes them on every ten seconds, and drops a gauge that was not set for twenty."""
_MOST_OF_THE_DRIVER = 0.03
"""Of its time, which trainings wait for."""


class Metric(NamedTuple):
    """A metric: a gauge or a counter, the tags that it has beside `study`, and what it says."""

    kind: type[Gauge] | type[Counter]
    tags: tuple[str, ...]
    what: str


METRICS = {
    "kdsearch_trainings_finished": Metric(Counter, ("case", "kind"), "trainings with an outcome"),
    "kdsearch_tries_failed": Metric(Counter, ("case", "kind", "class"), "tries that failed"),
    "kdsearch_trainings_running": Metric(Gauge, ("case", "kind"), "trainings that run"),
    "kdsearch_trainings_ahead": Metric(
        Gauge, ("case",), "of those that run, those that no decision had asked for at their start"
    ),
    "kdsearch_trainings_waiting": Metric(
        Gauge, ("case", "kind"), "trainings that could start and wait for a slot"
    ),
    "kdsearch_cache_hits": Metric(
        Gauge, (), "trainings that were asked for and had run already, or ran ahead"
    ),
    "kdsearch_students_done": Metric(Gauge, ("case",), "students that have a result"),
    "kdsearch_students_left": Metric(
        Gauge, ("case", "bound"), "students to train, the fewest and the most"
    ),
    "kdsearch_best_validation": Metric(
        Gauge, ("case",), "the highest validation score of a student"
    ),
    "kdsearch_stage": Metric(Gauge, ("case",), "the stage of the test case, as a number"),
    "kdsearch_seconds_left": Metric(
        Gauge, ("bound",), "seconds to the end on the slots of now, the fewest and the most"
    ),
    "kdsearch_slots": Metric(Gauge, ("node", "state"), "slots, busy or idle"),
    "kdsearch_slots_waiting": Metric(Gauge, (), "slots that were asked for and wait for room"),
    "kdsearch_slot_seconds": Metric(Counter, ("state",), "seconds of all slots, busy or idle"),
}

_Values = Mapping[Any, float]
"""By the values of a metric's tags, which are a tuple."""


class Metrics:
    """A `kdsearch.driver.Watch` that sets the metrics, in the driver: workers come and go."""

    def __init__(
        self,
        agenda: Agenda,
        fleet: Callable[[], Fleet],
        seconds_left: Callable[[], tuple[float, float] | None],
    ) -> None:
        """`seconds_left`: the fewest and the most, as far as anything is known."""
        self._agenda = agenda
        self._fleet = fleet
        self._seconds_left = seconds_left
        self._running: dict[str, Request] = {}
        self._ended = 0
        self._time = time.monotonic()
        self._due = 0.0
        self._to_set = 0.0
        self._values: defaultdict[str, _Values] = defaultdict(dict)
        study = {"study": agenda.resolved.study.name}
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        for name, (kind, tags, what) in METRICS.items():
            metric = kind(name, what, ("study", *tags))
            metric.set_default_tags(study)
            if isinstance(metric, Gauge):
                self._gauges[name] = metric
            else:
                self._counters[name] = metric

    def started(self, request: Request) -> None:
        """See `Watch`."""
        self._running[request.training.key] = request

    def finished(self, request: Request, outcome: Outcome) -> None:
        """See `Watch`."""
        self._running.pop(request.training.key, None)
        self._ended += request.stage != AHEAD
        self._count("kdsearch_trainings_finished", _case_and_kind(request))

    def failed(self, request: Request, attempt: Attempt, *, for_good: bool) -> None:
        """See `Watch`."""
        self._running.pop(request.training.key, None)
        self._ended += for_good and request.stage != AHEAD
        self._count("kdsearch_tries_failed", (*_case_and_kind(request), attempt.failure))

    def tick(self) -> None:
        """See `Watch`."""
        fleet, before, self._time = self._fleet(), self._time, time.monotonic()
        for state, slots in _states(fleet).items():
            self._count("kdsearch_slot_seconds", (state,), slots * (self._time - before))
        if self._time >= self._due:
            self._find(fleet)
            took = time.monotonic() - self._time
            self._due = self._time + max(_SECONDS_BETWEEN, took / _MOST_OF_THE_DRIVER)
        if self._time >= self._to_set:
            self._to_set = self._time + _SECONDS_BETWEEN
            for name, values in self._values.items():
                for tags, value in values.items():
                    self._gauges[name].set(value, _named(name, tags))

    def _find(self, fleet: Fleet) -> None:
        agenda, views = self._agenda, self._agenda.views()
        waiting = [r for r in agenda.requests() if r.training.key not in self._running]
        self._set("kdsearch_trainings_running", Count(map(_case_and_kind, self._running.values())))
        ahead = Count(str(r.case) for r in self._running.values() if r.stage == AHEAD)
        cases = [str(view.case) for view in views]
        self._set("kdsearch_trainings_ahead", {(case,): ahead[case] for case in cases})
        self._set("kdsearch_trainings_waiting", Count(map(_case_and_kind, waiting)))
        self._set("kdsearch_cache_hits", {(): answered(agenda) - self._ended})
        done, left, best, stage = {}, {}, {}, {}
        for view in views:
            case, bounds = str(view.case), remaining(agenda, view)
            done[(case,)] = agenda.trained(view.case)
            left[case, "fewest"], left[case, "most"] = bounds.fewest, bounds.most
            stage[(case,)] = STAGES.index(stage_of(view))
            score = best_so_far(agenda, view.case)
            if score is not None:
                best[(case,)] = score
        self._set("kdsearch_students_done", done)
        self._set("kdsearch_students_left", left)
        self._set("kdsearch_best_validation", best)
        self._set("kdsearch_stage", stage)
        seconds = self._seconds_left()
        if seconds is not None:
            self._set("kdsearch_seconds_left", {("fewest",): seconds[0], ("most",): seconds[1]})
        slots = Count((slot.node, "busy" if slot.keys else "idle") for slot in fleet.slots)
        nodes = {slot.node for slot in fleet.slots}
        self._set("kdsearch_slots", {(n, s): slots[n, s] for n in nodes for s in ("busy", "idle")})
        self._set("kdsearch_slots_waiting", {(): fleet.waiting})

    def _set(self, name: str, values: _Values) -> None:
        self._values[name] = with_zeros(name, self._values[name], values)

    def _count(self, name: str, tags: tuple[str, ...], amount: float = 1) -> None:
        if amount > 0:
            self._counters[name].inc(amount, _named(name, tags))


def with_zeros(metric: str, before: _Values, values: _Values) -> _Values:
    """The values of a gauge, and 0 for the tags that it had before and has no more.

    Once only where there may be ever new ones, such as the nodes of a cloud.
    """
    lasting = "node" not in METRICS[metric].tags
    return {**{tags: 0 for tags, value in before.items() if value or lasting}, **values}


def _named(metric: str, tags: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(METRICS[metric].tags, tags, strict=True))


def _states(fleet: Fleet) -> dict[str, int]:
    busy = sum(bool(slot.keys) for slot in fleet.slots)
    return {"busy": busy, "idle": len(fleet.slots) - busy}


def _case_and_kind(request: Request) -> tuple[str, str]:
    return str(request.case), request.training.kind
