"""Images as data files have them: their bytes, what is wrong with them, and their pixels.

Pillow is imported where it is used, so that whoever reads no image does not wait for it.
"""

from __future__ import annotations

import binascii
import io
import os
import re
import warnings
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch.errors import first_line, shown_name
from kdsearch.study.cells import BadRowError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What is read. The others are no photographs, or start another program."""
_IN_WORDS = "JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, JPEG 2000 or AVIF"
_BASE64 = re.compile(r"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk|SUkq|TU0A)[A-Za-z0-9+/=\s]{60,}")
"""The bytes of an image of one of these formats, as text."""
_WHITE = (255, 255, 255, 255)
_DEEP = 65_535
"""The largest value of 16 bits."""


@dataclass(frozen=True)
class Encoded:
    """The bytes of an image file, and what messages call it."""

    data: bytes
    name: str = ""

    def says(self, what: str) -> str:
        """`what` is wrong with it, with its name."""
        return f"{shown_name(self.name)} {what}" if self.name else f"its image {what}"


def encoded(cell: Any, column: str) -> Encoded:
    """The image file that a cell holds, or names by its `Path`.

    A cell is the bytes, as they are or in base64, or a mapping with `bytes` and perhaps a `path`,
    as `datasets` writes images. Raises `BadRowError`.
    """
    name = ""
    if isinstance(cell, dict) and "bytes" in cell:
        name, cell = str(cell.get("path") or ""), cell["bytes"]
    if isinstance(cell, Path):
        return _file(cell)
    if isinstance(cell, str) and not _is_address(cell):
        try:
            written = "".join((cell.partition("base64,")[2] or cell).split())
            cell = b64decode(written, validate=True)
        except binascii.Error:
            raise BadRowError(f"its {column} is text, but neither a path nor base64") from None
    if isinstance(cell, str):
        raise BadRowError(f"its {column} is a web address", "fetch the images first")
    if not isinstance(cell, bytes) or not cell:
        remedy = "give the bytes of an image file, or its path"
        raise BadRowError(f"its {column} is missing or no image", remedy)
    return Encoded(cell, name)


def placed(cell: Any, folder: Path) -> Any:
    """A cell whose path is one beside its table, in `folder`, made a `Path`; others as they are."""
    if isinstance(cell, dict) and not cell.get("bytes") and isinstance(cell.get("path"), str):
        cell = cell["path"]
    text = isinstance(cell, str) and cell.strip() and "\0" not in cell
    if not text or _is_address(cell) or cell.startswith("data:") or _BASE64.fullmatch(cell):
        return cell
    return folder / os.path.expanduser(cell)


def _is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _file(path: Path) -> Encoded:
    try:
        if path.exists() and not path.is_file():
            raise BadRowError(f"{shown_name(path)} is not a regular file")
        return Encoded(path.read_bytes(), str(path))
    except FileNotFoundError:
        what = "is a link to nothing" if path.is_symlink() else "is not there"
        raise BadRowError(f"{shown_name(path)} {what}") from None
    except OSError as error:
        raise BadRowError(f"{shown_name(path)} cannot be read: {error.strerror}") from None


@contextmanager
def _opened(image: Encoded) -> Iterator[Image]:
    """The image before any of its pixels is decoded. Raises `BadRowError` for what is none."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damage that does not keep an image from being read
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            opened = Image.open(io.BytesIO(image.data), formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            most = f"{(Image.MAX_IMAGE_PIXELS or 0) // 10**6} million"
            what = image.says(f"has more than {most} pixels, which a small file can claim to have")
            raise BadRowError(what, "make it smaller, or leave it out") from None
        except UnidentifiedImageError:
            what = "is empty" if not image.data else f"is no {_IN_WORDS} image"
            raise BadRowError(image.says(what), "move it away, or convert it") from None
        except Exception as error:  # as below
            raise _broken(image, error) from None
        with opened:
            yield opened


def image_size(image: Encoded) -> tuple[int, int]:
    """The width and height of an image as it is stored, by its header alone.

    Raises `BadRowError` for what is no image, has several frames, or is too large to decode.
    """
    with _opened(image) as opened:
        frames = getattr(opened, "n_frames", 1)
        if frames > 1 and opened.format != "MPO":  # of a camera: the picture and its previews
            what = image.says(f"has {frames:,} frames: which of them is meant cannot be known")
            raise BadRowError(what, "save one frame as an image of its own")
        return opened.size


def pixels(image: Encoded, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The middle square of an image, as uint8 [size, size, 3] in RGB.

    It stands upright as its EXIF data says, transparency lies on white, 16 bits are scaled to 8,
    and its shorter side is resized with antialiasing. Raises `BadRowError`.
    """
    from PIL import Image, ImageOps

    with _opened(image) as opened:
        try:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode == "F" or upright.mode.startswith("I"):
                upright = _of_eight_bits(image, upright)
            if upright.has_transparency_data:
                layer = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer)
            square = ImageOps.fit(
                upright.convert("RGB"), (size, size), method=Image.Resampling.BICUBIC
            )
        except BadRowError:
            raise
        except Exception as error:  # the decoders' own errors have no common class
            raise _broken(image, error) from None
    return np.asarray(square, dtype=np.uint8)


def _of_eight_bits(image: Encoded, opened: Image) -> Image:
    """A greyscale image of 16 bits in 8. Raises `BadRowError` where it has more."""
    from PIL import Image

    values = np.asarray(opened)
    if opened.mode == "F" or values.min() < 0 or values.max() > _DEEP:
        what = image.says("has values of 32 bits, whose white is not known")
        raise BadRowError(what, "save it with 8 or 16 bits")
    return Image.fromarray(np.rint(values.astype(np.float64) * (255 / _DEEP)).astype(np.uint8))


def _broken(image: Encoded, error: Exception) -> BadRowError:
    what = f"is broken or cut off: {first_line(error)}"
    return BadRowError(image.says(what), "fetch it again, or leave it out")
