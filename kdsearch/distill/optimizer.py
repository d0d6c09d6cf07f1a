"""The optimizer of a training, and its learning rate along the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from kdsearch.study import TrainingSettings

_NO_NORM = 1e-6
"""Added to a norm that is divided by, as `clip_grad_norm_` does."""


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


def clip_gradients(weights: Iterable[nn.Parameter], most: float, *, per_layer: bool) -> None:
    """Scale gradients down, in place, to an l2 norm of at most `most`.

    It is that of all `weights` together, or of each tensor by itself: then what one layer learns
    does not depend on how large the gradients of others are.
    """
    if not per_layer:
        nn.utils.clip_grad_norm_(weights, most)
        return
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    shares = (most / (norms + _NO_NORM)).clamp(max=1.0)
    torch._foreach_mul_(gradients, shares.unbind())


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
