"""How sure a study's numbers are: what the paper does not give. No correction for many tests.

Test cases that share a data set and a teacher are not independent: what is easy for one student of
a teacher is for the next. Such a *block* of cases is resampled, and has its signs flipped, as one.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kdsearch.agenda import CaseView

Interval = tuple[float, float]
FEWEST = 6
"""Of fewer blocks even their whole range covers the median with less than 95 %: 1 − 2^(1−n)."""
CHANCE = 0.05
"""A p above this cannot be told from chance."""
_DECILES = np.arange(11) / 10
_RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class Chance:
    """A test of whether wins and losses are more than chance would give."""

    p: float | None
    """Two-sided; None where no outcome could have had one of at most 0.05."""
    least_p: float
    """The least that so many blocks can have."""
    blocks: int
    """Those that are not tied."""

    @property
    def told_apart(self) -> bool:
        """Whether it can be told from chance."""
        return self.p is not None and self.p <= CHANCE


def block_of(view: CaseView) -> tuple[str, str | None]:
    """What the cases of a block have in common."""
    return view.case.dataset, view.first_teacher


def decile_intervals(
    values: Sequence[float], blocks: Sequence[Hashable]
) -> tuple[Interval, ...] | None:
    """The 95 % bootstrap interval (percentile) of each decile; None of fewer than 6 blocks.

    `blocks` has the block of each value. The resampling is seeded, so that equal values have equal
    intervals.
    """
    number_of = _numbers(blocks)
    count = len(set(number_of))
    if count < FEWEST:
        return None
    members = [np.flatnonzero(np.asarray(number_of) == block) for block in range(count)]
    # [blocks, most cases in one], filled up with what is sorted behind all values.
    padded = np.full((count, max(map(len, members))), np.inf)
    for block, cases in zip(padded, members, strict=True):
        block[: len(cases)] = np.asarray(values)[cases]
    draw = np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))
    resampled = np.sort(padded[draw].reshape(_RESAMPLES, -1), axis=1)
    last = np.asarray([len(cases) for cases in members])[draw].sum(axis=1) - 1
    deciles = np.stack([_quantiles(resampled, last, share) for share in _DECILES])
    low, high = np.quantile(deciles, (0.025, 0.975), axis=1)
    return tuple(zip(low.tolist(), high.tolist(), strict=True))


def _quantiles(
    ordered: npt.NDArray[np.float64], last: npt.NDArray[np.int64], share: float
) -> npt.NDArray[np.float64]:
    """Of each row, whose values end at `last`, a quantile with linear interpolation."""
    place = share * last
    below = np.floor(place).astype(np.int64)
    rows = np.arange(len(ordered))
    low, high = ordered[rows, below], ordered[rows, np.minimum(below + 1, last)]
    found: npt.NDArray[np.float64] = low + (high - low) * (place - below)
    return found


def sign_test(rewards: Iterable[int]) -> Chance:
    """Of the wins less the losses in each block: exact, with the signs of a block flipped as one.

    Where each block is one case it is the binomial sign test, with ties left out.
    """
    return _flipped(rewards)


def wilcoxon(gains: Sequence[float], blocks: Sequence[Hashable]) -> Chance:
    """Wilcoxon's signed-rank test that gains lie around 0: exact, blocks flipped as one.

    Gains of 0 are left out (Wilcoxon's own way); equal ones share their mean rank.
    """
    found = [(gain, block) for gain, block in zip(gains, blocks, strict=True) if gain]
    sizes = [abs(gain) for gain, _ in found]
    _, number_of, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    doubled = (2 * counts.cumsum() - counts + 1)[number_of]  # so that a mean rank is whole
    sums: dict[Hashable, int] = {}
    for (gain, block), rank in zip(found, doubled.tolist(), strict=True):
        sums[block] = sums.get(block, 0) + (rank if gain > 0 else -rank)
    return _flipped(sums.values())


def _flipped(sums: Iterable[int]) -> Chance:
    """How often the total is as far from 0 where each of `sums` has either sign as likely."""
    untied = [each for each in sums if each]
    least_p = min(1.0, 2.0 ** (1 - len(untied)))  # all for one side, or all for the other
    p = _share_as_far(untied) if least_p <= CHANCE else None
    return Chance(p=p, least_p=least_p, blocks=len(untied))


def _share_as_far(sums: Sequence[int]) -> float:
    """The share of all ways to flip `sums` whose total is as far from 0; exact but for rounding.

    The totals of each half of them are counted, and of both together only those as far: the cost
    is cubic in their number, but 300 take milliseconds, and 1,000 a fraction of a second.
    """
    if not sum(sums):
        return 1.0
    unit = math.gcd(*sums)
    sizes = sorted(abs(each) // unit for each in sums)
    first, second = _shares(sizes[::2]), _shares(sizes[1::2])
    beyond = np.append(np.cumsum(second[::-1])[::-1], 0.0)
    # A total is twice what is taken with a plus, less all there is; as far to either side.
    taken = (sum(sizes) + abs(sum(sums)) // unit) // 2
    lacking = np.clip(taken - np.arange(len(first)), 0, len(second))
    return min(1.0, 2 * float(first @ beyond[lacking]))


def _shares(sizes: Iterable[int]) -> npt.NDArray[np.float64]:
    """[sum + 1]: of all ways to take some of `sizes`, the share that comes to each sum."""
    shares = np.ones(1)
    for size in sizes:
        longer = np.zeros(len(shares) + size)
        longer[: len(shares)] = shares / 2
        longer[size:] += shares / 2
        shares = longer
    return shares


def _numbers(blocks: Sequence[Hashable]) -> list[int]:
    """The number of each block, in the order in which they come first."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(block, len(numbers)) for block in blocks]
