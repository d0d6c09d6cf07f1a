"""`plan`: what a study will cost, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from kdsearch.agenda import Counts, StudentTraining, case_counts
from kdsearch.cli.options import Json, Models, console, example, open_folder, parse_models
from kdsearch.driver import duration
from kdsearch.search import Bounds, Checkpoint, Inner
from kdsearch.study import Study, known_rows, label_count, load_study, test_cases

_FLOAT_BYTES = 4


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(epilog=example("kdsearch plan search_spaces/mrpc.yaml --seconds 40 --slots 8"))(
        plan
    )


def plan(
    study_file: Annotated[
        Path,
        typer.Argument(metavar="STUDY", help="A study file, or the folder of a study that ran."),
    ],
    seconds: Annotated[
        float | None,
        typer.Option(min=0.001, help="What one student takes; of a folder, its mean is known."),
    ] = None,
    slots: Annotated[int, typer.Option(min=1, help="Trainings at once.")] = 1,
    model: Models = None,
    as_json: Json = False,
) -> None:
    """Count the trainings of each test case: the fewest and the most. Trains and reads nothing."""
    teacher_bytes = None
    if study_file.is_dir():
        _, agenda = open_folder(study_file)
        study = agenda.resolved.study
        outcomes = [o for o in agenda.results.values() if o is not None]
        took = [o.cost.seconds for o in outcomes if isinstance(o.training, StudentTraining)]
        seconds = seconds or (sum(took) / len(took) if took else None)
        teacher_bytes = sum(o.cost.bytes_written for o in outcomes if o.training.kind == "teacher")
    else:
        study = load_study(study_file, models=parse_models(model))
    counts = [case_counts(study, case) for case in test_cases(study)]
    facts = _facts(study, counts, seconds, slots, teacher_bytes)
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
    else:
        _show(study, counts, facts)


def _facts(
    study: Study,
    counts: list[Counts],
    seconds: float | None,
    slots: int,
    teacher_bytes: int | None,
) -> dict[str, Any]:
    students = sum((c.students for c in counts), Bounds(fewest=0, most=0))
    other = Inner.COORDINATE if study.search.inner == "joint" else Inner.JOINT
    shared = {(c.case.dataset, c.case.teacher): c for c in counts}
    return {
        "name": study.name,
        "inner": study.search.inner,
        "cases": [
            {
                "case": str(c.case),
                "students": _range(c.students),
                f"students_{other.value}": _range(case_counts(study, c.case, other).students),
            }
            for c in counts
        ],
        "teachers": sum(c.teachers for c in shared.values()),
        "outputs": _range(sum((c.outputs for c in shared.values()), Bounds(fewest=0, most=0))),
        "students": _range(students),
        "seconds_per_student": seconds,
        "slots": slots,
        "seconds": None
        if seconds is None
        else {
            "fewest": students.fewest * seconds / slots,
            "most": students.most * seconds / slots,
        },
        "outputs_bytes": _outputs_bytes(study, list(shared.values())),
        "checkpoint_bytes": teacher_bytes,
    }


def _range(bounds: Bounds) -> dict[str, int]:
    return {"fewest": bounds.fewest, "most": bounds.most}


def _outputs_bytes(study: Study, shared: list[Counts]) -> int | None:
    """The size of the cached outputs; None where a data set's size is not known yet."""
    total = 0
    for counts in shared:
        rows = known_rows(counts.case.dataset, study.datasets[counts.case.dataset])
        if rows is None:
            return None
        labels = label_count(counts.case.dataset, study.datasets[counts.case.dataset])
        checkpoints = counts.outputs.most // len(rows)
        total += checkpoints * sum(rows.values()) * labels * _FLOAT_BYTES
    return total


def _show(study: Study, counts: list[Counts], facts: Mapping[str, Any]) -> None:
    other = "coordinate" if study.search.inner == "joint" else "joint"
    table = Table("test case", title=f"Students of {study.name}, fewest to most", box=None)
    table.add_column(f"{study.search.inner} (this study)", justify="right")
    table.add_column(other, justify="right")
    for row in facts["cases"]:
        table.add_row(row["case"], _words(row["students"]), _words(row[f"students_{other}"]))
    out = console()
    out.print(table)
    out.print(f"students in all: {_words(facts['students'])}")
    out.print(f"teachers to fine-tune: {facts['teachers']}, shared by the cases of a data set")
    out.print(f"passes over a split for teachers' outputs: {_words(facts['outputs'])}")
    if Checkpoint.LOWEST_LOSS.value in study.search.teacher and facts["teachers"]:
        out.print("  (the fewest: where a teacher's two checkpoints turn out to be one)")
    if facts["seconds"] is None:
        out.print("time: give --seconds, what one student takes, and --slots, how many at once")
    else:
        low, high = (duration(facts["seconds"][end]) for end in ("fewest", "most"))
        took = low if low == high else f"{low} to {high}"
        out.print(
            f"time: {took} for the students, at {facts['seconds_per_student']:.3g} s each "
            f"on {facts['slots']} slot{'s' * (facts['slots'] != 1)}"
        )
    size = facts["outputs_bytes"]
    known = "known when the data is read" if size is None else f"about {size / 1e6:.1f} MB"
    out.print(f"disk: teachers' outputs {known}; {_checkpoint_words(facts)}")


def _checkpoint_words(facts: Mapping[str, Any]) -> str:
    if facts["checkpoint_bytes"]:
        return f"checkpoints {facts['checkpoint_bytes'] / 1e6:.0f} MB so far"
    return "up to two checkpoints per teacher training, each of the model's size"


def _words(bounds: Mapping[str, int]) -> str:
    if bounds["fewest"] == bounds["most"]:
        return str(bounds["most"])
    return f"{bounds['fewest']} to {bounds['most']}"
