"""What a launch on a cluster far away is made of: which job, with which files and options."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdsearch.cli.automatic import versions
from kdsearch.cli.options import parse_models
from kdsearch.errors import InputError
from kdsearch.study import Study, travelling_files

_THAT_TIME = (1980, 1, 1, 0, 0, 0)
"""The first that a zip file knows."""


@dataclass(frozen=True)
class NextJob:
    """The job that a launch joins or submits for its study's folder."""

    name: str
    joins: bool
    """Whether there is such a job, which is watched, or one is submitted."""


def job_names(folder: str) -> str:
    """How the names of all jobs of a study's folder begin."""
    return f"kdsearch-{hashlib.sha256(os.path.normpath(folder).encode()).hexdigest()[:12]}-"


def next_job(start: str, ended: Mapping[str, bool]) -> NextJob:
    """Join the search of a folder that runs or waits, else submit the next.

    `ended` says of each of the folder's jobs, whose names begin with `start`, whether it is over.
    """
    numbers = {
        int(name.removeprefix(start)): over for name, over in ended.items() if is_search(name)
    }
    alive = [number for number, over in numbers.items() if not over]
    if alive:
        return NextJob(f"{start}{max(alive)}", joins=True)
    return NextJob(f"{start}{max(numbers, default=0) + 1}", joins=False)


def is_search(name: str) -> bool:
    """Whether a job of this name is a launch, and not a command that looks at its folder."""
    return re.fullmatch(r"kdsearch-[0-9a-f]{12}-\d+", name) is not None


def job_metadata(study: str, cases: int, folder: str) -> dict[str, str]:
    """What Ray's dashboard says of a search, submitted or not. Everyone there can read it."""
    return {
        "job_name": f"kdsearch {study}",
        "kdsearch_study": study,
        "kdsearch_cases": str(cases),
        "kdsearch_folder": folder,
        **versions(),
    }


@dataclass(frozen=True)
class Package:
    """The files that go along with a job, by their names there."""

    files: Mapping[str, Path]

    @property
    def digest(self) -> str:
        """Of their names and contents."""
        digest = hashlib.sha256()
        for name, path in sorted(self.files.items()):
            digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
        return digest.hexdigest()[:12]

    def write(self, to: Path) -> None:
        """Write the zip file, whose bytes are the same for the same files."""
        with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as file:
            for name, path in sorted(self.files.items()):
                entry = zipfile.ZipInfo(name, _THAT_TIME)
                entry.external_attr = 0o644 << 16
                file.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def package(study_file: Path, study: Study) -> Package:
    """The study's file, and the data files that it names relatively. Raises `InputError`."""
    data = {str(path): path for path in travelling_files(study, str(study_file))}
    return Package({**data, study_file.name: study_file})


def cluster_path(path: Path | None, option: str) -> str:
    """A path as the cluster sees it. Raises `InputError` for one of this machine."""
    if path is None or not path.is_absolute():
        what = "is needed" if path is None else "is a path on this machine"
        remedy = "give an absolute path on storage that every node of the cluster sees"
        place = option if path is None else f"{option} {path}"
        raise InputError.one(place, what, remedy)
    return os.path.normpath(path)


def options_there(
    *,
    data_dir: Path | None,
    models: Sequence[str],
    max_slots: int | None,
    optuna: str | None,
    deadline: str | None,
    accept_changes: bool,
) -> list[str]:
    """The options of a launch that runs on a cluster. Raises `InputError`."""
    words = []
    if data_dir is not None:
        words.append(f"--data-dir={cluster_path(data_dir, '--data-dir')}")
    parse_models([*models])
    words += [f"--model={model}" for model in models]
    if max_slots is not None:
        words.append(f"--max-slots={max_slots}")
    if optuna is not None:
        words.append(f"--optuna={_storage_there(optuna)}")
    if deadline is not None:
        words.append(f"--deadline={deadline}")
    return words + ["--accept-changes"] * accept_changes


def _storage_there(given: str) -> str:
    """An Optuna storage as the cluster reaches it; it has no password, as `storage_url` sees."""
    if given.startswith("@"):
        return f"@{cluster_path(Path(given[1:]), '--optuna')}"
    # Optuna takes a second to import.
    from kdsearch.mirror import storage_url

    storage_url(given)
    if (file := given.partition("sqlite:///")[2]) and not file.startswith("/"):
        cluster_path(Path(file), "--optuna")
    return given
