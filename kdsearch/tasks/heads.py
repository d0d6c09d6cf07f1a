"""What models say, and of a wide vocabulary the linear head and what it is given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from torch import Tensor


def head_weights(model: Any) -> tuple[Tensor, Tensor | None]:
    """[vocabulary, W] and [vocabulary]: the weights of a model's head, which is linear."""
    head = model.get_output_embeddings()
    shift = getattr(model, "final_logits_bias", None)  # of BART and its kin: a buffer, not a layer
    if shift is None:
        return head.weight, head.bias
    shift = shift.flatten()
    return head.weight, shift if head.bias is None else head.bias + shift


def said_by(model: Any, arguments: Mapping[str, Any]) -> Any:
    """What a model says, without keeping keys and values for a next token: that copies them."""
    rest = {"use_cache": False} if _may_keep(type(model).forward) else {}
    return model(**arguments, **rest)


@cache
def _may_keep(forward: Callable[..., Any]) -> bool:
    return "use_cache" in inspect.signature(forward).parameters


def hidden_states(model: Any, **arguments: Any) -> Tensor:
    """[B, T, W]: what a model's head is given for these arguments, without running the head."""
    found: list[Tensor] = []

    def keep(module: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found.append(given[0])
        return (given[0][:, :0],)  # the head is called later, on what is needed

    hook = model.get_output_embeddings().register_forward_pre_hook(keep)
    try:
        model(**arguments, use_cache=False)
    finally:
        hook.remove()
    return found[0]
