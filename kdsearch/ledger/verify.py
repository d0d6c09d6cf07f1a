"""Checking every file of a study's folder against what was recorded of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kdsearch.agenda import (
    Agenda,
    Outcome,
    OutputsTraining,
    SequencesTraining,
    StudentTraining,
    TeacherTraining,
    Training,
    unneeded,
)
from kdsearch.errors import InputError, Problem, shown
from kdsearch.ledger import layout
from kdsearch.ledger.disk import ABSENT
from kdsearch.ledger.layout import FOLDERS, KEPT, is_half, is_key, is_ours
from kdsearch.ledger.ledger import Ledger
from kdsearch.ledger.links import MARKER, files_in
from kdsearch.ledger.reading import UnreadableError
from kdsearch.study import SAMPLED, largest_score

CANNOT_KNOW = (
    "not checked: whether scores, epochs and costs are as measured; nothing is signed, and a "
    "careful change of a record leaves no trace. To be sure, train again"
)
_AGAIN = "the next launch recreates it if needed"
_REPEAT = "move it away and launch again: its training is repeated"
_REMOVE = "move it away, unless you know what it is"
_DO_WITHOUT = "restore it from a copy of the folder; the report does without it"
_DIGEST = re.compile("[0-9a-f]{64}")
_UNREADABLE = "you have no permission to read it"
_ROUNDING = 1e-9
"""Of a perfect score, which may be a little above the largest: sacrebleu's 100.00000000000004."""


@dataclass(kw_only=True)
class Verified:
    """What was found, and how much was looked at."""

    agenda: Agenda
    """Of the outcomes that are sound."""
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    """What may be right or not: that cannot be told from the folder."""
    outcomes: int = 0
    files: int = 0
    bytes: int = 0
    unneeded: int = 0
    """Outcomes that the study does not ask for."""
    blind: bool = False
    """Whether outcomes or attempts may not be read: then nothing was compared with them."""


def verify(
    ledger: Ledger, looked: Callable[[int, int], None] = lambda done, total: None
) -> Verified:
    """Check the folder's outcomes, attempts, rows and kept files; `looked` is told how far it is.

    Raises `InputError` where there is no study that can be read.
    """
    resolved = ledger.resolved()
    problems: list[Problem] = []
    names = _names(ledger, problems)
    # A folder may stand where a file belongs.
    listed = _entries(ledger, layout.OUTCOMES)
    outcomes = [
        sound
        for name in listed
        if not name.startswith(".")
        and (sound := _outcome(ledger, f"{layout.OUTCOMES}/{name}", problems))
    ]
    problems += _attempts(ledger, names)
    if blind := [each for each in dict.fromkeys(problems) if _blinds(ledger, each)]:
        return Verified(agenda=Agenda(resolved, {}), problems=blind, blind=True)
    results = ledger.results_with(outcomes)
    found = Verified(agenda=Agenda(resolved, results), problems=problems, outcomes=len(outcomes))
    covered: set[str] = set()
    for number, outcome in enumerate(outcomes, 1):
        problems += _inconsistent(ledger, outcome)
        covered |= _kept(ledger, outcome, found)
        looked(number, len(outcomes))
    digests = {digest for data in resolved.datasets.values() for digest in data.digests}
    kept = (name for name in names if name.startswith(f"{layout.DATA}/") and is_ours(name))
    digests |= {Path(name).stem for name in kept if not is_half(name)}
    problems += [problem for digest in sorted(digests) for problem in _rows(ledger, digest)]
    problems += _progress(ledger)
    problems += _preflight(ledger)
    _strangers(ledger, names, covered, {outcome.key for outcome in outcomes}, found)
    found.problems = list(dict.fromkeys(problems))  # a folder may be met more than once
    found.unneeded = len(unneeded(found.agenda))
    return found


