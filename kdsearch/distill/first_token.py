"""The last layer of an encoder at its first token alone, where the head reads no other.

A head for classification reads what the last layer says of the first token ([CLS], <s>). Of all
others that layer needs keys and values alone: their queries, what attention says of them and the
feed-forward behind it, five sixths of the layer's products, come to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from kdsearch.distill.same import ROUNDING, alike, said_of
from kdsearch.tasks import Encoded, Task


@dataclass(frozen=True, kw_only=True)
class _Names:
    """What a family of models calls the parts of a layer."""

    behind: str
    """What is called once attention is done: with what it says, and what the layer was given."""
    attention: str = ""
    """What makes queries, keys and values of the layer's input; of some it is not cut."""
    projections: tuple[str, ...] = ()
    """Its queries, keys and values, in this order, and its last product, if that is in it."""


_FAMILIES = (
    # BERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA, ERNIE, Data2Vec and more.
    _Names(
        behind="attention.output",
        attention="attention.self",
        projections=("query", "key", "value"),
    ),
    _Names(  # DistilBERT
        behind="sa_layer_norm",
        attention="attention",
        projections=("q_lin", "k_lin", "v_lin", "out_lin"),
    ),
    _Names(behind="attention.output"),  # DeBERTa, and what else has BERT's names in part
    _Names(behind="attention.LayerNorm"),  # MPNet
    _Names(behind="mlp_norm"),  # ModernBERT
)


def read_first_alone(model: Any, task: Task, examples: Encoded) -> bool:
    """Have the last layer computed at the first token alone, if the logits stay what they are.

    They do if they are the same whatever that layer says of other tokens, NaN included, and if the
    layer computed so gives them to round-off: both are tried, on the shortest and the longest of
    the examples. Otherwise the model is left as it is; its weights and their names are in any case.
    Returns whether it is computed so.
    """
    if task.per_token or int(examples.lengths.max()) == 1:
        return False
    said = said_of(model, task, examples)
    before = said()
    for layer, names in _last_layers(model):
        hook = layer.register_forward_hook(_forget_others)
        unread = alike(before, said(), 0.0)
        hook.remove()
        if not unread:
            return False
        undo = _cut(layer, names)
        if alike(before, said(), ROUNDING):
            return True
        undo()
    return False


def _last_layers(model: nn.Module) -> list[tuple[nn.Module, _Names]]:
    """The last layer that each family's names are those of."""
    layers = list(reversed(list(model.modules())))
    found = []
    for names in _FAMILIES:
        parts = [part for part in (names.behind, names.attention) if part]
        layer = next((each for each in layers if all(_part(each, part) for part in parts)), None)
        if layer is not None and (not names.attention or _is_plain(layer, names)):
            found.append((layer, names))
    return found


def _part(layer: nn.Module, path: str) -> nn.Module | None:
    try:
        return layer.get_submodule(path)
    except AttributeError:
        return None


def _is_plain(layer: nn.Module, names: _Names) -> bool:
    """Whether attention is of the parts that are known, and nothing else."""
    attention: Any = layer.get_submodule(names.attention)
    children = {name for name, _ in attention.named_children()}
    return (
        children == {*names.projections, "dropout"}
        and all(hasattr(attention, name) for name in ("attention_head_size", "scaling", "config"))
        and attention.config._attn_implementation == "sdpa"
    )


def _cut(layer: nn.Module, names: _Names) -> Callable[[], None]:
    """Cut a layer to the first token; returns what undoes it."""
    behind: Any = layer.get_submodule(names.behind)
    hook = behind.register_forward_pre_hook(_firsts)
    if not names.attention:
        return lambda: hook.remove()
    attention: Any = layer.get_submodule(names.attention)
    kind = type(attention)
    # A class and no method of its own, which would refer to it: weights in a cycle stay in memory
    # until the collector runs.
    parts = {"forward": _attend, "projections": names.projections}
    attention.__class__ = type(kind.__name__, (kind,), parts)

    def undo() -> None:
        hook.remove()
        attention.__class__ = kind

    return undo


def _firsts(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(values_BLH[:, :1] for values_BLH in arguments)


def _forget_others(_: nn.Module, __: Any, said: Any) -> Any:
    """Of a layer's output: NaN at all tokens but the first."""
    if isinstance(said, tuple):
        return (_forget_others(_, __, said[0]), *said[1:])
    forgotten = said.clone()
    forgotten[:, 1:] = torch.nan
    return forgotten


def _attend(
    attention: Any, hidden_BLH: Tensor, attention_mask: Tensor | None = None, **_: Any
) -> tuple[Tensor, Tensor | None]:
    """What the first token attends to, [B, 1, H]; in place of an attention's own `forward`."""
    query, key, value, *last = (getattr(attention, name) for name in attention.projections)
    pairs = (query, hidden_BLH[:, :1]), (key, hidden_BLH), (value, hidden_BLH)
    interface = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation]
    said, weights = interface(
        attention,
        *(
            product(hidden).unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)
            for product, hidden in pairs
        ),
        None if attention_mask is None else attention_mask[:, :, :1],
        dropout=attention.dropout.p if attention.training else 0.0,
        scaling=attention.scaling,
    )
    said_B1H = said.flatten(-2)
    for product in last:
        said_B1H = product(said_B1H)
    return said_B1H, weights
