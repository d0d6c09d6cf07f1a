"""Looking at a study's rows and models before anything is trained, once while nothing changes."""

from __future__ import annotations

import os
from collections.abc import Callable

from kdsearch.ledger import Ledger
from kdsearch.study import (
    Doubt,
    Preflight,
    Resolved,
    TestCases,
    preflight_digest,
    test_cases,
)

Look = Callable[[Resolved, Ledger, str, str], Preflight]
"""Of a study, the ledger with its rows, the study's file and the digest to put in the result; see
`kdsearch.distill.preflight`."""


def preflight_once(
    resolved: Resolved,
    ledger: Ledger,
    *,
    place: str,
    look: Look,
    say: Callable[[str], None] = lambda line: None,
) -> Preflight:
    """What is kept in the ledger of the study just so, else what `look` finds, which is kept.

    A model whose folder is gone is not looked at: a study that is going on may be done with it.
    Raises `InputError` with what `look` finds wrong.
    """
    kept = ledger.preflight()
    lost = _lost(resolved)
    there = _without(resolved, lost)
    digest = preflight_digest(there)
    if kept and kept.digest in (digest, preflight_digest(resolved)):
        return kept
    say("checking the data and the models…")
    found = look(there, ledger, place, digest)
    gone = (
        Doubt(
            place=f"{place}: models.{name}",
            what=f"{resolved.models[name].path} is gone, so it was not checked",
        )
        for name in lost
    )
    found = found.model_copy(update={"doubts": (*gone, *found.doubts)})
    ledger.write_preflight(found)
    return found


def present(resolved: Resolved) -> Resolved:
    """The study without the models whose folders are gone, and without all that names them."""
    return _without(resolved, _lost(resolved))


def _lost(resolved: Resolved) -> list[str]:
    paths = {name: model.path for name, model in resolved.models.items()}
    return [name for name, path in paths.items() if path is not None and not os.path.isdir(path)]


def _without(resolved: Resolved, lost: list[str]) -> Resolved:
    """The study without these models, and without all that names them."""
    if not lost:
        return resolved
    study = resolved.study
    models = {
        name: model
        for name, model in study.models.items()
        if name not in lost and (model.config is None or model.tokenizer not in lost)
    }
    teachers = {
        name: teacher
        for name, teacher in study.teachers.items()
        if {*filter(None, [teacher.model]), *teacher.given.values()} <= models.keys()
    }
    students = {name: each for name, each in study.students.items() if each.model in models}
    cases = tuple(
        TestCases(
            dataset=(case.dataset,),
            teacher=case.teacher and (case.teacher,),
            student=(case.student,),
            search=case.search and (case.search,),
        )
        for case in test_cases(study)
        if case.teacher in (None, *teachers) and case.student in students
    )
    changed = {"models": models, "teachers": teachers, "students": students, "test_cases": cases}
    return resolved.model_copy(
        update={
            "study": study.model_copy(update=changed),
            "models": {name: resolved.models[name] for name in models},
        }
    )
