"""How long trainings take: learnt from those that ended, before that guessed from their size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

from kdsearch.agenda.training import (
    OutputsTraining,
    SequencesTraining,
    StudentTraining,
    TeacherTraining,
    Training,
)
from kdsearch.study import (
    BASE,
    EPOCHS,
    MOST_SIZE,
    ROLES,
    SPECS,
    SPLITS,
    Resolved,
    Role,
    Study,
    TestCase,
    effective_settings,
    image_products,
    known_image_size,
    passed_weights,
    setting_axes,
    shape_of,
    space_of,
    start_cases,
    start_of,
    task_of,
    teacher_of,
    test_cases,
    unknown_products,
)

_FORWARD = 1 / 3
"""What a forward pass takes of a step, which has a backward pass too."""
_WRITING = 10 * _FORWARD
"""The same of writing a text, a token at a time: a guess until the first has ended."""
_HEADS: dict[Role, float] = {"teacher": 1, "outputs": 0, "sequences": 1, "student": 1 + _FORWARD}
"""How many steps' worth the output layers of a wide vocabulary take beside each step: a student's
logits are computed beside its teacher's (see `distill/wide.py`)."""
Folders = Mapping[str, str]
"""Where models lie, by their names."""
NOWHERE: Folders = {}
Rows = Mapping[str, Mapping[str, int] | None]
"""How many rows the splits of each data set have; None where they are not known."""


class Kind(NamedTuple):
    """Trainings that take about equally long: they differ in rates, temperatures and seeds."""

    role: Role
    data: str
    """The digest of the training rows."""
    model: str
    layers: int | str | None
    epochs: int = 0
    """0 of a pass over a split."""
    views: int = 1
    """Of outputs: on how many views of the training split."""


def kind_of(training: Training) -> Kind:
    """A student's kind is that of the same student without a teacher."""
    data = training.data.train
    match training:
        case TeacherTraining(model=model, settings=settings):
            return Kind("teacher", data, model.name, model.layers, settings.epochs)
        case OutputsTraining(settings=settings, checkpoint=checkpoint) if settings.augmentation:
            own, views = checkpoint.model, settings.augmentation.views
            return Kind("outputs", data, own.name, own.layers, views=views)
        case OutputsTraining(checkpoint=checkpoint) | SequencesTraining(checkpoint=checkpoint):
            return Kind(training.kind, data, checkpoint.model.name, checkpoint.model.layers)
        case StudentTraining(model=model, settings=settings):
            return Kind("student", data, model.name, model.layers, settings.epochs)


def kinds_of(study: Study, case: TestCase, data: str) -> dict[Role, Kind]:
    """What a test case trains, on the training rows of this digest.

    Where its students differ in their epochs, theirs is the kind of the first of `epochs_of`.
    """
    teacher, student = teacher_of(study, case), study.students[case.student]
    epochs = epochs_of(study, case)[0]
    own = Kind("student", data, student.model, student.layers, epochs)
    found: dict[Role, Kind] = {"student": own}
    start = start_of(study, case)
    if teacher is None and start is not None:
        return {**kinds_of(study, start, data), **found}
    if teacher is not None:
        # Two given checkpoints are about equally large.
        model = teacher.model or next(iter(teacher.given.values()), student.model)
        layers = student.layers if teacher.student_of else teacher.layers
        epochs = effective_settings(study, case, "teacher").epochs
        found["teacher"] = Kind("teacher", data, model, layers, epochs)
        found["outputs"] = Kind("outputs", data, model, layers)
        found["sequences"] = Kind("sequences", data, model, layers)
    return found


def epochs_of(study: Study, case: TestCase) -> tuple[int, ...]:
    """For how many epochs a case's students are trained; several where that is an axis."""
    axes = setting_axes(space_of(study, case))
    every: tuple[Any, ...] = axes.get(EPOCHS) or (
        effective_settings(study, case, "student").epochs,
    )
    return every


def students_of(study: Study, case: TestCase, kind: Kind) -> tuple[Kind, ...]:
    """The kinds of a case's students that differ from `kind`, one of them, in their epochs alone.

    A grid has as many of each: what a student of the case takes is their mean.
    """
    return tuple(kind._replace(epochs=epochs) for epochs in epochs_of(study, case))


def sizes(resolved: Resolved) -> dict[Kind, float]:
    """Of every kind of the study the rows × tokens × weights that it passes."""
    study, found = resolved.study, {}
    for case in (*test_cases(study), *start_cases(study)):
        data = resolved.datasets[case.dataset]
        train = data.splits["train"]
        kinds = kinds_of(study, case, train.digest)
        cut = setting_axes(space_of(study, case)).get("layers", ())
        own = kinds["student"]
        students = (own, *(own._replace(layers=each) for each in cut))
        differing = (kind for each in students for kind in students_of(study, case, each))
        for kind in (*kinds.values(), *differing):
            found[kind] = train.rows * per_row(study, case, kind, side=data.image_size)
    return found


