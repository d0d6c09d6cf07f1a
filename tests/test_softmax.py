"""The softmax at several temperatures: against formulas of its own, and in what trainings leave."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax as scipy_softmax
from scipy.stats import entropy

from kdsearch.agenda import MOST_RANKS, Softmax
from kdsearch.distill.softmax import TEMPERATURES, SoftmaxTally

LOGITS = st.integers(2, 6).flatmap(
    lambda classes: st.lists(
        st.lists(st.floats(-9, 9, width=32), min_size=classes, max_size=classes),
        min_size=1,
        max_size=5,
    )
)


def tallied(rows: list[list[float]], chunk: int = 100) -> tuple[Softmax, ...]:
    tally = SoftmaxTally(TEMPERATURES)
    for some in torch.tensor(rows).split(chunk):
        tally.add(some, None)
    return tally.values()


@settings(max_examples=25)
@given(LOGITS)
def test_entropies_and_ranks_are_those_of_scipy_at_every_temperature(
    rows: list[list[float]],
) -> None:
    classes = len(rows[0])
    for found in tallied(rows):
        p = scipy_softmax(np.array(rows, dtype=np.float64) / found.temperature, axis=1)
        ordered = -np.sort(-p, axis=1)
        assert found.ranks == pytest.approx(ordered.mean(axis=0), abs=2e-5)
        assert found.lowest == pytest.approx(ordered[:, -1].mean(), abs=2e-5)
        whole = entropy(p, axis=1, base=classes).mean()
        assert found.relative_entropy == pytest.approx(whole, abs=2e-5)
        if classes == 2:
            assert found.relative_entropy_without_top is None
            continue
        logits = -np.sort(-np.array(rows, dtype=np.float64), axis=1)[:, 1:] / found.temperature
        rest = entropy(scipy_softmax(logits, axis=1), axis=1, base=classes - 1).mean()
        assert found.relative_entropy_without_top == pytest.approx(rest, abs=2e-5)


@settings(max_examples=25)
@given(LOGITS)
def test_a_higher_temperature_is_never_more_decided(rows: list[list[float]]) -> None:
    shares = [found.relative_entropy or 0.0 for found in tallied(rows)]
    assert all(later >= earlier - 1e-5 for earlier, later in itertools.pairwise(shares))


@settings(max_examples=25)
@given(LOGITS)
def test_units_that_come_in_parts_are_those_that_come_at_once(rows: list[list[float]]) -> None:
    for whole, parts in zip(tallied(rows), tallied(rows, chunk=1), strict=True):
        assert parts.ranks == pytest.approx(whole.ranks, abs=1e-5)
        assert parts.relative_entropy == pytest.approx(whole.relative_entropy, abs=1e-5)


def test_of_many_classes_the_first_ranks_and_the_lowest_are_kept() -> None:
    rows = [[float(n) / 50 for n in range(MOST_RANKS + 50)]]
    found = tallied(rows)[1]
    assert (found.classes, len(found.ranks)) == (MOST_RANKS + 50, MOST_RANKS)
    assert found.ranks[-1] > found.lowest > 0


def test_nothing_is_kept_of_what_is_not_finite_or_has_varying_classes() -> None:
    assert tallied([[0.0, math.nan, 1.0]]) == ()
    tally = SoftmaxTally([1.0])
    tally.add(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))
    assert tally.values() == ()