def _names(ledger: Ledger, problems: list[Problem]) -> list[str]:
    """All files of the folder; where it cannot be listed is a problem."""
    errors: list[OSError] = []
    names = list(files_in(ledger.disk, ledger.folder, onerror=errors.append))
    for error in errors:
        path = Path(error.filename)
        if isinstance(error, PermissionError):
            problems.append(_not_readable(ledger, path))
        elif error.errno not in ABSENT:
            problems.append(Problem(place=str(path), what=f"cannot be listed: {error.strerror}"))
    return names


def _entries(ledger: Ledger, folder: str) -> list[str]:
    """What lies in a folder, if it may be listed; see `_names`."""
    try:
        return sorted(ledger.disk.names(ledger.folder / folder))
    except PermissionError:
        return []


def _blinds(ledger: Ledger, problem: Problem) -> bool:
    """Whether it is an unreadable folder or file without which no decision can be made again."""
    path = Path(problem.place)
    outcomes, attempts = ledger.folder / layout.OUTCOMES, ledger.folder / layout.ATTEMPTS
    return problem.what == _UNREADABLE and (path == outcomes or path.is_relative_to(attempts))


def _outcome(ledger: Ledger, name: str, problems: list[Problem]) -> Outcome | None:
    """The outcome in a file, if it is one and has the name that it should have."""
    path = ledger.folder / name
    if not is_ours(name):
        problems.append(Problem(place=str(path), what="is not an outcome", remedy=_REMOVE))
        return None
    try:
        outcome = ledger.read_outcome(path.stem)
    except FileNotFoundError:
        return None
    except UnreadableError as error:
        problems.append(
            Problem(place=str(path), what=f"is not an outcome: {error}", remedy=_REPEAT)
        )
        return None
    except PermissionError:
        problems.append(_not_readable(ledger, path))
        return None
    except InputError as error:
        problems += error.problems
        return None
    return outcome


def _attempts(ledger: Ledger, names: list[str]) -> Iterator[Problem]:
    for name in names:
        if not (
            name.startswith(f"{layout.ATTEMPTS}/") and name.endswith(".json") and is_ours(name)
        ):
            continue
        try:
            ledger.read_attempt(name)
        except (UnreadableError, FileNotFoundError) as error:
            what = f"is not an attempt: {error}"
            yield Problem(place=str(ledger.folder / name), what=what, remedy=_REMOVE)
        except PermissionError:
            yield _not_readable(ledger, ledger.folder / name)
        except InputError as error:
            yield from error.problems


def _inconsistent(ledger: Ledger, outcome: Outcome) -> Iterator[Problem]:
    """Where the parts of an outcome do not go together."""
    path = ledger.path(layout.outcome(outcome.key))
    for what in _contradictions(outcome):
        yield Problem(place=str(path), what=what, remedy=_REPEAT)


def _contradictions(outcome: Outcome) -> Iterator[str]:
    training, epochs = outcome.training, outcome.epochs
    largest = largest_score(training.data.metric)
    scores = (outcome.validation, outcome.test, *(epoch.validation for epoch in epochs))
    if any(score is not None and not 0 <= score <= largest + _ROUNDING for score in scores):
        yield f"has a score that is not between 0 and {largest:g}"
    if outcome.state == "diverged":
        if outcome.validation is not None or outcome.test is not None:
            yield "diverged, but has a score"
        return
    if isinstance(training, OutputsTraining):
        wanted = {"train": (False, False), "validation": (True, False), "test": (False, True)}
        has = (outcome.validation is not None, outcome.test is not None)
        if has != wanted[training.split]:
            yield f"does not have the score that outputs on {training.split} have"
        return
    if isinstance(training, SequencesTraining):
        if outcome.wrote is None or outcome.wrote.rows <= 0:
            yield "does not say how many rows were written"
        return
    if [epoch.epoch for epoch in epochs] != list(range(1, training.settings.epochs + 1)):
        yield f"does not have the {training.settings.epochs} epochs of its training"
        return
    scored = {epoch.epoch: epoch.validation for epoch in epochs if epoch.validation is not None}
    if not scored or outcome.validation != max(scored.values()):
        yield "has a different validation score from its best epoch"
    elif scored.get(outcome.best_epoch or 0) != outcome.validation:
        yield f"says that epoch {outcome.best_epoch} is the best, which it is not"
    if not isinstance(training, TeacherTraining):
        if outcome.test is None:
            yield "has no test score"
        return
    losses = {e.epoch: e.validation_loss for e in epochs if e.validation_loss is not None}
    lowest = outcome.lowest_loss_epoch
    if not losses or losses.get(lowest or 0) != min(losses.values()):
        yield f"says that epoch {lowest} has the lowest loss, which it does not"


