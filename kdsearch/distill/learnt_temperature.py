"""The temperature that an objective learns: a parameter of the training, beside the model's.

The student learns to make the loss small, the temperature to make it large (Li et al., AAAI 2023;
zhengli97/CTKD@7d52522, `Global_T` and `CosineDecay`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from kdsearch.distill.optimizer import schedule_of
from kdsearch.search import Ctkd
from kdsearch.study import TrainingSettings

_MOMENTUM = 0.9


class LearntTemperature(nn.Module):
    """τ = start + span · σ(θ), with an SGD of its own that follows the training's schedule."""

    def __init__(
        self,
        objective: Ctkd,
        settings: TrainingSettings,
        steps: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Of a training of so many steps."""
        super().__init__()
        assert objective.temperature_unit == "none"  # else see `Tempered.at_scale`
        self.theta = nn.Parameter(torch.tensor(float(objective.first_theta), device=device))
        self._objective = objective
        self.optimizer = SGD(
            [self.theta],
            lr=objective.adversary_rate,
            momentum=_MOMENTUM,
            weight_decay=objective.adversary_decay,
        )
        self.schedule = LambdaLR(self.optimizer, schedule_of(settings, steps))

    def forward(self, epoch: int) -> Tensor:
        """τ in an epoch, a scalar: its gradient reaches θ reversed, at the epoch's share."""
        theta: Tensor = _Reversed.apply(self.theta, adversary(self._objective, epoch))  # type: ignore[no-untyped-call]
        objective = self._objective
        return objective.temperature_start + objective.temperature_span * theta.sigmoid()

    @property
    def value(self) -> float:
        """τ as it is."""
        with torch.no_grad():
            return float(self(1))

    @property
    def moving(self) -> dict[str, Any]:
        """All that each step moves."""
        return {
            "temperature": self,
            "temperature_optimizer": self.optimizer,
            "temperature_schedule": self.schedule,
        }

    def learn(self, scaler: torch.amp.GradScaler) -> None:
        """Move θ by its gradient, which is then gone."""
        scaler.step(self.optimizer)
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)


def adversary(objective: Ctkd, epoch: int) -> float:
    """λ: by how much the gradient is multiplied that reaches θ, from 0 to −1 along a cosine."""
    epochs = objective.adversary_epochs
    share = min(epoch / epochs, 1.0) if epochs else 1.0
    return -0.5 * (1 - math.cos(math.pi * share))


class _Reversed(torch.autograd.Function):
    """A value whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * upstream[0], None
