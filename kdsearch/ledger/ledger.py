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
nodes.json            what the nodes of the cluster have, and what those lack that are left out
digests/<key>.json    of files that were made again, where they differ from the outcome's
checkpoints/<key>/    a teacher's kept epochs
outputs/<key>.npy     a checkpoint's outputs on the training split; of translation hidden states,
                      with the head that makes logits of them in <key>.head.safetensors; beside
                      it those on validation and test, <key>.validation.npy and <key>.test.npy
students/<key>/       a student's best epoch, as a Hugging Face folder
report/               what `kdsearch report` wrote
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from kdsearch.agenda import Attempt, Outcome, failed_for_good, written_outcome
from kdsearch.errors import InputError, Problem, StorageError, shown
from kdsearch.ledger.disk import ABSENT, Disk, OsDisk
from kdsearch.ledger.names import FOLDERS, below, is_key, is_ours, marker_advice, shared_link
from kdsearch.ledger.reading import UnreadableError, open_plain, parse_json, read_plain
from kdsearch.ledger.records import (
    parse_digests,
    parse_preflight,
    parse_resolved,
    parse_result,
)
from kdsearch.ledger.removal import kept_back, remove, sweep_halves
from kdsearch.study import Preflight, Resolved, Row, digest_rows

_COPY = "bring it back from a copy of the folder"
_DAMAGED = f"{_COPY}, or give another --folder"
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
            with open_plain(self.path) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, UnreadableError):
            return False
        return self.path.stem.partition("-")[2] == digest


