"""The posterior entropy along a training, from the batches as they are trained on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdsearch.agenda import TrainingCurve

_POINTS = 100
"""At most, in a training."""


class EntropyCurve:
    """Sums over the units of consecutive steps, on the device, which is not waited for."""

    def __init__(self, steps: int, device: torch.device) -> None:
        self._steps = steps
        self._every = math.ceil(steps / _POINTS)
        points = math.ceil(steps / self._every)
        self.sums = torch.zeros(points, 2, dtype=torch.float64, device=device)
        """Of each point: the sum of its units' entropies in nats, and how many they are."""

    def add(self, step: int, entropy: Tensor, units: int) -> None:
        """Take in a step, counted from 0, in which so many units had that mean entropy."""
        point = self.sums[step // self._every]
        point[0] += entropy * units
        point[1] += units

    def points(self) -> TrainingCurve:
        """The curve so far."""
        means = (self.sums[:, 0] / self.sums[:, 1]).tolist()
        return TrainingCurve(
            steps=self._steps,
            every=self._every,
            posterior_entropy=tuple(mean if math.isfinite(mean) else None for mean in means),
        )
