"""A study's folder on a disk: files are whole or not there; another study's are never lost."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from kdsearch.errors import InputError, StorageError
from kdsearch.ledger import layout
from kdsearch.ledger.disk import Disk, OsDisk, beside
from kdsearch.ledger.links import marker_advice, shared_link
from kdsearch.ledger.reading import UnreadableError
from kdsearch.ledger.removal import kept_back, put, remove


class Storage:
    """The files of one study. Many processes on many hosts may write at once."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self.folder = folder
        self.disk = disk or OsDisk()

    def path(self, name: str) -> Path:
        """Where the file `name` lies. Raises `InputError` for one that is none; see `below`."""
        return layout.below(self.folder, name)

    def prepare(self) -> None:
        """Make the folders, and see that this storage can commit an outcome.

        Raises `StorageError` where it cannot.
        """
        for name in layout.FOLDERS:
            self.disk.make_folder(self.folder / name, parents=True)
        probe, linked = self.path(layout.probe()), self.path(layout.probe(linked=True))
        try:
            self.disk.write(probe, b"")
            self.disk.link(probe, linked)
        finally:
            self._drop(linked)
            self._drop(probe)
        if any(True for _ in self.disk.names(self.folder / layout.REPORT)):
            self._refuse_shared(self.path(layout.report("html")))  # now, not at the end

    def write(self, name: str, content: str) -> None:
        """Write a derived file (a report, a progress note), taking the place of an older one.

        Raises `InputError` where the older one may be another study's.
        """
        path, encoded = self.path(name), content.encode()
        self.make_folder(path.parent)
        if shared_link(self.disk, self.folder, path):
            if not self._commit(path, encoded) and self.disk.read(path) != encoded:
                self._refuse_shared(path)
            return
        temporary = beside(path)
        self.disk.write(temporary, encoded)
        self.disk.replace(temporary, path)

    def make_folder(self, folder: Path) -> None:
        """Make a folder below the study's, which must be there.

        On a node where the storage is not mounted, a study's folder would hide that.
        """
        inside = len(folder.relative_to(self.folder).parts)
        for path in reversed([folder, *folder.parents][:inside]):
            self.disk.make_folder(path)

    def put(self, written: Path, final: Path) -> None:
        """Rename what was written to `final`, durably; see `removal.put`."""
        put(self.folder, written, final, self.disk)

    def kept_back(self, name: str, known: Collection[str] = ()) -> str | None:
        """Why a file or a folder must not be removed, in words; see `removal.kept_back`."""
        return kept_back(self.disk, self.folder, name, known)

    def remove(self, name: str, known: Collection[str] = ()) -> bool:
        """Remove a file or a folder, unless it must be kept back; whether it is gone.

        `known` are the files in it that an outcome has digests of.
        """
        return remove(self.disk, self.folder, name, known)

    def digest(self, name: str) -> str | None:
        """The SHA-256 of a file; None if it is not there. Read once while it does not change."""
        try:
            return self.disk.digest(self.path(name))
        except (FileNotFoundError, UnreadableError):
            return None

    def _commit(self, path: Path, content: bytes) -> bool:
        """Write a file that stays as it is; False if another one has the name already."""
        temporary = beside(path)
        self.disk.write(temporary, content)
        try:
            return self.disk.link(temporary, path)
        finally:
            self._drop(temporary)

    def _drop(self, path: Path) -> None:
        with suppress(StorageError):  # what is left is hidden, or costs nothing
            self.disk.remove(path)

    def _refuse_shared(self, path: Path) -> None:
        """Raise `InputError` for a file that must not be replaced: see `shared_link`."""
        link = shared_link(self.disk, self.folder, path)
        if link is not None:
            what = f"would be replaced, but lies behind the link {link}: it may be another study's"
            raise InputError.one(path, what, marker_advice(self.folder, link))
