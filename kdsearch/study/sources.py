"""The files that data sets and models were read from: their digests, and which have changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.errors import InputError
from kdsearch.study.class_folders import folder_digest
from kdsearch.study.hub import hub_model
from kdsearch.study.rows import images_by_table, source_paths
from kdsearch.study.schema import Dataset, Model, Study

if TYPE_CHECKING:
    from kdsearch.study.resolved import Resolved, ResolvedModel

NOT_WEIGHTS = ("*.json", "*.txt", "*.model", "*.spm")
_MODEL_FILES = ("*.safetensors", "pytorch_model*.bin", *NOT_WEIGHTS)
_NOT_CONTENT = ("README", "modules.json", "config_sentence_transformers", "data_config")

Digests = Mapping[str, str]
"""The SHA-256 of files: of a data set by their paths, of a model by their names in its folder."""
_SINCE = "since this folder was launched"
_CHANGED, _NEW, _GONE = (f"{what} {_SINCE}" for what in ("has changed", "is new", "is gone"))


def find_model(name: str, resolved: Resolved, *, fetch: bool = False) -> Path:
    """Where the pretrained model `name` of a study lies on this host.

    It is downloaded if it is the Hub's and not here; with `fetch`, also what of it is not here yet,
    such as while another process downloads it. Raises `InputError` where it cannot be had.
    """
    found, model = resolved.models[name], resolved.study.models[name]
    # Code of the Hub's is that of the commit, wherever resolved.json says that it lies.
    code = model.hub is not None and model.trust_remote_code
    there = Path(found.path) if found.path is not None and not code else None
    if there is not None and not there.is_dir():
        there = None
    if there is not None and not (fetch and model.hub is not None):
        return there
    if model.hub is not None:
        place = f"models.{name}"
        try:
            return hub_model(model.hub, found.revision, place, code=model.trust_remote_code)
        except InputError:
            if there is None:
                raise
            return there
    remedy = "put it on storage that all nodes see"
    raise InputError.one(f"models.{name}", f"{found.path} is not on this host", remedy)


def data_digests(name: str, dataset: Dataset, data_dir: Path | None) -> dict[str, str]:
    """The digest of each of a data set's files; those that cannot be read are left out.

    The images that a table names by their paths have one together. Raises `InputError` where a
    study's pattern or folder has no file.
    """
    found = {}
    for path in source_paths(name, dataset, data_dir):
        with suppress(OSError):
            found[str(path)] = _digest(path)
    for images, paths in images_by_table(name, dataset, data_dir).items():
        with suppress(OSError, InputError):  # reading the rows says what is wrong with them
            if every := "".join(map(_digest, paths)):
                found[images] = hashlib.sha256(bytes.fromhex(every)).hexdigest()
    return found


def model_digests(folder: Path, *, code: bool = False) -> dict[str, str]:
    """The digest of each of a model's files: weights, configuration, tokenizer, `code` that runs.

    Raises `InputError` where one cannot be read.
    """
    patterns = (*_MODEL_FILES, "*.py") if code else _MODEL_FILES
    paths = {path for pattern in patterns for path in folder.glob(pattern)}
    try:
        return {p.name: _digest(p) for p in sorted(paths) if not p.name.startswith(_NOT_CONTENT)}
    except OSError as error:
        raise InputError.one(folder, f"cannot be read: {error}") from None


def combined(digests: Digests) -> str:
    """One digest of a model's files."""
    digest = hashlib.sha256()
    for name, content in digests.items():
        digest.update(name.encode() + bytes.fromhex(content))
    return digest.hexdigest()[:32]


def digest_model(folder: Path, *, code: bool = False) -> str:
    """The digest of a model's files: weights, configuration and tokenizer, and `code` that runs."""
    return combined(model_digests(folder, code=code))


