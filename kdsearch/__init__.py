"""kdsearch: find out, on a GPU cluster, how best to distil a large model into a small one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdsearch.api import StudyResults, made_up_studies
    from kdsearch.api import open as open

__all__ = ["StudyResults", "__version__", "made_up_studies"]  # `*` leaves Python's own open alone
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """What `api` has, imported when it is asked for: pandas and scipy take seconds."""
    if name not in (*__all__, "open"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kdsearch import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "open"})
