"""Some tokens of a teacher's outputs in place of all: drawn ones or the likeliest, on the disk.

Probabilities are those of the logits over the temperature of the study, in single precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor

from kdsearch.agenda import OutputsTraining
from kdsearch.distill.losses import KeptClasses
from kdsearch.distill.wide import Head
from kdsearch.ledger import layout
from kdsearch.study import HIDDEN, SAMPLED, kept_tokens
from kdsearch.tasks import Batch, head_weights

_Array = np.ndarray[Any, Any]
_LOGITS = 2**23
"""So many are there at once."""
_WORDS = 4
"""Random numbers of a block of Philox."""
PLACE = np.dtype([("first", "<u8"), ("distinct", "<u2")])
"""Of a row: where its draws begin among those of all, and how many different tokens they are."""
DRAW = np.dtype([("token", "<u4"), ("count", "<u2")])


def top_row(count: int) -> np.dtype[Any]:
    """Of a row: its likeliest tokens, the probability of each, and behind them of all others."""
    return np.dtype([("tokens", "<u4", (count,)), ("shares", "<f2", (count + 1,))])


class TopRows:
    """Makes rows of the `count` likeliest tokens."""

    def __init__(self, head: Head, temperature: float, count: int) -> None:
        self._head, self._temperature = head, temperature
        self._row = top_row(min(count, len(head[0]) - 1))
        self._masses: list[Tensor] = []

    def beside(self, path: Path, temporary: Path) -> dict[Path, Path]:
        """No further file."""
        return {}

    def __call__(self, values_RW: Tensor, batch: Batch) -> _Array:
        """[R]: the rows of a batch."""
        stored = np.empty(len(values_RW), self._row)
        count, at = self._row["tokens"].shape[0], 0
        for p_NC in _probabilities(values_RW, self._head, self._temperature):
            shares_NK, tokens_NK = p_NC.topk(count, dim=1)
            rest_N = p_NC.scatter(1, tokens_NK, 0).sum(dim=1)
            some = stored[at : at + len(p_NC)]
            some["tokens"] = tokens_NK.cpu().numpy()
            some["shares"] = torch.cat([shares_NK, rest_N[:, None]], dim=1).cpu().numpy()
            self._masses.append(1 - rest_N.double().cpu())
            at += len(p_NC)
        return stored

    def finish(self) -> None:
        """Nothing is left to do."""

    @property
    def measures(self) -> dict[str, float]:
        """The mean probability of all that is kept of a row."""
        return {"kept_mass": float(torch.cat(self._masses).mean())}


class DrawnRows:
    """Makes rows of `count` tokens that are drawn by their probabilities, with replacement.

    What is drawn of a row follows from the seed, its number and its probabilities, whatever other
    rows are in its batch.
    """

    def __init__(self, head: Head, temperature: float, count: int, seed: int) -> None:
        self._head, self._temperature = head, temperature
        self._count, self._seed = count, seed
        self._written = 0

    def beside(self, path: Path, temporary: Path) -> dict[Path, Path]:
        """The draws of all rows, one after another."""
        self._draws = temporary.with_suffix(".draws.tmp")
        self._write_header("wb")
        return {path.with_name(Path(layout.draws(path.stem)).name): self._draws}

    def __call__(self, values_RW: Tensor, batch: Batch) -> _Array:
        """[R]: where the draws of each row of a batch are; these are written."""
        uniform_RD = torch.from_numpy(_uniform(self._seed, batch.rows.numpy(), self._count))
        found, at = [], 0
        for p_NC in _probabilities(values_RW, self._head, self._temperature):
            some_ND = uniform_RD[at : at + len(p_NC)].to(p_NC.device)
            found.append(_drawn(p_NC, some_ND).cpu().numpy())
            at += len(p_NC)
        tokens_RD = np.concatenate(found)
        begins_RD = np.ones(tokens_RD.shape, bool)
        begins_RD[:, 1:] = tokens_RD[:, 1:] != tokens_RD[:, :-1]
        ends = np.append(np.flatnonzero(begins_RD)[1:], tokens_RD.size)
        draws = np.empty(len(ends), DRAW)
        draws["token"] = tokens_RD[begins_RD]
        draws["count"] = np.diff(ends, prepend=0)
        places = np.empty(len(tokens_RD), PLACE)
        places["distinct"] = begins_RD.sum(axis=1)
        places["first"] = self._written + np.cumsum(places["distinct"]) - places["distinct"]
        self._written += len(draws)
        with self._draws.open("ab") as file:
            file.write(draws.tobytes())
        return places

    def finish(self) -> None:
        """Say in the file how many draws there are."""
        self._write_header("r+b")

    @property
    def measures(self) -> dict[str, float]:
        """None: what is drawn stands for all."""
        return {}

    def _write_header(self, mode: str) -> None:
        """numpy's, which is as long for every number of items."""
        header = {"descr": np.lib.format.dtype_to_descr(DRAW), "fortran_order": False}
        with self._draws.open(mode) as file:
            np.lib.format.write_array_header_1_0(file, {**header, "shape": (self._written,)})


