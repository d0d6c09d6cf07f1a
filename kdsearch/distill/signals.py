"""What a model computes between its layers, as terms of an objective compare it.

Shapes: B examples of L tokens, S parts of W numbers. Of hidden states S are the layers and W their
width; of attention S are, layer by layer, the queries and then the keys of each head, of relations
queries, keys and values, and W is the width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from kdsearch.agenda import Signal
from kdsearch.errors import InputError

_TAKE = "take another model, or leave out the terms that compare it"


@dataclass(kw_only=True)
class Seen:
    """What was seen of a model's pass over a batch."""

    hidden: Sequence[Tensor] = ()
    """[B, L, W] of the embedding and then of each layer, as transformers has them: a decoder's
    last ones are behind its last norm."""
    attended: list[_Attended] = field(default_factory=list)
    """Of each layer."""

    @property
    def causal(self) -> bool:
        """Whether a token attends to those before it alone; of attention that was seen."""
        return any(layer.causal for layer in self.attended)

    def __getitem__(self, signal: Signal) -> Tensor:
        """A signal, [B, L, S, W]; [B, S, W] of [CLS]."""
        match signal.name:
            case "hidden_states":
                return torch.stack([self.hidden[i + 1] for i in signal.layers], dim=2)
            case "cls_states":
                return torch.stack([self.hidden[i + 1][:, 0] for i in signal.layers], dim=1)
        found = []
        for layer in (self.attended[i] for i in signal.layers):
            if signal.name == "attention":  # scores are what these give with the keys
                found += [layer.query * layer.scale, layer.repeated(layer.key)]
            else:
                found += [layer.query, layer.repeated(layer.key), layer.repeated(layer.value)]
        return torch.cat(found, dim=1).transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class _Attended:
    """What the attention of a layer is given, [B, heads, L, W]: positions may have turned it."""

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    causal: bool

    def repeated(self, shared: Tensor) -> Tensor:
        """Keys or values for each head of queries, some of which may share them."""
        return shared.repeat_interleave(self.query.shape[1] // shared.shape[1], dim=1)


def watch(model: Any, signals: Sequence[Signal], run: Callable[[], Tensor]) -> tuple[Tensor, Seen]:
    """What `run`, which passes a batch through the model, returns; and what the signals are of.

    Raises `InputError` for a model that does not show them.
    """
    names = {signal.name for signal in signals}
    states = bool(names & {"hidden_states", "cls_states"})
    attends = bool(names & {"attention", "relations"})
    seen = Seen()
    with (
        _hidden(model, seen) if states else nullcontext(),
        _attention(seen) if attends else nullcontext(),
    ):
        said = run()
    layers = depth_of(model)
    if states and len(seen.hidden) != layers + 1:
        what = f"gives {len(seen.hidden)} hidden states, and has {layers} layers"
        raise InputError.one(type(model).__name__, what, _TAKE)
    if attends and len(seen.attended) != layers:
        what = (
            f"shows the queries and keys of {len(seen.attended)} of its {layers} layers: it does "
            "not attend by the functions that models of transformers share"
        )
        raise InputError.one(type(model).__name__, what, _TAKE)
    return said, seen


def depth_of(model: Any) -> int:
    """How many layers a model has."""
    return int(model.config.get_text_config().num_hidden_layers)


def width_of(model: Any) -> int:
    """How many numbers a hidden state has."""
    return int(model.config.get_text_config().hidden_size)


@contextmanager
def _hidden(model: Any, seen: Seen) -> Iterator[None]:
    """Have a model return its hidden states, and keep them."""

    def ask(_: Any, given: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return given, {**named, "output_hidden_states": True}

    def keep(_: Any, __: Any, said: Any) -> None:
        seen.hidden = getattr(said, "hidden_states", None) or ()

    hooks = (
        model.register_forward_pre_hook(ask, with_kwargs=True),
        model.register_forward_hook(keep),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _attention(seen: Seen) -> Iterator[None]:
    """Keep what the attention of each layer is given; it computes what it always does."""
    own: Any = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def keep(
        module: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any
    ) -> Any:
        scaling, causal = named.get("scaling"), named.get("is_causal")
        seen.attended.append(
            _Attended(
                query=query,
                key=key,
                value=value,
                scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
                causal=getattr(module, "is_causal", False) if causal is None else causal,
            )
        )
        return own(module, query, key, value, *rest, **named)

    ALL_ATTENTION_FUNCTIONS["sdpa"] = keep
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
