"""Bringing a folder home from a cluster: `deliver` in a job there, `received` here.

A job's log is text. But Ray's dashboard serves every file that lies beside it, which is how `ray
logs` works: a job puts the folder there in parts, says so in its log, and takes them away when it
is stopped, or nobody came for them in an hour.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from kdsearch.errors import InputError

MARK = "kdsearch-delivery "
_PART_BYTES = 32_000_000
"""As much as is fetched again where a connection breaks."""
_TRIES = 5
_BETWEEN = 5.0
_SECONDS = 3600.0
_LOG = "/proc/self/fd/1"


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What lies ready: the parts of a zip file, relative to the folder of the job's log."""

    parts: list[str]
    sha256: str

    def line(self) -> str:
        """How it is told in the log."""
        return MARK + json.dumps(asdict(self))


def delivery(line: str) -> Delivery | None:
    """What a line of a log tells of a delivery, if it does."""
    return Delivery(**json.loads(line.removeprefix(MARK))) if line.startswith(MARK) else None


def deliver(folder: Annotated[Path, typer.Argument(help="The folder to offer.")]) -> None:
    """In a job: offer a folder to whoever submitted it, until they stop the job."""
    log = Path(os.readlink(_LOG))
    if not log.is_file():
        raise InputError.one("deliver", "is for jobs, whose output is a file of Ray's")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with tempfile.TemporaryDirectory(prefix="kdsearch-", dir=log.parent) as scratch:
        print(packed(folder, Path(scratch)).line(), flush=True)
        time.sleep(_SECONDS)


def packed(folder: Path, scratch: Path, part_bytes: int = _PART_BYTES) -> Delivery:
    """Write the files of a folder, no links among them, in parts into the folder `scratch`."""
    with (
        _Parts(scratch, part_bytes) as parts,
        zipfile.ZipFile(parts, "w", strict_timestamps=False) as file,
    ):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                file.write(path, path.relative_to(folder))
    names = [f"{scratch.name}/{name}" for name in parts.names]
    return Delivery(parts=names, sha256=parts.sha256.hexdigest())


def received(
    found: Delivery,
    fetch: Callable[[str, IO[bytes]], None],
    to: Path,
    between: float = _BETWEEN,
) -> None:
    """Fetch the parts of a delivery, and write what is in them into the folder `to`.

    A part is tried a few times, `between` seconds apart. Raises `InputError` where one cannot be
    fetched, or they are not what was delivered.
    """
    with tempfile.TemporaryFile() as whole:
        for name in found.parts:
            _fetched(name, fetch, whole, between)
        whole.seek(0)
        if hashlib.file_digest(whole, "sha256").hexdigest() != found.sha256:
            raise InputError.one(to, "was damaged on its way here", "try again")
        with zipfile.ZipFile(whole) as file:
            file.extractall(to)


def _fetched(
    name: str, fetch: Callable[[str, IO[bytes]], None], whole: IO[bytes], between: float
) -> None:
    begin = whole.tell()
    for left in reversed(range(_TRIES)):
        try:
            fetch(name, whole)
            return
        except InputError:
            if not left:
                raise
        whole.seek(begin)
        whole.truncate()
        time.sleep(between)


class _Parts(io.RawIOBase):
    """A file to write to that becomes several, none longer than `part_bytes`."""

    def __init__(self, folder: Path, part_bytes: int) -> None:
        self.names: list[str] = []
        self.sha256 = hashlib.sha256()
        self._folder = folder
        self._part_bytes = part_bytes
        self._file: IO[bytes] | None = None

    def writable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def write(self, data: Any) -> int:
        """See `io.RawIOBase`."""
        rest = memoryview(data).cast("B")
        self.sha256.update(rest)
        while rest:
            if self._file is None or self._file.tell() == self._part_bytes:
                self._next()
            assert self._file is not None
            here = rest[: self._part_bytes - self._file.tell()]
            self._file.write(here)
            rest = rest[len(here) :]
        return len(data)

    def _next(self) -> None:
        if self._file:
            self._file.close()
        self.names.append(f"part-{len(self.names):04}")
        self._file = (self._folder / self.names[-1]).open("wb")

    def close(self) -> None:
        """See `io.IOBase`."""
        if self._file:
            self._file.close()
        super().close()
