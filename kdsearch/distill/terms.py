"""What is added to an objective: distances between what student and teacher compute inside.

The teacher's side is kept (see `distill.outputs`). Where the two are compared by a projection, it
is a parameter of the training: the optimizer moves it, the training's checkpoint has it, the
student does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdsearch.agenda import Signal
from kdsearch.distill.signals import Seen, depth_of, watch, width_of
from kdsearch.distill.term_losses import attention_loss, cls_loss, hidden_loss, relation_loss
from kdsearch.errors import InputError
from kdsearch.search import TEACHERS, Taught
from kdsearch.study import own_layers
from kdsearch.tasks import Encoded


@dataclass(frozen=True, kw_only=True)
class KeptSignal:
    """What a teacher computes inside of it on a split, on the disk."""

    signal: Signal
    values: Tensor
    """[rows, S, W] in bfloat16; a row is a token, or of [CLS] an example: see `distill.signals`."""
    offsets: Tensor
    """[N + 1]: the number of each example's first row, and that of all rows."""

    def of(self, indices: Tensor, device: torch.device) -> Tensor:
        """[B, L, S, W], or [B, S, W], of some examples, in single precision.

        Beyond an example's end there is another's.
        """
        starts = self.offsets[indices]
        if self.signal.name == "cls_states":
            return self.values[starts].to(device).float()
        longest = int((self.offsets[indices + 1] - starts).max())
        rows_BL = (starts[:, None] + torch.arange(longest)).clamp(max=len(self.values) - 1)
        return self.values[rows_BL].to(device).float()


class Terms(nn.Module):
    """The terms of an objective, and their projections, drawn from torch's global generator.

    FitNets and TinyBERT learn a projection whatever the widths, one for all layers; [CLS] has one
    where the widths differ, which PKD's never do.
    """

    def __init__(
        self,
        objective: Taught,
        kept: Mapping[str, KeptSignal],
        model: Any,
        examples: Encoded,
    ) -> None:
        """`kept` are the teacher's signals by term, of the same `examples`.

        Raises `InputError` where heads do not go together.
        """
        super().__init__()
        self._objective, self._kept, self._lengths = objective, kept, examples.lengths
        self._own = {term: _of_student(term, each.signal, model) for term, each in kept.items()}
        width = width_of(model)
        self.projections = nn.ModuleDict(
            {
                term: nn.Linear(width, each.values.shape[-1], bias=False)
                for term, each in kept.items()
                if term in ("hint", "hidden_states")
                or (term == "cls_states" and width != each.values.shape[-1])
            }
        )
        self._device = examples.labels.device
        self.to(self._device)

    def added(
        self, model: Any, run: Callable[[], Tensor], indices: Tensor, batch: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What `run`, a pass over the examples `indices`, says; and what they add to the loss.

        `batch` are all examples of the batch, of which these are some.
        """
        said, seen = watch(model, [*self._own.values()], run)
        with torch.autocast(self._device.type, enabled=False):
            terms = [
                weight * self._term(term, seen, indices, batch)
                for term, weight in self._objective.terms.items()
            ]
        return said, torch.stack(terms).sum()

    def _term(self, term: str, seen: Seen, indices: Tensor, batch: Tensor) -> Tensor:
        kept, objective = self._kept[term], self._objective
        own = seen[self._own[term]].float()
        if term in self.projections:
            own = self.projections[term](own)
        theirs = kept.of(indices, self._device)
        if term == "cls_states":
            return cls_loss(own, theirs, len(batch))
        real_BL = self._real(indices)
        lengths = self._lengths[batch]
        tokens = int(lengths.sum())
        if term in ("hint", "hidden_states"):
            return hidden_loss(own, theirs, real_BL, tokens)
        pairs_BLL = real_BL[:, None] & real_BL[:, :, None]
        pairs = int((lengths * lengths).sum())
        if seen.causal:
            pairs_BLL, pairs = pairs_BLL.tril(), int((lengths * (lengths + 1) // 2).sum())
        if term == "attention":
            layers, mean = len(kept.signal.layers), objective.attention_heads == "mean"
            if not mean and own.shape[2] != theirs.shape[2]:
                counts = [each.shape[2] // (2 * layers) for each in (own, theirs)]
                raise InputError.one("attention", unlike_heads(*counts), MEAN)
            return attention_loss(own, theirs, pairs_BLL, pairs, layers=layers, mean=mean)
        heads = objective.relation_heads
        count = theirs.shape[2] // 3 if heads == TEACHERS else int(heads)
        if problem := undivided(count, own[0, 0].numel() // 3, theirs[0, 0].numel() // 3):
            raise InputError.one("relation_heads", problem, "give a number that divides both")
        return relation_loss(own, theirs, real_BL, pairs_BLL, tokens, heads=count)

    def _real(self, indices: Tensor) -> Tensor:
        """[B, L]: which tokens are no padding."""
        lengths = self._lengths[indices]
        mask_BL = torch.arange(int(lengths.max())) < lengths[:, None]
        return mask_BL.to(self._device)


MEAN = "set attention_heads: mean, which compares the mean over the heads"


def unlike_heads(student: int, teacher: int) -> str:
    """In words: heads that are not as many, whose scores cannot be compared one by one."""
    return f"compares head by head, and the student has {student} heads, the teacher {teacher}"


def undivided(heads: int, student: int, teacher: int) -> str | None:
    """What is wrong with so many relation heads; None where they divide both widths."""
    if student % heads == teacher % heads == 0:
        return None
    return f"{heads} relation heads do not divide the widths of both, {student} and {teacher}"


def _of_student(term: str, theirs: Signal, model: Any) -> Signal:
    """The student's signal that a term compares with the teacher's."""
    return Signal(name=theirs.name, layers=own_layers(term, len(theirs.layers), depth_of(model)))
