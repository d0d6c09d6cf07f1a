"""Errors a user can cause: each names the place, what is wrong there and how to fix it."""

from __future__ import annotations

import reprlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100
_HARMLESS = "\n\t\u200c\u200d"
"""With the two joiners that Persian and Hindi are written with."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong: where it is, what it is, how to fix it."""

    place: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f" ({self.remedy})" if self.remedy else ""
        return shown(f"{shown_name(self.place)}: {self.what}{remedy}")


def shown(text: object) -> str:
    """`text` for a terminal, a log or a page: what would control these is written out.

    Ends of lines and tabs stay. Escape sequences, and characters that turn the direction of the
    text around or are invisible, become \\x1b, \\u202e and their like.
    """
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(c if c in _HARMLESS or not _controls(c) else _written_out(c) for c in plain)


def shown_name(text: object) -> str:
    """The same of a name, on one line: else it could look like a line of ours."""
    return shown(text).replace("\n", "\\n").replace("\t", "\\t")


def _controls(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _written_out(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()


def shortened(value: object) -> str:
    """How a value is written, with the middle left out where it is long or deeply nested."""
    return _SHORT.repr(value)


def shortened_list(names: Sequence[str], most: int = 3) -> str:
    """Names with commas between them, those behind the first `most` as a number."""
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def last_line(text: str) -> str:
    """The last line that says something: of a traceback the reason."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "").strip()


class InputError(Exception):
    """The user's input cannot be used; it carries every problem found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[InputError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)  # an exception is pickled with its message alone

    @classmethod
    def one(cls, place: object, what: str, remedy: str = "") -> InputError:
        """An error with a single problem."""
        return cls([Problem(place=str(place), what=what, remedy=remedy)])


class MemoryExhaustedError(Exception):
    """A training did not fit the memory of its device."""

    def __init__(self, message: str, *, gpu: bool) -> None:
        super().__init__(message)
        self.gpu = gpu


class StorageError(Exception):
    """The study's folder cannot be written: a full or read-only disk, or unsuitable storage."""
