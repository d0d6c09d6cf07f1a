"""Images: what is made of the bytes of one, and which are refused in words."""

from __future__ import annotations

import io
import struct
import zlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kdsearch.study.cells import BadRowError
from kdsearch.study.images import Encoded, encoded, image_size, pixels, placed


def noise(width: int, height: int, channels: int = 3, seed: int = 0) -> np.ndarray[Any, Any]:
    drawn = np.random.default_rng(seed).integers(0, 256, (height, width, channels))
    return drawn.astype(np.uint8).squeeze()


def written(image: Image.Image, kind: str = "PNG", **options: Any) -> Encoded:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Encoded(file.getvalue())


def claiming(width: int, height: int) -> Encoded:
    """A PNG of a few bytes that claims to be so large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    return Encoded(b"\x89PNG\r\n\x1a\n" + parts, "huge.png")


def refusal(image: Encoded) -> str:
    """What is wrong with it, by its header or when it is decoded."""
    try:
        image_size(image)
        pixels(image, 8)
    except BadRowError as found:
        return found.what
    return "nothing"


# -- pixels ------------------------------------------------------------------------------------


def test_an_image_of_the_size_that_is_kept_stays_as_it_is() -> None:
    array = noise(12, 12)
    assert np.array_equal(pixels(written(Image.fromarray(array)), 12), array)


def test_grey_is_the_same_in_red_green_and_blue() -> None:
    array = noise(12, 12, 1)
    assert np.array_equal(pixels(written(Image.fromarray(array)), 12), np.stack([array] * 3, 2))


def test_a_palette_stands_for_its_colours() -> None:
    array = np.repeat(noise(4, 4), 3, axis=0).repeat(3, axis=1)
    palette = Image.fromarray(array).quantize(16)
    assert np.array_equal(pixels(written(palette), 12), np.asarray(palette.convert("RGB")))


def test_transparency_lies_on_white() -> None:
    array = noise(12, 12, 4)
    share = array[..., 3:] / 255
    expected = array[..., :3] * share + 255 * (1 - share)
    found = pixels(written(Image.fromarray(array)), 12).astype(float)
    assert np.abs(found - expected).max() <= 1


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    found = pixels(written(palette, transparency=0), 2)
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, 1].tolist() == [200, 100, 50]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(kind: str) -> None:
    array = np.linspace(0, 65_535, 144).reshape(12, 12).astype(np.uint16)
    found = pixels(written(Image.fromarray(array), kind), 12)
    assert np.array_equal(found[..., 0], np.rint(array / 257))


def test_a_print_of_four_inks_becomes_its_colours() -> None:
    inks = np.zeros((12, 12, 4), dtype=np.uint8)
    inks[..., 0] = 255  # cyan
    found = pixels(written(Image.fromarray(inks, "CMYK"), "TIFF"), 12)
    assert found.reshape(-1, 3).max(axis=0).tolist() == [0, 255, 255]


def test_an_image_stands_upright_as_its_camera_held_it() -> None:
    upright = noise(12, 12)
    turned = Image.fromarray(np.rot90(upright))  # a camera turned to the right sees it so
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(pixels(written(turned, exif=exif), 12), upright)


def test_the_middle_of_a_wide_image_is_kept() -> None:
    array = noise(20, 12)
    assert np.array_equal(pixels(written(Image.fromarray(array)), 12), array[:, 4:16])


def test_a_tall_image_is_made_smaller_as_torch_does_it_with_antialiasing() -> None:
    low = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 255
    smooth = torch.nn.functional.interpolate(low, (72, 48), mode="bicubic", align_corners=False)
    image = smooth.clamp(0, 255).round()
    smaller = torch.nn.functional.interpolate(
        image, (24, 16), mode="bicubic", antialias=True, align_corners=False
    )
    expected = smaller[:, :, 4:20]
    array = image[0].permute(1, 2, 0).to(torch.uint8).numpy()
    found = torch.from_numpy(pixels(written(Image.fromarray(array)), 16).copy())
    assert (found.permute(2, 0, 1) - expected[0].clamp(0, 255)).abs().max() < 2


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 24),
)
def test_whatever_an_image_is_a_square_of_three_colours_comes_of_it(
    mode: str, width: int, height: int, size: int
) -> None:
    image = Image.fromarray(noise(width, height, 4).reshape(height, width, 4)).convert(
        "L" if mode == "I;16" else mode
    )
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    found = pixels(written(image), size)
    assert found.shape == (size, size, 3)
    assert found.dtype == np.uint8
    assert image_size(written(image)) == (width, height)


# -- what a cell may hold ----------------------------------------------------------------------


def test_a_cell_holds_bytes_in_any_of_the_forms_of_tables(tmp_path: Path) -> None:
    data = written(Image.fromarray(noise(12, 12))).data
    (tmp_path / "a.png").write_bytes(data)
    text = b64encode(data).decode()
    cells = [data, {"bytes": data, "path": None}, {"bytes": text, "path": "x.png"}, text]
    cells += [f"data:image/png;base64,{text}", "a.png", {"bytes": None, "path": "a.png"}]
    found = [encoded(placed(cell, tmp_path), "image") for cell in cells]
    assert {each.data for each in found} == {data}
    assert [each.name for each in found[2:3] + found[5:]] == ["x.png", *[f"{tmp_path}/a.png"] * 2]


@pytest.mark.parametrize(
    ("cell", "what"),
    [
        (None, "its photo is missing or no image"),
        (b"", "its photo is missing or no image"),
        (7, "its photo is missing or no image"),
        ({"bytes": None, "path": None}, "its photo is missing or no image"),
        ("https://example.org/a.png", "its photo is a web address"),
        ("data:image/png;base64,?", "its photo is text, but neither a path nor base64"),
    ],
)
def test_a_cell_without_an_image_is_refused(cell: Any, what: str, tmp_path: Path) -> None:
    with pytest.raises(BadRowError) as found:
        encoded(placed(cell, tmp_path), "photo")
    assert found.value.what == what


def test_a_path_to_nothing_and_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to("nowhere")
    for name, what in (("no.png", "is not there"), ("gone.png", "is a link to nothing")):
        with pytest.raises(BadRowError, match=f"{name} {what}"):
            encoded(placed(name, tmp_path), "image")
    with pytest.raises(BadRowError, match="is not a regular file"):
        encoded(tmp_path, "image")


# -- what is refused ---------------------------------------------------------------------------


def test_what_claims_more_pixels_than_a_machine_can_hold_is_refused_before_any_is_decoded() -> None:
    for side in (20_000, 10_000):
        assert refusal(claiming(side, side)).startswith("huge.png has more than 89 million pixels")


def test_an_image_that_moves_is_refused() -> None:
    frames = [Image.fromarray(noise(8, 8, seed=seed)) for seed in range(3)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        moving = written(frames[0], kind, save_all=True, append_images=frames[1:])
        assert "has 3 frames" in refusal(moving), kind


def test_a_single_frame_and_a_camera_with_a_preview_are_images() -> None:
    first, preview = (Image.fromarray(noise(8, 8, seed=seed)) for seed in range(2))
    assert image_size(written(first, "GIF")) == (8, 8)
    assert image_size(written(first, "MPO", save_all=True, append_images=[preview])) == (8, 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_image_that_is_cut_off_is_refused(kind: str) -> None:
    whole = written(Image.fromarray(noise(60, 60)), kind)
    cut = Encoded(whole.data[: len(whole.data) // 2], "cut")
    assert refusal(cut).startswith("cut is broken or cut off: ")


def test_what_is_no_image_is_named() -> None:
    assert refusal(Encoded(b"hello", "notes.txt")).startswith("notes.txt is no JPEG, PNG")
    assert refusal(Encoded(b"", "zero.png")) == "zero.png is empty"
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    assert "is no JPEG" in refusal(Encoded(script, "a.eps"))  # which would start another program


def test_values_whose_white_is_not_known_are_refused() -> None:
    deep = Image.fromarray(np.full((8, 8), 1e6, dtype=np.int32), "I")
    fractions = Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32), "F")
    for image in (deep, fractions):
        assert "has values of 32 bits" in refusal(written(image, "TIFF"))
