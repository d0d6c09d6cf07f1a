"""Spearman's rank correlation within blocks, and how often chance gives one as large."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
FEWEST = 5
"""Of four units even a perfect order has a p of 2/24."""
MOST = 8
"""Of more units ways to deal are drawn, not all gone through: 8 have 40,320, 9 nine times these."""
DRAWN = 100_000


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """How one quantity goes with another, by their ranks."""

    rho: float
    """The mean over the blocks of Spearman's ρ within each: −1 to 1."""
    p: float | None
    """Two-sided; None of fewer than 5 units."""
    units: int
    blocks: int
    exact: bool
    """Whether p goes through all ways to deal; else 100,000 were drawn."""


def spearman(x: Numbers, y: Numbers) -> Correlation | None:
    """How `y` goes with `x`, [blocks, units] both.

    The ranks are those within a block; equal values share their mean rank. p is how often the mean
    ρ is as far from 0 if the units' values of `x` are dealt out to the units at random, in all
    blocks alike: what a unit is in one block says something of what it is in another. A block in
    which either is the same of all units says nothing and is left out; None where all are.
    """
    pairs = [
        (scores, others)
        for scores, others in zip(map(_standing, x), map(_standing, y), strict=True)
        if scores.any() and others.any()
    ]
    if not pairs:
        return None
    units = x.shape[1]
    ways = _ways(units) if units >= FEWEST else np.arange(units)[None]
    rhos = np.mean([scores[ways] @ others for scores, others in pairs], axis=0)
    rho = float(rhos[0])  # the first way leaves all where it is
    return Correlation(
        rho=rho,
        p=float((np.abs(rhos) >= abs(rho) - 1e-9).mean()) if units >= FEWEST else None,
        units=units,
        blocks=len(pairs),
        exact=units <= MOST,
    )


def _standing(values: Numbers) -> Numbers:
    """The mean ranks, around 0 and of length 1, so that ρ is the product of two; 0 where all are
    equal."""
    higher = (values[:, None] > values).sum(axis=1) - (values[:, None] < values).sum(axis=1)
    length = float(np.linalg.norm(higher))
    found: Numbers = higher / (length or 1.0)
    return found


def _ways(units: int) -> npt.NDArray[np.int8]:
    """[ways, units]: to deal out as many things, each way once, or so many that are drawn."""
    if units <= MOST:
        return np.array(list(permutations(range(units))), dtype=np.int8)
    rows = np.tile(np.arange(units, dtype=np.int8), (DRAWN + 1, 1))
    rows[1:] = np.random.default_rng(0).permuted(rows[1:], axis=1)
    return rows
