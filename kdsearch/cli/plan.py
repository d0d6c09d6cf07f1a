"""`plan`: what a study will cost, before anything is trained."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from kdsearch.agenda import (
    Counts,
    Kind,
    Simulated,
    Simulation,
    StudentTraining,
    cached_bytes,
    case_counts,
    checkpoint_models,
    kinds_of,
    per_token,
)
from kdsearch.api import open_folder
from kdsearch.cli.options import Json, Models, console, count, example, parse_models
from kdsearch.driver import duration
from kdsearch.errors import InputError
from kdsearch.search import Bounds, Checkpoint, Inner
from kdsearch.study import (
    Resolved,
    Role,
    Study,
    TestCase,
    cache_bytes,
    effective_settings,
    known_rows,
    label_count,
    load_study,
    nested_epochs,
    output_rows_per_row,
    readable_size,
    search_of,
    task_of,
    test_cases,
)

Durations = Mapping[TestCase, Mapping[Role, float]]
_TRAINING_STATE = 5
"""The weights, Adam's two moments, and those of the best epoch and of the one of lowest loss."""


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
            min=0.001, help="Training examples per second of a student on one slot, e.g. a GPU."
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Seconds that one student takes. Default for a folder: its mean."
        ),
    ] = None,
    slots: Annotated[int, typer.Option(min=1, help="Trainings that run at once.")] = 1,
    model: Models = None,
    as_json: Json = False,
) -> None:
    """Count the trainings of each test case: the fewest and the most. Trains and reads nothing."""
    if speed is not None and seconds is not None:
        raise InputError.one("--seconds", "does not go with --speed", "give only one of them")
    resolved, teacher_bytes, largest = None, None, None
    took: Durations = {}
    if study_file.is_dir():
        _, agenda = open_folder(study_file)
        resolved = agenda.resolved
        study = resolved.study
        outcomes = [o for o in agenda.results.values() if o is not None]
        students = [o for o in outcomes if isinstance(o.training, StudentTraining)]
        if speed is None and seconds is None and students:
            took = agenda.durations()
        largest = max((o.model_bytes or 0 for o in outcomes), default=None)
        teacher_bytes = sum(o.cost.bytes_written for o in outcomes if o.training.kind == "teacher")
    else:
        study = load_study(study_file, models=parse_models(model))
    counts = [case_counts(study, case) for case in test_cases(study)]
    took = took or _durations(study, resolved, speed, seconds)
    facts = _facts(study, resolved, counts, took, slots) | {
        "speed": speed,
        "simulated": _simulated(study, took, slots) if took else None,
        "checkpoint_bytes": teacher_bytes,
        "training_state_bytes": largest and largest * _TRAINING_STATE * slots,
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
    else:
        _show(study, facts)


def _facts(
    study: Study,
    resolved: Resolved | None,
    counts: list[Counts],
    took: Durations,
    slots: int,
) -> dict[str, Any]:
    fewest, sharing = _shared(study, counts)
    students = Bounds(fewest=fewest, most=sum(c.students.most for c in counts))
    taught = [c for c in counts if c.case.teacher is not None]
    shared = list({(c.case.dataset, c.case.teacher): c for c in taught}.values())
    cases: list[dict[str, Any]] = []
    for c in counts:
        cases.append(
            {
                "case": str(c.case),
                "students": _range(c.students),
                "nested_epochs": nested_epochs(study, c.case),
                **_other_inner(study, c.case),
                "seconds": _range(c.students, took[c.case]["student"]) if took else None,
            }
        )
    times = [case["seconds"] for case in cases]
    return {
        "name": study.name,
        "cases": cases,
        "teachers": sum(c.teachers for c in shared),
        "outputs": _range(sum((c.outputs for c in shared), Bounds(fewest=0, most=0))),
        "caches": [_cache(study, resolved, c) for c in shared],
        "students": _range(students),
        "sharing": sharing,
        "slots": slots,
        "slot_seconds": None
        if None in times
        else {end: sum(t[end] for t in times) for end in ("fewest", "most")},
    }


def _shared(study: Study, counts: list[Counts]) -> tuple[int, bool]:
    """The fewest students of all, and whether any searches may share some.

    Those of one student, taught by the same, share what trainings they have in common; they have
    none unless they have an objective in common.
    """
    fewest, sharing = 0, False
    groups: dict[tuple[str, str | None, str], list[tuple[set[str], int]]] = {}
    for c in counts:
        kinds, least = {*search_of(study, c.case).distance}, c.students.fewest
        group = groups.setdefault((c.case.dataset, c.case.teacher, c.case.student), [])
        for other in [each for each in group if each[0] & kinds]:
            group.remove(other)
            kinds, least, sharing = kinds | other[0], max(least, other[1]), True
        group.append((kinds, least))
    for group in groups.values():
        fewest += sum(least for _, least in group)
    return fewest, sharing


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


def _durations(
    study: Study, resolved: Resolved | None, speed: float | None, seconds: float | None
) -> Durations:
    """What each case's trainings take by --speed or --seconds; nothing where they do not tell.

    Teachers and their outputs are taken to be slower by as many weights as they pass.
    """
    found: dict[TestCase, dict[Role, float]] = {}
    for case in test_cases(study):
        took = _seconds_of_student(study, resolved, case, speed, seconds)
        if took is None:
            return {}
        kinds = kinds_of(study, case, case.dataset)
        weights = {role: per_token(study, case, kind) for role, kind in kinds.items()}
        found[case] = {role: took * weights[role] / weights["student"] for role in kinds}
    return found


def _simulated(study: Study, took: Durations, slots: int) -> dict[str, Any]:
    """What comes of the study on so many slots, and on slots without end."""
    kinds = {case: kinds_of(study, case, case.dataset) for case in took}
    seconds: dict[Kind, float] = {}
    for case, roles in kinds.items():
        for role, kind in roles.items():  # a teacher that cases share: by their largest student
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


def _seconds_of_student(
    study: Study,
    resolved: Resolved | None,
    case: TestCase,
    speed: float | None,
    seconds: float | None,
) -> float | None:
    """What a student of a case takes to train; None where nothing says it."""
    rows = _train_rows(study, resolved, case)
    if speed is None or rows is None:
        return seconds
    return rows * effective_settings(study, case, "student").epochs / speed


def _train_rows(study: Study, resolved: Resolved | None, case: TestCase) -> int | None:
    if resolved is not None:
        return resolved.datasets[case.dataset].splits["train"].rows
    rows = known_rows(case.dataset, study.datasets[case.dataset])
    return rows["train"] if rows else None


def _cache(study: Study, resolved: Resolved | None, counts: Counts) -> dict[str, Any]:
    """A teacher's trainings on a data set, and its outputs that are kept."""
    case = counts.case
    dataset, teacher = study.datasets[case.dataset], study.teachers[case.taught]
    per_row = output_rows_per_row(case.dataset, dataset)
    taken: int | None = None
    if resolved is not None:
        taken = cached_bytes(resolved, case)
    elif (rows := known_rows(case.dataset, dataset)) is not None and per_row is not None:
        every, names = sum(rows.values()), checkpoint_models(study, teacher)
        task, labels = task_of(case.dataset, dataset), label_count(case.dataset, dataset)
        settings = effective_settings(study, case, "outputs")
        models = (study.models[name] for name in names)
        taken = sum(cache_bytes(settings, task, each, every * per_row, labels) for each in models)
    return {
        "dataset": case.dataset,
        "teacher": case.teacher,
        "trainings": counts.teachers,
        "passes": _range(counts.outputs),
        "train_rows": _train_rows(study, resolved, case),
        "bytes": taken,
    }


def _range(bounds: Bounds, factor: float = 1) -> dict[str, Any]:
    return {"fewest": bounds.fewest * factor, "most": bounds.most * factor}


def _show(study: Study, facts: Mapping[str, Any]) -> None:
    out = console()
    out.print(_students_table(study, facts))
    if facts["caches"]:
        out.print(_teachers_table(facts))
    out.print(f"students in all: {_words(facts['students'])}")
    if facts["sharing"]:
        out.print("  (the most: a training that searches share is counted for each of them)")
    if further := len(study.further_seeds):
        out.print(
            f"  (including what each test case chose, under {count(further, 'further seed')})"
        )
    nested = [case["nested_epochs"] for case in facts["cases"] if case["nested_epochs"]]
    if nested:
        out.print(
            f"  (at a constant rate, one training covers all of its epochs; otherwise up to "
            f"{max(map(len, nested))} times as many)"
        )
    out.print(f"teachers to fine-tune: {facts['teachers']}, shared by the cases of a data set")
    out.print(f"passes of teachers over a split: {_words(facts['outputs'])}")
    lowest = Checkpoint.LOWEST_LOSS.value
    asked = any(lowest in (each.teacher or ()) for each in study.every_search.values())
    if asked and facts["teachers"]:
        out.print("  (the fewest if a teacher's two checkpoints turn out to be the same)")
    unknown = [cache["dataset"] for cache in facts["caches"] if cache["train_rows"] is None]
    if facts["slot_seconds"] is None and facts["speed"] is not None:
        names = ", ".join(dict.fromkeys(unknown))
        out.print(
            f"time: the rows of {names} are not known until they are read; give --seconds instead"
        )
    elif facts["slot_seconds"] is None:
        out.print(
            "time: give --speed, the training examples per second of a student, "
            "or --seconds, how long one takes"
        )
    else:
        slots = facts["slots"]
        out.print(
            f"time: {_span(facts['slot_seconds'], slots)} for the students on "
            f"{count(slots, 'slot')} if none is ever idle, {_hours(facts['slot_seconds'])} slot "
            "hours in all; the teachers' time comes on top"
        )
        out.print(_simulated_words(facts["simulated"], slots))
    sizes = [cache["bytes"] for cache in facts["caches"]]
    known = (
        "not known until the data is read"
        if None in sizes
        else f"about {readable_size(sum(sizes))}"
    )
    out.print(f"disk: teachers' outputs {known}; {_checkpoint_words(facts)}")
    out.print(
        f"  and while it runs, for each of {count(facts['slots'], 'slot')}, up to "
        f"{_TRAINING_STATE} times its model in full precision: what a training resumes from after "
        "a crash" + _state_words(facts)
    )


def _simulated_words(simulated: Mapping[str, Any], slots: int) -> str:
    path = simulated["longest_path_seconds"]
    enough = math.ceil(simulated["slot_seconds"] / path)
    return (
        f"simulated, with teachers and made-up scores: {duration(simulated['seconds'])} on "
        f"{count(slots, 'slot')}, which are busy {simulated['utilisation']:.0%} of that time; "
        f"at least {duration(path)}, with {count(enough, 'slot')} or more"
    )


def _students_table(study: Study, facts: Mapping[str, Any]) -> Table:
    inner = {row["inner"] for row in facts["cases"] if "inner" in row}
    title = f"Students of {study.name}, fewest to most"
    if len(inner) == 1:
        title += f"; its inner tuning is {next(iter(inner))}"
    table = Table(title=title, box=None)
    table.add_column("test case", overflow="fold")
    columns = sorted(inner, reverse=True) or ["students"]
    first = columns[0] if len(columns) == 1 else "students"
    table.add_column(first, justify="right")
    others = {"joint": "coordinate", "coordinate": "joint"}
    compared = others.get(first)
    if compared:
        table.add_column(compared, justify="right")
    timed = any(row["seconds"] for row in facts["cases"])
    if timed:
        table.add_column("slot hours", justify="right")
    for row in facts["cases"]:
        cells = [row["case"], _words(row["students"])]
        if compared:
            other = row.get(f"students_{compared}")
            cells.append(_words(other) if other else "–")
        if timed:
            cells.append(_hours(row["seconds"]) if row["seconds"] else "?")
        table.add_row(*cells)
    return table


def _teachers_table(facts: Mapping[str, Any]) -> Table:
    table = Table(title="Teachers", box=None)
    table.add_column("data set / teacher", overflow="fold")
    for column in ("trainings", "passes", "training rows", "outputs kept"):
        table.add_column(column, justify="right")
    for row in facts["caches"]:
        table.add_row(
            f"{row['dataset']}/{row['teacher']}",
            str(row["trainings"]),
            _words(row["passes"]),
            "?" if row["train_rows"] is None else f"{row['train_rows']:,}",
            "?" if row["bytes"] is None else readable_size(row["bytes"]),
        )
    return table


def _checkpoint_words(facts: Mapping[str, Any]) -> str:
    if facts["checkpoint_bytes"]:
        return f"checkpoints {readable_size(facts['checkpoint_bytes'])} so far"
    return "up to two checkpoints per teacher training, each of the model's size"


def _state_words(facts: Mapping[str, Any]) -> str:
    taken = facts["training_state_bytes"]
    return f" ({readable_size(taken)} in all)" if taken else ""


def _hours(seconds: Mapping[str, float]) -> str:
    low, high = (
        f"{hours:,.0f}" if (hours := seconds[end] / 3600) >= 10 else f"{hours:.2g}"
        for end in ("fewest", "most")
    )
    return low if low == high else f"{low} to {high}"


def _span(seconds: Mapping[str, float], slots: int) -> str:
    low, high = (duration(seconds[end] / slots) for end in ("fewest", "most"))
    return low if low == high else f"{low} to {high}"


def _words(bounds: Mapping[str, int]) -> str:
    low, high = bounds["fewest"], bounds["most"]
    return str(low) if low == high else f"{low} to {high}"
