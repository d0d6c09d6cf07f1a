"""The path of a test case's decisions in words: what each brought, from the default on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kdsearch.analysis import CaseResult, Difference, Step
from kdsearch.report.markdown import change, number, score

PATH = (
    "A step is a decision: what it brought over what was held before. Validation is what chose, so "
    "that it cannot fall there; on test it may. ± is the noise of that step’s gain."
)


def path_lines(case: CaseResult) -> list[str]:
    """A line for validation and one for test; none of a search that compares whole choices.

    Before them, the unit of the temperatures where it is the teacher's logit scale.
    """
    return [*_units(case), *_path(case)]


def _units(case: CaseResult) -> list[str]:
    if not case.logit_scales:
        return []
    scales = ", ".join(f"{number(scale)} of {name}" for name, scale in case.logit_scales.items())
    return [
        f"Temperatures are in units of the teacher’s logit scale ({scales}); in brackets stands "
        "what τ_t comes to."
    ]


def _path(case: CaseResult) -> list[str]:
    if case.over_default is None:
        return []
    digits, in_all = case.digits, case.over_default
    default, last = case.path[0].candidates[0], case.steps[-1]
    so_far = "" if case.winner else " so far"
    if all(step.kept for step in case.steps):
        both = f"validation {score(default.validation, digits)}, test {score(default.test, digits)}"
        return [f"The default is kept by every decision{so_far}: {both}."]
    decided = [change(step.gain.validation, digits) for step in case.steps]
    tested = [_gained(step.gain, digits) for step in case.steps]
    ends = (score(default.validation, digits), score(last.validation, digits))
    validation = _walk(case.steps, decided, *ends)
    test = _walk(case.steps, tested, score(default.test, digits), score(last.test, digits))
    whole = "" if in_all.test is None else f"; in all{so_far} {_gained(in_all, digits)}"
    return [f"Validation{so_far}: {validation}", f"Test{so_far}: {test}{whole}"]


def _walk(steps: Iterable[Step], gains: Sequence[str], first: str, last: str) -> str:
    """Such as `default 0.841 → t_ll: +0.004 → CE: kept → 0.845`."""
    taken = (
        f"{step.value}: {'kept' if step.kept else gain}"
        for step, gain in zip(steps, gains, strict=True)
    )
    return " → ".join([f"default {first}", *taken, last])


def _gained(gain: Difference, digits: int) -> str:
    """A gain on test, its noise, and how far it differs between seeds."""
    text = change(gain.test, digits)
    if gain.noise is not None:
        text += f" ± {score(gain.noise.deviation, digits)}"
    if gain.spread:
        text += f" (between seeds ± {score(gain.spread, digits)})"
    return text
