"""What became of each training: its outcome, tries that failed, and where one that runs goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kdsearch.agenda import Attempt, Outcome, written_outcome
from kdsearch.errors import InputError, Problem, shown
from kdsearch.ledger import layout
from kdsearch.ledger.disk import Disk
from kdsearch.ledger.layout import is_key, is_ours
from kdsearch.ledger.links import marker_advice, shared_link
from kdsearch.ledger.reading import UnreadableError
from kdsearch.ledger.records import parse_result
from kdsearch.ledger.storage import Storage

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
    def digest(self) -> str:
        """The digest that the file has while it is whole."""
        return self.path.stem.partition("-")[2]


class Results(Storage):
    """Outcomes, which are written once, attempts, and the checkpoints of what has not ended."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        super().__init__(folder, disk)
        self._told: set[Path] = set()
        self._swept: dict[str, Outcome] = {}
        """What a sweep read, by key: outcomes are written once, and need not be read twice."""

    def write_outcome(self, outcome: Outcome) -> bool:
        """Commit an outcome; False if another process was first, whose outcome then stands."""
        content = json.dumps(written_outcome(outcome), indent=1, ensure_ascii=False)
        return self._commit(self.path(layout.outcome(outcome.key)), content.encode())

    def outcome(self, key: str) -> Outcome | None:
        """The outcome of a training, if it has one. One that is damaged is none, and is named."""
        found = self._result(self.path(layout.outcome(key)))
        return found if isinstance(found, Outcome) else None

    def read_outcome(self, key: str) -> Outcome:
        """The outcome of a training; raises as `_read_result` does, and `FileNotFoundError`."""
        found = self._read_result(self.path(layout.outcome(key)))
        assert isinstance(found, Outcome)
        return found

    def outcomes(self, known: Collection[str] = ()) -> Iterator[Outcome]:
        """Every outcome but those of the keys `known`, in the order of the keys."""
        swept, self._swept = self._swept, {}
        for name in sorted(self.disk.names(self.folder / layout.OUTCOMES)):
            key = name.removesuffix(".json")
            if name.endswith(".json") and is_key(key) and key not in known:
                outcome = swept.get(key) or self.outcome(key)
                if outcome is not None:
                    yield outcome

    def write_attempt(self, attempt: Attempt) -> None:
        """Record a try that failed now, under the next free number; `steps` are its progress's."""
        key = attempt.key
        folder = self.path(layout.attempts(key))
        self.make_folder(folder)
        steps = max((saved.steps for saved in self.progress(key)), default=0)
        retried = sum(name.endswith(".retried") for name in self.disk.names(folder))
        number = 1 + retried + len(self.attempts_of(key))
        told = {"steps": steps, "ended": datetime.now(UTC)}
        while True:
            numbered = attempt.model_copy(update={**told, "number": number})
            content = numbered.model_dump_json(indent=1).encode()
            if self._commit(self.path(layout.attempt(key, number)), content):
                break
            number += 1
        if attempt.traceback:
            self.write(layout.attempt(key, number, "txt"), attempt.traceback)

    def read_attempt(self, name: str) -> Attempt:
        """The failed try in the file `name`; raises as `read_outcome` does."""
        found = self._read_result(self.path(name))
        assert isinstance(found, Attempt)
        return found

    def attempts_of(self, key: str) -> list[Attempt]:
        """The failed tries of a training, the first one first."""
        found = [self._result(path) for path in self._ours(layout.attempts(key), ".json")]
        attempts = [attempt for attempt in found if isinstance(attempt, Attempt)]
        return sorted(attempts, key=lambda attempt: attempt.number)

    def attempts(self) -> dict[str, list[Attempt]]:
        """The failed tries of each training that has any."""
        names = sorted(self.disk.names(self.folder / layout.ATTEMPTS))
        keys = [name for name in names if is_key(name)]
        return {key: found for key in keys if (found := self.attempts_of(key))}

    def forgive(self, key: str) -> None:
        """Have the failed tries of a training count no more. They stay, under other names."""
        for attempt in self.attempts_of(key):
            path = self.path(layout.attempt(key, attempt.number))
            self._refuse_shared(path)
            self.disk.replace(path, self.path(layout.attempt(key, attempt.number, "retried")))

    def progress(self, key: str) -> list[Progress]:
        """The checkpoints of a training that has not ended, the one that got furthest first."""
        found = [Progress(path=path) for path in self._ours(layout.progress(key), ".pt")]
        return sorted(found, key=lambda progress: -progress.steps)

    def is_whole(self, progress: Progress) -> bool:
        """Whether the file has the digest that its name tells."""
        return self.digest(str(progress.path.relative_to(self.folder))) == progress.digest

    def _ours(self, folder: str, ending: str) -> list[Path]:
        """Our files in a training's folder."""
        names = [f"{folder}/{name}" for name in self.disk.names(self.path(folder))]
        return [self.folder / name for name in names if name.endswith(ending) and is_ours(name)]

    def sweep_results(self) -> None:
        """Set aside outcomes and attempts that are damaged, so that they can be written again.

        The disk said that they were durable, and was wrong, as in a power loss. Raises `InputError`
        for those of another kdsearch, and for damaged ones that must not be moved away.
        """
        problems: list[Problem] = []
        for path in self._all_results():
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

    def _all_results(self) -> list[Path]:
        keys = sorted(self.disk.names(self.folder / layout.ATTEMPTS))
        folders = [layout.OUTCOMES, *map(layout.attempts, keys)]
        names = [
            f"{folder}/{name}"
            for folder in folders
            for name in sorted(self.disk.names(self.folder / folder))
        ]
        return [
            self.folder / name
            for name in names
            if name.endswith(".json") and is_ours(name) and "/." not in name
        ]

    def _set_aside(self, path: Path, error: UnreadableError) -> Iterator[Problem]:
        link = shared_link(self.disk, self.folder, path)
        if link is not None:
            # What is trained anew could not be written in its place.
            what = f"{error}, and lies behind the link {link.name}, so it is not set aside"
            remedy = f"move it away; or, {marker_advice(self.folder, link)}"
            yield Problem(place=str(path), what=what, remedy=remedy)
            return
        _log.warning("%s: %s; it is set aside and retrained", shown(path), error)
        self.disk.replace(path, path.with_name(f".{path.name}.torn"))

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
        content = self.disk.read(path)
        if path.parent == self.folder / layout.OUTCOMES:
            return parse_result(path, content, Outcome)
        return parse_result(path, content, Attempt)

    def _ignore(self, path: Path, what: str) -> None:
        """Say once what is wrong with a file that is passed over."""
        if path not in self._told:
            self._told.add(path)
            _log.warning("%s: %s", shown(path), shown(what))
