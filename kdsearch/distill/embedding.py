"""A training without the rows of the input embedding that none of its examples uses.

Of a vocabulary of tens of thousands a data set uses a part. The other rows have no gradient: all
that a step does to them is to multiply them by a number that is the same for all, by weight decay
(under SGD with momentum too, whose decay is a part of the gradient: it is linear in the weight, and
begins at zero). So they are put aside, and one row of ones, which no token has, is trained in
their place: at the end each of them is what it was, times what has become of a one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdsearch.distill.same import ROUNDING, alike, said_of
from kdsearch.tasks import Encoded, Task

_WORTH = 2**20
"""So many weights out of use pay for the trouble; fewer are moved in a millisecond."""


class RowsInUse:
    """A model whose input embedding has the rows in use alone, and one of ones behind them."""

    def __init__(self, model: Any, embedding: nn.Embedding, used_V: Tensor) -> None:
        """Cut the `embedding` of a model to where `used_V` is true, in place."""
        every = model.state_dict(keep_vars=True).items()
        self._names = [name for name, value in every if value is embedding.weight]
        self._embedding = embedding
        self._whole, self._padding = embedding.weight, embedding.padding_idx
        self._used = used_V.nonzero()[:, 0]
        numbers_V = used_V.cumsum(dim=0) - 1
        numbers_V[~used_V] = len(self._used) + 1  # beyond the last row: an error, if it came

        def renumber(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (numbers_V[arguments[0]],)

        self._hook = embedding.register_forward_pre_hook(renumber)
        whole_VH = self._whole.detach()
        ones_1H = torch.ones_like(whole_VH[:1])
        embedding.weight = nn.Parameter(torch.cat([whole_VH[self._used], ones_1H]))
        if self._padding is not None:  # the row that learns nothing
            embedding.padding_idx = int(numbers_V[self._padding])

    def whole(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state of the model with all rows."""
        return {
            name: self._filled(value) if name in self._names else value
            for name, value in state.items()
        }

    def put_back(self) -> None:
        """Give the model all rows again, as a training of all of them would have left them."""
        self._hook.remove()
        with torch.no_grad():
            self._whole.copy_(self._filled(self._embedding.weight))
        self._embedding.weight, self._embedding.padding_idx = self._whole, self._padding

    def _filled(self, kept: Tensor) -> Tensor:
        rows, ones_1H = kept.detach().split([len(self._used), 1])
        whole_VH: Tensor = self._whole.detach().to(kept.device) * ones_1H
        whole_VH[self._used.to(kept.device)] = rows
        return whole_VH


def rows_in_use(model: Any, task: Task, splits: Sequence[Encoded]) -> RowsInUse | None:
    """Cut a model's input embedding to the rows that `splits` use; tried on the first of these.

    None, and nothing is changed, where that would not pay, where the weights have another use
    (as those of an output head, or of another embedding), and where the model looks up anything
    but the tokens that it is given (those that it has written itself, for one), or reads the
    weights in another way.
    """
    if task.wide:
        return None
    try:
        embedding = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # of CANINE and others that hash
        return None
    if not isinstance(embedding, nn.Embedding) or not embedding.weight.requires_grad:
        return None
    used_V = torch.zeros(embedding.num_embeddings, dtype=torch.bool, device=embedding.weight.device)
    for split in splits:
        used_V[split.inputs["input_ids"]] = True
    if embedding.padding_idx is not None:  # a model may pad by itself, once a batch is odd
        used_V[embedding.padding_idx] = True
    if int((~used_V).sum()) * embedding.embedding_dim < _WORTH or _is_shared(model, embedding):
        return None
    looked_up: list[Tensor] = []
    hook = embedding.register_forward_pre_hook(lambda _, given: looked_up.append(given[0]))
    said = said_of(model, task, splits[0])
    before = said()
    hook.remove()
    if not looked_up or not all(used_V[tokens].all() for tokens in looked_up):
        return None
    cut = RowsInUse(model, embedding, used_V)
    if alike(before, said(), ROUNDING):
        return cut
    cut.put_back()
    return None


def _is_shared(model: nn.Module, embedding: nn.Embedding) -> bool:
    parameters = [p for module in model.modules() for p in module.parameters(recurse=False)]
    return sum(each is embedding.weight for each in parameters) > 1
