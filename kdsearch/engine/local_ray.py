"""A Ray of our own on this machine, which starts while this process does other things."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from kdsearch.errors import InputError

_HEAD = Path(__file__).with_name("ray_tune") / "head.py"
# Ray's memory monitor would end the whole run, where the kernel's ends one worker.
_SETTINGS = {"RAY_memory_monitor_refresh_ms": "0"}
"""Of the environment, unless it has others."""
_TMP = "/tmp"
_LONGEST_TMPDIR = 39
"""In bytes. A socket's path has 107 at most, and Ray's lie up to 68 below this folder:
/ray/session_2026-12-24_08-00-00_123456_1234567/sockets/plasma_store."""


class LocalRay:
    """Ray's processes on this machine; they end with this one, whatever ends it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def start(self, say: Callable[[str], None] = print) -> None:
        """Have it started, without waiting for it; nothing where it is begun.

        Raises `InputError` where its sockets have no room in the temporary folder.
        """
        if self._process is not None:
            return
        _shorten_tmpdir(say)
        # In a group of its own, to be ended as one; Ctrl-C is for this process alone.
        self._process = subprocess.Popen(
            [sys.executable, "-P", _HEAD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={**_SETTINGS, **os.environ},
        )

    def address(self) -> str:
        """Of its head, once that is up. Raises `ConnectionError` where it is not."""
        assert self._process is not None
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        found: dict[str, str] = json.loads(said) if said else {"error": "it ended as it started"}
        if "error" in found:
            raise ConnectionError(found["error"])
        return found["address"]

    def close(self) -> None:
        """End it and all that it started, at once, also while it starts."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()
            self._process = None


def _shorten_tmpdir(say: Callable[[str], None]) -> None:
    """Leave TMPDIR, for this process and those it starts, where Ray's sockets have room.

    Raises `InputError` where that cannot be.
    """
    if _too_long("RAY_TMPDIR"):
        raise _no_room("RAY_TMPDIR")
    if _too_long("TMPDIR"):
        if not os.access(_TMP, os.W_OK | os.X_OK):
            raise _no_room("TMPDIR")
        say(f"TMPDIR is too long for Ray's sockets: using {_TMP} instead")
        os.environ["TMPDIR"] = _TMP


def _too_long(name: str) -> bool:
    return len(os.fsencode(os.environ.get(name, ""))) > _LONGEST_TMPDIR


def _no_room(name: str) -> InputError:
    what = f"is too long for Ray's sockets: {os.environ[name]}"
    remedy = f"give it a folder whose path has at most {_LONGEST_TMPDIR} bytes"
    return InputError.one(name, what, remedy)