def _kept(ledger: Ledger, outcome: Outcome, found: Verified) -> set[str]:
    """Check the files that a training kept against their digests; the names that have one."""
    problems = found.problems
    path = ledger.path(layout.outcome(outcome.key))
    own = tuple(f"{folder}/{outcome.key}{end}" for folder, end in zip(KEPT, "/../.", strict=True))
    read = tuple(map(layout.sequences, _read(outcome.training)))
    try:
        again = ledger.digests_again(outcome.key)
    except PermissionError:
        problems.append(_not_readable(ledger, ledger.path(layout.digests(outcome.key))))
        again = {}
    for name, digest in {**outcome.digests, **again}.items():
        if name in read:
            continue  # which its own training is checked for
        if not (name.startswith(own) and _DIGEST.fullmatch(digest) and _leads_inside(ledger, name)):
            what = f"has a digest of {shown(name)[:80]}, which is not one of its files"
            problems.append(Problem(place=str(path), what=what, remedy=_REPEAT))
            continue
        _kept_file(ledger, name, digest, found)
    for name, digest in again.items():
        if outcome.digests.get(name) != digest:
            where = layout.digests(outcome.key)
            what = f"matches the digest in {where}, not that in its outcome"
            alone = ", or alone after a pass with others," if outcome.fused > 1 else ","
            remedy = f"either made again on another machine{alone} or changed"
            found.notes.append(Problem(place=str(ledger.folder / name), what=what, remedy=remedy))
    for needed in _needed_files(outcome):
        if not any(name.startswith(needed) for name in outcome.digests):
            what = f"has no digest of {needed}, which its training keeps"
            problems.append(Problem(place=str(path), what=what, remedy=_REPEAT))
    return outcome.digests.keys() | again.keys()


def _read(training: Training) -> tuple[str, ...]:
    """The keys of the rows whose digest it has too, so that it is made again where they are."""
    return training.reads if isinstance(training, OutputsTraining) else ()


def _leads_inside(ledger: Ledger, name: str) -> bool:
    try:
        ledger.path(name)
    except InputError:
        return False
    return True


def _needed_files(outcome: Outcome) -> list[str]:
    """How the names of the files begin that a training keeps whatever the study says."""
    training = outcome.training
    if outcome.state == "diverged" or isinstance(training, StudentTraining):
        return []
    if isinstance(training, TeacherTraining):
        epochs = {outcome.best_epoch, outcome.lowest_loss_epoch, *training.kept_epochs}
        kept = [layout.checkpoint(outcome.key, epoch) for epoch in epochs if epoch is not None]
        return [f"{folder}/" for folder in sorted(set(kept))]
    if isinstance(training, OutputsTraining) and training.split == "train":
        draws = [layout.draws(outcome.key)] * training.settings.cache.startswith(SAMPLED)
        return [layout.outputs(outcome.key), *draws]
    if isinstance(training, SequencesTraining):
        return [layout.sequences(outcome.key)]
    return []


def _kept_file(ledger: Ledger, name: str, digest: str, found: Verified) -> None:
    path = ledger.folder / name
    top, key = name.split("/")[:2]
    try:
        actual = ledger.digest(name)
        if actual is not None:
            found.bytes += ledger.disk.size(path)
            found.files += 1
    except FileNotFoundError:
        return  # a search that runs removes students
    except PermissionError:
        found.problems.append(_not_readable(ledger, path))
        return
    if (
        actual is None
        and top == layout.STUDENTS
        and not ledger.disk.kind(ledger.folder / top / key)
    ):
        return  # superseded, and removed
    remedies = {layout.STUDENTS: "`kdsearch export` trains it again", layout.TESTED: _DO_WITHOUT}
    remedy = remedies.get(top, _AGAIN)
    if actual is None:
        what = "is not a regular file" if os.path.exists(path) else "is not there"
        found.problems.append(Problem(place=str(path), what=what, remedy=remedy))
    elif actual != digest:
        what = f"has the digest {actual[:12]}…, not {digest[:12]}…"
        found.problems.append(Problem(place=str(path), what=what, remedy=remedy))


