"""`plan`: what a study will cost, before anything is trained."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer

from kdsearch.agenda import (
    Agenda,
    Counts,
    Job,
    Kind,
    Simulated,
    Simulation,
    StudentTraining,
    case_counts,
    guessed_seconds,
    kinds_of,
    sharing,
    students_of,
)
from kdsearch.api import open_folder
from kdsearch.cli.options import Json, Models, example, parse_models
from kdsearch.cli.parts import parts_facts
from kdsearch.cli.plan_teachers import (
    Durations,
    Range,
    as_range,
    folders_of,
    rows_of,
    teachers_facts,
)
from kdsearch.cli.planning import TRAINING_STATE, named_epochs, print_plan
from kdsearch.driver import fused_words
from kdsearch.errors import InputError
from kdsearch.search import (
    Bounds,
    Inner,
)
from kdsearch.study import (
    MOST_SIZE,
    SPECS,
    Resolved,
    Study,
    TestCase,
    image_products,
    known_image_size,
    load_study,
    nested_epochs,
    pixel_bytes,
    search_of,
    shape_of,
    task_of,
    test_cases,
)


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=example("kdsearch plan search_spaces/mrpc.yaml --speed 100 --slots 8"))(plan)


def plan(
    study_file: Annotated[
        Path,
        typer.Argument(metavar="STUDY", help="A study file, or the folder of a study that ran."),
    ],
    speed: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Training examples per second on one slot, e.g. a GPU, of the first test case's "
            "student. What else is trained follows from its size.",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Seconds that a student of the first test case takes, in place of --speed. "
            "Default for a folder: what its trainings took.",
        ),
    ] = None,
    slots: Annotated[int, typer.Option(min=1, help="Trainings that run at once.")] = 1,
    model: Models = None,
    as_json: Json = False,
) -> None:
    """Count the trainings of each test case, and their hours. Trains nothing, reads no data."""
    if speed is not None and seconds is not None:
        raise InputError.one("--seconds", "does not go with --speed", "give only one of them")
    known = _Known()
    if study_file.is_dir():
        _, agenda = open_folder(study_file)
        study, known = agenda.resolved.study, _known(agenda)
    else:
        study = load_study(study_file, models=parse_models(model))
    resolved, took = known.resolved, known.took
    counts = [case_counts(study, case) for case in test_cases(study)]
    rows = {case.dataset: rows_of(study, resolved, case) for case in test_cases(study)}
    folders = folders_of(study, resolved)
    guessed = speed is not None or seconds is not None
    if guessed:
        took = guessed_seconds(study, rows, folders, speed=speed, seconds=seconds)
    facts = _facts(study, resolved, counts, took) | {
        "slots": slots,
        "fused": fused_words(resolved) if resolved else "",
        "speed": speed,
        "measured": bool(took) and not guessed,
        "reference": str(counts[0].case),
        "rows_unknown": [name for name, known in rows.items() if known is None],
        "sizes_unknown": _unsized(study, folders),
        "images": _images(study, resolved, rows),
        "simulated": _simulated(study, took, slots) if took else None,
        "checkpoint_bytes": known.teacher_bytes,
        "training_state_bytes": known.largest
        and known.largest * (TRAINING_STATE + named_epochs(study)) * slots,
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
    else:
        print_plan(study, facts)


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What the folder of a study knows; nothing of a study file."""

    resolved: Resolved | None = None
    took: Durations = field(default_factory=dict)
    """Measured, once a student has been trained."""
    teacher_bytes: int | None = None
    """Of all checkpoints."""
    largest: int | None = None
    """The bytes of the largest model."""


def _known(agenda: Agenda) -> _Known:
    outcomes = [outcome for outcome in agenda.results.values() if outcome is not None]
    trained = any(isinstance(outcome.training, StudentTraining) for outcome in outcomes)
    teachers = [outcome for outcome in outcomes if outcome.training.kind == "teacher"]
    return _Known(
        resolved=agenda.resolved,
        took=agenda.durations() if trained else {},
        teacher_bytes=sum(outcome.cost.bytes_written for outcome in teachers),
        largest=max((outcome.model_bytes or 0 for outcome in outcomes), default=None),
    )


