"""The ledger: one file per outcome, written once, in the study's folder. Everything else follows.

study.yaml            the study as it was launched
resolved.json         the study with the digests of its data and models
resolved-<n>.json     what it was before the study file was changed
preflight.json        what was found out about its rows and models before anything was trained
data/<digest>.jsonl   the rows of each split
outcomes/<key>.json   what became of each training
attempts/<key>/<n>.json   tries that failed, with their traceback in <n>.txt; <n>.retried: forgiven
progress/<key>/<steps>-<digest>.pt   where a training that runs goes on if its worker dies
stop.json             what `kdsearch stop` asks the driver
digests/<key>.json    of files that were made again, where they differ from the outcome's
checkpoints/<key>/    a teacher's kept epochs
outputs/<key>.npy     a checkpoint's outputs on the training split; of translation hidden states,
                      with the head that makes logits of them in <key>.head.safetensors
students/<key>/       a student's best epoch, as a Hugging Face folder
report/               what `kdsearch report` wrote
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from kdsearch.agenda import VERSION, Attempt, Outcome, failed_for_good
from kdsearch.errors import InputError
from kdsearch.ledger.disk import Disk, OsDisk, storage_error
from kdsearch.study import FORMAT, READABLE, Preflight, Resolved, Row

_DAMAGED = "bring it back from a copy of the folder, or give another --folder"
_FOLDERS = (
    "outcomes",
    "attempts",
    "digests",
    "data",
    "checkpoints",
    "outputs",
    "students",
    "progress",
    "report",
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A checkpoint of a training: a file whose name tells how far it is, and its digest."""

    path: Path

    @property
    def steps(self) -> int:
        """How many steps the training has behind it."""
        return int(self.path.name.partition("-")[0])

    @property
    def intact(self) -> bool:
        """Whether the file has the digest that its name tells."""
        try:
            with self.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return False
        return self.path.stem.partition("-")[2] == digest


