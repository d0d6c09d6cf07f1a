"""The data sets of images that kdsearch knows by name; see `catalogue`.

Their publishers have no validation split: a tenth of train is drawn, stratified by class. What the
Hub calls a class is its name here, so that classes are written down only where files may number
them.
"""

from __future__ import annotations

from collections.abc import Mapping

from kdsearch.study.entry import Entry, Part

_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus "
    "butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch "
    "crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo "
    "keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse "
    "mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy "
    "porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television "
    "tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
_PETS = (
    "abyssinian american_bulldog american_pit_bull_terrier basset_hound beagle bengal birman "
    "bombay boxer british_shorthair chihuahua egyptian_mau english_cocker_spaniel english_setter "
    "german_shorthaired great_pyrenees havanese japanese_chin keeshond leonberger maine_coon "
    "miniature_pinscher newfoundland persian pomeranian pug ragdoll russian_blue saint_bernard "
    "samoyed scottish_terrier shiba_inu siamese sphynx staffordshire_bull_terrier wheaten_terrier "
    "yorkshire_terrier"
)


def _split(hub: str, revision: str, files: str, split: str) -> tuple[Part, ...]:
    """A split by its files: its repository's other splits would be downloaded too."""
    return (Part(hub=hub, split=split, revision=revision, data_files=f"{files}/{split}-*.parquet"),)


def _cifar(name: str, revision: str, files: str) -> Mapping[str, tuple[Part, ...]]:
    return {s: _split(f"uoft-cs/{name}", revision, files, s) for s in ("train", "test")}


_PETS_HUB = ("timm/oxford-iiit-pet", "10b688881011725fa2fa3d856a47536c9a7e6968", "data")
_CARS_HUB = ("tanganke/stanford_cars", "9abf6cf7d6dfa7b95152a0d6e791ea9435b47a40", "data")
_TINY_HUB = ("zh-plus/tiny-imagenet", "5a77092c28e51558c5586e9c5eb71a7e17a5e43f", "data")

IMAGES = {
    # Krizhevsky 2009.
    # {"img": {"bytes": …, "path": null}, "label": 3}
    "cifar10": Entry(
        task="image_classification",
        text=("img",),
        label="label",
        labels=tuple(_CIFAR10.split()),
        metric="accuracy",
        rows={"train": 45_000, "validation": 5_000, "test": 10_000},
        parts=_cifar("cifar10", "0b2714987fa478483af9968de7c934580d0bb9a2", "plain_text"),
        fair=True,
        image_size=32,
        output_rows=1,
        note="Validation is a tenth of the 50,000 training images; test is the official one.",
    ),
    # Krizhevsky 2009, by its 100 fine classes.
    # {"img": {"bytes": …, "path": null}, "fine_label": 19, "coarse_label": 11}
    "cifar100": Entry(
        task="image_classification",
        text=("img",),
        label="fine_label",
        labels=tuple(_CIFAR100.split()),
        metric="accuracy",
        rows={"train": 45_000, "validation": 5_000, "test": 10_000},
        parts=_cifar("cifar100", "aadb3af77e9048adbea6b47c21a81e47dd092ae5", "cifar100"),
        fair=True,
        image_size=32,
        output_rows=1,
        note="Validation is a tenth of the 50,000 training images; test is the official one.",
    ),
    # Parkhi et al. 2012, its 37 breeds.
    # {"image": {"bytes": …, "path": …}, "label": 20, "image_id": "Maine_Coon_204", …}
    "pets": Entry(
        task="image_classification",
        text=("image",),
        label="label",
        labels=tuple(_PETS.split()),
        metric="accuracy",
        rows={"train": 3_312, "validation": 368, "test": 3_669},
        parts={s: _split(*_PETS_HUB, s) for s in ("train", "test")},
        fair=True,
        output_rows=1,
        note="Oxford-IIIT Pet: validation is a tenth of the 3,680 images that its publishers train "
        "and validate on; test is the official one.",
    ),
    # Krause et al. 2013.
    # {"image": {"bytes": …, "path": …}, "label": 0}
    "cars": Entry(
        task="image_classification",
        text=("image",),
        label="label",
        metric="accuracy",
        rows={"train": 7_330, "validation": 814, "test": 8_041},
        parts={s: _split(*_CARS_HUB, s) for s in ("train", "test")},
        fair=True,
        output_rows=1,
        label_count=196,
        note="Stanford Cars: validation is a tenth of the 8,144 training images; test is the "
        "official one.",
    ),
    # Le & Yang 2015, 200 classes of ImageNet (Deng et al. 2009).
    # {"image": {"bytes": …, "path": …}, "label": 0}
    "tiny_imagenet": Entry(
        task="image_classification",
        text=("image",),
        label="label",
        metric="accuracy",
        rows={"train": 90_000, "validation": 10_000, "test": 10_000},
        parts={"train": _split(*_TINY_HUB, "train"), "test": _split(*_TINY_HUB, "valid")},
        fair=True,
        image_size=64,
        output_rows=1,
        label_count=200,
        note="Validation is a tenth of the 100,000 training images; test is the official "
        "validation split, since the official test has no labels.",
    ),
}
