"""From the content of a study's files to what they say, where anyone may have written them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from kdsearch.agenda import VERSION, Attempt, Outcome
from kdsearch.errors import InputError, shown
from kdsearch.ledger.layout import OUTCOMES
from kdsearch.ledger.reading import UnreadableError, parse_json
from kdsearch.study import FORMAT, READABLE, Preflight, Resolved

Result = TypeVar("Result", Outcome, Attempt)
_KEPT_DIGEST = re.compile("[0-9a-f]{64}")
_NEWER = ("extra_forbidden", "literal_error", "union_tag_invalid")
"""What pydantic says of what a newer kdsearch may have written."""
_IMPOSSIBLE = ("finite_number", "greater_than_equal", "less_than_equal")
"""What it says of a number that was never measured."""


def parse_resolved(path: Path, content: bytes) -> Resolved:
    """A study.

    Raises `UnreadableError` for a damaged one, and `InputError` for one of another format, or of
    newer training code.
    """
    _check_version(path, parse_json(content))
    try:
        return Resolved.model_validate_json(content)
    except ValidationError as error:
        raise UnreadableError(error.errors()[0]["msg"]) from None


def parse_preflight(content: bytes) -> Preflight:
    """What a preflight found. Raises `UnreadableError`."""
    parse_json(content)
    try:
        return Preflight.model_validate_json(content)
    except ValidationError as error:
        what = f"was not written by this kdsearch: {error.errors()[0]['msg']}"
        raise UnreadableError(what) from None


def parse_digests(content: bytes) -> dict[str, str]:
    """The digests of files by their names. Raises `UnreadableError`."""
    digests = parse_json(content)
    whole = isinstance(digests, dict) and all(
        isinstance(digest, str) and _KEPT_DIGEST.fullmatch(digest) for digest in digests.values()
    )
    if not whole:
        raise UnreadableError("does not map names to digests")
    return dict(digests)


def parse_result(path: Path, content: bytes, kind: type[Result]) -> Result:
    """The outcome or the attempt in the file `path`.

    Raises `UnreadableError` for one that is damaged or is another training's, `InputError` for
    one of another kdsearch.
    """
    try:
        found = kind.model_validate_json(content)
    except ValidationError as error:
        raise _damage(content, error) or _of_another(path, error) from None
    named = path.stem if isinstance(found, Outcome) else path.parent.name
    if found.key != named:
        raise UnreadableError(f"belongs to the training {shown(found.key[:40])}")
    if isinstance(found, Outcome) and found.training.key != named:
        raise UnreadableError(f"belongs to the training {found.training.key}")
    return found


def _damage(content: bytes, error: ValidationError) -> UnreadableError | None:
    """What is wrong with a file that no kdsearch wrote so; None where another one may have.

    Every kdsearch's has the same large parts, and what is within them may differ.
    """
    try:
        parse_json(content)
    except UnreadableError as damage:
        return damage
    detail = error.errors()
    if any(each["type"] in _NEWER for each in detail):
        return None
    for each in detail:
        if len(each["loc"]) <= 1 or each["type"] in _IMPOSSIBLE:
            where = ".".join(map(str, each["loc"]))
            return UnreadableError(f"has an unknown form: {shown(where[:60])}: {each['msg']}")
    return None


def _of_another(path: Path, error: ValidationError) -> InputError:
    """What to say of an outcome or an attempt that another kdsearch may have written."""
    kind = "outcome" if path.parent.name == OUTCOMES else "attempt"
    return InputError.one(
        path,
        f"is not an {kind} of this kdsearch: {error.errors()[0]['msg']}",
        "use the one that wrote it, or move it away and launch again to retrain it",
    )


def _check_version(path: Path, plain: Any) -> None:
    """Refuse a study of a kdsearch that had another format, or newer training code."""
    if not isinstance(plain, dict):
        return
    versions = plain.get("versions")
    known = versions.get("kdsearch") if isinstance(versions, dict) else None
    wrote = f"kdsearch {known or 'of another version'}"
    remedy = f"use {wrote}, which wrote it, or launch into another --folder"
    if plain.get("format") not in READABLE:
        raise InputError.one(path, f"has format {plain.get('format')}, not {FORMAT}", remedy)
    version = plain.get("training_version", 2)
    if not isinstance(version, int) or version > VERSION:
        what = f"its outcomes are from training code {version}, but this kdsearch has {VERSION}"
        raise InputError.one(path, what, remedy)
