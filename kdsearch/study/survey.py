"""What the rows of a study's data sets hold: labels, gaps, and texts that stand in two splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from kdsearch.errors import Problem
from kdsearch.study.parsers import Row
from kdsearch.study.preflight import DatasetFacts, Doubt
from kdsearch.study.resolve import Resolved


def survey(
    resolved: Resolved, rows: Callable[[str], list[Row]], place: str
) -> tuple[Mapping[str, DatasetFacts], Sequence[Doubt], Sequence[Problem]]:
    """The facts of each data set; `rows` gives a split's by its digest."""
    return {}, (), ()