class Ledger:
    """The files of one study. Many processes on many hosts may write at once."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self.folder = folder
        self._disk = disk or OsDisk()

    def prepare(self) -> None:
        """Make the folders, and see that this storage can commit an outcome.

        Raises `StorageError` where it cannot.
        """
        for name in _FOLDERS:
            self._disk.make_folder(self.folder / name)
        probe = self.folder / f".probe-{uuid.uuid4().hex}"
        linked = probe.with_suffix(".linked")
        try:
            self._disk.write(probe, b"")
            self._disk.link(probe, linked)
        finally:
            self._disk.remove(linked)
            self._disk.remove(probe)

    # -- the study ------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether the folder holds a study."""
        return "resolved.json" in self._disk.names(self.folder)

    @property
    def begun(self) -> bool:
        """Whether any training of the folder's study has ended."""
        folders = (self.folder / name for name in ("outcomes", "attempts"))
        return any(True for folder in folders for _ in self._disk.names(folder))

    def sweep(self) -> None:
        """Remove what workers that were killed left half written; only a driver may do it.

        Outcomes and attempts that a power loss cut off are set aside, so that they can be written
        again: the disk said that they were durable, and was wrong.
        """
        for path in (*self._files("outcomes", "*.json"), *self._files("attempts", "*/*.json")):
            if _is_torn(path.read_bytes()):
                _log.warning("%s was cut off; it is set aside, and trained anew", path)
                self._disk.replace(path, path.with_name(f".{path.name}.torn"))
        for folder in ("outputs", "checkpoints", "students"):
            for path in (self.folder / folder).glob(".*.tmp"):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        for path in (self.folder / "attempts").glob(".*.watchdog"):
            path.unlink(missing_ok=True)
        for key in self._disk.names(self.folder / "progress"):
            if self.outcome(key) is not None:
                self.remove_progress(key)

    def kept_students(self) -> set[str]:
        """The keys of the students whose weights are here."""
        names = self._disk.names(self.folder / "students")
        return {name for name in names if not name.startswith(".")}

    def remove_student(self, key: str) -> None:
        """Remove a student's weights. What a kill leaves of them is swept at the next start."""
        self.remove(f"students/{key}")

    def remove(self, name: str) -> None:
        """Remove a file or a folder. What a kill leaves of a folder is swept at the next start."""
        path = self.folder / name
        gone = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            if path.is_dir():
                path.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)
            else:
                path.unlink()
        except FileNotFoundError:
            return  # someone else removed it
        except OSError as error:
            raise storage_error(path, error) from None

    def intact(self, outcome: Outcome, folder: str) -> bool:
        """Whether the files that a training kept in `folder` are there, with their digests."""
        digests = self.digests(outcome)
        kept = {name: digest for name, digest in digests.items() if name.startswith(f"{folder}/")}
        return bool(kept) and all(self.digest(name) == kept[name] for name in kept)

    def digest(self, name: str) -> str | None:
        """The SHA-256 of a file; None if it is not there. Read once while it does not change."""
        path = self.folder / name
        try:
            stat = path.stat()
            return _digest(path, stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except FileNotFoundError:
            return None

    def digests(self, outcome: Outcome) -> dict[str, str]:
        """The digests of what a training kept: the outcome's, or those of what was made again."""
        try:
            again = json.loads(self._disk.read(self.folder / "digests" / f"{outcome.key}.json"))
        except (FileNotFoundError, ValueError):
            return outcome.digests
        return {**outcome.digests, **again}

    def write_digests(self, key: str, digests: dict[str, str]) -> None:
        """Record the digests of what was made again, in the place of those of its outcome."""
        self.write(f"digests/{key}.json", json.dumps(digests, indent=1))

    def forget(self) -> None:
        """Let go of a study that has not begun, for another one."""
        self._disk.remove(self.folder / "resolved.json")

    def strangers(self) -> list[str]:
        """What lies in the folder and is not a study's."""
        files = ("resolved.json", "preflight.json", "running.json", "stop.json", "launch.log")
        ours = {*_FOLDERS, *files}
        names = set(self._disk.names(self.folder)) - ours
        known = (".", "driver.", "resolved-")
        return sorted(name for name in names if not name.startswith(known))

    def write_resolved(self, resolved: Resolved) -> None:
        """Record the study; from here on keys come only from it."""
        content = resolved.model_dump_json(indent=1)
        self._commit(self.folder / "resolved.json", content.encode())

    def replace_resolved(self, resolved: Resolved) -> None:
        """Record a changed study; the earlier one stays beside it."""
        content = self._disk.read(self.folder / "resolved.json")
        number = 1
        while not self._commit(self.folder / f"resolved-{number}.json", content):
            number += 1
        self.write("resolved.json", resolved.model_dump_json(indent=1))

    def resolved(self) -> Resolved:
        """The study of this folder.

        Raises `InputError` where there is none, and where another kdsearch would train it otherwise
        than this one.
        """
        path = self.folder / "resolved.json"
        try:
            content = self._disk.read(path)
            _check_version(path, json.loads(content))
            return Resolved.model_validate_json(content)
        except FileNotFoundError:
            raise InputError.one(
                self.folder, "holds no study", "give the folder that `kdsearch launch` printed"
            ) from None
        except ValidationError as error:
            detail = error.errors()[0]
            raise InputError.one(path, f"cannot be read: {detail['msg']}", _DAMAGED) from None
        except ValueError as error:
            raise InputError.one(path, f"cannot be read: {error}", _DAMAGED) from None

    def write_preflight(self, preflight: Preflight) -> None:
        """Keep what a preflight found, in the place of an earlier one's."""
        self.write("preflight.json", preflight.model_dump_json(indent=1))

    def preflight(self) -> Preflight | None:
        """What the last preflight found; None of a folder without one, or with a damaged one."""
        try:
            content = self._disk.read(self.folder / "preflight.json")
            return Preflight.model_validate_json(content)
        except (FileNotFoundError, ValueError):
            return None

    def write_rows(self, digest: str, rows: list[Row]) -> None:
        """Keep the rows of a split under their digest."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._commit(self.folder / "data" / f"{digest}.jsonl", lines.encode())

    def rows(self, digest: str, most: int | None = None) -> list[Row]:
        """The rows of a split, or its first ones."""
        content = self._disk.read(self.folder / "data" / f"{digest}.jsonl")
        # Not `splitlines`: a text may hold U+2028 and other ends of lines.
        lines = content.split(b"\n", -1 if most is None else most)[:most]
        return [json.loads(line) for line in lines if line]

    # -- outcomes and attempts ------------------------------------------------------------------

    def write_outcome(self, outcome: Outcome) -> bool:
        """Commit an outcome; False if another process was first, whose outcome then stands."""
        path = self.folder / "outcomes" / f"{outcome.key}.json"
        return self._commit(path, outcome.model_dump_json(indent=1).encode())

    def outcome(self, key: str) -> Outcome | None:
        """The outcome of a training, if it has one. One that was cut off is none."""
        path = self.folder / "outcomes" / f"{key}.json"
        try:
            return Outcome.model_validate_json(self._disk.read(path))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            if _says_torn(path, error):
                return None
            raise InputError.one(
                path,
                f"is no outcome of this kdsearch: {error.errors()[0]['msg']}",
                "use the one that wrote it, or move it away and launch again to train it anew",
            ) from None

    def outcomes(self) -> Iterator[Outcome]:
        """Every outcome, in the order of the keys."""
        for name in sorted(self._disk.names(self.folder / "outcomes")):
            if name.endswith(".json"):
                outcome = self.outcome(name.removesuffix(".json"))
                if outcome is not None:
                    yield outcome

    def write_attempt(self, attempt: Attempt) -> None:
        """Record a try that failed, under the next free number; `steps` are its progress's."""
        folder = self.folder / "attempts" / attempt.key
        self._disk.make_folder(folder)
        steps = max((path.steps for path in self.progress(attempt.key)), default=0)
        retried = sum(name.endswith(".retried") for name in self._disk.names(folder))
        number = 1 + retried + len(self.attempts_of(attempt.key))
        while True:
            numbered = attempt.model_copy(update={"number": number, "steps": steps})
            content = numbered.model_dump_json(indent=1).encode()
            if self._commit(folder / f"{number}.json", content):
                break
            number += 1
        if attempt.traceback:
            self.write(f"attempts/{attempt.key}/{number}.txt", attempt.traceback)

    def forgive(self, key: str) -> None:
        """Have the failed tries of a training count no more. They stay, under other names."""
        folder = self.folder / "attempts" / key
        for attempt in self.attempts_of(key):
            path = folder / f"{attempt.number}.json"
            self._disk.replace(path, path.with_suffix(".retried"))

    def attempts_of(self, key: str) -> list[Attempt]:
        """The failed tries of a training, the first one first."""
        folder = self.folder / "attempts" / key
        names = [
            name
            for name in self._disk.names(folder)
            if name.endswith(".json") and not name.startswith(".")
        ]
        found = [attempt for name in names if (attempt := self._attempt(folder / name))]
        return sorted(found, key=lambda attempt: attempt.number)

    def _attempt(self, path: Path) -> Attempt | None:
        try:
            return Attempt.model_validate_json(self._disk.read(path))
        except FileNotFoundError:
            return None  # removed since it was listed
        except ValidationError as error:
            if _says_torn(path, error):
                return None
            what = f"is no attempt: {error.errors()[0]['msg']}"
            raise InputError.one(path, what, "remove it") from None

    def attempts(self) -> dict[str, list[Attempt]]:
        """The failed tries of each training that has any."""
        names = sorted(self._disk.names(self.folder / "attempts"))
        keys = [name for name in names if not name.startswith(".")]
        return {key: found for key in keys if (found := self.attempts_of(key))}

    def results(self, tries: int | None = None) -> dict[str, Outcome | None]:
        """What is known: outcomes, and None for what failed as often as the study allows.

        `tries` are those of a study that is not recorded yet.
        """
        return self.results_with(self.outcomes(), tries)

    def results_with(
        self, outcomes: Iterable[Outcome], tries: int | None = None
    ) -> dict[str, Outcome | None]:
        """The same with these outcomes."""
        tries = tries or self.resolved().study.tries
        results: dict[str, Outcome | None] = {
            key: None for key, tried in self.attempts().items() if failed_for_good(tried, tries)
        }
        return results | {outcome.key: outcome for outcome in outcomes}

    # -- trainings that run ---------------------------------------------------------------------

    def progress(self, key: str) -> list[Progress]:
        """The checkpoints of a training that has not ended, the one that got furthest first."""
        folder = self.folder / "progress" / key
        names = [name for name in self._disk.names(folder) if not name.startswith(".")]
        found = [Progress(path=folder / name) for name in names]
        return sorted(found, key=lambda progress: -progress.steps)

    def remove_progress(self, key: str) -> None:
        """Remove the checkpoints of a training that has ended."""
        shutil.rmtree(self.folder / "progress" / key, ignore_errors=True)

    def watchdog(self, key: str) -> Path:
        """A file that is there while a training runs, and holds where it hung if it did."""
        return self.folder / "attempts" / f".{key}.watchdog"

    def ask_to_stop(self, *, drain: bool) -> None:
        """Ask the driver to end the search: now, or (`drain`) when what runs has ended."""
        self.write("stop.json", json.dumps({"drain": drain}))

    def stop_asked(self) -> Literal["now", "drain"] | None:
        """What `ask_to_stop` asked for."""
        try:
            note = json.loads(self._disk.read(self.folder / "stop.json"))
        except (FileNotFoundError, ValueError):
            return None
        return "drain" if note["drain"] else "now"

    def forget_stop(self) -> None:
        """A new search is not bound by what the one before was asked."""
        self._disk.remove(self.folder / "stop.json")

    # -- other files ----------------------------------------------------------------------------

    def write(self, name: str, content: str) -> None:
        """Write a derived file (a report, a progress note), taking the place of an older one."""
        path = self.folder / name
        self._disk.make_folder(path.parent)
        temporary = self._temporary(path)
        self._disk.write(temporary, content.encode())
        self._disk.replace(temporary, path)

    def _commit(self, path: Path, content: bytes) -> bool:
        temporary = self._temporary(path)
        self._disk.write(temporary, content)
        try:
            return self._disk.link(temporary, path)
        finally:
            self._disk.remove(temporary)

    @staticmethod
    def _temporary(path: Path) -> Path:
        unique = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        return path.parent / f".{path.name}.{unique}.tmp"

    def _files(self, folder: str, pattern: str) -> list[Path]:
        found = sorted((self.folder / folder).glob(pattern))
        return [path for path in found if not path.name.startswith(".")]


@lru_cache(maxsize=4096)
def _digest(path: Path, changed: int, size: int, inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_torn(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return True
    return False


def _says_torn(path: Path, error: ValidationError) -> bool:
    """Whether a file is no JSON, and warn of it: a driver sets it aside at its start."""
    torn = error.errors()[0]["type"] == "json_invalid"
    if torn:
        _log.warning(
            "%s was cut off, as by a power loss; launch again to repeat its training", path
        )
    return torn


def _check_version(path: Path, plain: Any) -> None:
    """Refuse a study of a kdsearch that had another format, or other results."""
    if not isinstance(plain, dict):
        return
    wrote = f"kdsearch {plain.get('versions', {}).get('kdsearch', 'of another version')}"
    mend = f"use {wrote}, which wrote it, or launch into another --folder"
    if plain.get("format") not in READABLE:
        raise InputError.one(path, f"has format {plain.get('format')}, not {FORMAT}", mend)
    version = plain.get("training_version", 2)
    if version != VERSION:
        what = f"its outcomes are of training code {version}, and this kdsearch has {VERSION}"
        raise InputError.one(path, f"{what}, which would train them all again", mend)
