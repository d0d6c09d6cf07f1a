"""What each part of a study costs, a part being what its blocks of test cases say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdsearch.study import Study, one_teacher, parts_of, start_of

Facts = Mapping[str, Any]


def parts_facts(
    study: Study, cases: Sequence[Facts], of_teachers: Mapping[object, Facts]
) -> list[dict[str, Any]]:
    """What each part of the study adds to those before it; none of a study without parts.

    `cases` and the values of `of_teachers` are what `plan --json` has of test cases and teachers,
    the latter by `one_teacher`. A teacher is of the first part that has it. Students that parts
    share are counted in each.
    """
    parts = parts_of(study)
    if parts.keys() <= {None}:
        return []
    rows, left = {row["case"]: row for row in cases}, dict(of_teachers)
    found = []
    for part, own in parts.items():
        starts = (start_of(study, case) for case in own)
        taught = [
            left.pop(teacher)
            for case in (*own, *starts)
            if case and case.teacher and (teacher := one_teacher(study, case)) in left
        ]
        students = [rows[str(case)] for case in own]
        seconds = [row["seconds"] for row in (*taught, *students)]
        sizes = [row["bytes"] for row in taught]
        found.append(
            {
                "part": part,
                "cases": len(own),
                "teachers": sum(row["trainings"] for row in taught),
                "passes": _summed(row["passes"] for row in taught),
                "students": _summed(row["students"] for row in students),
                "bytes": None if None in sizes else sum(sizes),
                "seconds": None if None in seconds else _summed(seconds),
            }
        )
    return found


def _summed(ranges: Iterable[Mapping[str, float]]) -> dict[str, float]:
    every = [*ranges]
    return {end: sum(each[end] for each in every) for end in ("fewest", "most")}
