"""The modules of a model that computes several students at once.

K students of one model read the same batch of B examples: the inputs are repeated, so that rows
k·B to (k + 1)·B of a tensor [K·B, …] are student k's. What has no weights (attention, activations,
residuals) does not notice. What has them is swapped for a module below, whose weights have the
students as their first dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.pytorch_utils import Conv1D


class UnlikeError(Exception):
    """A model that cannot be computed for several students at once, or says something else so."""


ATTENTION = "kdsearch_together"
"""The name of `attend` among transformers' attention functions."""


@dataclass
class Pass:
    """What the modules of one model share."""

    students: int
    """K."""
    examples: int = 0
    """B, of the batch at hand."""


class Together(nn.Module):
    """A module of a model of several students."""

    together: Pass


class TogetherLinear(Together, nn.Linear):
    """Weights [K, out, in], biases [K, out]."""

    def forward(self, input: Tensor) -> Tensor:
        """[K·n, …, in] → [K·n, …, out]."""
        return _product(input, self.weight.mT, self.bias)


class TogetherConv1D(Together, Conv1D):
    """GPT-2's linear layer: weights [K, in, out], biases [K, out]."""

    def forward(self, x: Tensor) -> Tensor:
        """[K·n, …, in] → [K·n, …, out]."""
        return _product(x, self.weight, self.bias)


class TogetherEmbedding(Together, nn.Embedding):
    """Weights [K, V, H]."""

    def forward(self, input: Tensor) -> Tensor:
        """[K·B, …] numbers → [K·B, …, H]; of one row, such as positions, for every example.

        Raises `UnlikeError` for numbers that are not of examples, such as distances of tokens.
        """
        students, examples = self.together.students, self.together.examples
        rows = self.weight.shape[1]
        one = len(input) == 1 or input.stride(0) == 0
        if not one and len(input) != students * examples:
            raise UnlikeError(f"looks up {list(input.shape)} numbers for {examples} examples")
        numbers = input[:1].expand(students, -1) if one else input.view(students, -1)
        firsts = torch.arange(0, students * rows, rows, device=input.device)[:, None]
        learnt = numbers + firsts
        if self.padding_idx is not None:  # the embedding of which no student learns
            learnt = learnt.masked_fill(numbers == self.padding_idx, self.padding_idx)
        padding = -1 if self.padding_idx is None else self.padding_idx
        found: Tensor = _Lookup.apply(  # type: ignore[no-untyped-call]
            self.weight, numbers + firsts, learnt, padding
        )
        if not one:
            return found.view(*input.shape, -1)
        found = found.view(students, 1, *input.shape[1:], -1)
        return found.expand(-1, examples, *found.shape[2:]).flatten(0, 1)


class TogetherLayerNorm(Together, nn.LayerNorm):
    """Weights and biases [K, H]."""

    def forward(self, input: Tensor) -> Tensor:
        """[K·n, …, H] → the same shape."""
        if self.weight is None:
            return F.layer_norm(input, self.normalized_shape, None, None, self.eps)
        biases: Sequence[Tensor | None] = [None] * self.together.students
        if self.bias is not None:
            biases = self.bias.unbind()
        rows = input.chunk(self.together.students)
        # One after another: a weight for each of several rows costs more than to join them.
        normal = [
            F.layer_norm(own, self.normalized_shape, weight, bias, self.eps)
            for own, weight, bias in zip(rows, self.weight.unbind(), biases, strict=True)
        ]
        return torch.cat(normal)


class TogetherDropout(Together, nn.Dropout):
    """One mask for all students: each drops what it drops alone."""

    def forward(self, input: Tensor) -> Tensor:
        """[K·n, …] → the same shape."""
        if not self.training or self.p == 0:
            return input
        return _drop(input, self.p, self.together.students)


MODULES: dict[type[nn.Module], type[Together]] = {
    nn.Linear: TogetherLinear,
    Conv1D: TogetherConv1D,
    nn.Embedding: TogetherEmbedding,
    nn.LayerNorm: TogetherLayerNorm,
    nn.Dropout: TogetherDropout,
}
"""What stands for which. Of subclasses it is not known what they do."""


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention of several students, [K·B, heads, L, …], with one dropout mask for all.

    A drop-in for transformers' attention functions.
    """
    causal = rest.get("is_causal", getattr(module, "is_causal", False))
    if dropout == 0 or causal:  # no causal model that can be trained so is known
        found: tuple[Tensor, Tensor | None] = sdpa_attention_forward(
            *(module, query, key, value, attention_mask), dropout=dropout, scaling=scaling, **rest
        )
        return found
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    weights = query @ key.mT * scale
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        # No infinity: padding that sees nothing, in a layer that looks near, would be NaN by that.
        weights = weights.masked_fill(~attention_mask, torch.finfo(weights.dtype).min)
    elif attention_mask is not None:
        weights = weights + attention_mask
    weights = _drop(weights.softmax(dim=-1), dropout, module.together.students)
    return (weights @ value).transpose(1, 2).contiguous(), weights


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Each student's rows times its own weights [K, in, out]."""
    students, width, _ = weight.shape
    own = rows.reshape(students, -1, width)
    product = own @ weight if bias is None else torch.baddbmm(bias[:, None], own, weight)
    return product.view(*rows.shape[:-1], -1)


def _drop(values: Tensor, share: float, students: int) -> Tensor:
    """Dropout by the mask that one student draws alone, times 1 / (1 − `share`)."""
    own = values.view(students, -1, *values.shape[1:])
    mask = F.dropout(torch.ones_like(own[0]), share)
    return (own * mask).view_as(values)


class _Lookup(torch.autograd.Function):
    """Embeddings whose padding has one number in each student's part of the table."""

    @staticmethod
    def forward(
        ctx: Any, weight_KVH: Tensor, numbers: Tensor, learnt: Tensor, padding: int
    ) -> Tensor:
        """The rows `numbers` of the flat table; no gradient goes where `learnt` is `padding`."""
        ctx.save_for_backward(learnt)
        ctx.shape, ctx.padding = weight_KVH.shape, padding
        return F.embedding(numbers, weight_KVH.flatten(0, 1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """Of the weights."""
        (learnt,) = ctx.saved_tensors
        students, rows, width = ctx.shape
        found = torch.ops.aten.embedding_dense_backward(
            gradient, learnt, students * rows, ctx.padding, False
        )
        return found.view(students, rows, width), None, None, None
