"""The terms that the search of a test case may add to its objectives, and what they need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

from kdsearch.errors import Problem
from kdsearch.search import MAPPED, OBJECTIVE, TEACHERS, TERMS, Space, Value, is_active
from kdsearch.study.cases import TestCase, teacher_of, test_cases
from kdsearch.study.effective import place_of, space_of
from kdsearch.study.layers import evenly_spaced, kept_layers
from kdsearch.study.mapping import mapped_layers, middle_layer
from kdsearch.study.resolved import ResolvedDataset, ResolvedModel
from kdsearch.study.schema import Study
from kdsearch.study.tasks import SPECS

_WITHOUT = "leave the terms out, or give this search other cases by test_cases"


@dataclass(frozen=True, kw_only=True)
class AskedTerms:
    """The values that a search has of what terms depend on."""

    terms: tuple[str, ...]
    """Those of which some weight is above 0."""
    mappings: tuple[str, ...]
    attention_heads: tuple[str, ...]
    relation_heads: tuple[Value, ...]
    layers: tuple[Any, ...]
    """Those that its student keeps, where they are an axis."""


def asked_terms(space: Space) -> AskedTerms | None:
    """The terms of a space; None where it has none."""
    axes = {axis.name: axis.values for axis in (*space.compared, *space.tuned)}
    kinds = axes[OBJECTIVE]
    weights = {name: axes.get(name, ()) for name in TERMS}
    terms = tuple(
        name
        for name, values in weights.items()
        if any(values) and any(is_active(name, kind) for kind in kinds)
    )
    if not terms:
        return None
    return AskedTerms(
        terms=terms,
        mappings=axes.get("layer_mapping", ("uniform",)),
        attention_heads=axes.get("attention_heads", ("each",)),
        relation_heads=axes.get("relation_heads", (TEACHERS,)),
        layers=axes.get("layers", ()),
    )


def term_layers(term: str, mapping: str, teacher: int, student: int) -> tuple[int, ...]:
    """The teacher's layers that a term compares with the student's, by the layers of each.

    Raises `ValueError` in words where a model has too few.
    """
    if term == "hint":
        return (middle_layer(teacher),)
    if term == "relations":
        return (teacher - 1,)
    return mapped_layers(mapping, teacher, student)


def own_layers(term: str, count: int, student: int) -> tuple[int, ...]:
    """The student's layers that are compared with so many of its teacher's."""
    return (middle_layer(student),) if term == "hint" else evenly_spaced(student, count)


def kept_depth(model: ResolvedModel | None, layers: int | str | None) -> int | None:
    """How many layers some of a model are; None where its configuration does not say."""
    if model is None or model.depth is None:
        return None
    return model.depth if layers is None else len(kept_layers(layers, model.depth))


def depths(
    study: Study, models: Mapping[str, ResolvedModel], case: TestCase, asked: AskedTerms
) -> Iterator[tuple[int | None, int | None]]:
    """Every pair of a teacher's and a student's layers in a test case."""
    teacher, student = teacher_of(study, case), study.students[case.student]
    assert teacher is not None
    kept = asked.layers or (student.layers,)
    own = [kept_depth(models.get(student.model), layers) for layers in kept]
    if teacher.student_of is not None:  # the same student, of which layers are the other's choice
        yield from product(own, own)
    for name in dict.fromkeys((*filter(None, [teacher.model]), *teacher.given.values())):
        layers = teacher.layers if name == teacher.model else None
        theirs = kept_depth(models.get(name), layers)
        yield from ((theirs, each) for each in own)


def asked_layers_of(
    study: Study, models: Mapping[str, ResolvedModel], cases: Iterable[TestCase]
) -> set[tuple[str, tuple[int, ...]]]:
    """Terms with the teacher's layers that they compare, whatever test cases of it ask for.

    What cannot be mapped, or is of unknown depth, is left out.
    """
    found = set()
    for case in cases:
        asked = asked_terms(space_of(study, case))
        if asked is None:
            continue
        known = (pair for pair in depths(study, models, case, asked) if None not in pair)
        for (theirs, own), term, mapping in product(known, asked.terms, asked.mappings):
            assert theirs is not None
            assert own is not None
            with suppress(ValueError):
                found.add((term, term_layers(term, mapping, theirs, own)))
    return found


def term_problems(
    study: Study,
    datasets: Mapping[str, ResolvedDataset],
    models: Mapping[str, ResolvedModel],
    place: str,
) -> list[Problem]:
    """Terms that a task does not have, and layers that cannot be mapped."""
    found: dict[Problem, None] = {}
    for case in test_cases(study):
        asked = asked_terms(space_of(study, case))
        if asked is None or case.teacher is None:
            continue
        where, task = f"{place}: {place_of(case)}", datasets[case.dataset].task
        if task == "translation":
            what = f"{', '.join(asked.terms)}: of translation no terms are known, only of "
            what += "models of one stack"
            found[Problem(place=where, what=what, remedy=_WITHOUT)] = None
            continue
        if SPECS[task].reads == "pixels":
            what = f"{', '.join(asked.terms)}: terms compare models of texts, and {case.dataset} "
            found[Problem(place=where, what=f"{what}has images", remedy=_WITHOUT)] = None
            continue
        if task == "lm" and "cls_states" in asked.terms:
            what = f"{case.dataset} has no [CLS], whose states it compares"
            remedy = "take hidden_states"
            found[Problem(place=f"{where}.cls_states", what=what, remedy=remedy)] = None
        for what in _mapping_problems(study, models, case, asked):
            place_, remedy = f"{where}.layer_mapping", "name fewer layers: 3+7, or give another"
            found[Problem(place=place_, what=f"{case}: {what}", remedy=remedy)] = None
        for name in _unsaid(study, models, case):
            what = "does not say how many layers it has, which terms must know"
            remedy = "give num_hidden_layers in its configuration"
            found[Problem(place=f"{place}: models.{name}", what=what, remedy=remedy)] = None
    return list(found)


def _mapping_problems(
    study: Study, models: Mapping[str, ResolvedModel], case: TestCase, asked: AskedTerms
) -> Iterator[str]:
    if not {*asked.terms} & {*MAPPED}:
        return
    for theirs, own in depths(study, models, case, asked):
        for mapping in asked.mappings if theirs and own else ():
            try:
                mapped_layers(mapping, theirs or 0, own or 0)
            except ValueError as error:
                yield f"{mapping} {error}"


def _unsaid(study: Study, models: Mapping[str, ResolvedModel], case: TestCase) -> Iterator[str]:
    teacher = teacher_of(study, case)
    assert teacher is not None
    names = (study.students[case.student].model, teacher.model, *teacher.given.values())
    yield from (name for name in names if name and name in models and models[name].depth is None)
