from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.analysis import deciles
from kdsearch.analysis.paper import ROWS
from kdsearch.analysis.statistics import decile_intervals, sign_test, wilcoxon


def test_an_interval_holds_95_in_100_medians_of_other_resamples() -> None:
    values = [0.01 * i for i in range(39)]
    found = decile_intervals(values)
    assert found is not None
    draw = np.random.default_rng(12345)
    medians = [np.median(draw.choice(values, 39)) for _ in range(4000)]
    low, high = found[5]
    inside = np.mean([low <= m <= high for m in medians])
    # Medians of resamples are a few values with many ties, so that the bounds take in more.
    assert 0.95 <= inside <= 0.98


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=40))
def test_every_interval_is_ordered_and_lies_within_the_values(values: list[float]) -> None:
    found = decile_intervals(values)
    assert found is not None
    for low, high in found:
        assert min(values) <= low <= high <= max(values)


def test_too_few_values_have_no_interval() -> None:
    assert decile_intervals([0.1] * 5) is None
    assert decile_intervals([]) is None


def test_equal_values_have_equal_intervals() -> None:
    values = [0.1, 0.2, 0.3, 0.5, 0.6, 0.9, -0.2]
    assert decile_intervals(values) == decile_intervals(values)


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (3, 3), (11, 2), (25, 14), (0, 39)])
def test_the_sign_test_is_the_binomial_sum(better: int, worse: int) -> None:
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(max(better, worse), n + 1)) / 2**n
    assert sign_test(better, worse) == pytest.approx(min(1.0, 2 * tail))


def test_wilcoxon_is_the_share_of_signs_with_as_extreme_a_rank_sum() -> None:
    gains = [0.3, -0.1, 0.2, 0.7, 0.5, -0.4, 0.9]  # no ties, no zeros: exact by enumeration
    ranks = [sorted(map(abs, gains)).index(abs(gain)) + 1 for gain in gains]
    found = sum(rank for rank, gain in zip(ranks, gains, strict=True) if gain > 0)
    total = sum(ranks)
    sums = [
        sum(r for r, positive in zip(ranks, signs, strict=True) if positive)
        for signs in product([0, 1], repeat=len(ranks))
    ]
    extreme = [s for s in sums if abs(s - total / 2) >= abs(found - total / 2)]
    assert wilcoxon(gains) == pytest.approx(len(extreme) / len(sums))


def test_wilcoxon_leaves_zeros_out_and_says_nothing_of_zeros_alone() -> None:
    assert wilcoxon([0.0, 0.0]) is None
    assert wilcoxon([]) is None
    assert wilcoxon([0.3, 0.0, -0.1, 0.2, 0.0]) == wilcoxon([0.3, -0.1, 0.2])


def test_the_papers_own_best_over_worst_would_lie_clearly_above_zero() -> None:
    row = next(row for row in ROWS if row.label == "best over worst")
    assert deciles(row.percent) == pytest.approx(row.percent)
    found = decile_intervals(row.percent)
    assert found is not None
    assert found[5][0] > 0
    p = wilcoxon(row.percent)
    assert p is not None
    assert p < 0.01
