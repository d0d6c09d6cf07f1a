"""From names to paths below a study's folder, and which names are those of kdsearch's own files."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from kdsearch.errors import InputError, shown
from kdsearch.ledger.reading import open_plain

FOLDERS = (
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
MARKER = "kdsearch-only-user"
"""A file in a folder that a study's folder links to: it names the only study that uses it."""

_KEY = "[0-9a-f]{24}"
_ASIDE = rf"(?:{_KEY}|\.{_KEY}\.[0-9a-f]{{8}}\.tmp)"
"""A training's folder, and what it is called while it is written or removed."""
_SAVED = (
    r"(?:(?:(?:generation_|tokenizer_)?config|tokenizer|special_tokens_map|added_tokens"
    r"|(?:target_)?vocab|vocab-(?:src|tgt)|entity_vocab|emoji|byte_maps|normalizer"
    r"|word_(?:shape|pronunciation)|model\.safetensors\.index)\.json"
    r"|model(?:-\d+-of-\d+)?\.safetensors|(?:vocab|merges|dict)\.txt|bpe\.codes"
    r"|(?:spiece|sentencepiece(?:\.bpe)?|tokenizer|spm(?:_char)?|bpe)\.model|prophetnet\.tokenizer"
    r"|(?:source|target)\.spm|chat_template\.jinja"
    r"|additional_chat_templates/[\w.-]+\.jinja)"
)
"""What `save_pretrained` writes of a model and a tokenizer."""
_KEYED = re.compile(
    r"(?:outcomes|attempts|digests|checkpoints|outputs|students|progress)/\.?([^/.]*)"
)
_OURS = re.compile(
    "|".join(
        (
            r"resolved(?:-\d+)?\.json",
            r"(?:preflight|running|stop|nodes)\.json",
            r"launch\.log",
            r"driver\.(?:lock|json|tmp)",
            rf"outcomes/(?:{_KEY}\.json|\.{_KEY}\.json\.torn)",
            rf"attempts/{_ASIDE}/(?:\d+\.(?:json|txt|retried)|\.\d+\.json\.torn)",
            rf"attempts/\.{_KEY}\.watchdog",
            rf"digests/{_KEY}\.json",
            r"data/[0-9a-f]{32}\.jsonl",
            rf"checkpoints/{_ASIDE}/epoch-\d+/{_SAVED}",
            rf"students/{_ASIDE}/{_SAVED}",
            rf"outputs/(?:{_KEY}\.(?:(?:validation\.|test\.)?npy|head\.safetensors)|\.[0-9a-f]{{32}}(?:\.head)?\.tmp)",
            rf"progress/{_ASIDE}/(?:\d+-[0-9a-f]{{64}}\.pt|\.[0-9a-f]{{32}}\.tmp)",
            r"report/report\.(?:html|md|json)",
            r"report/tables/[a-z_0-9]+\.(?:csv|tex)",
            r"\.probe-[0-9a-f]{32}(?:\.linked)?",
        )
    ),
    re.ASCII,
)


_WRITTEN = re.compile(
    r"(?P<folder>(?:[^/]+/)*)\.(?P<name>[^/]+?\.(?:jsonl?|txt|html|md|csv|tex))"
    r"\.[^/]+-\d+-[0-9a-f]{8}\.tmp",
    re.ASCII,
)
"""What a file of ours is called while `Ledger.write` and its like write it."""


def is_key(text: str) -> bool:
    """Whether `text` is a training's key: 24 hexadecimal digits."""
    return re.fullmatch(_KEY, text) is not None


def inside(folder: Path, name: str) -> Path:
    """The path of `name` in a study's folder; `InputError` for a name that leads out of it."""
    if "\0" in name or not all(part.strip(".") for part in name.split("/")):
        raise InputError.one(folder, f"{shown(name)!r} is no name in it", "a file in it is damaged")
    return folder / name


def below(folder: Path, name: str) -> Path:
    """The same; and where a key belongs there must be one.

    Every path that is made of a key, or of a name in a file, goes through here. Raises
    `InputError`.
    """
    keyed = _KEYED.match(name)
    if keyed and not is_key(keyed[1]):
        what = f"{shown(name)!r} has no key, which is 24 hexadecimal digits"
        raise InputError.one(folder, what, "a file in it is damaged")
    return inside(folder, name)


def is_ours(name: str) -> bool:
    """Whether a file with this name in a study's folder is one that kdsearch writes."""
    written = _WRITTEN.fullmatch(name)
    return _OURS.fullmatch(written["folder"] + written["name"] if written else name) is not None


def is_aside(name: str) -> bool:
    """Whether it is a training's folder that was being written or removed."""
    return is_trainings(name) and name.endswith(".tmp")


def is_trainings(name: str) -> bool:
    """Whether a folder with this name is one that kdsearch makes for a training."""
    return re.fullmatch(rf"(?:attempts|checkpoints|students|progress)/{_ASIDE}", name) is not None


def is_half(name: str) -> bool:
    """Whether it is one that a process was writing, removing or setting aside."""
    ends = (".tmp", ".torn", ".linked")
    hidden = [part for part in name.split("/") if part.startswith(".")]
    left = any(part.endswith(ends) or part.startswith(".probe-") for part in hidden)
    return left and is_ours(name)


def files_in(
    folder: Path, top: str = "", onerror: Callable[[OSError], object] | None = None
) -> Iterator[str]:
    """The names of all files in a study's folder, or in `top` of it; links are files.

    Its own sub-folders may be links, behind which is looked; behind others is not. `onerror` is
    told of a folder that cannot be listed, and that is passed over.
    """
    start = folder / top if top else folder
    for where, folders, files in os.walk(start, onerror=onerror):
        inside = Path(where).relative_to(folder)
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        if not top and where == str(start):
            for name in sorted(set(folders) & set(FOLDERS)):
                yield from files_in(folder, name, onerror)
            folders[:] = [name for name in folders if name not in FOLDERS]
            links = [name for name in links if name not in FOLDERS]
        folders.sort()
        yield from (str(inside / name) for name in sorted([*files, *links]))


def shared_link(folder: Path, path: Path) -> Path | None:
    """The link that `path` lies behind, if other studies may use what lies there too.

    Behind a link there may be what another study needs: two of them share the keys of a teacher or
    a student that they have in common. `MARKER` there, with this study's folder in it, says that
    there is no other one.
    """
    parent = folder
    for part in path.relative_to(folder).parts[:-1]:
        parent = parent / part
        if parent.is_symlink() and not _only_user(parent, folder):
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
