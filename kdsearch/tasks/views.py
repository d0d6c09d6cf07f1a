"""View v of example i: the image that a training sees there, whatever batch it is in.

All that is drawn for it follows from (seed, v, i): crop, flip, operations, the example it is mixed
with, whose own view v is taken, and how much of it. So a teacher's outputs on a view can be kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from kdsearch.study import Augmentation
from kdsearch.tasks import image_ops
from kdsearch.tasks.image_ops import OPERATIONS

_Array = np.ndarray[Any, Any]
_OPERATIONS = tuple(OPERATIONS.values())
_ATTEMPTS = 10
"""At a box that lies within its image, before the whole image is taken."""
# Which of an example's numbers are whose, so that no part changes what another draws.
_PLACE, _FLIP, _KIND, _PARTNER, _SHARE, _CENTRE = slice(0, 2), 2, 3, 4, 5, slice(6, 8)
_RANDAUGMENT, _BOXES = slice(8, 16), slice(16, 16 + 2 * _ATTEMPTS)
_COLUMNS = 16 + 2 * _ATTEMPTS


@dataclass(frozen=True, kw_only=True)
class Views:
    """Those of the images of a split."""

    augmentation: Augmentation
    seed: int

    def __len__(self) -> int:
        return self.augmentation.views

    def of(
        self, images: Tensor, indices: Tensor, view: int, device: torch.device | None = None
    ) -> Tensor:
        """View `view` of the images `indices`, uint8 [B, 3, S, S], made on a device.

        `images` are those of the whole split, uint8 [N, 3, S, S], wherever they are; `indices` are
        on the CPU.
        """
        device = device or images.device
        drawn = _drawn(self.seed, view, len(images))
        numbers = indices.numpy()
        if not self.augmentation.mixes:
            return self._unmixed(images, numbers, drawn, device)
        partners = _partners(numbers, drawn)
        both = self._unmixed(images, np.concatenate([numbers, partners]), drawn, device)
        own, others = both.chunk(2)
        return self._mixed(own, others, drawn[numbers])

    def _unmixed(
        self, images: Tensor, numbers: _Array, drawn: _Array, device: torch.device
    ) -> Tensor:
        own, drawn = self.augmentation, drawn[numbers]
        found = images[torch.from_numpy(numbers).to(images.device)].to(device)
        size = images.shape[-1]
        if own.crop == "pad":
            pad = max(1, size // 8)
            top, left = np.floor(drawn[:, _PLACE].T * (2 * pad + 1)).astype(np.int64)
            found = image_ops.pad_crop(found, _on(top, device), _on(left, device), pad)
        elif own.crop == "inception":
            found = image_ops.resized_crop(found, _on(_boxes(drawn, size), device))
        if own.randaugment is not None:
            for one in range(own.randaugment.n):
                which, sign = drawn[:, _RANDAUGMENT][:, 2 * one : 2 * one + 2].T
                found = _changed(found, which, sign, own.randaugment.m)
        if own.flip:
            found = image_ops.flip(found, _on(drawn[:, _FLIP] < 0.5, device))
        return found

    def _mixed(self, images: Tensor, others: Tensor, drawn: _Array) -> Tensor:
        """Each with its other, of which a share drawn from Beta(α, α) is left."""
        own, device = self.augmentation, images.device
        by_mixup = np.full(len(drawn), own.mixup is not None)
        if own.mixup is not None and own.cutmix is not None:
            by_mixup = drawn[:, _KIND] < 0.5
        found = images
        if own.mixup is not None:
            share = np.rint(_beta(own.mixup, drawn[:, _SHARE]) * 2**16).astype(np.int64)
            found = image_ops.mixed(images, others, _on(share, device))
        if own.cutmix is not None:
            side = np.sqrt(1 - _beta(own.cutmix, drawn[:, _SHARE])) * images.shape[-1]
            box = _on(_cut(drawn[:, _CENTRE], side.astype(np.int64), images.shape[-1]), device)
            pasted = image_ops.pasted(images, others, box)
            found = torch.where(_on(by_mixup, device)[:, None, None, None], found, pasted)
        return found


@lru_cache(maxsize=2)
def _drawn(seed: int, view: int, examples: int) -> _Array:
    """[N, columns] numbers in [0, 1): those of an example stand at its place in Philox' stream."""
    words = np.random.Philox(key=[seed, view]).random_raw(examples * _COLUMNS)
    found: _Array = (words >> np.uint64(11)) * 2.0**-53
    return found.reshape(examples, _COLUMNS)


def _partners(numbers: _Array, drawn: _Array) -> _Array:
    """Of each example another one."""
    count = len(drawn)
    steps = 1 + np.floor(drawn[numbers, _PARTNER] * (count - 1)).astype(np.int64)
    found: _Array = (numbers + steps) % count
    return found


def _beta(alpha: float, uniform: _Array) -> _Array:
    found: _Array = betaincinv(alpha, alpha, uniform)
    return found


def _boxes(drawn: _Array, size: int) -> _Array:
    """[B, 4]: top, left, height and width of 8 % to 100 % of the area, from 3:4 to 4:3."""
    tries = drawn[:, _BOXES].reshape(len(drawn), _ATTEMPTS, 2)
    area, ratio = 0.08 + 0.92 * tries[..., 0], (4 / 3) ** (2 * tries[..., 1] - 1)
    sides = np.rint(np.sqrt(np.stack([area / ratio, area * ratio], axis=2)) * size).astype(np.int64)
    fits = ((sides >= 1) & (sides <= size)).all(axis=2)
    chosen = sides[np.arange(len(drawn)), fits.argmax(axis=1)]
    chosen = np.where(fits.any(axis=1, keepdims=True), chosen, size)
    corner = np.floor(drawn[:, _PLACE] * (size + 1 - chosen)).astype(np.int64)
    return np.concatenate([corner, chosen], axis=1)


def _cut(centre_B2: _Array, side_B: _Array, size: int) -> _Array:
    """[B, 4]: top, left, bottom and right of squares around points, as far as within the image."""
    middle = np.floor(centre_B2 * size).astype(np.int64)
    half = (side_B // 2)[:, None]
    return np.concatenate([middle - half, middle + half], axis=1).clip(0, size)


def _changed(images: Tensor, which_B: _Array, sign_B: _Array, magnitude: int) -> Tensor:
    """By one operation each."""
    number = np.floor(which_B * len(_OPERATIONS)).astype(np.int64)
    signed = torch.from_numpy(np.where(sign_B < 0.5, -magnitude, magnitude))
    found = images.clone()
    for one in np.unique(number):
        some = torch.from_numpy(np.flatnonzero(number == one))
        there = some.to(images.device)
        found[there] = _OPERATIONS[one](images[there], signed[some])
    return found


def _on(values: _Array, device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device)
