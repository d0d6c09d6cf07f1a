"""Whether a model says what it said, once it computes that in another way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kdsearch.tasks import Encoded, Task

ROUNDING = 1e-4
"""Of what a model says, by the largest of it: products of other shapes are rounded otherwise."""


def said_of(model: Any, task: Task, examples: Encoded) -> Callable[[], list[Tensor] | None]:
    """What says what a model says of the shortest and the longest example, and of the latter alone.

    In single precision, without dropout; None where the model cannot be run.
    """
    model.eval()
    by_length = examples.lengths.argsort(stable=True)
    batches = [examples.batch(some) for some in (by_length[[0, -1]], by_length[-1:])]

    @torch.no_grad()
    def said() -> list[Tensor] | None:
        try:
            return [task.outputs(model, batch).float() for batch in batches]
        except (IndexError, RuntimeError, TypeError, ValueError):
            return None

    return said


def alike(one: list[Tensor] | None, other: list[Tensor] | None, tolerance: float) -> bool:
    """Whether both are there, and finite, and equal to a share of the largest number."""
    if one is None or other is None:
        return False
    return all(
        a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=tolerance * float(a.abs().max()))
        for a, b in zip(one, other, strict=True)
    )
