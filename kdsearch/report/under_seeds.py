"""What a case chose, under the study's winner seeds, in words that the reports share."""

from __future__ import annotations

from collections.abc import Sequence

from kdsearch.analysis import UnderSeeds
from kdsearch.report.markdown import NOTHING, score


def named(seeds: Sequence[int]) -> str:
    """The seeds as a text has them."""
    return ", ".join(map(str, seeds))


def mean(found: UnderSeeds | None, digits: int = 4) -> str:
    """The test score's mean and standard deviation, with so many decimals; a dash where a seed has
    no score."""
    if found is None or found.test is None:
        return NOTHING
    return f"{score(found.test, digits)} ± {score(found.spread, digits)}"


def sentence(found: UnderSeeds | None, digits: int = 4) -> str:
    """The same as a sentence about what the case chose, which says where there is no mean."""
    if found is None:
        return ""
    over = f"over the seeds {named(tuple(found.by_seed))}"
    if found.test is not None:
        return f"O{over[1:]} its test score is {mean(found, digits)}."
    return f"There is no mean {over}: it has no test score under {named(found.missing)}."
