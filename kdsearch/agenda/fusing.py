"""Which trainings may run in one pass, and how many of those that could start go to a slot."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from kdsearch.agenda.training import StudentTraining, Training
from kdsearch.agenda.view import Request
from kdsearch.study import SPECS, Resolved, Role, TrainingSettings

Bundle = tuple[Request, ...]
"""Trainings that a slot is given at once, the most urgent first: one, or several that are alike."""
MAY_DIFFER = frozenset({"teaching", "objective", "learning_rate"})
"""The fields of a student in which those of one pass may differ; in all others they are equal."""


def alike(training: Training) -> str | None:
    """What is equal of trainings that may run in one pass; None of one that must run alone.

    Teachers and their outputs run alone, and so do students of a wide vocabulary, whose steps are
    arithmetic, those under fp16, whose loss is scaled by what its own gradients are, those with
    terms, which look into the model, those with adapters, and those that are to take less memory.
    """
    if not isinstance(training, StudentTraining) or runs_alone(training.settings):
        return None
    if SPECS[training.data.task].width is None:
        return None
    if training.teaching is not None and training.teaching.signals:
        return None
    common = training.model_dump(mode="json", exclude=set(MAY_DIFFER))
    taught = training.teaching is not None
    pairs = training.teaching is not None and training.teaching.weak is not None
    return json.dumps([common, taught, pairs], sort_keys=True)


def runs_alone(settings: TrainingSettings) -> bool:
    """Whether no student of such settings may run in one pass with others."""
    adapted = settings.lora is not None
    return settings.precision == "fp16" or adapted or settings.gradient_checkpointing


def most_fused(resolved: Resolved) -> dict[tuple[str, str], int]:
    """How many run in one pass, by student and data set, where that is more than one.

    Nothing while what the study file asks for was not measured.
    """
    fused = resolved.fused
    if fused is None or fused.asked != resolved.study.resources.fuse:
        return {}
    return {
        (student, dataset): most
        for student, datasets in fused.most.items()
        for dataset, most in datasets.items()
        if most > 1
    }


class Bundling:
    """Makes bundles of the trainings of a study that could start.

    A bundle holds no more than its slot's share of all that runs and could start. So no slot waits
    while another has several: a pass of several takes longer than one training, if not so long as
    all of them. What has failed before runs alone.
    """

    def __init__(self, resolved: Resolved, failed: Collection[str]) -> None:
        """`failed` are the keys of the trainings that have failed before; it may grow."""
        self._failed = failed
        self._most = most_fused(resolved)
        self._alike: dict[str, str | None] = {}

    def __bool__(self) -> bool:
        """Whether there is any student of which several may run in one pass."""
        return bool(self._most)

    def take(self, first: Request, others: Iterable[Request], share: int) -> Bundle:
        """A training, and some of the less urgent `others`, the most urgent first."""
        group = self._group(first)
        if group is None:
            return (first,)
        alike = (other for other in others if self._group(other) == group)
        return (first, *islice(alike, self._size(first, share) - 1))

    def roles(self, ready: Iterable[Request], share: int) -> Iterator[Role]:
        """The role of each bundle that comes of `ready`; the most urgent first, as they are."""
        seen: Counter[str] = Counter()
        for request in ready:
            group = self._group(request)
            if group is None or seen[group] % self._size(request, share) == 0:
                yield request.role
            if group is not None:
                seen[group] += 1

    def _size(self, request: Request, share: int) -> int:
        case = request.case
        return max(1, min(self._most.get((case.student, case.dataset), 1), share))

    def _group(self, request: Request) -> str | None:
        """What is equal of those that may be in one bundle; None of one that is alone in its."""
        key = request.training.key
        if self._size(request, 2) == 1 or key in self._failed:
            return None
        if key not in self._alike:
            self._alike[key] = alike(request.training)
        return self._alike[key]


def share_of(trainings: int, slots: int) -> int:
    """How many of so many trainings a slot has, where they are shared out evenly."""
    return math.ceil(trainings / max(1, slots))
