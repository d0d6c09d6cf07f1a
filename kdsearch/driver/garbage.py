"""What lies in a study's folder and is not needed any more; see `kdsearch gc`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdsearch.agenda import Agenda, asked, settled, unneeded
from kdsearch.driver.keep import superseded
from kdsearch.ledger import Ledger

EARLIER = "of an earlier version of the study"
SUPERSEDED = "weights of students that cannot win any more"
NO_OUTCOME = "of a training that has no outcome"
HALF = "left by a process that was killed"

_KEPT = ("checkpoints", "outputs", "students")
_FOLDERS = (*_KEPT, "attempts", "progress", "digests")


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """A file or folder that may go, by its path in the study's folder."""

    name: str
    why: str
    bytes: int


def garbage(ledger: Ledger, agenda: Agenda) -> list[Garbage]:
    """What the study does not need, the outcomes first: what they name is garbage without them."""
    found: dict[str, str] = {}
    for why, name in _garbage(ledger, agenda):
        found.setdefault(name, why)
    return [
        Garbage(name=name, why=why, bytes=_size(ledger.folder / name))
        for name, why in found.items()
    ]


def _garbage(ledger: Ledger, agenda: Agenda) -> Iterator[tuple[str, str]]:
    dropped, resolved = unneeded(agenda), agenda.resolved
    yield from ((EARLIER, f"outcomes/{k}.json") for k in sorted(dropped) if agenda.results[k])
    wanted, done = asked(agenda), settled(agenda)
    for folder in _FOLDERS:
        for path in _listed(ledger.folder / folder):
            name, key = f"{folder}/{path.name}", path.name.partition(".")[0]
            # Of a training without a result it is known what it was when all have been asked for.
            if key in dropped or (done and key not in wanted):
                yield EARLIER, name
            elif folder in _KEPT and agenda.results.get(key) is None:
                yield NO_OUTCOME, name
    if resolved.study.keep_students != "all":
        for key in sorted(superseded(agenda, ledger.kept_students())):
            yield SUPERSEDED, f"students/{key}"
    rows = {split.digest for data in resolved.datasets.values() for split in data.splits.values()}
    for path in _listed(ledger.folder / "data"):
        if path.stem not in rows:
            yield EARLIER, f"data/{path.name}"
    for path in sorted(ledger.folder.glob("resolved-*.json")):
        yield EARLIER, path.name
    for pattern in (".*.tmp", ".*.torn", ".probe-*"):
        for path in sorted(ledger.folder.rglob(pattern)):
            yield HALF, str(path.relative_to(ledger.folder))


def _listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())
