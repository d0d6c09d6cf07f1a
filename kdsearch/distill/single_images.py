"""Batches of one image, of which a model that normalises by batches cannot learn."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from kdsearch.distill.check import config_of, settings_for
from kdsearch.distill.consent import trusts
from kdsearch.distill.image_check import failure
from kdsearch.errors import Problem
from kdsearch.study import (
    Resolved,
    ResolvedDataset,
    Role,
    Study,
    TestCase,
    place_of,
    setting_axes,
    source_of,
    space_of,
    start_cases,
    teacher_of,
    test_cases,
)
from kdsearch.tasks import TASKS

_ONE = "more than 1 value per channel"
"""What torch says where there is nothing to normalise a batch by."""


def single_image_problems(resolved: Resolved, place: str) -> list[Problem]:
    """Batches of one in a study, read from the file `place`, whose models can be built."""
    return [*dict.fromkeys(_problems(resolved, place))]


def _problems(resolved: Resolved, place: str) -> Iterator[Problem]:
    for case, role, name in _learners(resolved.study):
        data = resolved.datasets[case.dataset]
        if data.image_size is None:
            continue
        axes = setting_axes(space_of(resolved.study, case)) if role == "student" else {}
        axis = axes.get("batch_size", ())
        sizes = axis or (settings_for(resolved, case, role).batch_size,)
        train = data.splits["train"]
        taught = role == "student" and case.teacher is not None
        rows = train.rows if taught else train.rows - train.unlabelled
        alone = [int(size) for size in sizes if size == 1 or rows % int(size) == 1]
        if not alone or not _needs_two(resolved, name, data):
            continue
        where = source_of(resolved.study, case, role, "batch_size")
        where = f"{place_of(case)}.batch_size" if axis else where
        which = "each" if min(alone) == 1 else "the last"
        what = (
            f"at a batch_size of {min(alone)} {which} batch of {case.dataset} holds one of its "
            f"{rows:,} images, and {name} normalises by batches: one image is none"
        )
        remedy = f"take another, or leave a row out: datasets.{case.dataset}.limit.train"
        yield Problem(place=f"{place}: {where}", what=what, remedy=remedy)


def _learners(study: Study) -> Iterator[tuple[TestCase, Role, str]]:
    """The models that learn, each with its test case."""
    for case in test_cases(study):
        yield case, "student", study.students[case.student].model
    for case in (*test_cases(study), *start_cases(study)):
        teacher = teacher_of(study, case)
        if teacher is not None and teacher.model is not None:
            yield case, "teacher", teacher.model


def _needs_two(resolved: Resolved, name: str, data: ResolvedDataset) -> bool:
    """Whether a model cannot learn from one image of a data set."""
    with torch.device("meta"):
        kind = TASKS[data.task].head
        model = kind.from_config(config_of(resolved, name), trust_remote_code=trusts(name))
    error = failure(model.train(), data.image_size or 0, images=1)
    return error is not None and _ONE in error
