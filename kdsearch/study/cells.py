"""Lists in the forms that a file may hold them in: lists, arrays, and texts of several kinds."""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any

_QUOTED = r"""'(?:[^'\\\n]|\\.)*+'|"(?:[^"\\\n]|\\.)*+\""""
_ITEM = re.compile(
    rf"\s*+(np\.\w+\()?(?:({_QUOTED})|([-+]?[0-9]{{1,18}}))(?(1)\))(\s*+,\s*+|\s*+)", re.S
)
"""Of a list that Python or numpy wrote: text or a whole number, and what is behind it."""
_MOST_LITERAL = 10_000_000


class BadRowError(Exception):
    """What is wrong with a row, and how to fix it."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def listed(value: Any) -> Any:
    """A list as a file may hold it: of a .parquet, or as text.

    A text is JSON, a list as Python or numpy writes it (which is what pandas makes of lists in a
    .csv), or items with spaces between them. None for one in brackets that is none of these.
    """
    if not isinstance(value, str):
        return value.tolist() if hasattr(value, "tolist") else value
    text = value.strip()
    if text.startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
    if text.startswith("[") and text.endswith("]"):
        # Words in brackets, [ Applause ] or [laughs] so [pause]: nothing writes a list like that.
        spaced = text[1:2].isspace() and text[-2:-1].isspace()
        several = "] " in text and not text.startswith(("['", '["', "[[", "[np."))
        words = spaced or several
        return text.split() if words else _written_list(text[1:-1])
    if text.startswith(("('", '("')) and isinstance(items := literal(text), tuple):
        return list(items)
    return text.split()


def _written_list(text: str) -> list[str | int] | None:
    """What stands between the brackets of a list that Python or numpy wrote; None if it is none."""
    items: list[str | int] = []
    separators = set()
    position = 0
    while position < len(text):
        found = _ITEM.match(text, position)
        if found is None:
            return None
        _, quoted, number, separator = found.groups()
        item = int(number) if quoted is None else _unquoted(quoted)
        if item is None:
            return None
        items.append(item)
        position = found.end()
        if position < len(text):
            separators.add(separator.strip() or separator[:1])
    # Python joins texts that stand side by side; numpy separates what it writes with spaces alone.
    return items if separators in (set(), {","}, {" "}, {"\n"}, {" ", "\n"}) else None


def _unquoted(text: str) -> str | None:
    return text[1:-1] if "\\" not in text else literal(text)


def literal(text: str) -> Any:
    """The value that `text` writes as Python does; None where it writes none."""
    if len(text) > _MOST_LITERAL:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of backslashes that escape nothing
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