def _digest(path: Path) -> str:
    if path.is_dir():
        return folder_digest(path)
    # Always of the whole content: size and time do not tell every change, and tell some that are
    # none. A gigabyte takes a second or two.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What became of the files of data sets and models since a study was resolved."""

    known: Resolved
    """The study as it was resolved, its files where they are now."""
    changed: Mapping[str, Mapping[str, str]]
    """By `datasets.NAME` or `models.NAME`: what is to be read anew; what to say of which files."""
    said: tuple[str, ...]
    """Lines for a person: what is not there any more, and what is compared from now on only."""


def changed_sources(known: Resolved, study: Study, *, data_dir: Path | None) -> Changes:
    """Compare what `known` was read from with what `study`, as it may be by now, is read from.

    Only content counts. What the study itself says otherwise than before is read anew anyway;
    of that, a file that was read before under the same path is compared all the same. What comes
    from the Hub is not compared.
    """
    changed: dict[str, Mapping[str, str]] = {}
    said: list[str] = []
    datasets, models = dict(known.datasets), dict(known.models)
    adopted: list[str] = []
    for name, dataset in study.datasets.items():
        if (before := datasets.get(name)) is None:
            continue
        same_study = (known.study.seed, known.study.datasets[name]) == (study.seed, dataset)
        paths: tuple[Path, ...] = ()
        today: dict[str, str] = {}
        with suppress(InputError):  # a pattern or a folder without a file: they are gone
            paths = source_paths(name, dataset, data_dir)
            today = data_digests(name, dataset, data_dir)
        recorded = before.files
        if recorded is None:  # as if nothing had changed
            recorded = {**dict.fromkeys(map(str, paths), ""), **today}
        found, gone = _compare(recorded, today, same_study=same_study)
        if found:
            changed[f"datasets.{name}"] = found
        elif gone:
            said.append(f"{name}: {_some(gone)} can no longer be read; its rows stay as they were")
        elif same_study:
            adopted += today if before.files is None else ()
            datasets[name] = before.model_copy(update={"files": today})
    for name, model in study.models.items():
        if model.path is None or known.study.models.get(name) != model:
            continue
        there, different = _compare_model(model, models[name])
        if there is None:
            said.append(f"{name}: {model.path} is gone; nothing that needs it can be trained")
        elif different:
            changed[f"models.{name}"] = different
        else:
            models[name] = there
    if adopted:
        said.append(
            f"from this launch on, changes to {_some(adopted)} are noticed; this folder does not "
            "record what was read before"
        )
    update = {"datasets": datasets, "models": models}
    return Changes(known=known.model_copy(update=update), changed=changed, said=tuple(said))


def _compare(
    recorded: Digests, today: Digests, *, same_study: bool
) -> tuple[dict[str, str], list[str]]:
    """The files of a data set that ask for it to be read anew, and those that are gone."""
    found = {path: _CHANGED for path in today if recorded.get(path, today[path]) != today[path]}
    new = [path for path in today if path not in recorded]
    gone = [path for path in recorded if path not in today]
    if not same_study or _moved(new, today) == _moved(gone, recorded):
        return found, []
    return {**found, **dict.fromkeys(new, _NEW)}, gone


def _moved(paths: Iterable[str], digests: Digests) -> list[tuple[str, str]]:
    """What a file keeps when it is moved to another folder."""
    return sorted((Path(path).name, digests[path]) for path in paths)


def _compare_model(
    model: Model, before: ResolvedModel
) -> tuple[ResolvedModel | None, dict[str, str]]:
    """A model as it is now, None where it is gone, and its files that are not as they were."""
    assert model.path is not None
    places = [Path(os.path.expanduser(model.path)), *([Path(before.path)] if before.path else [])]
    folder = next((place for place in places if os.path.isdir(place)), None)
    if folder is None:
        return None, {}
    today = model_digests(folder, code=model.trust_remote_code)
    if combined(today) == before.digest:
        return before.model_copy(update={"path": str(folder.resolve()), "files": today}), {}
    if before.files is None:
        return before, {model.path: _CHANGED}
    different = {}
    for name in sorted({*before.files, *today}):
        if before.files.get(name) != today.get(name):
            what = _NEW if name not in before.files else _GONE if name not in today else _CHANGED
            different[str(Path(model.path) / name)] = what
    return before, different


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