def token_rows(
    training: OutputsTraining, model: Any, classes: int | None
) -> TopRows | DrawnRows | None:
    """What makes the rows that are kept of a model; None where its hidden states are.

    `classes`: see `Batch`.
    """
    settings = training.settings
    if settings.cache == HIDDEN:
        return None
    assert settings.temperature is not None
    kind, count = kept_tokens(settings.cache)
    weight, bias = head_weights(model)
    weight, bias = weight[:classes], None if bias is None else bias[:classes]
    head = weight.detach().float(), None if bias is None else bias.detach().float()
    if kind == SAMPLED:
        return DrawnRows(head, settings.temperature, count, int(training.key, 16))
    return TopRows(head, settings.temperature, count)


@dataclass(frozen=True, kw_only=True)
class CachedTop:
    """The likeliest tokens of each row of a split."""

    rows: _Array
    """On disk, `top_row` each."""

    def kept(self, batch: Batch) -> KeptClasses:
        """Those of a batch, where the batch is."""
        some = self.rows[batch.rows.numpy()]
        shares_NK = torch.from_numpy(some["shares"].astype(np.float32))
        shares_NK = (shares_NK / shares_NK.sum(dim=1, keepdim=True)).to(batch.labels.device)
        return KeptClasses(
            classes=torch.from_numpy(some["tokens"].astype(np.int64)).to(batch.labels.device),
            shares=shares_NK[:, :-1],
            rest=shares_NK[:, -1],
        )


@dataclass(frozen=True, kw_only=True)
class CachedDraws:
    """The tokens that were drawn for each row of a split."""

    places: _Array
    """On disk, `PLACE` each."""
    draws: _Array
    """On disk, `DRAW` each."""

    def kept(self, batch: Batch) -> KeptClasses:
        """Those of a batch, where the batch is."""
        some = self.places[batch.rows.numpy()]
        first_N1 = some["first"].astype(np.int64)[:, None]
        distinct_N1 = some["distinct"][:, None]
        within_K = np.arange(distinct_N1.max(initial=1))
        is_one_NK = within_K < distinct_N1
        draws_NK = self.draws[first_N1 + within_K * is_one_NK]
        counts_NK = torch.from_numpy((draws_NK["count"] * is_one_NK).astype(np.float32))
        shares_NK = counts_NK / counts_NK.sum(dim=1, keepdim=True)
        return KeptClasses(
            classes=torch.from_numpy(draws_NK["token"].astype(np.int64)).to(batch.labels.device),
            shares=shares_NK.to(batch.labels.device),
        )


def _probabilities(values_RW: Tensor, head: Head, temperature: float) -> Iterator[Tensor]:
    """Those of some rows at a time, [N, C]."""
    weight, bias = head
    for some_NW in values_RW.float().split(max(1, _LOGITS // len(weight))):
        yield (F.linear(some_NW, weight, bias) / temperature).softmax(dim=1)


def _drawn(p_NC: Tensor, uniform_ND: Tensor) -> Tensor:
    """[N, D]: the tokens, ascending, at which the cumulative probability passes these shares."""
    cumulative_NC = p_NC.double().cumsum(dim=1)
    at_ND = uniform_ND.sort(dim=1).values * cumulative_NC[:, -1:]
    return torch.searchsorted(cumulative_NC, at_ND, right=True).clamp(max=p_NC.shape[1] - 1)


def _uniform(seed: int, rows_R: _Array, count: int) -> _Array:
    """[R, count] numbers in [0, 1): of each row its own part of the one stream of a seed."""
    blocks = -(-count // _WORDS)
    runs = np.split(rows_R, np.flatnonzero(np.diff(rows_R) != 1) + 1)
    words = [
        np.random.Philox(key=seed, counter=int(run[0]) * blocks).random_raw(
            len(run) * blocks * _WORDS
        )
        for run in runs
    ]
    uniform: _Array = (np.concatenate(words) >> np.uint64(11)) * 2.0**-53
    return uniform.reshape(len(rows_R), blocks * _WORDS)[:, :count]
