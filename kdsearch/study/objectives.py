"""Objectives that do not go with the data of a test case, and what they would need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from kdsearch.errors import Problem
from kdsearch.search import SOFTMAX, Objective, Space, Value, is_active, permuted_after
from kdsearch.study.cases import TestCase, test_cases
from kdsearch.study.effective import effective_settings, place_of, search_of, space_of
from kdsearch.study.resolved import ResolvedDataset
from kdsearch.study.schema import Study
from kdsearch.study.tasks import SPECS

Found = Iterator[tuple[str, str, str]]
"""Of what is wrong, the key of a search, what it is and the remedy."""

_STANDARDISED = 3
"""Of two classes standardised logits are always 0.71 and −0.71."""
_OTHER_DATA = "give it other data sets by test_cases"


def objective_problems(
    study: Study, datasets: Mapping[str, ResolvedDataset], place: str
) -> list[Problem]:
    """Objectives and parameters of theirs that cannot be what they are on a data set."""
    found: dict[Problem, None] = {}
    for case in test_cases(study):
        for check in _CHECKS:
            for key, what, remedy in check(study, case, datasets[case.dataset]):
                where = f"{place}: {place_of(case)}.{key}"
                found[Problem(place=where, what=what, remedy=remedy)] = None
    return list(found)


def _kinds(study: Study, case: TestCase) -> list[tuple[str, type[Objective]]]:
    return [(kind, Objective.kinds[kind]) for kind in search_of(study, case).distance]


def _asked(space: Space, name: str, kinds: list[tuple[str, type[Objective]]]) -> tuple[Value, ...]:
    """The values of an axis, where an objective has it."""
    if name not in space.names or not any(is_active(name, kind) for kind, _ in kinds):
        return ()
    return space.values(name)


def _few_classes(study: Study, case: TestCase, data: ResolvedDataset) -> Found:
    """What is no loss of its own with so few classes."""
    kinds, count, has = _kinds(study, case), len(data.labels), f"{case.dataset} has"
    if not count:
        return
    for kind, objective in kinds:
        if count < objective.fewest_classes:
            what = f"{kind} needs at least {objective.fewest_classes} classes, and {has} {count}"
            yield "distance", what, f"leave {kind} out, or {_OTHER_DATA}"
    space = space_of(study, case)
    if count < _STANDARDISED and any(_asked(space, "standardise", kinds)):
        what = f"standardised logits of {count} classes are always the same, up to their order; "
        what += f"it needs at least {_STANDARDISED}, and {has} {count}"
        yield "standardise", what, f"leave it out, or {_OTHER_DATA}"
    for value in _asked(space, "supervision", kinds):
        if (permuted_after(value) or 0) > count - 2:
            what = f"{value} permutes nothing, since {has} {count} classes"
            most = f"give at most permuted after {count - 2}, or " if count > 2 else ""
            yield "supervision", what, f"{most}leave it out"


def _unlike_classes(study: Study, case: TestCase, data: ResolvedDataset) -> Found:
    """What needs units that all have the same few classes, or whose logits are there at once."""
    kinds, other = _kinds(study, case), f"{case.dataset} is for {data.task}"
    like = "give it data of classification or ner by test_cases"
    if not data.labels:
        for kind, objective in kinds:
            if objective.across_units:
                what = f"{kind} compares the units of a batch class by class, and {other}, whose "
                yield "distance", f"{what}units have no common labels", f"leave it out, or {like}"
        controls = [v for v in _asked(space_of(study, case), "supervision", kinds) if v != SOFTMAX]
        if controls:
            what = f"{', '.join(controls)}: known where all units have the same labels, and {other}"
            yield "supervision", what, f"leave only {SOFTMAX}, or {like}"
    if SPECS[data.task].width is None:
        for kind, objective in kinds:
            if objective.learns_temperature:
                what = f"{kind} learns its temperature of a whole batch, and {other}, of whose "
                what += "vocabulary only some units’ logits are there at once"
                yield "distance", what, f"leave it out, or {like}"


def _batch_of_one(study: Study, case: TestCase, data: ResolvedDataset) -> Found:
    """What compares the units of a batch, of which one would be alone."""
    train, space = data.splits["train"], space_of(study, case)
    if train.units != train.rows:  # of one row there are several
        return
    own = effective_settings(study, case, "student").batch_size
    sizes = space.values("batch_size") if "batch_size" in space.names else (own,)
    for kind, objective in _kinds(study, case):
        for size in sizes if objective.across_units else ():
            if size == 1 or train.rows % size == 1:
                what = f"{kind} compares the units of a batch with one another, and of the "
                what += f"{train.rows} training rows of {case.dataset} in batches of {size} "
                what += "each is alone" if size == 1 else "the last is alone"
                yield "distance", what, "take another batch_size, or leave a row out"


def _one_view(study: Study, case: TestCase, data: ResolvedDataset) -> Found:
    """What compares two views of an example, where there is one."""
    if any(_asked(space_of(study, case), "two_views", _kinds(study, case))) and (
        data.task != "image_classification"
    ):
        what = f"{case.dataset} is for {data.task}, of whose examples there is one view"
        yield "two_views", what, "leave it out"


_CHECKS: tuple[Callable[[Study, TestCase, ResolvedDataset], Found], ...] = (
    _few_classes,
    _unlike_classes,
    _batch_of_one,
    _one_view,
)
