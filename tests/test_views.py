"""View v of example i: a function of the seed, v and i alone."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from kdsearch.study import Augmentation, RandAugment, TrainingSettings
from kdsearch.tasks import Encoded, Views

EVERY = {
    "pad": Augmentation(crop="pad"),
    "inception": Augmentation(crop="inception", flip=True),
    "light": TrainingSettings(augmentation="light").augmentation,
    "full": TrainingSettings(augmentation="full").augmentation,
}


def _images(count: int, size: int = 12) -> Tensor:
    drawn = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, size, size), generator=drawn, dtype=torch.uint8)


def _views(augmentation: Augmentation | None, seed: int = 0) -> Views:
    assert augmentation is not None
    return Views(augmentation=augmentation, seed=seed)


@pytest.mark.parametrize("name", EVERY)
def test_a_view_is_the_same_in_every_batch(name: str) -> None:
    images, views = _images(9), _views(EVERY[name])
    whole = views.of(images, torch.arange(9), 4)
    assert whole.dtype == torch.uint8
    for indices in (torch.tensor([7]), torch.tensor([3, 8, 0]), torch.arange(9).flip(0)):
        assert torch.equal(views.of(images, indices, 4), whole[indices])


@pytest.mark.parametrize("name", EVERY)
def test_another_view_and_another_seed_are_other_images(name: str) -> None:
    images, every = _images(9), torch.arange(9)
    found = [
        _views(EVERY[name], seed).of(images, every, view) for seed, view in ((0, 0), (0, 1), (1, 0))
    ]
    assert not any(torch.equal(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_view_without_mixing_does_not_depend_on_how_many_examples_there_are() -> None:
    images, views, few = _images(9), _views(EVERY["light"]), torch.arange(4)
    assert torch.equal(views.of(images[:4], few, 2), views.of(images, few, 2))


def test_a_part_leaves_what_the_others_draw() -> None:
    images, every = _images(200, 20) // 2, torch.arange(200)
    light = {"crop": "pad", "flip": True}
    plain = _views(Augmentation(**light)).of(images, every, 1)
    more = Augmentation(**light, randaugment=RandAugment(n=1, m=0))
    same = (_views(more).of(images, every, 1) == plain).flatten(1).all(dim=1)
    # At magnitude 0, autocontrast and equalize alone of the 14 change an image without white.
    assert float(same.double().mean()) == pytest.approx(12 / 14, abs=0.08)


def test_views_of_kept_outputs_stay_what_they_are() -> None:
    """What a folder holds of a teacher is of these very images."""
    images, every = _images(16, 32), torch.arange(16)
    found = {name: _views(each, 5).of(images, every, 3) for name, each in EVERY.items()}
    digests = {
        name: hashlib.sha256(each.contiguous().numpy().tobytes()).hexdigest()[:16]
        for name, each in found.items()
    }
    assert digests == {
        "pad": "af95c7ed0d48af11",
        "inception": "e84bd3163a96b3ac",
        "light": "e96838315926186f",
        "full": "cd083a6200874766",
    }


def test_every_second_view_is_flipped() -> None:
    images, every = _images(4000, 4), torch.arange(4000)
    found = _views(Augmentation(flip=True)).of(images, every, 0)
    flipped = (found == images.flip(-1)).flatten(1).all(dim=1)
    kept = (found == images).flatten(1).all(dim=1)
    assert bool((flipped | kept).all())
    assert float(flipped.double().mean()) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))


def _shares(images: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Of each mixed image its other one and its own share, found by least squares."""
    own, mixed = images.double().flatten(1), found.double().flatten(1)
    partners, shares = [], []
    for i in range(len(images)):
        apart = own[i] - own
        share = ((mixed[i] - own) * apart).sum(1) / (apart**2).sum(1).clamp(min=1)
        error = (share[:, None] * apart + own - mixed[i]).abs().amax(1)
        error[i] = math.inf
        partners.append(int(error.argmin()))
        shares.append(float(share[partners[-1]]))
        assert float(error.min()) < 1  # a byte is rounded
    return torch.tensor(partners), torch.tensor(shares)


def test_mixup_is_of_two_views_with_a_share_from_beta() -> None:
    images, every = _images(400, 6), torch.arange(400)
    unmixed = _views(Augmentation(flip=True)).of(images, every, 2)
    found = _views(Augmentation(flip=True, mixup=0.4)).of(images, every, 2)
    partners, shares = _shares(unmixed, found)
    assert len(partners.unique()) > 200  # of 400 that draw one each, 253 are expected
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.08)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.15)


