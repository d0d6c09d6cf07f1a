"""How sure a study's numbers are: what the paper does not give. No correction for many tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]
FEWEST = 6
"""Of fewer values even their whole range covers the median with less than 95 %: 1 − 2^(1−n)."""
CHANCE = 0.05
"""A p above this: chance explains the difference."""
_DECILES = np.arange(11) / 10
_RESAMPLES = 10_000


def decile_intervals(values: Sequence[float]) -> tuple[Interval, ...] | None:
    """The 95 % bootstrap interval (percentile) of each decile; None of fewer than 6 values.

    The resampling is seeded, so that equal values have equal intervals.
    """
    if len(values) < FEWEST:
        return None
    draw = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    resampled = np.quantile(np.asarray(values)[draw], _DECILES, axis=1)
    low, high = np.quantile(resampled, (0.025, 0.975), axis=1)
    return tuple(zip(low.tolist(), high.tolist(), strict=True))


def sign_test(better: int, worse: int) -> float:
    """The two-sided p of so many wins and losses if both were as likely; exact, ties left out."""
    from scipy import stats  # it takes a second to import, which only a report should

    return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0


def wilcoxon(gains: Sequence[float]) -> float | None:
    """The two-sided p of Wilcoxon's signed-rank test that gains lie around 0.

    Gains of 0 are left out (Wilcoxon's own way); None where no others are.
    """
    from scipy import stats

    found = [gain for gain in gains if gain]
    return float(stats.wilcoxon(found).pvalue) if found else None
