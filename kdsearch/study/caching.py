"""Caches of some tokens of a teacher's outputs: what they serve, and at which temperature."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydantic import ValidationError

from kdsearch.errors import Problem
from kdsearch.search import LAZY_TEMPERATURE, Ce, Objective, Value
from kdsearch.study.cache import HIDDEN, shown_cache
from kdsearch.study.cases import TestCase, known_cases, taught_cases
from kdsearch.study.effective import effective_settings, place_of, search_of, source_of, space_of
from kdsearch.study.known import task_of
from kdsearch.study.schema import Study
from kdsearch.study.section import as_far_as_read
from kdsearch.study.tasks import SPECS

_AXIS = "temperature"


def cached_at(study: Study, case: TestCase) -> float:
    """The one temperature at which tokens of the outputs of a case's teacher are kept."""
    same = (each for each in taught_cases(study) if _pair(each) == _pair(case))
    temperature, *_ = _temperatures(study, same)
    assert isinstance(temperature, int | float)
    return float(temperature)


def cache_problems(study: Study, place: str) -> Iterator[Problem]:
    """What caches of some tokens do not serve, as far as the study could be read."""
    pairs: dict[tuple[str, str | None], list[TestCase]] = {}
    for case in known_cases(study):
        if case.teacher is not None:
            pairs.setdefault(_pair(case), []).append(case)
    found = as_far_as_read(*(_of_pair(study, place, cases) for cases in pairs.values()))
    yield from dict.fromkeys(found)


def _pair(case: TestCase) -> tuple[str, str | None]:
    """What is equal of cases that learn from the same outputs."""
    return case.dataset, case.teacher


def _of_pair(study: Study, place: str, cases: Sequence[TestCase]) -> Iterator[Problem]:
    first = cases[0]
    try:
        cache = effective_settings(study, first, "outputs").cache
    except ValidationError:  # settings that do not go together, which is said of them
        return
    if cache == HIDDEN:
        return
    where = source_of(study, first, "outputs", "cache")
    task = task_of(first.dataset, study.datasets[first.dataset])
    if SPECS[task].width is not None:
        what = f"{first.dataset} is for {task}, whose teacher's outputs are small, and all kept"
        remedy = "give it where the task is translation or lm alone: datasets.NAME.training.cache"
        yield Problem(place=f"{place}: {where}", what=what, remedy=remedy)
        return
    exact = f"set cache: hidden ({where}), which is exact for every objective and temperature"
    serves = f"{where} keeps {{{shown_cache(cache)}}} of {first.dataset}/{first.teacher}"
    for case in cases:
        search, its = search_of(study, case), f"{place}: {place_of(case)}"
        for kind in search.distance:
            objective = Objective.kinds[kind]
            if objective.taught and objective.reads_outputs and objective is not Ce:
                what = f"{kind} needs all of the teacher's outputs, but {serves}, which serves ce"
                yield Problem(
                    place=f"{its}.distance", what=what, remedy=f"{exact}, or leave {kind} out"
                )
        if any(search.axes.get("standardise", ())):
            what = f"standardised logits need all of the teacher's outputs, but {serves}, which "
            what += "serves probabilities at one temperature"
            remedy = f"{exact}, or leave it out"
            yield Problem(place=f"{its}.standardise", what=what, remedy=remedy)
        if search.in_logit_scales:
            what = (
                "the teacher's logit scale is known once its outputs are made, but "
                f"{serves}, for which a temperature must be known before"
            )
            yield Problem(
                place=f"{its}.temperature_unit", what=what, remedy=f"{exact}, or leave the unit out"
            )
    several = len([*_temperatures(study, cases)]) > 1
    for case in cases if several else ():
        lazy = f" (its lazy baseline has {LAZY_TEMPERATURE:g})" * search_of(study, case).flips
        what = f"tries several temperatures{lazy}, but {serves}, which serves one"
        if len([*_temperatures(study, [case])]) == 1:
            what = f"has another temperature than other searches, but {serves}, which serves one"
        where_from = f"{place}: {place_of(case)}.{_AXIS}"
        yield Problem(place=where_from, what=what, remedy=f"{exact}, or give one: {_AXIS}: [1]")


def _temperatures(study: Study, cases: Iterable[TestCase]) -> dict[Value, None]:
    """The teacher's temperatures in some cases; of a second round, those of the first.

    A search that flips axes has its lazy baseline too, which tunes no temperature.
    """
    found: dict[Value, None] = {}
    for case in cases:
        space = space_of(study, case)
        if _AXIS in space.names:
            found |= dict.fromkeys(space.values(_AXIS))
        if search_of(study, case).flips and any(axis.name == _AXIS for axis in space.tuned):
            found |= {LAZY_TEMPERATURE: None}
    return found