class Ledger:
    """The files of one study. Many processes on many hosts may write at once."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self.folder = folder
        self._disk = disk or OsDisk()
        self._told: set[Path] = set()
        self._swept: dict[str, Outcome] = {}
        """What a sweep read, by key: outcomes are written once, and need not be read twice."""

    def path(self, name: str) -> Path:
        """Where the file `name` lies. Raises `InputError` for a name that is none; see `below`."""
        return below(self.folder, name)

    def prepare(self) -> None:
        """Make the folders, and see that this storage can commit an outcome.

        Raises `StorageError` where it cannot.
        """
        for name in FOLDERS:
            self._disk.make_folder(self.folder / name, parents=True)
        probe = self.folder / f".probe-{uuid.uuid4().hex}"
        linked = probe.with_suffix(".linked")
        try:
            self._disk.write(probe, b"")
            self._disk.link(probe, linked)
        finally:
            self._disk.remove(linked)
            self._disk.remove(probe)
        if any(True for _ in self._disk.names(self.folder / "report")):
            self._refuse_shared(self.folder / "report" / "report.html")  # now, not at the end

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

        Outcomes and attempts that are damaged, as by a power loss, are set aside, so that they can
        be written again: the disk said that they were durable, and was wrong. Raises `InputError`
        for those of another kdsearch, and for damaged ones that must not be moved away.
        """
        problems: list[Problem] = []
        for path in (*self._files("outcomes", "*.json"), *self._files("attempts", "*/*.json")):
            try:
                found = self._read_result(path)
                if isinstance(found, Outcome):
                    self._swept[found.key] = found
            except UnreadableError as error:
                problems += self._set_aside(path, error)
            except InputError as error:
                problems += error.problems
            except FileNotFoundError:
                continue
        if problems:
            raise InputError(problems)
        sweep_halves(self.folder)
        for key in self._disk.names(self.folder / "progress"):
            if is_key(key) and self.outcome(key) is not None:
                self.remove_progress(key)

    def _set_aside(self, path: Path, error: UnreadableError) -> Iterator[Problem]:
        link = shared_link(self.folder, path)
        if link is not None:
            # What is trained anew could not be written in its place.
            what = f"{error}, and lies behind the link {link.name}, so that it is not set aside"
            mend = f"move it away; or, {marker_advice(self.folder, link)}"
            yield Problem(place=str(path), what=what, mend=mend)
            return
        _log.warning("%s: %s; it is set aside, and trained anew", shown(path), error)
        self._disk.replace(path, path.with_name(f".{path.name}.torn"))

    def kept_students(self) -> set[str]:
        """The keys of the students whose weights are here."""
        return {name for name in self._disk.names(self.folder / "students") if is_key(name)}

    def remove_student(self, key: str) -> bool:
        """Remove a student's weights, unless they must stay; see `remove`."""
        name = f"students/{key}"
        if shared_link(self.folder, self.path(name)):
            return False
        outcome = self.outcome(key)
        return self.remove(name, self.digests(outcome) if outcome else ())

    def kept_back(self, name: str, known: Collection[str] = ()) -> str | None:
        """Why a file or a folder must not be removed, in words; see `removal.kept_back`."""
        return kept_back(self.folder, name, known)

    def remove(self, name: str, known: Collection[str] = ()) -> bool:
        """Remove a file or a folder, unless it must be kept back; whether it is gone.

        `known` are the files in it that an outcome has digests of.
        """
        return remove(self.folder, name, known)

    def intact(self, outcome: Outcome, folder: str) -> bool:
        """Whether the files that a training kept in `folder` are there, with their digests."""
        digests = self.digests(outcome)
        kept = {name: digest for name, digest in digests.items() if name.startswith(f"{folder}/")}
        return bool(kept) and all(self.digest(name) == kept[name] for name in kept)

    def digest(self, name: str) -> str | None:
        """The SHA-256 of a file; None if it is not there. Read once while it does not change."""
        path = self.path(name)
        try:
            stat = path.stat()
            return _digest(path, stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except UnreadableError:
            return None
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            return None

    def digests(self, outcome: Outcome) -> dict[str, str]:
        """The digests of what a training kept: the outcome's, or those of what was made again."""
        return {**outcome.digests, **self.digests_again(outcome.key)}

    def digests_again(self, key: str) -> dict[str, str]:
        """The digests of what a training made again, where they are not those of its outcome."""
        path = self.path(f"digests/{key}.json")
        try:
            return parse_digests(self._disk.read(path))
        except FileNotFoundError:
            return {}
        except UnreadableError as error:
            self._ignore(path, str(error))
            return {}

    def write_digests(self, key: str, digests: dict[str, str]) -> None:
        """Record the digests of what was made again, in the place of those of its outcome."""
        self.write(f"digests/{key}.json", json.dumps(digests, indent=1))

    def forget(self) -> None:
        """Let go of a study that has not begun, for another one."""
        self._disk.remove(self.folder / "resolved.json")

    def strangers(self) -> list[str]:
        """What lies in the folder and is not a study's."""
        names = set(self._disk.names(self.folder)) - set(FOLDERS)
        return sorted(name for name in names if not (name.startswith(".") or is_ours(name)))

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
            return parse_resolved(path, self._disk.read(path))
        except FileNotFoundError:
            mend = "give the folder that `kdsearch launch` printed"
            raise InputError.one(self.folder, "holds no study", mend) from None
        except UnreadableError as error:
            raise InputError.one(path, f"cannot be read: {error}", _DAMAGED) from None

    def write_preflight(self, preflight: Preflight) -> None:
        """Keep what a preflight found, in the place of an earlier one's."""
        self.write("preflight.json", preflight.model_dump_json(indent=1))

    def preflight(self) -> Preflight | None:
        """What the last preflight found; None of a folder without one, or with a damaged one."""
        try:
            return self.read_preflight()
        except FileNotFoundError:
            return None
        except UnreadableError as error:
            self._ignore(self.path("preflight.json"), f"cannot be read: {error}")
        return None

    def read_preflight(self) -> Preflight:
        """The same; raises `UnreadableError` for a damaged one, and `FileNotFoundError`."""
        return parse_preflight(self._disk.read(self.path("preflight.json")))

    def write_rows(self, digest: str, rows: list[Row]) -> None:
        """Keep the rows of a split under their digest."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self._commit(self.path(f"data/{digest}.jsonl"), lines.encode())

    def rows(self, digest: str, most: int | None = None) -> list[Row]:
        """The rows of a split, or its first ones.

        Raises `InputError` for what is no JSON, and where all of them have another digest.
        """
        path = self.path(f"data/{digest}.jsonl")
        try:
            content = self._disk.read(path)
            # Not `splitlines`: a text may hold U+2028 and other ends of lines.
            lines = content.split(b"\n", -1 if most is None else most)[:most]
            rows = [parse_json(line) for line in lines if line]
            found = digest if most is not None else digest_rows(rows)
        except ValueError as error:
            raise InputError.one(path, f"holds no rows: {error}", _COPY) from None
        if found != digest:
            raise InputError.one(path, f"has the digest {found}", _COPY)
        return rows

    # -- outcomes and attempts ------------------------------------------------------------------

    def write_outcome(self, outcome: Outcome) -> bool:
        """Commit an outcome; False if another process was first, whose outcome then stands."""
        path = self.path(f"outcomes/{outcome.key}.json")
        content = json.dumps(written_outcome(outcome), indent=1, ensure_ascii=False)
        return self._commit(path, content.encode())

    def outcome(self, key: str) -> Outcome | None:
        """The outcome of a training, if it has one. One that is damaged is none, and is named."""
        found = self._result(self.path(f"outcomes/{key}.json"))
        return found if isinstance(found, Outcome) else None

    def outcomes(self, known: Collection[str] = ()) -> Iterator[Outcome]:
        """Every outcome but those of the keys `known`, in the order of the keys."""
        swept, self._swept = self._swept, {}
        for name in sorted(self._disk.names(self.folder / "outcomes")):
            key = name.removesuffix(".json")
            if name.endswith(".json") and is_key(key) and key not in known:
                outcome = swept.get(key) or self.outcome(key)
                if outcome is not None:
                    yield outcome

    def _result(self, path: Path) -> Outcome | Attempt | None:
        try:
            return self._read_result(path)
        except FileNotFoundError:
            return None
        except UnreadableError as error:
            self._ignore(path, f"{error}; launch again to repeat its training")
        return None

    def _read_result(self, path: Path) -> Outcome | Attempt:
        """The outcome or the attempt in a file.

        Raises `UnreadableError` for one that is damaged or is another training's, `InputError` for
        one of another kdsearch.
        """
        content = self._disk.read(path)
        if path.parent == self.folder / "outcomes":
            return parse_result(path, content, Outcome)
        return parse_result(path, content, Attempt)

    def _ignore(self, path: Path, what: str) -> None:
        """Say once what is wrong with a file that is passed over."""
        if path not in self._told:
            self._told.add(path)
            _log.warning("%s: %s", shown(path), shown(what))

    def read_outcome(self, key: str) -> Outcome:
        """The outcome of a training; raises as `_read_result` does, and `FileNotFoundError`."""
        found = self._read_result(self.path(f"outcomes/{key}.json"))
        assert isinstance(found, Outcome)
        return found

    def read_attempt(self, name: str) -> Attempt:
        """The failed try in the file `name`; raises as `read_outcome` does."""
        found = self._read_result(self.path(name))
        assert isinstance(found, Attempt)
        return found

    def write_attempt(self, attempt: Attempt) -> None:
        """Record a try that failed, under the next free number; `steps` are its progress's."""
        folder = self.path(f"attempts/{attempt.key}")
        self.make_folder(folder)
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
        folder = self.path(f"attempts/{key}")
        for attempt in self.attempts_of(key):
            path = folder / f"{attempt.number}.json"
            self._refuse_shared(path)
            self._disk.replace(path, path.with_suffix(".retried"))

    def attempts_of(self, key: str) -> list[Attempt]:
        """The failed tries of a training, the first one first."""
        folder = self.path(f"attempts/{key}")
        names = [name for name in self._disk.names(folder) if is_ours(f"attempts/{key}/{name}")]
        found = [self._result(folder / name) for name in names if name.endswith(".json")]
        attempts = [attempt for attempt in found if isinstance(attempt, Attempt)]
        return sorted(attempts, key=lambda attempt: attempt.number)

    def attempts(self) -> dict[str, list[Attempt]]:
        """The failed tries of each training that has any."""
        names = sorted(self._disk.names(self.folder / "attempts"))
        keys = [name for name in names if is_key(name)]
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
        folder = self.path(f"progress/{key}")
        names = [name for name in self._disk.names(folder) if is_ours(f"progress/{key}/{name}")]
        found = [Progress(path=folder / name) for name in names if name.endswith(".pt")]
        return sorted(found, key=lambda progress: -progress.steps)

    def remove_progress(self, key: str) -> None:
        """Remove the checkpoints of a training that has ended, unless they must stay."""
        with suppress(StorageError):  # they cost room, no more
            self.remove(f"progress/{key}")

    def watchdog(self, key: str) -> Path:
        """A file that is there while a training runs, and holds where it hung if it did."""
        return self.path(f"attempts/.{key}.watchdog")

    def hung(self, key: str) -> str:
        """Where a training hung that its watchdog ended; empty where it did not."""
        try:
            return read_plain(self.watchdog(key)).decode(errors="replace")
        except (FileNotFoundError, UnreadableError):
            return ""

    def ask_to_stop(self, *, drain: bool, person: bool) -> None:
        """Ask the driver to end the search: now, or (`drain`) when what runs has ended.

        What no `person` asks for, but a scheduler that is about to end a job, holds for the driver
        that runs now, and changes nothing where a person has asked.
        """
        if not person and self.stopped_by_person():
            return
        self.write("stop.json", json.dumps({"drain": drain, "person": person}))

    def stop_asked(self) -> Literal["now", "drain"] | None:
        """What `ask_to_stop` asked for."""
        drain = self._stop().get("drain")
        if not isinstance(drain, bool):
            return None
        return "drain" if drain else "now"

    def stopped_by_person(self) -> bool:
        """Whether a person asked for it, so that it holds until one launches the search again."""
        return self.stop_asked() is not None and self._stop().get("person", True) is not False

    def _stop(self) -> dict[str, Any]:
        try:
            note = parse_json(self._disk.read(self.folder / "stop.json"))
        except (FileNotFoundError, UnreadableError):
            return {}
        return note if isinstance(note, dict) else {}

    def forget_stop(self) -> None:
        """A new search is not bound by what the one before was asked."""
        self._disk.remove(self.folder / "stop.json")

    def forget_nodes(self) -> None:
        """What an earlier search found of its nodes holds no more."""
        self._disk.remove(self.folder / "nodes.json")

    # -- other files ----------------------------------------------------------------------------

    def write(self, name: str, content: str) -> None:
        """Write a derived file (a report, a progress note), taking the place of an older one.

        Raises `InputError` where the older one may be another study's.
        """
        path = self.path(name)
        self.make_folder(path.parent)
        if shared_link(self.folder, path):
            if (
                not self._commit(path, content.encode())
                and self._disk.read(path) != content.encode()
            ):
                self._refuse_shared(path)
            return
        temporary = self._temporary(path)
        self._disk.write(temporary, content.encode())
        self._disk.replace(temporary, path)

    def make_folder(self, folder: Path) -> None:
        """Make a folder below the study's, which must be there.

        On a node where the storage is not mounted, a study's folder would hide that.
        """
        inside = len(folder.relative_to(self.folder).parts)
        for path in reversed([folder, *folder.parents][:inside]):
            self._disk.make_folder(path)

    def _refuse_shared(self, path: Path) -> None:
        """Raise `InputError` for a file that must not be replaced: see `shared_link`."""
        link = shared_link(self.folder, path)
        if link is not None:
            what = f"would be replaced, and lies behind the link {link}: it may be another study's"
            raise InputError.one(path, what, marker_advice(self.folder, link))

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
        return [path for path in found if is_ours(str(path.relative_to(self.folder)))]


@lru_cache(maxsize=4096)
def _digest(path: Path, changed: int, size: int, inode: int) -> str:
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
