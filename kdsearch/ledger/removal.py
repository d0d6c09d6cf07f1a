"""What may be removed from a study's folder: kdsearch's own files that no other study may use."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from kdsearch.errors import StorageError, shown_name
from kdsearch.ledger.disk import NO_LINKS, storage_error, sync_folder
from kdsearch.ledger.names import (
    files_in,
    inside,
    is_aside,
    is_half,
    is_ours,
    is_trainings,
    marker_advice,
    shared_link,
)
from kdsearch.ledger.reading import open_plain

_log = logging.getLogger(__name__)
_SWEPT = ("outputs", "attempts", "checkpoints", "students", "progress")
"""Where workers write."""


def kept_back(folder: Path, name: str, known: Collection[str] = ()) -> str | None:
    """Why the file or folder `name` of a study's folder must stay; None if it may be removed.

    `known` are the names of files that its outcome has digests of.
    """
    path = inside(folder, name)
    link = shared_link(folder, path)
    if link is not None:
        advice = marker_advice(folder, link)
        return (
            f"behind the link {link.relative_to(folder)}, where it may be another study's; {advice}"
        )
    files = [name]
    if path.is_dir() and not path.is_symlink():
        if not is_trainings(name):
            return "kdsearch did not make this folder"
        files = [] if is_aside(name) else list(files_in(folder, name))
    for file in files:
        if (folder / file).is_symlink() or not (is_ours(file) or file in known):
            where = "" if file == name else f"{shown_name(file)}: "
            return f"{where}kdsearch did not write this"
    return None


def remove(folder: Path, name: str, known: Collection[str] = ()) -> bool:
    """Remove a file or a folder, unless it must be kept back; whether it is gone.

    What a kill leaves of a folder is swept at the next start. Raises `StorageError`.
    """
    if kept_back(folder, name, known) is not None:
        return False
    path = folder / name
    key = path.name.removeprefix(".").partition(".")[0]
    gone = path.with_name(f".{key}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        if path.is_dir():
            path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        else:
            path.unlink()
    except FileNotFoundError:
        pass  # someone else removed it
    except OSError as error:
        raise storage_error(path, error) from None
    return not os.path.lexists(gone)


def put(folder: Path, written: Path, final: Path) -> None:
    """Rename a finished file or folder of a study to `final`, durably; of workers the last stays.

    Behind a link that other studies may use, what is there stays: raises `StorageError` where it
    is another one.
    """
    link = shared_link(folder, final)
    if link is not None:
        same = _add(written, final) or _content(written) == _content(final)
        _remove_own(written)
        sync_folder(final.parent)
        if not same:
            raise StorageError(
                f"{final}: lies behind the link {link.name}, with another content than was made "
                f"now; it is not replaced, since it may be another study's; "
                f"{marker_advice(folder, link)}"
            )
        return
    while True:
        try:
            written.replace(final)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        aside = _aside(folder, written, final)
        with suppress(FileNotFoundError):
            final.rename(aside)  # of a try that was killed before it ended, or damaged
        remove(folder, str(aside.relative_to(folder)))
    sync_folder(final.parent)


def _aside(folder: Path, written: Path, final: Path) -> Path:
    """Where the folder `final` goes that is replaced; under a name that stays if it holds more."""
    name, unique = str(final.relative_to(folder)), uuid.uuid4().hex[:8]
    known = {f"{name}/{path.relative_to(written)}" for path in written.rglob("*")}
    if kept_back(folder, name, known) is None:
        return final.with_name(f".{final.name}.{unique}.tmp")
    kept = final.with_name(f"{final.name}-{unique}")
    _log.warning("%s: holds files that kdsearch did not write; it stays as %s", final, kept.name)
    return kept


def _add(written: Path, final: Path) -> bool:
    """Give what was written its name, unless there is something of that name; whether it did."""
    try:
        if written.is_dir():
            written.rename(final)
        else:
            os.link(written, final)
    except OSError as error:
        if os.path.lexists(final):
            return False
        if error.errno not in NO_LINKS:
            raise
        written.replace(final)
    return True


def _content(path: Path) -> dict[str, str]:
    """The digests of the files in a folder, or of a file."""
    paths = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    found = {}
    for each in paths:
        with open_plain(each) as file:
            name = str(each.relative_to(path))
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _remove_own(written: Path) -> None:
    """Remove what this process has just written."""
    if written.is_dir():
        shutil.rmtree(written, ignore_errors=True)
    else:
        written.unlink(missing_ok=True)


def sweep_halves(folder: Path) -> None:
    """Remove what workers that were killed left half written, and what drivers left for nodes."""
    for probe in folder.glob(".probe-*"):
        if is_half(probe.name):
            remove(folder, probe.name)
    for top in _SWEPT:
        if not (folder / top).is_dir():
            continue
        for entry in sorted((folder / top).iterdir()):
            name = f"{top}/{entry.name}"
            folder_left = entry.name.startswith(".") and entry.is_dir()
            file_left = is_half(name) and not entry.name.endswith(".torn")
            if folder_left or file_left or (is_ours(name) and entry.suffix == ".watchdog"):
                remove(folder, name)
