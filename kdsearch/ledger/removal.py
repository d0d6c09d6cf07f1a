"""What may be removed from a study's folder: kdsearch's own files that no other study may use."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

from kdsearch.errors import StorageError, shown_name
from kdsearch.ledger.disk import Disk, OsDisk
from kdsearch.ledger.layout import (
    ATTEMPTS,
    CHECKPOINTS,
    DATA,
    OUTPUTS,
    PROGRESS,
    STUDENTS,
    TESTED,
    aside,
    inside,
    is_aside,
    is_half,
    is_ours,
    is_trainings,
)
from kdsearch.ledger.links import files_in, marker_advice, shared_link
from kdsearch.ledger.reading import UnreadableError

_log = logging.getLogger(__name__)
_SWEPT = (OUTPUTS, ATTEMPTS, CHECKPOINTS, STUDENTS, TESTED, PROGRESS, DATA)
"""Where workers write, and where a driver decodes images."""


def kept_back(disk: Disk, folder: Path, name: str, known: Collection[str] = ()) -> str | None:
    """Why the file or folder `name` of a study's folder must stay; None if it may be removed.

    `known` are the names of files that its outcome has digests of.
    """
    path = inside(folder, name)
    link = shared_link(disk, folder, path)
    if link is not None:
        advice = marker_advice(folder, link)
        return (
            f"behind the link {link.relative_to(folder)}, where it may be another study's; {advice}"
        )
    files = [name]
    if disk.kind(path) == "folder":
        if not is_trainings(name):
            return "kdsearch did not make this folder"
        files = [] if is_aside(name) else list(files_in(disk, folder, name))
    for file in files:
        if disk.kind(folder / file) == "link" or not (is_ours(file) or file in known):
            where = "" if file == name else f"{shown_name(file)}: "
            return f"{where}kdsearch did not write this"
    return None


def remove(disk: Disk, folder: Path, name: str, known: Collection[str] = ()) -> bool:
    """Remove a file or a folder, unless it must be kept back; whether it is gone.

    What a kill leaves of a folder is swept at the next start. Raises `StorageError`.
    """
    if kept_back(disk, folder, name, known) is not None:
        return False
    path = folder / name
    if disk.kind(path) != "folder":
        disk.remove(path)
        return True
    gone = path.with_name(aside(path.name.removeprefix(".").partition(".")[0]))
    _move(disk, path, gone)
    disk.remove_folder(gone)
    return disk.kind(gone) is None


def discard(written: Path, disk: Disk | None = None) -> None:
    """Remove a file or folder that this process has written itself, if it is there."""
    disk = disk or OsDisk()
    if disk.kind(written) == "folder":
        disk.remove_folder(written)
    else:
        disk.remove(written)


def put(folder: Path, written: Path, final: Path, disk: Disk | None = None) -> None:
    """Rename a finished file or folder of a study to `final`, durably; of workers the last stays.

    The content of its files is durable already. Behind a link that other studies may use, what is
    there stays: raises `StorageError` where it is another one.
    """
    disk = disk or OsDisk()
    try:
        _sync_within(disk, written)
        link = shared_link(disk, folder, final)
        if link is None:
            _take_its_place(disk, folder, written, final)
        else:
            _add(disk, folder, written, final, link)
        disk.sync(final.parent)
    except StorageError:
        discard(written, disk)
        raise


def _sync_within(disk: Disk, written: Path) -> None:
    """Make the names in a folder durable, those in its folders first."""
    if disk.kind(written) == "folder":
        for name in disk.names(written):
            _sync_within(disk, written / name)
        disk.sync(written)


def _take_its_place(disk: Disk, folder: Path, written: Path, final: Path) -> None:
    while not disk.replace(written, final):
        # Of a try that was killed before it ended, or damaged.
        gone = _goes_to(disk, folder, written, final)
        _move(disk, final, gone)
        remove(disk, folder, str(gone.relative_to(folder)))


def _goes_to(disk: Disk, folder: Path, written: Path, final: Path) -> Path:
    """Where the folder `final` goes that is replaced; under a name that stays if it holds more."""
    name = str(final.relative_to(folder))
    known = {f"{name}/{file}" for file in files_in(disk, written)}
    if kept_back(disk, folder, name, known) is None:
        return final.with_name(aside(final.name))
    kept = final.with_name(f"{final.name}-{uuid.uuid4().hex[:8]}")
    _log.warning("%s: holds files that kdsearch did not write; it stays as %s", final, kept.name)
    return kept


def _move(disk: Disk, path: Path, target: Path) -> None:
    """Rename a folder, unless another process was first."""
    try:
        disk.replace(path, target)
    except StorageError:
        if disk.kind(path) is not None:
            raise


def _add(disk: Disk, folder: Path, written: Path, final: Path, link: Path) -> None:
    """Give what was written its name, unless there is something of that name already."""
    if not _named(disk, written, final) and _content(disk, written) != _content(disk, final):
        raise StorageError(
            f"{final}: lies behind the link {link.name}, with other content than was made "
            f"now; it is not replaced, since it may be another study's; "
            f"{marker_advice(folder, link)}"
        )
    discard(written, disk)


def _named(disk: Disk, written: Path, final: Path) -> bool:
    """Whether what was written has got the name `final`, which nothing had."""
    try:
        if disk.kind(written) == "folder":
            return disk.replace(written, final)
        return disk.link(written, final)
    except StorageError:  # as of storage without hard links
        if disk.kind(final) is not None:
            return False
        return disk.replace(written, final)


def _content(disk: Disk, path: Path) -> dict[str, str]:
    """The digests of the files in a folder, or of a file."""
    if disk.kind(path) != "folder":
        return {"": disk.digest(path)}
    found = {}
    for name in files_in(disk, path):
        try:
            found[name] = disk.digest(path / name)
        except (FileNotFoundError, UnreadableError):  # a link to nothing, or to a folder
            continue
    return found


def sweep_halves(disk: Disk, folder: Path) -> None:
    """Remove what workers that were killed left half written, and what drivers left for nodes."""
    for name in _left_over(disk, folder):
        remove(disk, folder, name)


def _left_over(disk: Disk, folder: Path) -> Iterator[str]:
    probes = [name for name in disk.names(folder) if name.startswith(".probe-")]
    yield from (name for name in probes if is_half(name))
    for top in _SWEPT:
        for entry in sorted(disk.names(folder / top)):
            name = f"{top}/{entry}"
            folder_left = entry.startswith(".") and disk.kind(folder / name) == "folder"
            file_left = is_half(name) and not entry.endswith(".torn")
            if folder_left or file_left or (is_ours(name) and entry.endswith(".watchdog")):
                yield name
