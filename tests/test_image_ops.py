"""What is done to images, against Pillow or a formula of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from kdsearch.tasks import image_ops
from kdsearch.tasks.image_ops import OPERATIONS

SIZE = 32
MAGNITUDES = torch.tensor([-30, -9, 0, 9, 17, 30])


def _images(size: int = SIZE) -> Tensor:
    """One per magnitude: noise over gradients, so that histograms are of every shape."""
    drawn = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (len(MAGNITUDES), 3, size, size), generator=drawn)
    slope = torch.arange(size) * 255 // (size - 1)
    share = torch.arange(len(MAGNITUDES))[:, None, None, None]
    mixed = (noise * share + slope * (len(MAGNITUDES) - share)) // len(MAGNITUDES)
    mixed[2] = mixed[2] // 3 + 40  # a narrow histogram
    mixed[3, 1] = 77  # a channel of one value
    return mixed.to(torch.uint8)


def _pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _moved(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.NEAREST
    )


def _expected(name: str, image: Image.Image, signed: int) -> Image.Image:
    """torchvision's definition of each operation, done by Pillow."""
    factor = 1 + 0.9 * signed / 30
    match name:
        case "identity":
            return image
        case "autocontrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
        case "rotate":
            return image.rotate(signed, resample=Image.Resampling.NEAREST)
        case "solarize":
            return ImageOps.solarize(image, 255 - 255 * abs(signed) / 30)  # type: ignore[arg-type]
        case "color":
            return ImageEnhance.Color(image).enhance(factor)
        case "posterize":
            return ImageOps.posterize(image, 8 - round(abs(signed) / 7.5))
        case "contrast":
            return ImageEnhance.Contrast(image).enhance(factor)
        case "brightness":
            return ImageEnhance.Brightness(image).enhance(factor)
        case "sharpness":
            smooth = image.filter(ImageFilter.SMOOTH)
            return Image.blend(smooth, image, factor)
        case "shear_x":
            return _moved(image, 1, 0.3 * signed / 30, 0, 0, 1, 0)
        case "shear_y":
            return _moved(image, 1, 0, 0, 0.3 * signed / 30, 1, 0)
        case "translate_x":
            return _moved(image, 1, 0, int(150 / 331 * SIZE * signed / 30), 0, 1, 0)
        case "translate_y":
            return _moved(image, 1, 0, 0, 0, 1, int(150 / 331 * SIZE * signed / 30))
    raise AssertionError(name)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_that_of_pillow_at_the_magnitudes_of_torchvision(name: str) -> None:
    images = _images()
    found = OPERATIONS[name](images, MAGNITUDES)
    expected = torch.stack(
        [
            _tensor(_expected(name, _pillow(image), signed))
            for image, signed in zip(images, MAGNITUDES.tolist(), strict=True)
        ]
    )
    assert found.dtype == torch.uint8
    apart = (found.int() - expected.int()).abs()
    # Pillow's own autocontrast multiplies in floating point and cuts: 254.99… of what is 255.
    assert int(apart.max()) <= (1 if name == "autocontrast" else 0)


def test_an_operation_does_to_an_image_the_same_whatever_batch_it_is_in() -> None:
    images = _images()
    for name, operation in OPERATIONS.items():
        alone = [operation(images[i : i + 1], MAGNITUDES[i : i + 1]) for i in range(len(images))]
        assert torch.equal(torch.cat(alone), operation(images, MAGNITUDES)), name


def test_autocontrast_spreads_each_channel_from_0_to_255() -> None:
    channel = torch.tensor([[10, 20], [30, 61]], dtype=torch.uint8)
    images = torch.stack([channel, channel + 100, torch.full((2, 2), 7, dtype=torch.uint8)])[None]
    found = OPERATIONS["autocontrast"](images, torch.tensor([9]))
    assert found[0, 0].tolist() == [[0, 50], [100, 255]]
    assert found[0, 1].tolist() == found[0, 0].tolist()
    assert found[0, 2].tolist() == [[7, 7], [7, 7]]


def test_a_resized_crop_is_bilinear_within_its_box() -> None:
    images = _images(24)
    boxes = torch.tensor(
        [[0, 0, 24, 24], [3, 5, 7, 9], [20, 1, 4, 23], [0, 0, 1, 1], [2, 2, 16, 12], [23, 0, 1, 24]]
    )
    found = image_ops.resized_crop(images, boxes)
    assert torch.equal(found[0], images[0])
    for image, (top, left, height, width), each in zip(images, boxes.tolist(), found, strict=True):
        cut = image[:, top : top + height, left : left + width].double()[None]
        exact = F.interpolate(cut, size=(24, 24), mode="bilinear", align_corners=False)[0]
        assert float((each.double() - exact).abs().max()) <= 0.5 + 1e-9


def test_a_crop_of_a_padded_image_has_black_where_there_was_nothing() -> None:
    images = _images(8)[:2]
    found = image_ops.pad_crop(images, torch.tensor([0, 2]), torch.tensor([3, 1]), 3)
    whole = F.pad(images, (3, 3, 3, 3))
    assert torch.equal(found[0], whole[0, :, 0:8, 3:11])
    assert torch.equal(found[1], whole[1, :, 2:10, 1:9])


def test_a_flip_changes_the_images_that_are_named() -> None:
    images = _images()[:2]
    found = image_ops.flip(images, torch.tensor([False, True]))
    assert torch.equal(found[0], images[0])
    assert _pillow(found[1]).tobytes() == ImageOps.mirror(_pillow(images[1])).tobytes()


def test_mixed_images_are_shares_of_two() -> None:
    images, others = _images(), _images().flip(0)
    share = torch.tensor([0, 1, 2**15, 2**16, 12345, 50000])
    found = image_ops.mixed(images, others, share)
    part = share.double()[:, None, None, None] / 2**16
    exact = images.double() * part + others.double() * (1 - part)
    assert float((found.double() - exact).abs().max()) <= 0.5
    assert torch.equal(found[3], images[3])
    assert torch.equal(found[0], others[0])


def test_a_pasted_box_is_the_other_image() -> None:
    images, others = _images(8)[:1], _images(8)[1:2]
    found = image_ops.pasted(images, others, torch.tensor([[1, 2, 4, 8]]))
    expected = images.clone()
    expected[:, :, 1:4, 2:8] = others[:, :, 1:4, 2:8]
    assert torch.equal(found, expected)


def test_a_rotation_keeps_the_middle_and_turns_against_the_clock() -> None:
    image = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    image[..., 16, 16:30] = 255
    found = OPERATIONS["rotate"](image, torch.tensor([30]))
    assert int(found[0, 0, 16, 16]) == 255
    rows, columns = found[0, 0].nonzero().double().sub(16).unbind(dim=1)
    far = columns > 6
    angles = torch.rad2deg(torch.atan2(-rows[far], columns[far]))
    assert math.isclose(float(angles.mean()), 30, abs_tol=2)