def _facts(
    study: Study, resolved: Resolved | None, counts: list[Counts], took: Durations
) -> dict[str, Any]:
    by_case = {c.case: c for c in counts}
    groups = sharing(study, tuple(by_case))
    of_teachers = teachers_facts(study, resolved, counts, took)
    shared = [each for each, _ in of_teachers.values()]
    caches = [row for _, row in of_teachers.values()]
    cases = [_case(study, c, took) for c in counts]
    students: Range | None = None
    teachers: Range | None = None
    if took:
        least = (
            max(by_case[case].students.fewest * took[case]["student"] for case in group)
            for group in groups
        )
        students = {"fewest": sum(least), "most": sum(case["seconds"]["most"] for case in cases)}
        teachers = {end: sum(each["seconds"][end] for each in caches) for end in students}
    return {
        "name": study.name,
        "cases": cases,
        "teachers": sum(c.teachers for c in shared),
        "outputs": as_range(sum((c.outputs for c in shared), Bounds(fewest=0, most=0))),
        "sequences": as_range(sum((c.sequences for c in shared), Bounds(fewest=0, most=0))),
        "caches": caches,
        "parts": parts_facts(study, cases, dict(zip(of_teachers, caches, strict=True))),
        "students": {
            "fewest": sum(max(by_case[c].students.fewest for c in group) for group in groups),
            "most": sum(c.students.most for c in counts),
        },
        "grid": sum(c.grid for c in counts),
        "sharing": len(groups) < len(counts),
        "student_seconds": students,
        "teacher_seconds": teachers,
        "slot_seconds": students
        and teachers
        and {end: students[end] + teachers[end] for end in students},
    }


def _case(study: Study, counts: Counts, took: Durations) -> dict[str, Any]:
    each = took[counts.case]["student"] if took else None
    return {
        "case": str(counts.case),
        "students": as_range(counts.students),
        "grid": counts.grid,
        "nested_epochs": nested_epochs(study, counts.case),
        **_other_inner(study, counts.case),
        "seconds_each": each,
        "seconds": None if each is None else as_range(counts.students, each),
    }


def _other_inner(study: Study, case: TestCase) -> dict[str, Any]:
    """The inner tuning of a greedy search, and the students that the other one takes."""
    search = search_of(study, case)
    if not search.flips:
        return {"strategy": search.strategy}
    other = Inner.COORDINATE if search.inner == "joint" else Inner.JOINT
    students = as_range(case_counts(study, case, other).students)
    return {
        "strategy": search.strategy,
        "inner": search.inner,
        f"students_{other.value}": students,
    }


def _simulated(study: Study, took: Durations, slots: int) -> dict[str, Any]:
    """What comes of the study on so many slots, and on slots without end."""
    kinds = {case: kinds_of(study, case, case.dataset) for case in took}
    seconds: dict[Kind, float] = {}
    for case, roles in kinds.items():
        for role, kind in roles.items():  # a model that cases train with other settings: the least
            alike = students_of(study, case, kind) if role == "student" else (kind,)
            mean = fmean(each.epochs for each in alike)
            for each in alike:
                one = took[case][role] * (each.epochs / mean if mean else 1)
                seconds[each] = min(one, seconds.get(each, math.inf))

    def lasts(job: Job) -> float:  # a view is passed as a split is
        return seconds[job.kind._replace(views=1)] * job.passes

    def run(slots: int) -> Simulated:
        return Simulation(study, slots, lasts, seconds).run()

    found, path = run(slots), run(sys.maxsize)
    return {
        "trainings": found.trainings,
        "slot_seconds": found.busy,
        "seconds": found.makespan,
        "utilisation": found.utilisation,
        "longest_path_seconds": path.makespan,
    }


def _images(
    study: Study, resolved: Resolved | None, rows: Mapping[str, Mapping[str, int] | None]
) -> list[dict[str, Any]]:
    """The pixels of each data set of images; None where it must be read to know that."""
    found = []
    for name, counts in rows.items():
        dataset = study.datasets[name]
        if SPECS[task_of(name, dataset)].reads != "pixels":
            continue
        size = resolved.datasets[name].image_size if resolved else known_image_size(name, dataset)
        count = sum(counts.values()) if counts else None
        taken = None if count is None or size is None else pixel_bytes(size, count)
        found.append({"dataset": name, "rows": count, "image_size": size, "bytes": taken})
    return found


def _unsized(study: Study, folders: Mapping[str, str]) -> list[str]:
    """The models of the test cases whose size only the Hub could say."""
    used = {
        kind.model: SPECS[task_of(case.dataset, study.datasets[case.dataset])].reads
        for case in test_cases(study)
        for kind in kinds_of(study, case, case.dataset).values()
    }

    def sized(name: str) -> bool:
        model, folder = study.models[name], folders.get(name)
        if used[name] == "pixels":
            return image_products(model, MOST_SIZE, folder) is not None
        return shape_of(model, folder) is not None

    return [name for name in study.models if name in used and not sized(name)]