def test_cutmix_pastes_a_box_of_another_view() -> None:
    images, every = _images(60, 16), torch.arange(60)
    unmixed = _views(Augmentation(flip=True)).of(images, every, 1)
    found = _views(Augmentation(flip=True, cutmix=1.0)).of(images, every, 1)
    left = []
    for i in range(60):
        own = (found[i] == unmixed[i]).all(dim=0)
        left.append(float(own.double().mean()))
        rows, columns = (~own).nonzero().unbind(dim=1)
        if not len(rows):
            continue
        box = (
            slice(int(rows.min()), int(rows.max()) + 1),
            slice(int(columns.min()), int(columns.max()) + 1),
        )
        others = (
            (unmixed[(slice(None), slice(None), *box)] == found[i][(slice(None), *box)])
            .flatten(1)
            .all(1)
        )
        others[i] = False
        assert int(others.sum()) == 1
    assert 0.4 < float(np.mean(left)) < 0.8  # 1 - E[1 - λ] less what lies outside of the image


def test_half_of_the_views_have_mixup_and_half_cutmix() -> None:
    images, every = _images(300, 8), torch.arange(300)
    found = _views(Augmentation(mixup=1.0, cutmix=1.0)).of(images, every, 0)
    by_mixup = _views(Augmentation(mixup=1.0)).of(images, every, 0)
    by_cutmix = _views(Augmentation(cutmix=1.0)).of(images, every, 0)
    is_mixup = (found == by_mixup).flatten(1).all(1)
    is_cutmix = (found == by_cutmix).flatten(1).all(1)
    assert bool((is_mixup | is_cutmix).all())
    assert float(is_mixup.double().mean()) == pytest.approx(0.5, abs=0.12)


def test_an_inception_crop_has_a_share_of_the_area_and_a_ratio() -> None:
    size = 64
    ramp = torch.arange(size).expand(size, size)
    image = torch.stack([ramp.T * 4, ramp * 4, torch.zeros(size, size)]).to(torch.uint8)
    images = image.expand(500, 3, size, size).contiguous()
    found = _views(Augmentation(crop="inception")).of(images, torch.arange(500), 0).double()
    height, width = (  # by how fast the ramps rise: from the first pixel's centre to the last's
        (found[:, 0, -1, 0] - found[:, 0, 0, 0]) / 4 * size / (size - 1),
        (found[:, 1, 0, -1] - found[:, 1, 0, 0]) / 4 * size / (size - 1),
    )
    area, ratio = height * width / size**2, width / height
    assert 0.06 < float(area.min()) < 0.12
    assert float(area.max()) > 0.9
    assert 0.66 < float(ratio.min()) < 0.85
    assert 1.18 < float(ratio.max()) < 1.5


def _encoded(count: int, *views: Views) -> Encoded:
    return Encoded(
        inputs={"pixel_values": _images(count)},
        lengths=torch.ones(count, dtype=torch.long),
        counted=torch.ones(count, 1, dtype=torch.bool),
        labels=torch.arange(count),
        references=(),
        views=views,
    )


def test_an_epoch_sees_its_view_and_names_its_rows_of_the_kept_outputs() -> None:
    views = _views(Augmentation(crop="pad", views=3))
    examples, indices = _encoded(5, views), torch.tensor([4, 1])
    for epoch, view in ((1, 0), (2, 1), (3, 2), (4, 0), (8, 1)):
        batch = examples.batch(indices, epoch)
        expected = views.of(examples.inputs["pixel_values"], indices, view)
        assert torch.equal(batch.arguments["pixel_values"], expected)
        assert batch.rows.tolist() == [view * 5 + 4, view * 5 + 1]
        assert batch.labels.tolist() == [4, 1]


def test_views_are_made_once_for_all_trainings_on_a_split() -> None:
    views = _views(EVERY["full"])
    first = _encoded(9, views)
    before = first.batch(torch.tensor([7, 2]), epoch=2).arguments["pixel_values"]
    [made] = first.made.values()
    first.inputs["pixel_values"].zero_()  # what is made of it now is another image
    later = replace(first, views=(views,)).batch(torch.tensor([2]), epoch=2)
    assert torch.equal(before, made[[7, 2]])
    assert torch.equal(later.arguments["pixel_values"], before[1:])


def test_a_mixed_image_has_no_label() -> None:
    batch = _encoded(5, _views(Augmentation(mixup=1.0, views=2))).batch(torch.tensor([4, 1]))
    assert batch.labels.tolist() == [-100, -100]


def test_a_batch_in_two_views_has_the_weak_ones_first() -> None:
    strong = Augmentation(crop="pad", flip=True, cutmix=1.0, views=2)
    assert strong.weak == Augmentation(crop="pad", flip=True, views=2)
    weak_views, strong_views = _views(strong.weak), _views(strong)
    examples, indices = _encoded(5, weak_views, strong_views), torch.tensor([0, 3])
    batch = examples.batch(indices, epoch=2)
    images = examples.inputs["pixel_values"]
    expected = [each.of(images, indices, 1) for each in (weak_views, strong_views)]
    assert torch.equal(batch.arguments["pixel_values"], torch.cat(expected))
    assert batch.rows.tolist() == [5, 8, 5, 8]
    assert batch.counts.tolist() == [1, 1, 1, 1]
    assert batch.labels.tolist() == [0, 3, -100, -100]
