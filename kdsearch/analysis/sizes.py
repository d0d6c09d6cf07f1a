"""The models of each data set by size, speed and score, and which of them no other outdoes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from kdsearch.agenda import Agenda, CaseView, TestScore
from kdsearch.analysis.cases import CaseResult
from kdsearch.analysis.speeds import ModelSpeeds, Size


class Kind(StrEnum):
    """What a model is in a study."""

    TEACHER = "teacher"
    ERM = "ERM"
    CHOSEN = "chosen"
    STABLE = "stable"


@dataclass(frozen=True, kw_only=True)
class SizedModel:
    """A model with what it takes and how well it does."""

    name: str
    """All that it is: the stable configuration may be what a case chose."""
    kind: Kind
    """The first of these."""
    size: Size
    test: TestScore
    spread: float | None
    """The standard deviation between the seeds; None of a single one."""
    on_front: bool
    """Whether no model of the data set is smaller and no worse, or better and no larger."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The models of a data set, the largest first."""

    dataset: str
    metric: str
    digits: int
    """How many decimals its scores are shown with."""
    models: tuple[SizedModel, ...]

    @property
    def device(self) -> str | None:
        """On which all speeds were timed; None without any."""
        return next((model.size.device for model in self.models if model.size.device), None)


@dataclass(frozen=True, kw_only=True)
class _Named:
    """A training that scored a model, under one name of the model."""

    key: str | None
    whose: str
    role: str
    kind: Kind
    test: TestScore | None
    spread: float | None = None


def sizes(agenda: Agenda, cases: Sequence[CaseResult], speeds: ModelSpeeds) -> tuple[Sizes, ...]:
    """Of each data set that has models whose size and test score are known."""
    by_dataset: dict[str, list[tuple[CaseView, CaseResult]]] = defaultdict(list)
    for view, case in zip(agenda.views(), cases, strict=True):
        by_dataset[case.case.dataset].append((view, case))
    found = (
        Sizes(
            dataset=dataset,
            metric=agenda.resolved.datasets[dataset].metric,
            digits=pairs[0][1].digits,
            models=_models(agenda, speeds, sorted(_named(agenda, pairs), key=_order)),
        )
        for dataset, pairs in by_dataset.items()
    )
    return tuple(each for each in found if each.models)


def front(points: Sequence[tuple[float, float]]) -> tuple[bool, ...]:
    """Which of some sizes and scores no other has outdone: the Pareto front.

    A point outdoes another if it is no larger and no worse, and one of them smaller or better.
    """
    return tuple(
        not any(
            other != point and other[0] <= point[0] and other[1] >= point[1] for other in points
        )
        for point in points
    )


def _order(named: _Named) -> int:
    return list(Kind).index(named.kind)


def _named(agenda: Agenda, pairs: Sequence[tuple[CaseView, CaseResult]]) -> Iterator[_Named]:
    """Every model of a data set's cases, under each of its names."""
    several = len({case.case.teacher for _, case in pairs} - {None}) > 1
    for view, case in pairs:
        names = case.case
        for each, outputs in zip(case.teachers, view.outputs.values(), strict=True):
            key = next(training.key for training in outputs if training.split == "test")
            yield _Named(
                key=key,
                whose=f"teacher {names.teacher}",
                role=str(each.checkpoint),
                kind=Kind.TEACHER,
                test=each.test,
            )
        whose = names.student
        if several and names.teacher is not None:
            whose += f" of {names.teacher}"
        by = "" if names.search is None else f" by {names.search}"
        kinds = {Kind.CHOSEN: case.winner, Kind.STABLE: case.stable}
        if agenda.is_erm(names):
            kinds, by = {Kind.ERM: case.winner}, ""
        for kind, found in kinds.items():
            if found is not None:
                yield _Named(
                    key=found.key,
                    whose=whose,
                    role=f"{kind}{by}",
                    kind=kind,
                    test=found.test,
                    spread=found.spread,
                )


def _models(agenda: Agenda, speeds: ModelSpeeds, named: Iterable[_Named]) -> tuple[SizedModel, ...]:
    """Each model once, whatever it is called; only with a size and a test score."""
    by_key: dict[str, list[_Named]] = defaultdict(list)
    for each in named:
        if each.key is not None:
            by_key[each.key].append(each)
    sized = []
    for key, names in by_key.items():
        first, size = names[0], speeds.size([agenda.results.get(key)])
        if size is not None and first.test is not None:
            sized.append((names, size, first.test))
    on_front = front([(size.parameters, test) for _, size, test in sized])
    models = (
        SizedModel(
            name=_name(names),
            kind=names[0].kind,
            size=size,
            test=test,
            spread=names[0].spread,
            on_front=best,
        )
        for (names, size, test), best in zip(sized, on_front, strict=True)
    )
    return tuple(sorted(models, key=lambda model: -model.size.parameters))


def _name(names: Sequence[_Named]) -> str:
    """Such as `small, chosen and stable`."""
    roles: dict[str, list[str]] = defaultdict(list)
    for each in names:
        if each.role not in roles[each.whose]:
            roles[each.whose].append(each.role)
    return "; ".join(f"{whose}, {' and '.join(found)}" for whose, found in roles.items())
