"""The few calls by which the ledger speaks to a disk, so that a crash can be simulated at each."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from kdsearch.errors import StorageError
from kdsearch.ledger.reading import read_plain

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_READ_ONLY = {errno.EROFS: "the disk is read-only", errno.EACCES: "you may not write it"}
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of the operating system that say that there is no such file, nor could be."""
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP)


class Disk(Protocol):
    """What the ledger needs of a disk."""

    def write(self, path: Path, content: bytes) -> None:
        """Write a new file and its content durably (fsync)."""

    def link(self, source: Path, target: Path) -> bool:
        """Give `source` the further name `target`; False if that name is taken by another file."""

    def replace(self, source: Path, target: Path) -> None:
        """Rename `source` to `target`, taking the place of a file there."""

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""

    def read(self, path: Path) -> bytes:
        """The content of a file; raises `FileNotFoundError`, and `UnreadableError` for no file."""

    def names(self, folder: Path) -> Iterator[str]:
        """The names in a folder; none if there is no such folder."""

    def make_folder(self, folder: Path, *, parents: bool = False) -> None:
        """Make a folder in one that is there, or with `parents` also those above it."""


class OsDisk:
    """The operating system's disk."""

    def write(self, path: Path, content: bytes) -> None:
        """See `Disk.write`; raises `StorageError` where the disk cannot hold it."""
        try:
            with path.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self.remove(path)
            raise storage_error(path, error) from None

    def link(self, source: Path, target: Path) -> bool:
        """See `Disk.link`. EEXIST on our own inode is success: a retried call on a network disk."""
        try:
            os.link(source, target)
        except FileExistsError:
            return os.path.samestat(os.lstat(source), os.lstat(target))
        except OSError as error:
            raise storage_error(target, error) from None
        sync_folder(target.parent)
        return True

    def replace(self, source: Path, target: Path) -> None:
        """See `Disk.replace`."""
        try:
            os.replace(source, target)
        except OSError as error:
            raise storage_error(target, error) from None

    def remove(self, path: Path) -> None:
        """See `Disk.remove`."""
        with suppress(OSError):  # a file left over is hidden, and another error may be on its way
            path.unlink()

    def read(self, path: Path) -> bytes:
        """See `Disk.read`."""
        try:
            return read_plain(path)
        except OSError as error:  # such as a file where a training's folder should be
            if error.errno not in ABSENT:
                raise
            raise FileNotFoundError(errno.ENOENT, "is not there", str(path)) from None

    def names(self, folder: Path) -> Iterator[str]:
        """See `Disk.names`."""
        try:
            with os.scandir(folder) as entries:
                yield from (entry.name for entry in entries)
        except OSError as error:
            if error.errno not in ABSENT:
                raise

    def make_folder(self, folder: Path, *, parents: bool = False) -> None:
        """See `Disk.make_folder`."""
        try:
            folder.mkdir(parents=parents, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from None


def storage_error(path: Path, error: Exception) -> StorageError:
    """`error`, of the operating system or of a library that writes, in words that say what to do.

    What a library raises names the cause in its text only, as the operating system words it.
    """
    number = getattr(error, "errno", None) or next(
        (known for known in (*_FULL, *_READ_ONLY) if os.strerror(known) in str(error)), 0
    )
    if number in _FULL:
        return StorageError(
            f"{path}: {_FULL[number]}; make room and launch again: nothing finished is lost"
        )
    if number in _READ_ONLY:
        mend = "give a writable folder: --folder DIR"
        if number == errno.EACCES:
            mend += "; or its owner lets you write to it: chmod -R g+rwX"
        return StorageError(f"{path}: {_READ_ONLY[number]}; {mend}")
    if number in NO_LINKS:
        return StorageError(
            f"{path}: this storage has no hard links, which outcomes are committed with; use a "
            "local disk, NFS, Lustre or another POSIX file system instead of an object-store mount"
        )
    what = getattr(error, "strerror", None) or error
    if number in (errno.ENOENT, errno.ESTALE):
        what = f"{what}; is its storage mounted? when it is, launch again: nothing finished is lost"
    return StorageError(f"{path}: {what}")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, as fsync of a file does its content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
