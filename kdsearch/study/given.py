"""Given teachers: whether the names of their outputs are those of their data's labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kdsearch.errors import Problem
from kdsearch.search import Checkpoint
from kdsearch.study.cases import taught_cases
from kdsearch.study.labels import spelt_as
from kdsearch.study.schema import Study, Teacher
from kdsearch.study.tags import scheme_of

if TYPE_CHECKING:
    from kdsearch.study.resolved import ResolvedDataset, ResolvedModel


def given_labels(
    teacher: Teacher, model: ResolvedModel, wanted: Sequence[str]
) -> tuple[str, ...] | None:
    """The names of a given teacher's outputs: the study's, else those of its configuration.

    In its order, and spelt as the labels of the data, `wanted`, where they differ in case alone.
    """
    names = teacher.labels or model.labels
    return names and spelt_as(names, wanted)


def labels_given(
    study: Study, dataset: str, models: Mapping[str, ResolvedModel]
) -> list[tuple[str, ...]]:
    """The names of the outputs of all given teachers of a data set, as far as they are known."""
    teachers = {case.taught for case in taught_cases(study) if case.dataset == dataset}
    found = [
        given_labels(teacher, models[model], ())
        for teacher in (study.teachers[name] for name in sorted(teachers))
        for model in teacher.given.values()
        if model in models
    ]
    return [names for names in found if names]


def label_problems(
    study: Study,
    datasets: Mapping[str, ResolvedDataset],
    models: Mapping[str, ResolvedModel],
    place: str,
) -> list[Problem]:
    """Given teachers whose outputs cannot be matched by name to the labels of their data."""
    problems = []
    for name, dataset in dict.fromkeys((case.taught, case.dataset) for case in taught_cases(study)):
        teacher, wanted = study.teachers[name], datasets[dataset].labels
        for checkpoint, model_name in teacher.given.items() if wanted else ():
            model = models[model_name]
            where = f"{place}: teachers.{name}"
            if teacher.labels and (wrong := _contradiction(teacher.labels, model.labels or ())):
                problems.append(Problem(place=f"{where}.labels", what=wrong[0], remedy=wrong[1]))
            elif wrong := _mismatch(
                given_labels(teacher, model, wanted), datasets[dataset], name, dataset
            ):
                field = f"{where}.{_field(checkpoint)}"
                problems.append(Problem(place=field, what=wrong[0], remedy=wrong[1]))
    return list(dict.fromkeys(problems))


def _field(checkpoint: Checkpoint) -> str:
    return "checkpoint" if checkpoint is Checkpoint.GIVEN else checkpoint.value


def _contradiction(labels: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, str] | None:
    """Where a study names outputs in another order than the model itself does, and how to fix it.

    A name that stands elsewhere in the model's list cannot be right in both.
    """
    for fold in (str, str.casefold):
        ours, theirs = ([fold(name) for name in names] for names in (labels, own))
        moved = [name for name in ours if name in theirs and ours.index(name) != theirs.index(name)]
        if moved and len({*theirs}) == len(theirs):
            what = f"its config.json has them in another order: {', '.join(own)}"
            remedy = "leave labels out; if the model's own names are wrong, correct its id2label"
            return what, remedy
    return None


def _mismatch(
    labels: tuple[str, ...] | None, data: ResolvedDataset, teacher: str, dataset: str
) -> tuple[str, str] | None:
    """Why a given teacher's outputs cannot be matched to the labels of its data, and the remedy."""
    wanted = data.labels
    remedy = f"name its outputs in order: teachers.{teacher}.labels"
    if labels is None:
        what = f"its configuration does not name its outputs; {dataset} has {', '.join(wanted)}"
        return what, remedy
    if sorted(labels) == sorted(wanted):
        return None
    what = f"its labels are {', '.join(labels)}; those of {dataset} are {', '.join(wanted)}"
    if data.task == "ner" and (theirs := scheme_of(labels)) not in (None, scheme_of(wanted)):
        remedy = f"its tags are {theirs}: write the data's tags that way too"
    elif {*wanted} < {*labels}:
        remedy = f"if all its given teachers have these, name them in datasets.{dataset}.labels"
    elif len(labels) != len(wanted):
        remedy = "take a teacher that was fine-tuned for these labels"
    return what, remedy
