"""What trainings take of the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, PlainValidator

from kdsearch.study.section import Positive, Section

Role = Literal["teacher", "outputs", "sequences", "student"]
"""What a training is for: a teacher, what a teacher says, what it writes, or a student."""
ROLES: tuple[Role, ...] = get_args(Role)
SHARES: Mapping[Role, str] = {
    "teacher": "teachers",
    "outputs": "outputs",
    "sequences": "outputs",
    "student": "students",
}
"""The key of `resources` that says what trainings of a role take."""
_WORD = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
"""Of a node's label."""
_LABEL = rf"^([A-Za-z0-9.-]{{1,253}}/)?{_WORD}$"
_VALUE = rf"^{_WORD}$"
_LABEL_WORDS = "use up to 63 letters, digits and . _ -, with a letter or a digit at both ends"
LABEL_PATTERNS = {
    _LABEL: ("not a label name", f"{_LABEL_WORDS}; PREFIX/ may come before it"),
    _VALUE: ("not a label value", _LABEL_WORDS),
}
"""What a text that does not match is not, and what would."""


def _gpus(value: float) -> float:
    if value > 1 and not value.is_integer():
        raise ValueError("GPUs above 1 must be a whole number")
    return value


def _label(name: str) -> str:
    if name == "ray.io/node-id":
        raise ValueError("nodes come and go; give a label that several may have")
    return name


def _custom(name: str) -> str:
    if name.lower() in ("cpu", "gpu", "object_store_memory"):
        raise ValueError(f"{name} is not a custom resource; use cpus and gpus")
    return name


_Amount = Annotated[float, Field(ge=0.0001, le=1e15)]
"""Ray counts to the fourth decimal."""
_Label = Annotated[str, Field(pattern=_LABEL), AfterValidator(_label)]
_Custom = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_custom)]
_Values = Annotated[tuple[Annotated[str, Field(pattern=_VALUE)], ...], Field(min_length=1)]


def _fuse(value: object) -> object:
    if value == "auto" or (type(value) is int and 1 <= value <= MOST_FUSED):
        return value
    raise ValueError(f"must be auto, or how many students, from 1 to {MOST_FUSED}")


Fuse = Annotated[Literal["auto"] | int, PlainValidator(_fuse)]
MOST_FUSED = 64
"""In one pass."""


class Share(Section):
    """What one training takes of a node. What is left out is as for all, else Ray's default."""

    cpus: _Amount | None = None
    """Default: one for each of `training.cpu_threads`."""
    gpus: Annotated[float, Field(ge=0, le=1e6), AfterValidator(_gpus)] | None = None
    """A part of one (0.25), or whole ones. A training computes on one of them, and is held to its
    part of that one's memory. Default: 1 if the cluster has any, or if other trainings take one."""
    custom: dict[_Custom, _Amount] | None = None
    """Of what nodes were given by `ray start --resources`; `memory` is in bytes."""
    labels: dict[_Label, _Values] | None = None
    """Of the node, each one of several: {ray.io/accelerator-type: [A100, H100]}."""


class Resources(Share):
    """What one training takes of the cluster. Default: a GPU if it has any, else a CPU."""

    teachers: Share = Share()
    """What a teacher's training takes, as far as it is not what all take."""
    outputs: Share = Share()
    """The same of a teacher's pass over a split, also where it writes."""
    students: Share = Share()
    hours: Annotated[float, Field(gt=0, le=8760)] = 24.0
    """The longest that it may take: one that hangs is ended, and has failed with `timeout`."""
    checkpoint_minutes: Positive = 5.0
    """How often it saves where it is, to go on from there if its worker dies."""
    speculate: bool = True
    """Whether slots that would idle train what the next decisions may ask for. No decision changes
    by it, and no node is asked for; one that would go stays until what it trains has ended."""
    fuse: Fuse = "auto"
    """How many students that differ in learning rate, loss or teacher are trained in one pass:
    `auto`, as many as the first launch finds to pay; a number where that gives the same result
    as each alone; 1, each alone."""

    def of(self, role: Role) -> Share:
        """What a training of this role takes."""
        share: Share = getattr(self, SHARES[role])
        own = {name: getattr(share, name) for name in Share.model_fields}
        return Share(
            **{n: getattr(self, n) if value is None else value for n, value in own.items()}
        )
