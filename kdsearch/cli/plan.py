"""`plan`: what a study will cost, before anything is trained."""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from kdsearch.agenda import (
    Agenda,
    Counts,
    Kind,
    Simulated,
    Simulation,
    StudentTraining,
    cached_bytes,
    case_counts,
    checkpoint_models,
    guessed_seconds,
    kinds_of,
    passed_units,
    passes,
    resolved_signal_bytes,
    sharing,
    signal_bytes,
)
from kdsearch.api import open_folder
from kdsearch.cli.options import Json, Models, example, parse_models
from kdsearch.cli.planning import TRAINING_STATE, named_epochs, print_plan
from kdsearch.driver import fused_words
from kdsearch.errors import InputError
from kdsearch.search import Bounds, Inner
from kdsearch.study import (
    HIDDEN,
    SAMPLED,
    SPECS,
    TOP_K,
    Resolved,
    ResolvedModel,
    Role,
    Study,
    TestCase,
    cache_bytes,
    cases_before,
    effective_settings,
    known_rows,
    label_count,
    load_study,
    nested_epochs,
    one_teacher,
    output_rows_per_row,
    row_bytes,
    search_of,
    shape_of,
    task_of,
    test_cases,
)

Durations = Mapping[TestCase, Mapping[Role, float]]
Range = dict[str, float]
"""The `fewest` and the `most`."""
_WAYS = (HIDDEN, f"{SAMPLED} 64", f"{TOP_K} 128")
"""To keep a wide teacher's outputs, with usual numbers of tokens."""


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
    rows = {case.dataset: _rows(study, resolved, case) for case in test_cases(study)}
    folders = _folders(study, resolved)
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
    of_teacher: dict[object, list[Counts]] = defaultdict(list)
    for each in counts:
        if each.case.teacher:
            of_teacher[one_teacher(study, each.case)].append(each)
    shared = [_shared(study, of_one) for of_one in of_teacher.values()]
    cases = [_case(study, c, took) for c in counts]
    caches = [_cache(study, resolved, c, took) for c in shared]
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
        "outputs": _range(sum((c.outputs for c in shared), Bounds(fewest=0, most=0))),
        "sequences": _range(sum((c.sequences for c in shared), Bounds(fewest=0, most=0))),
        "caches": caches,
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


def _shared(study: Study, counts: list[Counts]) -> Counts:
    """The counts of one of a teacher's cases on a data set, with the passes for all of them."""
    outputs, sequences = passes(study, [each.case for each in counts])
    return replace(counts[-1], outputs=outputs, sequences=sequences)


def _case(study: Study, counts: Counts, took: Durations) -> dict[str, Any]:
    each = took[counts.case]["student"] if took else None
    return {
        "case": str(counts.case),
        "students": _range(counts.students),
        "grid": counts.grid,
        "nested_epochs": nested_epochs(study, counts.case),
        **_other_inner(study, counts.case),
        "seconds_each": each,
        "seconds": None if each is None else _range(counts.students, each),
    }


def _other_inner(study: Study, case: TestCase) -> dict[str, Any]:
    """The inner tuning of a greedy search, and the students that the other one takes."""
    search = search_of(study, case)
    if not search.flips:
        return {"strategy": search.strategy}
    other = Inner.COORDINATE if search.inner == "joint" else Inner.JOINT
    students = _range(case_counts(study, case, other).students)
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
            seconds[kind] = min(took[case][role], seconds.get(kind, math.inf))

    def run(slots: int) -> Simulated:
        return Simulation(study, slots, lambda job: seconds[job.kind], seconds).run()

    found, path = run(slots), run(sys.maxsize)
    return {
        "trainings": found.trainings,
        "slot_seconds": found.busy,
        "seconds": found.makespan,
        "utilisation": found.utilisation,
        "longest_path_seconds": path.makespan,
    }


def _rows(study: Study, resolved: Resolved | None, case: TestCase) -> Mapping[str, int] | None:
    if resolved is not None:
        splits = resolved.datasets[case.dataset].splits
        return {name: split.rows for name, split in splits.items()}
    return known_rows(case.dataset, study.datasets[case.dataset])


def _folders(study: Study, resolved: Resolved | None) -> dict[str, str]:
    """Where the models lie that are in a folder."""
    found = resolved.models if resolved else {}
    paths = {
        name: found[name].path if name in found else model.path
        for name, model in study.models.items()
    }
    return {name: path for name, path in paths.items() if path is not None}


