"""Reading what may have been written by anyone: plain files only, of a bounded size; real JSON."""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

MOST_BYTES = 64 << 20
"""Of a file of JSON. An outcome has some thousand bytes, a study with many labels a few million."""


_NO_FILE = (errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ENAMETOOLONG)
"""Of what is no file that could be read, where `open` fails as for a file."""


class UnreadableError(ValueError):
    """A file does not hold what its name says; the message says why."""


def open_plain(path: Path) -> BufferedReader:
    """Open a plain file to read it; a pipe, which would wait for ever, and a device are refused.

    Raises `UnreadableError`, and `OSError` as `open` does.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise UnreadableError(f"cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableError("is not a regular file")
    return open(descriptor, "rb")


def read_plain(path: Path) -> bytes:
    """The content of a file; only that of rows may be large. Raises as `open_plain` does."""
    most = None if path.suffix == ".jsonl" else MOST_BYTES
    with open_plain(path) as file:
        if most is not None and os.fstat(file.fileno()).st_size > most:
            raise UnreadableError(f"has more than {most >> 20} MiB")
        try:
            return file.read(-1 if most is None else most)
        except OSError as error:  # of the disk or the network: what the file holds is not known
            raise OSError(error.errno, error.strerror, str(path)) from None


def parse_json(content: bytes) -> Any:
    """What JSON says, which has no NaN and no Infinity. Raises `UnreadableError`."""
    try:
        return json.loads(content, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise UnreadableError("is nested too deeply") from None
    except UnreadableError:
        raise
    except ValueError as error:
        raise UnreadableError(f"is not JSON: {error}") from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none. For notes that nothing hangs on."""
    try:
        plain = parse_json(read_plain(path))
    except (OSError, UnreadableError):
        return {}
    return plain if isinstance(plain, dict) else {}


def _no_number(name: str) -> NoReturn:
    raise UnreadableError(f"holds {name}, which is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise UnreadableError(f"holds {text[:20]}, which no number can be")
    return number
