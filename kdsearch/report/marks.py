"""What the page's table of test cases says of each, beside its scores."""

from __future__ import annotations

from collections.abc import Iterator

from kdsearch.agenda import Agenda
from kdsearch.analysis import Analysis, CaseResult, Verdict
from kdsearch.report.glossary import METRICS
from kdsearch.report.markdown import points

AGAINST_ERM = {
    Verdict.BETTER: "better than ERM",
    Verdict.WORSE: "worse than ERM",
    Verdict.WITHIN_NOISE: "ERM within the noise",
    Verdict.EQUAL: "equal to ERM",
}


def metric_of(agenda: Agenda, case: CaseResult) -> str:
    """The name of its metric, without how exactly it is computed."""
    return metric_name(agenda.resolved.datasets[case.case.dataset].metric)


def metric_name(metric: str) -> str:
    """How a metric is written; a folder from elsewhere may have any."""
    return METRICS.get(metric, (metric, ""))[0]


def perplexity(metric: str | None, test: float | None) -> str:
    """What is one over a likelihood on test, in a sentence; empty of other metrics."""
    if not test or metric is None or not metric.startswith("likelihood"):
        return ""
    return f" On test the student's perplexity is {1 / test:.4g}."


def marks(analysis: Analysis, case: CaseResult) -> str:
    """How it compares with the student without a teacher, and what speaks against its numbers."""
    return "; ".join(_marks(analysis, case))


def _marks(analysis: Analysis, case: CaseResult) -> Iterator[str]:
    if case.at_floor:
        yield "at the floor"
    found = next((each.verdict for each in analysis.answer.cases if each.case == case.case), None)
    if found is not None and case.over_erm_points is not None:
        yield AGAINST_ERM[found]
    if (lost := case.stable_over_default or 0.0) < 0:
        yield f"stable {points(-lost)[1:]} points below the default"
    if count := len(case.failures):
        yield f"{count} training{'s' if count > 1 else ''} without a score"
