"""Which function computes an objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from kdsearch.distill.losses.units import Units
from kdsearch.search import Objective

Kind = TypeVar("Kind", bound=Objective)

LOSSES: dict[type[Objective], Callable[[Any, Units], Tensor]] = {}


def loss_of(
    kind: type[Kind],
) -> Callable[[Callable[[Kind, Units], Tensor]], Callable[[Kind, Units], Tensor]]:
    """Make the function below compute the objectives of a kind.

    It is given one and what its units are said to be, with logits in single precision, and
    returns a scalar: the mean over the units, as `Units.mean` and `Units.labelled_mean` make it,
    which know of a batch whose units come some at a time.
    """

    def register(function: Callable[[Kind, Units], Tensor]) -> Callable[[Kind, Units], Tensor]:
        LOSSES[kind] = function
        return function

    return register


def compute(objective: Objective, units: Units) -> Tensor:
    """The loss of `units` under `objective`, a scalar; under mixed precision too in single."""
    single = replace(units, student=units.student.float(), teacher=units.teacher.float())
    with torch.autocast(units.student.device.type, enabled=False):  # which rounds products
        return LOSSES[type(objective)](objective, single)
