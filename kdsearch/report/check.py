"""Whether a report in a study's folder is what follows from the outcomes there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import kdsearch
from kdsearch.agenda import Agenda
from kdsearch.errors import Problem, shortened_list
from kdsearch.ledger import (
    Ledger,
    UnreadableError,
    files_in,
    is_half,
    is_ours,
    layout,
    parse_json,
    read_plain,
)
from kdsearch.report.plain import FORMAT
from kdsearch.report.write import report_files

_REPORT = layout.report("json")
_DIFFERS = "not what the outcomes give: it is older, edited, or from a different kdsearch"


def check_report(
    ledger: Ledger, agenda: Agenda, *, whole: bool = True
) -> tuple[list[Problem], list[Problem]]:
    """The problems and the notes of the report's files, which there need not be.

    A decision that contradicts the outcomes is a problem. Any other difference is one where the
    report must be what this kdsearch writes: a search that is not complete goes on after its
    report was written, and what an earlier kdsearch wrote looks otherwise. So does one of a folder
    that is not `whole`, where the noise is not known.
    """
    there = {name for name in files_in(ledger.disk, ledger.folder, layout.REPORT) if is_ours(name)}
    there = {name for name in there if not is_half(name)}
    if not there:
        return [], []
    remedy = f"`kdsearch report {ledger.folder}` rewrites it"
    try:
        right = report_files(ledger, agenda)
    except PermissionError as error:
        what = f"is not compared with the outcomes, as you may not read {error.filename}"
        return [], [Problem(place=str(ledger.folder / layout.REPORT), what=what)]
    differing = _differing(ledger, right, there)
    written = _written(ledger) if _REPORT in differing else None
    wrong, earlier = _against(written, json.loads(right[_REPORT]))
    place = str(ledger.folder / _REPORT)
    if wrong:
        return [Problem(place=place, what=what, remedy=remedy) for what in wrong], []
    doubt = _doubt(agenda, written) if whole else "other files of the folder are damaged or gone"
    if doubt and differing:
        names = shortened_list([name.removeprefix(f"{layout.REPORT}/") for name in differing])
        what = f"{names}: {_DIFFERS}; it is not clear which, since {doubt}"
        return [], [Problem(place=str(ledger.folder / layout.REPORT), what=what, remedy=remedy)]
    if earlier:
        what = "is from an earlier version of the study"
        return [Problem(place=place, what=what, remedy=remedy)], []
    problems = (
        Problem(place=str(ledger.folder / name), what=what, remedy=remedy)
        for name, what in differing.items()
    )
    return list(problems), []


def _doubt(agenda: Agenda, written: Any) -> str | None:
    """Why a report need not be what this kdsearch makes of the outcomes."""
    if not agenda.complete:
        return "the search is not complete"
    began = agenda.resolved.versions.get("kdsearch", "of another version")
    if began != kdsearch.__version__:
        return f"the study was begun by kdsearch {began}"
    if isinstance(written, dict) and written.get("format") in range(1, FORMAT):
        return f"report.json has format {written['format']}, which is now {FORMAT}"
    return None


def _differing(ledger: Ledger, right: dict[str, str], there: set[str]) -> dict[str, str]:
    """What is wrong with each file that is not as it should be."""
    found = {}
    for name in sorted(right.keys() | there):
        if name not in right:
            found[name] = "is not a file of the report"
        elif name not in there:
            found[name] = "is not there, unlike other files of the report"
        else:
            try:
                if read_plain(ledger.folder / name) != right[name].encode():
                    found[name] = f"is {_DIFFERS}"
            except UnreadableError as error:
                found[name] = str(error)
            except PermissionError:
                found[name] = "you have no permission to read it"
            except OSError as error:  # such as a link to nothing
                found[name] = f"cannot be read: {error.strerror}"
    return found


def _written(ledger: Ledger) -> Any:
    """What the report.json in the folder says; None where it says nothing."""
    try:
        return parse_json(read_plain(ledger.folder / _REPORT))
    except (OSError, UnreadableError):
        return None


def _against(written: Any, right: Any) -> tuple[list[str], bool]:
    """What in a report contradicts the `right` one; whether it is of an earlier study."""
    if not isinstance(written, dict) or written.get("format") != FORMAT:
        return [], False
    try:
        if written["searches"] != right["searches"]:
            return [], True
        return list(_wrong_decisions(written, right)), False
    except (AttributeError, IndexError, KeyError, TypeError):
        return ["does not have the form of a report"], False


def _wrong_decisions(written: Any, right: Any) -> Iterator[str]:
    """Where a report.json has another decision than the `right` one."""
    decided = {json.dumps(case["case"]): case["path"] for case in right["cases"]}
    for case in written["cases"]:
        name = "/".join(part for part in case["case"].values() if part is not None)
        decisions = decided.get(json.dumps(case["case"]))
        if decisions is None:
            yield f"has the test case {name}, which the study does not have"
            continue
        pairs = zip_longest(case["path"], decisions)
        wrong = [each["parameter"] for each, again in pairs if each and each != again]
        if wrong:
            yield f"decides {wrong[0]} of {name} differently from the outcomes"
    if written["complete"] and not right["complete"]:
        yield "is of a complete study, but outcomes are missing"
    elif written["complete"] and written["stable"] != right["stable"]:
        yield "has a different stable configuration from the outcomes"
