"""Whose Python code may run: that of models which the person at the command has named.

Never what a study's folder says of itself: it may come from someone else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_NAMES: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())


def trusts(name: str) -> bool:
    """Whether code that comes with the study's model `name` may run."""
    return name in _NAMES.get()


@contextmanager
def trusting(names: Collection[str]) -> Iterator[None]:
    """Let the code of these models run inside."""
    before = _NAMES.set(_NAMES.get() | frozenset(names))
    try:
        yield
    finally:
        _NAMES.reset(before)


def run_trusting(
    names: Collection[str], function: Callable[..., Any], *args: Any, **options: Any
) -> Any:
    """Call `function` so; with `functools.partial` it can be sent to a worker."""
    with trusting(names):
        return function(*args, **options)
