"""What lies in a study's folder and is not needed any more; see `kdsearch gc`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdsearch.agenda import Agenda, asked, settled, spare, unneeded
from kdsearch.driver.keep import superseded
from kdsearch.ledger import MARKER, Ledger, files_in, is_half, is_ours, layout

EARLIER = "from an earlier version of the study"
SPARE = "from a training that no decision asked for"
SUPERSEDED = "weights of students that can no longer win"
NO_OUTCOME = "from a training that has no outcome"
OTHER_TRY = "from a try that another try of the same training was ahead of"
HALF = "left behind by a process that was killed"

_FOLDERS = (*layout.KEPT, layout.ATTEMPTS, layout.PROGRESS, layout.DIGESTS)


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """A file or folder that may go, by its path in the study's folder."""

    name: str
    why: str
    bytes: int
    known: frozenset[str] = frozenset()
    """The files in it that an outcome has digests of: kdsearch wrote them."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """What is not removed, although the study does not need it, and why."""

    name: str
    why: str


def garbage(ledger: Ledger, agenda: Agenda) -> tuple[list[Garbage], list[Left]]:
    """What the study does not need, the outcomes first; and what of it must stay.

    What outcomes name is garbage without them. What kdsearch did not write stays, and what lies
    behind a link where another study may need it.
    """
    found: dict[str, str] = {}
    for why, name in _garbage(ledger, agenda):
        found.setdefault(name, why)
    gone: list[Garbage] = []
    left: list[Left] = []
    for name, why in found.items():
        known = _known(ledger, agenda, name)
        kept_back = ledger.kept_back(name, known)
        if kept_back is None:
            size = _size(ledger.folder / name)
            gone.append(Garbage(name=name, why=why, bytes=size, known=known))
        else:
            left.append(Left(name=name, why=kept_back))
    told = tuple(f"{name}/" for name in found)
    for name in files_in(ledger.disk, ledger.folder):
        strange = "/" in name and not name.endswith(f"/{MARKER}") and not is_ours(name)
        if strange and name not in found and not name.startswith(told):
            key = name.split("/")[1].partition(".")[0]
            if name not in _known(ledger, agenda, f"{name.split('/')[0]}/{key}"):
                left.append(Left(name=name, why="kdsearch did not write this"))
    return gone, left


def _known(ledger: Ledger, agenda: Agenda, name: str) -> frozenset[str]:
    """The files that the outcome of a training's folder or file has digests of."""
    outcome = agenda.results.get(name.rpartition("/")[2].partition(".")[0])
    return frozenset(ledger.digests(outcome)) if outcome else frozenset()


def _garbage(ledger: Ledger, agenda: Agenda) -> Iterator[tuple[str, str]]:
    dropped, resolved = unneeded(agenda), agenda.resolved
    why = dict.fromkeys(dropped & spare(agenda), SPARE)
    outcomes = (key for key in sorted(dropped) if agenda.results[key])
    yield from ((why.get(key, EARLIER), layout.outcome(key)) for key in outcomes)
    wanted, done = asked(agenda), settled(agenda)
    for folder in _FOLDERS:
        for path in _listed(ledger.folder / folder):
            name, key = f"{folder}/{path.name}", path.name.partition(".")[0]
            # Of a training without a result it is known what it was when all have been asked for.
            if key in dropped or (done and key not in wanted):
                yield why.get(key, EARLIER if key in agenda.results else SPARE), name
            elif folder in layout.KEPT and not _has_outcome(ledger, key):
                yield NO_OUTCOME, name
            elif folder == layout.TESTED and _of_another_try(ledger, agenda, name):
                yield OTHER_TRY, name
    if resolved.study.keep_students != "all":
        for key in sorted(superseded(agenda, ledger.kept_students())):
            yield SUPERSEDED, layout.student(key)
    rows = {digest for data in resolved.datasets.values() for digest in data.digests}
    for path in _listed(ledger.folder / layout.DATA):
        if path.stem not in rows:
            yield EARLIER, f"{layout.DATA}/{path.name}"
    for name in sorted(ledger.disk.names(ledger.folder)):
        if name.startswith("resolved-") and name.endswith(".json"):
            yield EARLIER, name
    for name in files_in(ledger.disk, ledger.folder):
        if is_half(name):
            yield HALF, _half(name)


def _has_outcome(ledger: Ledger, key: str) -> bool:
    return ledger.disk.kind(ledger.folder / layout.outcome(key)) is not None


def _of_another_try(ledger: Ledger, agenda: Agenda, name: str) -> bool:
    key = name.rpartition("/")[2].partition(".")[0]
    readable = agenda.results.get(key) is not None  # else it is not known whose it is
    return readable and name not in _known(ledger, agenda, name)


def _half(name: str) -> str:
    """The folder that was being written or removed, of a file in one; else the file."""
    top, _, rest = name.partition("/")
    first = rest.partition("/")[0]
    return f"{top}/{first}" if first.startswith(".") else name


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    paths = (path for path in folder.iterdir() if path.name != MARKER)
    return sorted(path for path in paths if not path.name.startswith("."))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.lstat().st_size for file in files if file.is_file())
