"""What the sections of a study file are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]
LATER = "came after keys were pinned"
"""Marks a field that keys would cover and that older trainings did not have. Its default is what
they did, and while it has that it is left out of the digest: `Annotated[bool, LATER] = False`."""

VALUES = ConfigDict(strict=True, allow_inf_nan=False)
STRICT = ConfigDict(extra="forbid", **VALUES)


class Section(BaseModel):
    """A section of a study file: frozen, strict, without unknown keys."""

    model_config = ConfigDict(frozen=True, **STRICT)
