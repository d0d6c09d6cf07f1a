"""How training images are changed: the parts of an augmentation, and of how many views it is.

View v of an example is always the same image (`tasks.views`), so that what a teacher says of it
is kept, and every student of the study sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from kdsearch.study.section import Positive, PositiveInt, Section

Named = Literal["none", "light", "full"]
NONE = "none"
LIGHT = "light"
FULL = "full"
_LIGHT = {"crop": "pad", "flip": True}
# Crop, RandAugment, flip, and MixUp or CutMix are the temperature study's (arXiv 2603.02430, §3.1);
# its text as we have it lost n, m and α: n and m are RandAugment's for ImageNet, α = 1 is MixUp of
# CutMix' paper.
_STRONG = {"randaugment": {"n": 2, "m": 9}, "mixup": 1.0, "cutmix": 1.0}
_NAMED: dict[str, dict[str, Any] | None] = {
    NONE: None,
    LIGHT: {**_LIGHT, **dict.fromkeys(_STRONG)},
    FULL: {**_LIGHT, **_STRONG},
}
_OWN = ("crop", "flip", "views")
"""What an axis of names leaves as the setting has it."""
LIKE = "like"


def _none(value: Any) -> Any:
    return None if value == NONE else value


OR_NONE = BeforeValidator(_none)


class RandAugment(Section):
    """n operations of 14, drawn with replacement, at magnitude m of 30 (Cubuk et al., 2020)."""

    n: Annotated[int, Field(ge=1, le=4)] = 2
    m: Annotated[int, Field(ge=0, le=30)] = 9


class Augmentation(Section):
    """What a view goes through, in this order; mixing last.

    Under mixing a view has no label: it is part of two images.
    """

    crop: Literal["none", "pad", "inception"] = "none"
    """pad: of the image with an eighth of its size of black at each side. inception: 8 % to 100 %
    of the area, 3:4 to 4:3, resized bilinearly (Szegedy et al., 2015)."""
    randaugment: Annotated[RandAugment | None, OR_NONE] = None
    flip: bool = False
    """Of every second view, left to right."""
    mixup: Annotated[Positive | None, OR_NONE] = None
    """The α of Beta(α, α), of which the share of an image is drawn; the rest is another's."""
    cutmix: Annotated[Positive | None, OR_NONE] = None
    """The same of an area. Beside `mixup`, every second view has the one, the others the other."""
    views: PositiveInt = 20
    """How many views there are: epoch e uses view (e - 1) mod views."""

    def problems(self) -> Iterator[str]:
        """See `Section`."""
        if not any((self.crop != NONE, self.randaugment, self.flip, self.mixes)):
            yield "changes no image: set augmentation: none, light or full, or give it a part"

    def __str__(self) -> str:
        crop = {"none": [], "pad": ["crop"], "inception": ["inception crop"]}[self.crop]
        drawn = self.randaugment
        parts = [*crop, *([f"RandAugment n={drawn.n} m={drawn.m}"] if drawn else [])]
        parts += ["flip"] * self.flip
        mixing = (("MixUp", self.mixup), ("CutMix", self.cutmix))
        parts += [" or ".join(f"{n} α={alpha:g}" for n, alpha in mixing if alpha)] * self.mixes
        return f"{', '.join(parts)}; {self.views} views"

    @property
    def shown(self) -> str:
        """The same with the name, if it has one, in place of its parts."""
        for name in (LIGHT, FULL):
            if self == Augmentation.model_validate({**(_NAMED[name] or {}), "views": self.views}):
                return f"{name}, {self.views} views"
        return str(self)

    @property
    def mixes(self) -> bool:
        """Whether a view is part of two images, and so has no label."""
        return self.mixup is not None or self.cutmix is not None

    @property
    def weak(self) -> Augmentation | None:
        """The same with crop and flip alone: the weak one of two views. None where that is none."""
        if self.crop == NONE and not self.flip:
            return None
        return Augmentation(crop=self.crop, flip=self.flip, views=self.views)


def spelt_out(value: Any) -> Any:
    """The parts of a name; of a section that is `like` one, the name's parts with its own."""
    if isinstance(value, str) and value in _NAMED:
        return _NAMED[value]
    if isinstance(value, dict) and LIKE in value:
        if value[LIKE] not in (LIGHT, FULL):
            raise ValueError(f"{LIKE} must be {LIGHT} or {FULL}, not {value[LIKE]}")
        own = {name: part for name, part in value.items() if name != LIKE}
        return {**(_NAMED[value[LIKE]] or {}), **own}
    if isinstance(value, str):
        raise ValueError(f"must be {NONE}, {LIGHT}, {FULL} or a section of parts, not {value}")
    return value


SPELT_OUT = BeforeValidator(spelt_out)


def at_name(name: str, own: Augmentation | None) -> dict[str, Any] | None:
    """What a value of the axis stands for, where the setting itself is `own`.

    Its crop, flip and number of views stay.
    """
    named = _NAMED[name]
    if named is None or own is None:
        return named
    return {**named, **{part: getattr(own, part) for part in _OWN}}
