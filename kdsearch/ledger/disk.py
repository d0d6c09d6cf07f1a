"""Every call that changes a study's folder, so that a crash can be simulated at each."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import stat
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Literal, Protocol

from kdsearch.errors import StorageError
from kdsearch.ledger.reading import open_plain, read_plain

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_READ_ONLY = {
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "you have no permission to write to it",
}
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of the operating system that say that there is no such file, nor could be."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP)
Kind = Literal["file", "folder", "link"]
"""What a name stands for; a pipe and a device count as files."""


class Disk(Protocol):
    """What the ledger needs of a disk. What changes it raises `StorageError` where it cannot."""

    def write(self, path: Path, content: bytes) -> None:
        """Write a new file and its content durably (fsync)."""

    def note(self, path: Path, content: bytes) -> None:
        """Write a file in the place of an older one, of use only while this machine runs."""

    def link(self, source: Path, target: Path) -> bool:
        """Give `source` the further name `target`, durably; False if another file has that name.

        That one's is made durable too: who gave it may have died before.
        """

    def replace(self, source: Path, target: Path) -> bool:
        """Rename a file or a folder to `target`, taking the place of a file or an empty folder.

        False where `target` is a folder that is not empty.
        """

    def remove(self, path: Path) -> None:
        """Remove a file, if it is there."""

    def remove_folder(self, folder: Path) -> None:
        """Remove a folder and all that is in it, as far as that is possible."""

    def sync(self, folder: Path) -> None:
        """Make the names in a folder durable, as fsync of a file does its content."""

    def make_folder(self, folder: Path, *, parents: bool = False) -> None:
        """Make a folder in one that is there, or with `parents` also those above it."""

    def read(self, path: Path) -> bytes:
        """The content of a file; raises `FileNotFoundError`, and `UnreadableError` for no file."""

    def digest(self, path: Path) -> str:
        """The SHA-256 of a file of any size; raises as `read` does."""

    def names(self, folder: Path) -> Iterator[str]:
        """The names in a folder; none if there is no such folder."""

    def kind(self, path: Path) -> Kind | None:
        """What `path` itself is, not what it links to; None if it is not there."""

    def size(self, path: Path) -> int:
        """The bytes of a file; raises `FileNotFoundError`."""


class OsDisk:
    """The operating system's disk."""

    def write(self, path: Path, content: bytes) -> None:
        """See `Disk.write`."""
        try:
            with path.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            _give_up(path)
            raise storage_error(path, error) from None

    def note(self, path: Path, content: bytes) -> None:
        """See `Disk.note`. It is written under a name of its own first, which is nobody's link."""
        temporary = beside(path)
        try:
            with temporary.open("xb") as file:
                file.write(content)
            temporary.replace(path)
        except OSError as error:
            _give_up(temporary)
            raise storage_error(path, error) from None

    def link(self, source: Path, target: Path) -> bool:
        """See `Disk.link`. EEXIST on our own inode is success: a retried call on a network disk."""
        linked = True
        try:
            os.link(source, target)
        except FileExistsError:
            linked = os.path.samestat(os.lstat(source), os.lstat(target))
        except OSError as error:
            raise storage_error(target, error) from None
        self.sync(target.parent)
        return linked

    def replace(self, source: Path, target: Path) -> bool:
        """See `Disk.replace`."""
        try:
            os.replace(source, target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise storage_error(target, error) from None
        return True

    def remove(self, path: Path) -> None:
        """See `Disk.remove`."""
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            if error.errno not in ABSENT:
                raise storage_error(path, error) from None

    def remove_folder(self, folder: Path) -> None:
        """See `Disk.remove_folder`."""
        shutil.rmtree(folder, ignore_errors=True)

    def sync(self, folder: Path) -> None:
        """See `Disk.sync`."""
        try:
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise storage_error(folder, error) from None

    def make_folder(self, folder: Path, *, parents: bool = False) -> None:
        """See `Disk.make_folder`."""
        try:
            folder.mkdir(parents=parents, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from None

    def read(self, path: Path) -> bytes:
        """See `Disk.read`."""
        try:
            return read_plain(path)
        except OSError as error:  # such as a file where a training's folder should be
            if error.errno not in ABSENT:
                raise
            raise FileNotFoundError(errno.ENOENT, "is not there", str(path)) from None

    def digest(self, path: Path) -> str:
        """See `Disk.digest`. A file is read once while it does not change."""
        try:
            found = path.stat()
            return _digest(path, found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError as error:
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

    def kind(self, path: Path) -> Kind | None:
        """See `Disk.kind`."""
        try:
            mode = path.lstat().st_mode
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            return None
        return "link" if stat.S_ISLNK(mode) else "folder" if stat.S_ISDIR(mode) else "file"

    def size(self, path: Path) -> int:
        """See `Disk.size`."""
        return path.stat().st_size


def beside(path: Path) -> Path:
    """What a file is called while it is written: a hidden name that no other process gives."""
    unique = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return path.with_name(f".{path.name}.{unique}.tmp")


def open_own(path: Path, mode: str) -> IO[str]:
    """Open a file of a fixed name to write it (`w`) or to add to it (`a`), and no link to one.

    Raises `StorageError` for a link and what is no plain file, and `OSError` as `open` does.
    """
    flags = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    flags |= {"w": os.O_WRONLY | os.O_TRUNC, "a": os.O_RDWR | os.O_APPEND}[mode]
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise StorageError(
            f"{path}: is a link, or not a regular file; move it away and launch again"
        )
    return os.fdopen(os.open(path, flags, 0o666), mode, encoding="utf-8", errors="replace")


def sync_and_digest(path: Path) -> str:
    """Bring what a library wrote to the disk, with the mode of any new file; its SHA-256.

    Some libraries write files that nobody else may read, whatever the umask. Raises `OSError`.
    """
    with path.open("rb") as file:
        mode = 0o666 & ~_umask()
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:
            os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        remedy = "give a writable folder: --folder DIR"
        if number == errno.EACCES:
            remedy += "; or its owner can allow it: chmod -R g+rwX"
        return StorageError(f"{path}: {_READ_ONLY[number]}; {remedy}")
    if number in _NO_LINKS:
        return StorageError(
            f"{path}: this storage has no hard links, with which outcomes are committed; use a "
            "local disk, NFS, Lustre or another POSIX file system instead of an object-store mount"
        )
    what = getattr(error, "strerror", None) or error
    if number in (errno.ENOENT, errno.ESTALE):
        what = f"{what}; is its storage mounted? when it is, launch again: nothing finished is lost"
    return StorageError(f"{path}: {what}")


def _give_up(path: Path) -> None:
    with suppress(OSError):  # a file left over is hidden, and another error is on its way
        path.unlink()


def _umask() -> int:
    """That of this process. Asking `os.umask` would change it, for the other threads too."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1], 8) for line in status.splitlines() if line[:6] == "Umask:")


@lru_cache(maxsize=4096)
def _digest(path: Path, changed: int, size: int, inode: int) -> str:
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
