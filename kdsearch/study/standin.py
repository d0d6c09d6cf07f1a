"""Files that are not what their names say: what came in their place."""

from __future__ import annotations

from pathlib import Path

from kdsearch.errors import Problem

_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGE = (b"<!doctype html", b"<html")
_LOOKED_AT = 512


def stand_in(path: Path) -> Problem | None:
    """What is wrong with a file of data or of a model that is a Git LFS pointer or a web page."""
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT)
    if start.startswith(_POINTER):
        what, remedy = "is a Git LFS pointer", "git lfs pull brings the file itself"
    elif start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE):
        what, remedy = (
            "is a web page",
            "fetch the file itself; on the Hub, /resolve/ and not /blob/",
        )
    else:
        return None
    return Problem(place=str(path), what=what, remedy=remedy)
