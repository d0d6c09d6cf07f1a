"""The ledger: one file per outcome, written once, in the study's folder. Everything else follows.

What the folder holds stands in `layout.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from kdsearch.agenda import Outcome, failed_for_good
from kdsearch.errors import InputError, StorageError
from kdsearch.ledger import layout
from kdsearch.ledger.layout import is_key, is_ours
from kdsearch.ledger.links import shared_link
from kdsearch.ledger.pixels import with_pixels
from kdsearch.ledger.reading import UnreadableError, parse_json
from kdsearch.ledger.records import parse_digests, parse_preflight, parse_resolved
from kdsearch.ledger.removal import sweep_halves
from kdsearch.ledger.results import Results
from kdsearch.study import DatasetFacts, Preflight, Resolved, Row, digest_rows

_COPY = "restore it from a copy of the folder"
_DAMAGED = f"{_COPY}, or give another --folder"


class Ledger(Results):
    """The only state of a search, on storage that every node sees."""

    # -- the study ------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether the folder holds a study."""
        return layout.RESOLVED in self.disk.names(self.folder)

    @property
    def begun(self) -> bool:
        """Whether any training of the folder's study has ended."""
        folders = (self.folder / name for name in (layout.OUTCOMES, layout.ATTEMPTS))
        return any(True for folder in folders for _ in self.disk.names(folder))

    def write_resolved(self, resolved: Resolved) -> None:
        """Record the study; from here on keys come only from it."""
        content = resolved.model_dump_json(indent=1)
        self._commit(self.path(layout.RESOLVED), content.encode())

    def replace_resolved(self, resolved: Resolved) -> None:
        """Record a changed study; the earlier one stays beside it."""
        content = self.disk.read(self.path(layout.RESOLVED))
        number = 1
        while not self._commit(self.path(layout.earlier_study(number)), content):
            number += 1
        self.rewrite_resolved(resolved)

    def rewrite_resolved(self, resolved: Resolved) -> None:
        """Record what has changed of the study and is in no key."""
        self.write(layout.RESOLVED, resolved.model_dump_json(indent=1))

    def resolved(self) -> Resolved:
        """The study of this folder.

        Raises `InputError` where there is none, and where another kdsearch would train it otherwise
        than this one.
        """
        path = self.path(layout.RESOLVED)
        try:
            return parse_resolved(path, self.disk.read(path))
        except FileNotFoundError:
            remedy = "give the folder that `kdsearch launch` printed"
            raise InputError.one(self.folder, "holds no study", remedy) from None
        except UnreadableError as error:
            raise InputError.one(path, f"cannot be read: {error}", _DAMAGED) from None

    def forget(self) -> None:
        """Let go of a study that has not begun, for another one."""
        self._drop(self.path(layout.RESOLVED))

    def strangers(self) -> list[str]:
        """What lies in the folder and is not a study's."""
        names = set(self.disk.names(self.folder)) - set(layout.FOLDERS)
        return sorted(name for name in names if not (name.startswith(".") or is_ours(name)))

    def write_preflight(self, preflight: Preflight) -> None:
        """Keep what a preflight found, in the place of an earlier one's."""
        self.write(layout.PREFLIGHT, preflight.model_dump_json(indent=1))

    def preflight(self) -> Preflight | None:
        """What the last preflight found; None of a folder without one, or with a damaged one."""
        try:
            return self.read_preflight()
        except FileNotFoundError:
            return None
        except UnreadableError as error:
            self._ignore(self.path(layout.PREFLIGHT), f"cannot be read: {error}")
        return None

    @property
    def facts(self) -> Mapping[str, DatasetFacts]:
        """What the last preflight found in each data set."""
        found = self.preflight()
        return found.datasets if found else {}

    def read_preflight(self) -> Preflight:
        """The same; raises `UnreadableError` for a damaged one, and `FileNotFoundError`."""
        return parse_preflight(self.disk.read(self.path(layout.PREFLIGHT)))

    def write_rows(self, digest: str, rows: list[Row]) -> None:
        """Keep the rows of a split under their digest."""
        self._commit(self.path(layout.rows(digest)), written_rows(rows).encode())

    @property
    def scratch(self) -> Path:
        """Where pixels are written before they have their name."""
        return self.folder / layout.DATA

    def write_pixels(self, digest: str, written: Path) -> None:
        """Keep the pixels of a split's images, in a file of `scratch` that goes away."""
        self.disk.sync(written)
        try:
            self.disk.link(written, self.path(layout.pixels(digest)))
        finally:
            self._drop(written)

    def rows(self, digest: str, most: int | None = None) -> list[Row]:
        """The rows of a split, or its first ones; of images with their pixels, uint8 [S, S, 3].

        Raises `InputError` for what is no JSON, where all of them have another digest, and for
        pixels that are not those of the rows.
        """
        rows = self.kept_rows(digest, most)
        if not rows or "pixels" not in rows[0]:
            return rows
        return with_pixels(self.path(layout.pixels(digest)), rows, whole=most is None)

    def kept_rows(self, digest: str, most: int | None = None) -> list[Row]:
        """The same as they are kept: of images, the digest of the pixels in their place."""
        path = self.path(layout.rows(digest))
        rows = self._rows(path, most)
        found = digest if most is not None else digest_rows(rows)
        if found != digest:
            raise InputError.one(path, f"has the digest {found}", _COPY)
        return rows

    def write_sequences(self, key: str, rows: list[Row]) -> str:
        """Keep the rows that a teacher wrote; their file's SHA-256."""
        content = written_rows(rows)
        self.make_folder(self.folder / layout.SEQUENCES)
        self.write(layout.sequences(key), content)
        return hashlib.sha256(content.encode()).hexdigest()

    def sequences(self, key: str) -> list[Row]:
        """The rows that a teacher wrote. Raises `InputError` for what is no JSON."""
        return self._rows(self.path(layout.sequences(key)))

    def _rows(self, path: Path, most: int | None = None) -> list[Row]:
        try:
            content = self.disk.read(path)
            # Not `splitlines`: a text may hold U+2028 and other ends of lines.
            lines = content.split(b"\n", -1 if most is None else most)[:most]
            return [parse_json(line) for line in lines if line]
        except ValueError as error:
            raise InputError.one(path, f"holds no rows: {error}", _COPY) from None

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

    # -- what trainings keep ----------------------------------------------------------------------

    def kept_students(self) -> set[str]:
        """The keys of the students whose weights are here."""
        return {name for name in self.disk.names(self.folder / layout.STUDENTS) if is_key(name)}

    def remove_student(self, key: str) -> bool:
        """Remove a student's weights, unless they must stay; see `remove`."""
        name = layout.student(key)
        if shared_link(self.disk, self.folder, self.path(name)):
            return False
        outcome = self.outcome(key)
        return self.remove(name, self.digests(outcome) if outcome else ())

    def intact(self, outcome: Outcome, folder: str) -> bool:
        """Whether the files that a training kept in `folder` are there, with their digests."""
        digests = self.digests(outcome)
        kept = {name: digest for name, digest in digests.items() if name.startswith(f"{folder}/")}
        return bool(kept) and all(self.digest(name) == kept[name] for name in kept)

    def digests(self, outcome: Outcome) -> dict[str, str]:
        """The digests of what a training kept: the outcome's, or those of what was made again."""
        return {**outcome.digests, **self.digests_again(outcome.key)}

    def digests_again(self, key: str) -> dict[str, str]:
        """The digests of what a training made again, where they are not those of its outcome."""
        path = self.path(layout.digests(key))
        try:
            return parse_digests(self.disk.read(path))
        except FileNotFoundError:
            return {}
        except UnreadableError as error:
            self._ignore(path, str(error))
            return {}

    def write_digests(self, key: str, digests: dict[str, str]) -> None:
        """Record the digests of what was made again, in the place of those of its outcome."""
        self.write(layout.digests(key), json.dumps(digests, indent=1))

    def remove_progress(self, key: str) -> None:
        """Remove the checkpoints of a training that has ended, unless they must stay."""
        with suppress(StorageError):  # they cost room, no more
            self.remove(layout.progress(key))

    def sweep(self) -> None:
        """Remove what workers that were killed left half written; only a driver may do it.

        Outcomes and attempts that are damaged, as by a power loss, are set aside, so that they can
        be written again: the disk said that they were durable, and was wrong. Raises `InputError`
        for those of another kdsearch, and for damaged ones that must not be moved away.
        """
        self.sweep_results()
        sweep_halves(self.disk, self.folder)
        for key in self.disk.names(self.folder / layout.PROGRESS):
            if is_key(key) and self.outcome(key) is not None:
                self.remove_progress(key)

    # -- notes between processes ------------------------------------------------------------------

    def watchdog(self, key: str) -> Path:
        """A file that is there while a training runs, and holds where it hung if it did."""
        return self.path(layout.watchdog(key))

    def forget_watchdog(self, key: str) -> None:
        """A training has ended."""
        self.disk.remove(self.watchdog(key))

    def hung(self, key: str) -> str:
        """Where a training hung that its watchdog ended; empty where it did not."""
        try:
            return self.disk.read(self.watchdog(key)).decode(errors="replace")
        except (FileNotFoundError, UnreadableError):
            return ""

    def ask_to_stop(self, *, drain: bool, person: bool) -> None:
        """Ask the driver to end the search: now, or (`drain`) when what runs has ended.

        What no `person` asks for, but a scheduler that is about to end a job, holds for the driver
        that runs now, and changes nothing where a person has asked.
        """
        if not person and self.stopped_by_person():
            return
        self.write(layout.STOP, json.dumps({"drain": drain, "person": person}))

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
            note = parse_json(self.disk.read(self.path(layout.STOP)))
        except (FileNotFoundError, UnreadableError):
            return {}
        return note if isinstance(note, dict) else {}

    def forget_stop(self) -> None:
        """A new search is not bound by what the one before was asked."""
        self._drop(self.path(layout.STOP))

    def forget_nodes(self) -> None:
        """What an earlier search found of its nodes holds no more."""
        self._drop(self.path(layout.NODES))


def written_rows(rows: list[Row]) -> str:
    """Rows as a file has them."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
