"""The optimizer of a training, and its learning rate along the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from kdsearch.study import TrainingSettings


def optimizer_of(
    model: nn.Module, settings: TrainingSettings, learning_rate: float, *more: nn.Module
) -> Optimizer:
    """The settings' optimizer of a model, and what `more` is learnt beside it.

    It takes one pass over each weight and all that belongs to it.

    Biases and norms (everything of one dimension) do not decay, as is usual.
    """
    parameters = [p for each in (model, *more) for p in each.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() > 1]},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    match settings.optimizer:
        case "adamw":
            adam = settings.adam
            return AdamW(
                groups,
                lr=learning_rate,
                betas=adam.betas,
                eps=adam.epsilon,
                weight_decay=adam.weight_decay,
                fused=True,
            )
        case "sgd":
            sgd = settings.sgd
            assert sgd is not None  # `for_task` filled it in
            return SGD(
                groups,
                lr=learning_rate,
                momentum=sgd.momentum,
                nesterov=sgd.nesterov,
                weight_decay=sgd.weight_decay,
                fused=True,
            )


def schedule_of(settings: TrainingSettings, steps: int) -> Callable[[int], float]:
    """The factor of the learning rate at each step of so many."""
    warmup = round(settings.warmup * steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        rest = (step - warmup) / max(1, steps - warmup)
        match settings.schedule:
            case "constant":
                return 1.0
            case "linear":
                return max(0.0, 1 - rest)
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))

    return factor