def per_row(
    study: Study,
    case: TestCase,
    kind: Kind,
    folders: Folders = NOWHERE,
    *,
    side: int | None = None,
) -> float:
    """The tokens of a training row × the weights that each passes in a training, in all epochs.

    Of images, of so many pixels a `side`, the multiplications that each
    takes. The configurations in `folders` are read; a model of unknown size is taken to be a base
    model.
    """
    task = task_of(case.dataset, study.datasets[case.dataset])
    settings = effective_settings(study, case, kind.role)
    passes: dict[Role, float] = {"outputs": _FORWARD, "sequences": _WRITING}
    if SPECS[task].reads == "pixels":
        side = side or known_image_size(case.dataset, study.datasets[case.dataset]) or MOST_SIZE
        products = image_products(study.models[kind.model], side, folders.get(kind.model))
        if products is None:
            products = unknown_products(side)
        return products * passes.get(kind.role, kind.epochs)
    longest = settings.for_task(task).max_length
    tokens = min(SPECS[task].tokens, longest or SPECS[task].tokens)
    shape = shape_of(study.models[kind.model], folders.get(kind.model)) or BASE
    weights = passed_weights(shape, kind.layers)
    if SPECS[task].width is None:  # half of the tokens pass the encoder, half decoder and head
        weights = (weights + _HEADS[kind.role] * shape.width * (shape.vocabulary or 0)) / 2
    return tokens * weights * passes.get(kind.role, kind.epochs)


def guessed_seconds(
    study: Study,
    rows: Rows,
    folders: Folders,
    *,
    speed: float | None = None,
    seconds: float | None = None,
) -> dict[TestCase, dict[Role, float]]:
    """What each case's trainings take, by their sizes and what a student of the first case takes.

    That one, their mean where they differ in their epochs, trains on `speed` rows per second, or is
    trained in `seconds`. A pass over a split is the mean of all splits. Empty where that needs rows
    that are not known; where `seconds` are given, all data sets are then taken to have as many.
    """
    cases = (*test_cases(study), *start_cases(study))
    if None in (rows[case.dataset] for case in cases):
        if seconds is None:
            return {}
        rows = dict.fromkeys(rows, dict.fromkeys(SPLITS, 1))

    def sizes_of(case: TestCase) -> dict[Role, float]:
        counts = rows[case.dataset] or {}
        of_split = {"outputs": fmean(counts.values())}
        found = {
            role: of_split.get(role, counts["train"]) * per_row(study, case, kind, folders)
            for role, kind in kinds_of(study, case, case.dataset).items()
        }
        epochs = epochs_of(study, case)
        return {**found, "student": found["student"] * fmean(epochs) / epochs[0]}

    first = cases[0]
    if seconds is None:
        assert speed is not None
        epochs = fmean(epochs_of(study, first))
        seconds = (rows[first.dataset] or {})["train"] * epochs / speed
    factor = seconds / sizes_of(first)["student"]
    return {case: {r: factor * size for r, size in sizes_of(case).items()} for case in cases}


@dataclass
class _Mean:
    count: int = 0
    seconds: float = 0.0
    size: float = 0.0

    def add(self, seconds: float, size: float) -> None:
        self.count += 1
        self.seconds += seconds
        self.size += size


@dataclass(frozen=True)
class Speeds:
    """The seconds of each kind of training: the mean of those that ended, else by its size.

    What a size takes is learnt from the others of its role, else from any.
    """

    sizes: Mapping[Kind, float]
    """Of outputs on views, of one view."""
    longest: dict[Role, float] = field(default_factory=lambda: dict.fromkeys(ROLES, 0.0))
    """The seconds of the longest pass of each role; 0 before the first."""
    _kinds: dict[Kind, _Mean] = field(default_factory=lambda: defaultdict(_Mean))
    _roles: dict[Role | None, _Mean] = field(default_factory=lambda: defaultdict(_Mean))

    def learn(self, kind: Kind, seconds: float, of_pass: float = 0.0) -> bool:
        """A training of this kind took so long, the pass that it was a part of perhaps longer.

        Says whether it was the first of its kind.

        One that is not of the study teaches nothing.
        """
        one = kind._replace(views=1)
        first = one in self.sizes and kind not in self._kinds
        if one in self.sizes:
            self.longest[kind.role] = max(self.longest[kind.role], seconds, of_pass)
            for mean in (self._kinds[kind], self._roles[kind.role], self._roles[None]):
                mean.add(seconds, self.sizes[one] * kind.views)
        return first

    def path(self, kinds: Mapping[Role, Kind], role: Role, rounds: int) -> float:
        """From the start of a training of this role to the end of its case.

        `rounds` of students follow one another from there, a student's own included.
        """
        lead: dict[Role, tuple[Role, ...]] = {
            "teacher": ("teacher", "outputs"),
            "outputs": ("outputs",),
            "sequences": ("sequences", "outputs"),
            "student": (),
        }
        students = rounds * self.seconds(kinds["student"])
        return students + sum(self.seconds(kinds[before]) for before in lead[role])

    def seconds(self, kind: Kind) -> float:
        """What a training of this kind takes; only in proportion before the first has ended."""
        if kind in self._kinds:
            known = self._kinds[kind]
            return known.seconds / known.count
        known = self._roles.get(kind.role) or self._roles.get(None) or _Mean(seconds=1, size=1)
        return self.sizes[kind._replace(views=1)] * kind.views * known.seconds / known.size
