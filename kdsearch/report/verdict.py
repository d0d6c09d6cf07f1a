"""What the page says of a test case in a row of a table."""

from __future__ import annotations

from collections.abc import Iterator

from kdsearch.agenda import Agenda
from kdsearch.analysis import CaseResult
from kdsearch.report.glossary import METRICS
from kdsearch.report.markdown import points


def metric_of(agenda: Agenda, case: CaseResult) -> str:
    """The name of its metric, without how exactly it is computed."""
    metric = agenda.resolved.datasets[case.case.dataset].metric
    return METRICS.get(metric, (metric, ""))[0]  # a folder from elsewhere may have any


def verdict(case: CaseResult) -> str:
    """How it compares with plain training, and what stands against its numbers."""
    return "; ".join(_verdict(case))


def _verdict(case: CaseResult) -> Iterator[str]:
    if case.at_floor:
        yield "at the floor"
    if case.case.teacher is not None and case.over_erm_points is not None:
        yield _over_erm(case, case.over_erm_points)
    if (lost := case.stable_over_default or 0.0) < 0:
        yield f"stable {points(-lost)[1:]} points below the default"
    if count := len(case.failures):
        yield f"{count} training{'s' if count > 1 else ''} without a score"


def _over_erm(case: CaseResult, over: float) -> str:
    if not over:
        return "level with plain training"
    noise = case.over_erm_noise
    within = noise is not None and abs(case.over_erm or 0.0) < noise.deviation
    which = "better than plain training" if over > 0 else "better without a teacher"
    return f"{which}, within the noise" if within else which