def _strangers(
    ledger: Ledger, names: list[str], covered: set[str], keys: set[str], found: Verified
) -> None:
    """Files that nothing is recorded of; `covered` have a digest, `keys` an outcome."""
    unknown: set[str] = set()
    for name in names:
        top, _, rest = name.partition("/")
        entry = rest.partition("/")[0]
        key = entry.partition(".")[0]
        if rest == MARKER or name in covered:
            continue
        if is_ours(name) and not (top in KEPT and key in keys):
            if top in (*KEPT, layout.DIGESTS) and is_key(key) and key not in keys:
                unknown.add(f"{top}/{entry}")
            continue
        place = str(ledger.folder / name)
        if top == layout.TESTED and is_ours(name):
            what = "is from a try that another try of the same training was ahead of"
            found.notes.append(Problem(place=place, what=what, remedy="`kdsearch gc` lists it"))
        elif top in FOLDERS and rest:
            what = "is not kdsearch's: nothing is recorded of it"
            found.problems.append(Problem(place=place, what=what, remedy=_REMOVE))
        elif not name.startswith("."):
            what = "is not kdsearch's, and is not checked"
            found.notes.append(Problem(place=place, what=what))
    for name in sorted(unknown):
        what = "is from a training that has no outcome, and is not checked"
        remedy = "`kdsearch gc` lists it, unless a search is writing it"
        found.notes.append(Problem(place=str(ledger.folder / name), what=what, remedy=remedy))


def _progress(ledger: Ledger) -> Iterator[Problem]:
    """The checkpoints of trainings that have not ended; one that has just ended has none."""
    for key in _entries(ledger, layout.PROGRESS):
        if not is_key(key):
            continue
        path = ledger.path(layout.progress(key))
        try:
            for progress in ledger.progress(key):
                path = progress.path
                if not ledger.is_whole(progress) and ledger.disk.kind(path):
                    what = "has a different digest from the one in its name"
                    remedy = "remove it: its training resumes from an earlier one, or restarts"
                    yield Problem(place=str(path), what=what, remedy=remedy)
        except PermissionError:
            yield _not_readable(ledger, path)


def _preflight(ledger: Ledger) -> Iterator[Problem]:
    path = ledger.path(layout.PREFLIGHT)
    try:
        ledger.read_preflight()
    except FileNotFoundError:
        return
    except UnreadableError as error:
        remedy = "remove it: the next launch checks the data and the models again"
        yield Problem(place=str(path), what=f"cannot be read: {error}", remedy=remedy)
    except PermissionError:
        yield _not_readable(ledger, path)


def _rows(ledger: Ledger, digest: str) -> Iterator[Problem]:
    path = ledger.folder / layout.rows(digest)
    try:
        ledger.rows(digest)
    except FileNotFoundError:
        remedy = "restore it from a copy of the folder"
        yield Problem(place=str(path), what="is not there", remedy=remedy)
    except PermissionError:
        yield _not_readable(ledger, path)
    except InputError as error:
        yield from error.problems


def _not_readable(ledger: Ledger, path: Path) -> Problem:
    """Of a file or a folder; where it is a folder above that keeps it from being read, of that."""
    above = [p for p in reversed(path.parents) if p.is_relative_to(ledger.folder)]
    barred = next((p for p in above if not os.access(p, os.R_OK | os.X_OK)), path)
    remedy = "its owner can allow it: chmod -R g+rX, or o+rX"
    return Problem(place=str(barred), what=_UNREADABLE, remedy=remedy)
