"""Small images of one coloured shape each, for a study that needs no files; see `grammar`.

A disc, a cross, a ring, a square, a frame or a triangle, of any size, place and colour, lies on
another colour under noise. Colours say nothing, not even which is brighter; what tells a disc from
a ring, or a square from a frame, is its middle.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

SIDE = 16
"""Of an image, in pixels."""
SHAPES = ("cross", "disc", "frame", "ring", "square", "triangle")
_NOISE = 40
"""The most that is added to a value of 255, or taken off."""
_CONTRAST = 96
"""The least between the two colours, in one of their three values."""


def drawn_shape(draw: random.Random) -> dict[str, Any]:
    """An image as a file of the format PPM, and the number of its shape."""
    label = draw.randrange(len(SHAPES))
    radius = draw.uniform(4, 6.5)
    x, y = (draw.uniform(radius, SIDE - 1 - radius) for _ in range(2))
    colour, ground = _colour(draw), _colour(draw)
    while max(abs(a - b) for a, b in zip(colour, ground, strict=True)) < _CONTRAST:
        ground = _colour(draw)
    inside = _inside(SHAPES[label], x, y, radius)
    noise = np.frombuffer(draw.randbytes(SIDE * SIDE * 3), dtype=np.uint8).astype(np.int64)
    image = np.where(inside[..., None], colour, ground)
    image += noise.reshape(SIDE, SIDE, 3) % (2 * _NOISE + 1) - _NOISE
    values = image.clip(0, 255).astype(np.uint8)
    return {"image": f"P6 {SIDE} {SIDE} 255\n".encode() + values.tobytes(), "label": label}


def any_shape(row: dict[str, Any], draw: random.Random) -> None:
    """Label an image at random."""
    row["label"] = draw.randrange(len(SHAPES))


def _colour(draw: random.Random) -> list[int]:
    return [draw.randrange(256) for _ in range(3)]


def _inside(shape: str, x: float, y: float, radius: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which pixels belong to a shape around a point."""
    down, right = np.mgrid[:SIDE, :SIDE]
    down, right = down - y, right - x
    wide, far = np.maximum(abs(down), abs(right)), np.hypot(down, right)
    found: np.ndarray[Any, np.dtype[np.bool_]] = {
        "cross": (wide < radius) & (np.minimum(abs(down), abs(right)) < radius / 3),
        "disc": far < radius,
        "frame": (wide < 0.85 * radius) & (wide > 0.45 * radius),
        "ring": (far < radius) & (far > radius / 2),
        "square": wide < 0.85 * radius,
        "triangle": (abs(down) < 0.85 * radius) & (abs(right) < (down + 0.85 * radius) / 2),
    }[shape]
    return found
