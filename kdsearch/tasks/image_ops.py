"""What may be done to images, on whatever device they are; each image of a batch its own way.

Images are uint8 [B, 3, S, S] in and out, and all is counted in integers but for blending in single
precision, so that a CPU and a GPU give the same image. RandAugment's operations are Pillow's, at
the magnitudes that torchvision has (`torchvision.transforms.RandAugment`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor

MOST = 30
"""The largest magnitude of an operation."""
_FIXED = 2**16
"""The parts of a pixel in which places are counted."""


def flip(images: Tensor, which_B: Tensor) -> Tensor:
    """Those of `which_B` left to right."""
    return torch.where(which_B[:, None, None, None], images.flip(-1), images)


def pad_crop(images: Tensor, top_B: Tensor, left_B: Tensor, pad: int) -> Tensor:
    """[B, 3, S, S] of images with `pad` black pixels at each side, from (top, left) on."""
    padded = F.pad(images, (pad, pad, pad, pad))
    within = torch.arange(images.shape[-1], device=images.device)
    rows = (top_B[:, None] + within)[:, None, :, None]
    columns = (left_B[:, None] + within)[:, None, None, :]
    count, channels = images.shape[:2]
    batch = torch.arange(count, device=images.device)[:, None, None, None]
    return padded[batch, torch.arange(channels, device=images.device)[:, None, None], rows, columns]


def resized_crop(images: Tensor, box_B4: Tensor) -> Tensor:
    """The boxes (top, left, height, width) resized to [S, S]: bilinear, without antialiasing.

    A box is no larger than its image, so that nothing is made smaller.
    """
    top, left, height, width = box_B4.long().unbind(dim=1)
    found = _resized(images.int(), top, height)
    found = _resized(found.transpose(2, 3), left, width).transpose(2, 3)
    whole = (2 * images.shape[-1]) ** 2
    return torch.div(found + whole // 2, whole, rounding_mode="floor").to(torch.uint8)


def _resized(images: Tensor, start_B: Tensor, length_B: Tensor) -> Tensor:
    """Along the rows, times 2 S: the place of an output row is a whole number of (2 S)ths."""
    size = images.shape[-1]
    centres = (2 * torch.arange(size, device=images.device) + 1)[None] * length_B[:, None] - size
    low = torch.div(centres, 2 * size, rounding_mode="floor")
    share = (centres - low * 2 * size).int()[:, None, :, None]
    last = length_B[:, None] - 1
    above, below = (
        images.gather(
            2,
            (start_B[:, None] + torch.clamp(at, min=0).minimum(last))[:, None, :, None].expand_as(
                images
            ),
        )
        for at in (low, low + 1)
    )
    return above * (2 * size - share) + below * share


def mixed(images: Tensor, others: Tensor, share_B: Tensor) -> Tensor:
    """`share_B` of 65,536 of each image, the rest of the other one (MixUp, Zhang et al., 2018)."""
    share = share_B.int()[:, None, None, None]
    found = images.int() * share + others.int() * (_FIXED - share)
    return ((found + _FIXED // 2) >> 16).to(torch.uint8)


def pasted(images: Tensor, others: Tensor, box_B4: Tensor) -> Tensor:
    """The boxes (top, left, bottom, right) of the others (CutMix, Yun et al., 2019)."""
    top, left, bottom, right = (each[:, None] for each in box_B4.unbind(dim=1))
    within = torch.arange(images.shape[-1], device=images.device)
    rows = (within >= top) & (within < bottom)
    columns = (within >= left) & (within < right)
    return torch.where((rows[:, :, None] & columns[:, None])[:, None], others, images)


def _moved(images: Tensor, matrix_B6: Tensor) -> Tensor:
    """Pillow's `transform(AFFINE, NEAREST)` by rows (a, b, c, d, e, f), black outside.

    The pixel at (x, y) is that at (a x + b y + c, d x + e y + f) of the image, pixels by their
    centres; in 65,536ths of a pixel, as Pillow counts.
    """
    count, channels, height, width = images.shape
    a, b, c, d, e, f = matrix_B6.double().unbind(dim=1)
    fixed = [_fixed(each)[:, None, None] for each in (a, b, c + (a + b) / 2)]
    fixed += [_fixed(each)[:, None, None] for each in (d, e, f + (d + e) / 2)]
    x = torch.arange(width, device=images.device)[None, None]
    y = torch.arange(height, device=images.device)[None, :, None]
    a, b, c, d, e, f = (each.to(images.device) for each in fixed)
    columns, rows = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    at = torch.where(inside, rows * width + columns, 0).view(count, 1, -1)
    found = images.flatten(2).gather(2, at.expand(-1, channels, -1)).view_as(images)
    return found * inside[:, None]


def _fixed(values: Tensor) -> Tensor:
    return torch.floor(values * _FIXED + 0.5).long()


def _blend(base: Tensor, images: Tensor, factor_B: Tensor) -> Tensor:
    """Pillow's: base + factor · (image - base), cut to what a byte holds."""
    base = base.float()
    product = (images.float() - base) * factor_B.to(images.device)[:, None, None, None]
    return (base + product).clamp(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """[B, 1, S, S]: the luma of ITU-R 601-2, as Pillow rounds it."""
    red, green, blue = images.long().unbind(dim=1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)[:, None].to(torch.uint8)


def _brightness(images: Tensor, signed_B: Tensor) -> Tensor:
    return _blend(torch.zeros_like(images), images, _factor(signed_B))


def _colour(images: Tensor, signed_B: Tensor) -> Tensor:
    return _blend(_grey(images).expand_as(images), images, _factor(signed_B))


def _contrast(images: Tensor, signed_B: Tensor) -> Tensor:
    grey = _grey(images).long().flatten(1)
    mean = torch.div(2 * grey.sum(dim=1) + grey.shape[1], 2 * grey.shape[1], rounding_mode="floor")
    return _blend(mean[:, None, None, None].expand_as(images), images, _factor(signed_B))


def _sharpness(images: Tensor, signed_B: Tensor) -> Tensor:
    """Against the mean of each pixel, five times, and its eight neighbours; edges stay."""
    whole = images.int()
    inner = sum(
        whole[:, :, 1 + i : whole.shape[2] - 1 + i, 1 + j : whole.shape[3] - 1 + j]
        * (5 if i == j == 0 else 1)
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    )
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = torch.div(2 * inner + 13, 26, rounding_mode="floor").to(torch.uint8)
    return _blend(smooth, images, _factor(signed_B))


def _factor(signed_B: Tensor) -> Tensor:
    return 1 + signed_B.float() * (0.9 / MOST)


def _posterize(images: Tensor, signed_B: Tensor) -> Tensor:
    """8 to 4 bits are left."""
    cut = (signed_B.abs().double() / (MOST / 4)).round().long()
    kept = (255 >> cut << cut).to(images.device, torch.uint8)
    return images & kept[:, None, None, None]


def _solarize(images: Tensor, signed_B: Tensor) -> Tensor:
    """What is at least 255 to 0 is inverted."""
    threshold = (255 * (MOST - signed_B.abs().double()) / MOST).ceil().short().to(images.device)
    return torch.where(images < threshold[:, None, None, None], images, 255 - images)


def _autocontrast(images: Tensor, signed_B: Tensor) -> Tensor:
    """Each channel from its darkest to its brightest spread over 0 to 255."""
    whole = images.int()
    low, high = whole.amin((2, 3), keepdim=True), whole.amax((2, 3), keepdim=True)
    spread = torch.div((whole - low) * 255, (high - low).clamp(min=1), rounding_mode="floor")
    return torch.where(high > low, spread, whole).to(torch.uint8)


def _equalize(images: Tensor, signed_B: Tensor) -> Tensor:
    """Each channel's histogram as even as it gets: `PIL.ImageOps.equalize`."""
    flat = images.flatten(2).long()
    counts = flat.new_zeros(*flat.shape[:2], 256).scatter_add_(2, flat, torch.ones_like(flat))
    last = counts.gather(2, flat.amax(dim=2, keepdim=True))
    step = torch.div(flat.shape[2] - last, 255, rounding_mode="floor")
    before = counts.cumsum(dim=2) - counts
    table = torch.div(
        torch.div(step, 2, rounding_mode="floor") + before, step.clamp(min=1), rounding_mode="floor"
    )
    found = table.clamp(max=255).gather(2, flat)
    return torch.where(step > 0, found, flat).to(torch.uint8).view_as(images)


def _identity(images: Tensor, signed_B: Tensor) -> Tensor:
    return images


def _matrix(signed_B: Tensor, **entries: Tensor) -> Tensor:
    """[B, 6]: the identity but for `entries`, by their letters."""
    zero, one = torch.zeros_like(signed_B.double()), torch.ones_like(signed_B.double())
    parts = {**dict.fromkeys("abcdef", zero), "a": one, "e": one, **entries}
    return torch.stack([parts[name] for name in "abcdef"], dim=1)


def _shear_x(images: Tensor, signed_B: Tensor) -> Tensor:
    return _moved(images, _matrix(signed_B, b=signed_B.double() * (0.3 / MOST)))


def _shear_y(images: Tensor, signed_B: Tensor) -> Tensor:
    return _moved(images, _matrix(signed_B, d=signed_B.double() * (0.3 / MOST)))


def _translate_x(images: Tensor, signed_B: Tensor) -> Tensor:
    return _moved(images, _matrix(signed_B, c=_pixels(signed_B, images.shape[3])))


def _translate_y(images: Tensor, signed_B: Tensor) -> Tensor:
    return _moved(images, _matrix(signed_B, f=_pixels(signed_B, images.shape[2])))


def _pixels(signed_B: Tensor, size: int) -> Tensor:
    return (signed_B.double() * (150 / 331 * size / MOST)).trunc()


def _rotate(images: Tensor, signed_B: Tensor) -> Tensor:
    """Up to 30 degrees around the centre, against the clock."""
    angle = signed_B.double() * (math.pi / 6 / MOST)
    cos, sin = angle.cos(), angle.sin()
    x, y = images.shape[3] / 2, images.shape[2] / 2
    c, f = x - cos * x + sin * y, y - sin * x - cos * y
    return _moved(images, _matrix(signed_B, a=cos, b=-sin, c=c, d=sin, e=cos, f=f))


OPERATIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": _identity,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "rotate": _rotate,
    "solarize": _solarize,
    "color": _colour,
    "posterize": _posterize,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
"""RandAugment's, each of images and the magnitude of each image: [B], -30 to 30, on the CPU. What
has no sign goes by its absolute value."""
