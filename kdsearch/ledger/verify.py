"""Checking every file of a study's folder against what was recorded of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from kdsearch.agenda import Agenda, Outcome, unneeded
from kdsearch.errors import InputError, Problem
from kdsearch.ledger.ledger import Ledger
from kdsearch.study import digest_rows

_AGAIN = "the next launch makes it again where it needs it"
_REPEAT = "move it away and launch again: its training is repeated"


@dataclass(kw_only=True)
class Verified:
    """What was found, and how much was looked at."""

    agenda: Agenda
    """Of the outcomes that are sound."""
    problems: list[Problem] = field(default_factory=list)
    outcomes: int = 0
    files: int = 0
    bytes: int = 0
    unneeded: int = 0
    """Outcomes that the study does not ask for."""


def verify(
    ledger: Ledger, looked: Callable[[int, int], None] = lambda done, total: None
) -> Verified:
    """Check the folder's outcomes, attempts, rows and kept files; `looked` is told how far it is.

    Raises `InputError` where there is no study that can be read.
    """
    resolved = ledger.resolved()
    problems: list[Problem] = []
    paths = sorted(ledger.folder.glob("outcomes/*.json"))
    outcomes = [sound for path in paths if (sound := _outcome(path, problems))]
    try:
        results = ledger.results_with(outcomes)
    except InputError as error:
        problems += error.problems
        results = {outcome.key: outcome for outcome in outcomes}
    found = Verified(agenda=Agenda(resolved, results), problems=problems, outcomes=len(outcomes))
    for number, outcome in enumerate(outcomes, 1):
        for path in _kept(ledger, outcome, problems):
            with suppress(FileNotFoundError):  # a search that runs removes students
                found.bytes += path.stat().st_size
                found.files += 1
        looked(number, len(outcomes))
    digests = {
        split.digest for data in resolved.datasets.values() for split in data.splits.values()
    }
    digests |= {path.stem for path in ledger.folder.glob("data/*.jsonl")}
    problems += [problem for digest in sorted(digests) for problem in _rows(ledger, digest)]
    problems += _progress(ledger)
    problems += _preflight(ledger)
    found.unneeded = len(unneeded(found.agenda))
    return found


def _outcome(path: Path, problems: list[Problem]) -> Outcome | None:
    """The outcome in a file, if it is one and has the name that it should have."""
    try:
        outcome = Outcome.model_validate_json(path.read_bytes())
    except ValidationError as error:
        what = f"is no outcome: {error.errors()[0]['msg']}"
        problems.append(Problem(place=str(path), what=what, mend=_REPEAT))
        return None
    if not path.stem == outcome.key == outcome.training.key:
        what = f"says the key {outcome.key}, and its training has {outcome.training.key}"
        problems.append(Problem(place=str(path), what=what, mend=_REPEAT))
        return None
    return outcome


def _kept(ledger: Ledger, outcome: Outcome, problems: list[Problem]) -> Iterator[Path]:
    """The files that a training kept and that are there."""
    student = f"students/{outcome.key}"
    for name, digest in ledger.digests(outcome).items():
        path, actual = ledger.folder / name, ledger.digest(name)
        if actual is None and name.startswith(student) and not (ledger.folder / student).exists():
            continue  # superseded, and removed
        mend = "`kdsearch export` trains it again" if name.startswith(student) else _AGAIN
        if actual is None:
            problems.append(Problem(place=str(path), what="is not there", mend=mend))
            continue
        if actual != digest:
            what = f"has the digest {actual[:12]}…, not {digest[:12]}…"
            problems.append(Problem(place=str(path), what=what, mend=mend))
        yield path


def _progress(ledger: Ledger) -> Iterator[Problem]:
    """The checkpoints of trainings that have not ended; one that has just ended has none."""
    for folder in sorted(ledger.folder.glob("progress/*")):
        for progress in ledger.progress(folder.name):
            if not progress.intact and progress.path.exists():
                what = "has another digest than its name says"
                mend = "remove it: its training goes on from an earlier one, or begins anew"
                yield Problem(place=str(progress.path), what=what, mend=mend)


def _preflight(ledger: Ledger) -> Iterator[Problem]:
    path = ledger.folder / "preflight.json"
    if path.exists() and ledger.preflight() is None:
        mend = "remove it: the next launch looks at the data and the models again"
        yield Problem(place=str(path), what="cannot be read", mend=mend)


def _rows(ledger: Ledger, digest: str) -> Iterator[Problem]:
    path = ledger.folder / "data" / f"{digest}.jsonl"
    mend = "bring it back from a copy of the folder"
    try:
        actual = digest_rows(ledger.rows(digest))
    except FileNotFoundError:
        yield Problem(place=str(path), what="is not there", mend=mend)
    except ValueError as error:
        yield Problem(place=str(path), what=f"holds no rows: {error}", mend=mend)
    else:
        if actual != digest:
            yield Problem(place=str(path), what=f"has the digest {actual}", mend=mend)
