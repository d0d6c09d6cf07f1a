"""One driver per study: flock on one host, a heartbeat that no longer moves across hosts."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from kdsearch.errors import InputError, StorageError, shown_name
from kdsearch.ledger.disk import OsDisk, open_own, storage_error
from kdsearch.ledger.layout import DRIVER, LOCK
from kdsearch.ledger.reading import read_object

HEARTBEAT_SECONDS = 5.0
LEASE_SECONDS = 60.0


@contextmanager
def driver_lock(
    folder: Path, lease: float = LEASE_SECONDS, taken_over: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the study's folder as its only driver.

    A driver that died on this host frees it at once; one on another host when its heartbeat has
    not moved for `lease` seconds on our own clock. Raises `InputError` naming the holder. Where
    this process was silent for so long itself, and another one has taken the folder over,
    `taken_over` is called from a thread.
    """
    try:
        file = open_own(folder / LOCK, "a")
    except OSError as error:
        raise storage_error(folder, error) from None
    beat = folder / DRIVER
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(folder, _read(beat)) from None
        other = _read(beat)
        if other.get("host", socket.gethostname()) != socket.gethostname():
            _wait_for_silence(folder, beat, other, lease)
        stop = threading.Event()
        note = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now().isoformat(timespec="seconds"),
            "id": uuid.uuid4().hex,
        }
        _write(beat, {**note, "beat": 0})
        if other and other.get("host") != note["host"]:
            time.sleep(
                min(2.0, lease / 10)
            )  # two hosts may take over at once; the later one has it
            if not _ours(beat, note):
                raise _held(folder, _read(beat))
        arguments = (beat, note, stop, taken_over)
        thread = threading.Thread(target=_keep_beating, args=arguments, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            if _ours(beat, note):
                OsDisk().remove(beat)


def leave(folder: Path) -> None:
    """Let go of the folder in a process that ends without unwinding."""
    if _read(folder / DRIVER).get("pid") == os.getpid():
        OsDisk().remove(folder / DRIVER)


def driver_of(folder: Path) -> dict[str, Any] | None:
    """Who drives the study now, as far as its heartbeat says: host, pid and since when.

    None where there is no driver, or one on another host that has not been heard of for a while.
    """
    path = folder / DRIVER
    note = _read(path)
    if not note:
        return None
    if note["host"] == socket.gethostname():
        try:
            os.kill(note["pid"], 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return note
    try:
        silent = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    if 0 <= silent < LEASE_SECONDS:
        return note
    # So long ago, or yet to come: a clock may be wrong, here or there. Does the heart beat?
    time.sleep(HEARTBEAT_SECONDS + 1.0)
    return note if _read(path) not in ({}, note) else None


def _ours(beat: Path, note: dict[str, Any]) -> bool:
    """Whether the folder is still ours, as far as can be read."""
    return bool(_read(beat).get("id", note["id"]) == note["id"])


def _keep_beating(
    beat: Path, note: dict[str, Any], stop: threading.Event, taken_over: Callable[[], None]
) -> None:
    count = 0
    while not stop.wait(HEARTBEAT_SECONDS):
        count += 1
        if not _ours(beat, note):
            taken_over()
            return
        try:
            _write(beat, {**note, "beat": count})
        except StorageError:
            continue  # a full disk must not end the search; the next beat tries again


def _wait_for_silence(folder: Path, beat: Path, other: dict[str, Any], lease: float) -> None:
    since = time.monotonic()
    while time.monotonic() - since < lease:
        time.sleep(min(1.0, lease / 10))
        now = _read(beat)
        if not now:
            return
        if now != other:
            raise _held(folder, now)


def _held(folder: Path, note: dict[str, Any]) -> InputError:
    who = "a process"
    if note:
        who = (
            f"process {note['pid']} on {shown_name(note['host'])} since {shown_name(note['since'])}"
        )
    return InputError.one(
        folder, f"is being driven by {who}", "wait for it, or stop it; `kdsearch status` shows it"
    )


def _read(path: Path) -> dict[str, Any]:
    note = read_object(path)
    pid = note.get("pid")
    whole = isinstance(pid, int) and not isinstance(pid, bool) and 0 < pid < 2**31
    return note if whole and _has_texts(note, "host", "since") else {}


def _has_texts(note: dict[str, Any], *names: str) -> bool:
    return all(isinstance(note.get(name), str) for name in names)


def _write(path: Path, note: dict[str, Any]) -> None:
    OsDisk().note(path, json.dumps(note).encode())
