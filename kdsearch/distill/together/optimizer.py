"""The optimizer's step of each of several small students."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW


class Steps:
    """The steps of an `AdamW`, without what torch does around each.

    The weights of a small student are moved in a fraction of the time that `AdamW.step` takes to
    gather them again at every step. Here they are gathered once; what is done to them is the same.
    """

    def __init__(self, optimizer: AdamW) -> None:
        """Of weights that have a gradient now, which stays where it is."""
        self._optimizer = optimizer
        optimizer._opt_called = True  # type: ignore[attr-defined]  # a schedule warns otherwise
        self._groups: list[tuple[dict[str, Any], list[list[Any]]]] = []
        self._taken = torch.zeros(())
        for group in optimizer.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            states = [_state(optimizer, weight) for weight in weights]
            if not weights:
                continue
            self._taken = states[0]["step"].clone()
            moments = [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq")]
            gradients = [weight.grad for weight in weights]
            self._groups.append((group, [weights, gradients, *moments]))

    def take(self) -> None:
        """Move the weights by their gradients."""
        self._taken += 1
        for group, tensors in self._groups:
            beta1, beta2 = group["betas"]
            move: Any = torch._fused_adamw_
            move(
                *tensors,
                [],
                [self._taken] * len(tensors[0]),
                amsgrad=False,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )

    def note(self) -> None:
        """Have the optimizer's own state say how many steps were taken."""
        for state in self._optimizer.state.values():
            state["step"].copy_(self._taken)


def _state(optimizer: AdamW, weight: Tensor) -> dict[str, Any]:
    """Of a weight, as `AdamW` begins it."""
    state: dict[str, Any] = optimizer.state[weight]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
        state["exp_avg"] = torch.zeros_like(weight)
        state["exp_avg_sq"] = torch.zeros_like(weight)
    return state
