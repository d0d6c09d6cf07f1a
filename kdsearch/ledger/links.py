"""What lies in a study's folder, where parts of it may be links to where other studies look too."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from kdsearch.ledger.disk import Disk
from kdsearch.ledger.layout import FOLDERS
from kdsearch.ledger.reading import open_plain

MARKER = "kdsearch-only-user"
"""A file in a folder that a study's folder links to: it names the only study that uses it."""


def files_in(
    disk: Disk,
    folder: Path,
    top: str = "",
    onerror: Callable[[OSError], object] = lambda error: None,
) -> Iterator[str]:
    """The names of all files in a study's folder, or in `top` of it; links are files.

    Its own sub-folders may be links, behind which is looked; behind others is not. `onerror` is
    told of a folder that cannot be listed, and that is passed over.
    """
    start = f"{top}/" if top else ""
    try:
        names = sorted(disk.names(folder / top))
        kinds = {name: disk.kind(folder / top / name) for name in names}
    except OSError as error:
        onerror(error)
        return
    own = [] if top else [name for name in names if name in FOLDERS and kinds[name] != "file"]
    for name in own:
        yield from files_in(disk, folder, name, onerror)
    for name in names:
        if name not in own and kinds[name] in ("file", "link"):
            yield start + name
    for name in names:
        if name not in own and kinds[name] == "folder":
            yield from files_in(disk, folder, start + name, onerror)


def shared_link(disk: Disk, folder: Path, path: Path) -> Path | None:
    """The link that `path` lies behind, if other studies may use what lies there too.

    Behind a link there may be what another study needs: two of them share the keys of a teacher or
    a student that they have in common. `MARKER` there, with this study's folder in it, says that
    there is no other one.
    """
    parent = folder
    for part in path.relative_to(folder).parts[:-1]:
        parent = parent / part
        if disk.kind(parent) == "link" and not _only_user(parent, folder):
            return parent
    return None


def marker_advice(folder: Path, link: Path) -> str:
    """How to say that what lies behind `link` is used by this study alone."""
    line = f"echo {shlex.quote(str(folder))} > {shlex.quote(str(link / MARKER))}"
    return f"if no other study uses it: {line}"


def _only_user(link: Path, folder: Path) -> bool:
    try:
        with open_plain(link / MARKER) as file:
            said = file.read(4096).decode().strip()
    except (OSError, ValueError):
        return False
    return os.path.isabs(said) and os.path.realpath(said) == os.path.realpath(folder)
