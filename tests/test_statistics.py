from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import chain, product
from operator import mul
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kdsearch.analysis import deciles
from kdsearch.analysis.paper import ROWS
from kdsearch.analysis.statistics import Chance, Interval, sign_test
from kdsearch.analysis.statistics import decile_intervals as of_blocks
from kdsearch.analysis.statistics import wilcoxon as wilcoxon_of_blocks


def decile_intervals(values: Sequence[float]) -> tuple[Interval, ...] | None:
    """With each value in a block of its own."""
    return of_blocks(values, range(len(values)))


def wilcoxon(gains: Sequence[float]) -> Chance:
    """With each gain in a block of its own."""
    return wilcoxon_of_blocks(gains, range(len(gains)))


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


def test_of_blocks_of_equal_values_the_interval_is_that_of_the_blocks() -> None:
    values = [0.1, 0.2, 0.3, 0.5, 0.6, 0.9, -0.2]
    alone, threefold = decile_intervals(values), of_blocks(values * 3, [*range(7)] * 3)
    assert alone is not None
    assert threefold is not None
    low, high = alone[5]
    assert threefold[5] == pytest.approx((low, high), abs=0.11)  # deciles of 21 lie otherwise
    apart = decile_intervals(values * 3)
    assert apart is not None
    assert apart[5][1] - apart[5][0] < threefold[5][1] - threefold[5][0]


def test_the_median_of_blocks_of_several_sizes_is_that_of_the_cases_drawn() -> None:
    blocks = ["a", "a", "a", "b", "c", "d", "e", "f"]
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    draw = np.random.default_rng(0).integers(6, size=(10_000, 6))  # the same, by hand
    members = [[1.0, 2.0, 3.0], [4.0], [5.0], [6.0], [7.0], [8.0]]
    medians = [median(chain(*(members[block] for block in row))) for row in draw.tolist()]
    found = of_blocks(values, blocks)
    assert found is not None
    assert found[5] == pytest.approx(tuple(np.quantile(medians, (0.025, 0.975))))


def test_fewer_than_six_blocks_have_no_interval() -> None:
    assert of_blocks([0.1 * i for i in range(15)], [i // 3 for i in range(15)]) is None


@pytest.mark.parametrize(("better", "worse"), [(6, 0), (7, 3), (11, 2), (25, 14), (0, 39)])
def test_the_sign_test_of_single_cases_is_the_binomial_sum(better: int, worse: int) -> None:
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(max(better, worse), n + 1)) / 2**n
    found = sign_test([1] * better + [-1] * worse + [0, 0])
    assert found.p == pytest.approx(min(1.0, 2 * tail))
    assert found.blocks == n


@given(st.lists(st.integers(-4, 4), min_size=6, max_size=9))
def test_the_sign_test_of_blocks_is_the_share_of_flips_that_come_as_far(sums: list[int]) -> None:
    totals = [sum(map(mul, sums, flips)) for flips in product([-1, 1], repeat=len(sums))]
    share = sum(abs(total) >= abs(sum(sums)) for total in totals) / len(totals)
    found = sign_test(sums)
    untied = [each for each in sums if each]
    assert found.least_p == pytest.approx(min(1.0, 2 / 2 ** len(untied)))
    if found.least_p <= 0.05:
        assert found.p == pytest.approx(share)
    else:
        assert found.p is None


@given(st.lists(st.integers(-1000, 1000).filter(bool), min_size=10, max_size=11))
def test_sums_of_any_size_have_the_p_of_all_their_flips(sums: list[int]) -> None:
    signs = np.array([*product([-1, 1], repeat=len(sums))])
    share = float(np.mean(np.abs(signs @ np.array(sums)) >= abs(sum(sums))))
    assert sign_test(sums).p == pytest.approx(share, rel=1e-12)
    assert sign_test([*sums, -sum(sums)]).p == 1.0  # whose total is 0


def test_the_p_of_one_outcome_in_all_keeps_its_digits() -> None:
    found = sign_test(range(1, 301))
    assert found.p == pytest.approx(2.0**-299, rel=1e-12)


def test_a_thousand_blocks_take_less_than_a_few_seconds() -> None:
    gains = np.random.default_rng(0).normal(0.05, 1, 1000).tolist()
    started = time.process_time()
    p = wilcoxon(gains).p
    assert time.process_time() - started < 4
    assert p == pytest.approx(stats.wilcoxon(gains, method="approx").pvalue, rel=1e-3)


def test_wilcoxon_has_the_p_that_is_published_of_darwins_maize() -> None:
    # Darwin 1876, cross- less self-fertilised, in eighths of an inch; p as in SciPy's manual.
    differences = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]
    assert wilcoxon(differences).p == 0.041259765625


def test_three_blocks_worked_by_hand_have_no_p() -> None:
    # 3 + 2 - 1: of eight ways to flip, 4 or more comes of +++, ++-, and their mirrors: p = 4/8,
    # the least of all is that of 6: 2/8, so that no outcome says anything.
    assert sign_test([3, 2, -1]) == Chance(p=None, least_p=0.25, blocks=3)


def test_nothing_but_ties_says_nothing() -> None:
    assert sign_test([0, 0]) == Chance(p=None, least_p=1.0, blocks=0)


def test_cases_of_one_block_say_less_than_as_many_blocks() -> None:
    alone = sign_test([1] * 12)
    in_pairs = sign_test([2] * 6)
    assert alone.p is not None
    assert in_pairs.p is not None
    assert alone.p < in_pairs.p
    assert not sign_test([6, 6]).told_apart


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
    assert wilcoxon(gains).p == pytest.approx(len(extreme) / len(sums))


def test_wilcoxon_without_ties_is_scipys_exact_one() -> None:
    gains = np.random.default_rng(1).normal(0.3, 1, 30).tolist()
    expected = stats.wilcoxon(gains, mode="exact").pvalue
    assert wilcoxon(gains).p == pytest.approx(expected)


def test_equal_gains_share_their_rank_and_blocks_their_sign() -> None:
    # Ranks 1.5, 1.5, 3, 4, 5.5, 5.5, 7: in blocks of 2, 1, 1, 1, 1, 1 that is 3, 3, 4, 5.5, 5.5, 7.
    gains = [0.1, 0.1, 0.2, -0.3, 0.4, 0.4, 0.5]
    sums = [1.5 + 1.5, 3, -4, 5.5, 5.5, 7]
    totals = [sum(map(mul, sums, flips)) for flips in product([-1, 1], repeat=6)]
    share = sum(abs(total) >= sum(sums) for total in totals) / len(totals)
    assert wilcoxon_of_blocks(gains, "aabcdef").p == pytest.approx(share)


def test_wilcoxon_leaves_zeros_out_and_says_nothing_of_zeros_alone() -> None:
    assert wilcoxon([0.0, 0.0]) == Chance(p=None, least_p=1.0, blocks=0)
    assert wilcoxon([]) == Chance(p=None, least_p=1.0, blocks=0)
    gains = [0.3, -0.1, 0.2, 0.5, 0.4, 0.7, 0.6, 0.8]
    found = wilcoxon([0.0, *gains, 0.0])
    assert found == wilcoxon(gains)
    assert found.p is not None


def test_the_papers_own_best_over_worst_would_lie_clearly_above_zero() -> None:
    row = next(row for row in ROWS if row.label == "best over worst")
    assert deciles(row.percent) == pytest.approx(row.percent)
    found = decile_intervals(row.percent)
    assert found is not None
    assert found[5][0] > 0
    p = wilcoxon(row.percent).p
    assert p is not None
    assert p < 0.01