def _unsized(study: Study, folders: Mapping[str, str]) -> list[str]:
    """The models of the test cases whose size only the Hub could say."""
    used = {
        kind.model
        for case in test_cases(study)
        for kind in kinds_of(study, case, case.dataset).values()
    }
    models = study.models
    return [n for n in models if n in used and shape_of(models[n], folders.get(n)) is None]


def _cache(
    study: Study, resolved: Resolved | None, counts: Counts, took: Durations
) -> dict[str, Any]:
    """A teacher's trainings on a data set, and its outputs that are kept."""
    case = counts.case
    dataset = study.datasets[case.dataset]
    per_row = output_rows_per_row(case.dataset, dataset)
    rows = _rows(study, resolved, case)
    taken: int | None = None
    if resolved is not None:
        taken = cached_bytes(resolved, case)
    elif rows is not None and per_row is not None:
        train, names = rows["train"] * per_row, checkpoint_models(study, case)
        others = sum(rows.values()) * per_row - train
        passed_over = [*passed_units(study, case, train)]
        task, labels = task_of(case.dataset, dataset), label_count(case.dataset, dataset)
        settings = effective_settings(study, case, "outputs")
        models = (study.models[name] for name in names)
        taken = sum(
            cache_bytes(settings, task, each, some, labels, others=others)
            for each in models
            for some in passed_over
        )
    seconds = took.get(case)
    trained = counts.teachers * seconds["teacher"] if seconds else 0
    passed: Range = {}
    if seconds:
        written = _range(counts.sequences, seconds["sequences"])
        passed = _range(counts.outputs, seconds["outputs"])
        passed = {end: some + written[end] for end, some in passed.items()}
    return {
        "dataset": case.dataset,
        "teacher": case.teacher,
        **dict.fromkeys(("student", "search")),
        **({"student": case.student, "search": case.search} if cases_before(study, case) else {}),
        "trainings": counts.teachers,
        "passes": _range(counts.outputs),
        "sequences": _range(counts.sequences),
        "train_rows": rows["train"] if rows else None,
        "bytes": taken,
        **_each(study, resolved, case),
        "signals": None if rows is None else _signals(study, resolved, case, rows["train"]),
        "seconds": {end: trained + some for end, some in passed.items()} or None,
    }


def _each(study: Study, resolved: Resolved | None, case: TestCase) -> dict[str, Any]:
    """What a teacher's outputs take for each token, or row of data, and would in other `ways`.

    None where that is not known until the data is read.
    """
    dataset, settings = study.datasets[case.dataset], effective_settings(study, case, "outputs")
    task = task_of(case.dataset, dataset)
    labels, per_row = label_count(case.dataset, dataset), output_rows_per_row(case.dataset, dataset)
    name = checkpoint_models(study, case)[0]
    path = None
    if resolved is not None:
        labels = len(resolved.datasets[case.dataset].labels)
        train = resolved.datasets[case.dataset].splits["train"]
        per_row, path = train.units / train.rows, resolved.models[name].path

    def each(cache: str) -> int:
        kept = settings.model_copy(update={"cache": cache})
        return row_bytes(kept, task, study.models[name], labels, path)

    if SPECS[task].width is not None:
        known = round(each(HIDDEN) * (per_row or 0))
        return {"each": "row", "bytes_each": known or None, "cache": None, "ways": {}}
    chosen = {way.partition(" ")[0]: way for way in (*_WAYS, settings.cache)}
    return {
        "each": "token",
        "bytes_each": each(settings.cache),
        "cache": settings.cache,
        "ways": {way: each(way) for way in chosen.values()},
    }


def _signals(study: Study, resolved: Resolved | None, case: TestCase, rows: int) -> dict[str, int]:
    """The bytes of what terms compare of a teacher, by signal; before anything is read, a guess."""
    if resolved is not None:
        return resolved_signal_bytes(resolved, case)
    folders = _folders(study, None)
    shapes = {name: shape_of(model, folders.get(name)) for name, model in study.models.items()}
    models = {
        name: ResolvedModel(path=None, digest=None, labels=None, depth=shape and shape.layers)
        for name, shape in shapes.items()
    }
    task = task_of(case.dataset, study.datasets[case.dataset])
    return signal_bytes(study, models, case, task, rows, folders)


def _range(bounds: Bounds, factor: float = 1) -> Range:
    return {"fewest": bounds.fewest * factor, "most": bounds.most * factor}
