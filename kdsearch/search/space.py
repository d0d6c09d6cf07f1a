"""What a search chooses between: axes, the space that they span, and its points.

A `Choice` has a value for each axis that is compared. A `Trial` is a choice at values of the axes
that are tuned, in canonical form: what is trained, and has a validation score.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property
from itertools import product
from typing import Any, NewType, cast

from kdsearch.search.objectives import SYMBOLS, TIED, Objective
from kdsearch.search.temperature import local_temperatures

ValidationScore = NewType("ValidationScore", float)
"""A score on the validation split, higher is better. The only kind of score a search accepts."""

OBJECTIVE = "distance"
"""The axis whose value is the kind of an objective: those parameters are active that it has."""
ALPHA = "alpha"
"""The axis that a greedy search flips last and does not vote on."""
CHECKPOINT = "teacher"
"""The axis of the teacher's checkpoints, which is active under an objective with a teacher."""

DECIDES = "optimizer"
"""The axis that may decide which values another has: a learning rate means little without it."""

_EPOCH = re.compile("epoch ([1-9][0-9]{0,5})")

Value = Any
"""Of an axis: a number or a name."""
Held = Mapping[str, Value]
"""A value for each compared axis, also for one that is inactive."""


class Checkpoint(StrEnum):
    """Which of the teacher's checkpoints teaches.

    Beside these `Checkpoint("epoch 3")`, that of an epoch of the teacher's own training.
    """

    HIGHEST_SCORE = "t_hs"
    LOWEST_LOSS = "t_ll"
    GIVEN = "given"
    """A teacher that came already fine-tuned, with a single checkpoint."""
    WINNER = "winner"
    """A teacher that is a student of this study: what its test case chose, at its best epoch."""

    @classmethod
    def _missing_(cls, value: object) -> Checkpoint | None:
        """An epoch, which is one and the same however often it is named."""
        if not isinstance(value, str) or not _EPOCH.fullmatch(value):
            return None
        found = str.__new__(cls, value)
        found._name_ = found._value_ = value
        return cast(Checkpoint, cls._value2member_map_.setdefault(value, found))

    @property
    def epoch(self) -> int | None:
        """The number of the epoch that is meant; None where none is."""
        found = _EPOCH.fullmatch(self.value)
        return int(found[1]) if found else None


class Inner(StrEnum):
    """How the tuned axes are tuned under a choice."""

    JOINT = "joint"
    COORDINATE = "coordinate"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A name, and its values, the default first."""

    name: str
    values: tuple[Value, ...]
    under: tuple[tuple[Value, tuple[Value, ...]], ...] = ()
    """By the values of `DECIDES`, so many values each, where these are not the same; `values` are
    all of them then."""

    def given(self, held: Held) -> Axis:
        """The same with the values that it has where these are held."""
        if not self.under:
            return self
        return Axis(name=self.name, values=dict(self.under)[held[DECIDES]])

    @property
    def count(self) -> int:
        """How many values it has at any point."""
        return len(self.under[0][1] if self.under else self.values)


@dataclass(frozen=True)
class Choice:
    """The values of the compared axes that are active, by the axes' names."""

    values: frozenset[tuple[str, Value]]

    @classmethod
    def of(cls, **values: Value) -> Choice:
        """The choice of these values."""
        return cls(frozenset(values.items()))

    def get(self, name: str) -> Value:
        """The value of an axis; None where it is inactive."""
        return next((value for axis, value in self.values if axis == name), None)

    @property
    def names(self) -> tuple[str, ...]:
        """The axes that are active."""
        return tuple(sorted(name for name, _ in self.values))

    def but(self, **values: Value) -> Choice:
        """The same with other values of axes that are active."""
        return Choice.of(**{**dict(self.values), **values})

    def __str__(self) -> str:
        found = dict(self.values)
        parts = [Objective.kinds[found.pop(OBJECTIVE)].title]
        parts += [str(found.pop(CHECKPOINT))] if CHECKPOINT in found else []
        names = (*SYMBOLS, *sorted(found.keys() - SYMBOLS.keys()))
        return shown_at(" ".join(parts), {name: found[name] for name in names if name in found})


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is trained. Equal trials are one training."""

    objective: Objective
    checkpoint: Checkpoint | None
    """Of the teacher; None under an objective without one."""
    settings: tuple[tuple[str, Value], ...]
    """The settings of a training that differ from the study's, by name."""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Kept: a trial is looked up far more often than made. It holds in this process alone."""
        return hash((self.objective, self.checkpoint, self.settings))

    def get(self, name: str) -> Value:
        """The value of a tuned axis; None where it is inactive."""
        if name == CHECKPOINT:
            return self.checkpoint
        return self.objective.parameters.get(name, dict(self.settings).get(name))

    def __str__(self) -> str:
        whom = [self.checkpoint.value] if self.checkpoint else []
        return shown_at(self.objective.shown(*whom), dict(self.settings))


@dataclass(frozen=True, kw_only=True)
class Space:
    """The grid of one test case.

    The compared axes stand in the order in which a greedy search flips them, one of them is
    `OBJECTIVE`. The tuned ones are tuned anew under every choice. Of these `refined`, where it is
    active, is tuned in two rounds: its values, which ascend, and the neighbourhood of the best.
    Raises `ValueError` for an axis without values, or a refined one that cannot be.
    """

    compared: tuple[Axis, ...]
    tuned: tuple[Axis, ...]
    refined: str | None = None
    inner: Inner = Inner.JOINT
    fixed: tuple[tuple[str, Value], ...] = ()
    """What every trial has where it is active, and nothing shows: no axis."""

    def __post_init__(self) -> None:
        for axis in (*self.compared, *self.tuned):
            if not axis.values:
                raise ValueError(f"{axis.name} has no value")
        of_it = [axis.name for axis in (*self.compared, *self.tuned) if axis.under]
        those = {axis.name for axis in self.compared}
        if of_it and (DECIDES not in those or those & {*of_it}):
            raise ValueError(f"{of_it[0]} is tuned under each {DECIDES}, which is compared")
        if self.refined is not None:
            broad = self.values(self.refined)
            if len(broad) < 2 or list(broad) != sorted(set(broad)):
                raise ValueError(f"the values of {self.refined} are at least two, and ascend")

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Kept, as that of a trial."""
        return hash((self.compared, self.tuned, self.refined, self.inner, self.fixed))

    @property
    def names(self) -> tuple[str, ...]:
        """The axes."""
        return tuple(axis.name for axis in (*self.compared, *self.tuned))

    @property
    def voted(self) -> tuple[Axis, ...]:
        """The compared axes that have rewards: all but α, which keeps its default (§4)."""
        return tuple(axis for axis in self.compared if axis.name != ALPHA)

    def values(self, name: str) -> tuple[Value, ...]:
        """The values of an axis, the default first."""
        return next(axis.values for axis in (*self.compared, *self.tuned) if axis.name == name)

    def defaults(self) -> dict[str, Value]:
        """The default of each compared axis: where a search starts."""
        return {axis.name: axis.values[0] for axis in self.compared}

    def choice(self, held: Held) -> Choice:
        """The choice of what is held: what is inactive is left out."""
        kind = held[OBJECTIVE]
        return Choice(frozenset((name, held[name]) for name in held if is_active(name, kind)))

    def choices(self) -> Iterator[Choice]:
        """Every distinct choice of the grid."""
        names = [axis.name for axis in self.compared]
        grid = product(*(axis.values for axis in self.compared))
        points = (dict(zip(names, values, strict=True)) for values in grid)
        yield from dict.fromkeys(map(self.choice, points))

    @property
    def size(self) -> int:
        """How many points its grid has: each choice at each value of the axes that it tunes."""
        axes = (*self.compared, *self.tuned)
        return sum(_points(axes, kind) for kind in self.values(OBJECTIVE))

    def point(self, index: int) -> tuple[Choice, Trial]:
        """A point of the grid: they stand in the order of `choices`, and of each one's `trials`.

        Nothing else of the grid is made, however large it is. Raises `IndexError` outside of it.
        """
        if not 0 <= index < self.size:
            raise IndexError(index)
        axes = (*self.compared, *self.tuned)
        kinds, held = self.values(OBJECTIVE), {}
        for i, axis in enumerate(axes):
            behind = {kind: _points(axes[i + 1 :], kind) for kind in kinds}
            if axis.name == OBJECTIVE:
                for kind in kinds:
                    held[OBJECTIVE], kinds = kind, (kind,)
                    if index < behind[kind]:
                        break
                    index -= behind[kind]
                continue
            place, first = 0, sum(behind.values())
            if index >= first:  # where an axis is inactive, its first value alone stands for it
                kinds = tuple(kind for kind in kinds if is_active(axis.name, kind))
                place, index = divmod(index - first, sum(behind[kind] for kind in kinds))
                place += 1
            held[axis.name] = axis.given(held).values[place]
        choice = self.choice({axis.name: held[axis.name] for axis in self.compared})
        return choice, self.trial(choice, {a.name: held[a.name] for a in self.tunes(choice)})

    def tunes(self, choice: Choice) -> tuple[Axis, ...]:
        """The tuned axes that are active under a choice."""
        kind, held = choice.get(OBJECTIVE), dict(choice.values)
        return tuple(axis.given(held) for axis in self.tuned if is_active(axis.name, kind))

    def tuned_values(self, trial: Trial) -> Held:
        """The values of the tuned axes that are active under a trial's objective."""
        active = (axis for axis in self.tuned if is_active(axis.name, trial.objective.kind))
        return {axis.name: trial.get(axis.name) for axis in active}

    def refines(self, choice: Choice) -> bool:
        """Whether the refined axis is active under a choice."""
        return self.refined is not None and is_active(self.refined, choice.get(OBJECTIVE))

    def trial(self, choice: Choice, tuned: Mapping[str, Value]) -> Trial:
        """A choice at values of its tuned axes."""
        values = {**dict(choice.values), **tuned}
        kind = Objective.kinds[values.pop(OBJECTIVE)]
        values |= {name: value for name, value in self.fixed if is_active(name, kind.kind)}
        checkpoint = values.pop(CHECKPOINT, None)
        own = {name: values.pop(name) for name in parameters_of(kind.kind) if name in values}
        settings = tuple(sorted(values.items()))
        return Trial(objective=kind(**own), checkpoint=checkpoint, settings=settings)

    def includes(self, choice: Choice, trial: Trial) -> bool:
        """Whether `trial` is `choice` at some values of its tuned axes."""
        tuned = {axis.name: trial.get(axis.name) for axis in self.tunes(choice)}
        return None not in tuned.values() and self.trial(choice, tuned) == trial

    def trials(self, choice: Choice, best: Value = None) -> Iterator[Trial]:
        """Every distinct trial of a choice.

        Those in the neighbourhood of the `best` value of the refined axis are among them, if given.
        """
        values = {axis.name: axis.values for axis in self.tunes(choice)}
        if self.refined in values and best is not None:
            broad = values[self.refined]
            values[self.refined] = (*broad, *local_temperatures(broad, best))
        grid = product(*values.values())
        points = (dict(zip(values, point, strict=True)) for point in grid)
        yield from dict.fromkeys(self.trial(choice, point) for point in points)


def _points(axes: Iterable[Axis], kind: str) -> int:
    """How many points axes span under objectives of a kind."""
    active = (axis for axis in axes if axis.name != OBJECTIVE and is_active(axis.name, kind))
    return math.prod(axis.count for axis in active)


def is_active(name: str, kind: str) -> bool:
    """Whether an axis matters under objectives of a kind; a setting of the training always does."""
    if name == CHECKPOINT:
        return Objective.kinds[kind].taught
    return name in parameters_of(kind) or not any(
        name in parameters_of(other) for other in Objective.kinds
    )


@cache
def parameters_of(kind: str) -> frozenset[str]:
    """The names of an objective's parameters."""
    return frozenset(field.name for field in dataclasses.fields(Objective.kinds[kind]))  # type: ignore[arg-type]


def shown_at(what: object, values: Held) -> str:
    """What is shown, and values beside it: CE t_hs α=0.5 optimizer=adamw."""
    symbols = {**SYMBOLS, "learning_rate": "lr"}
    parts = [f"{symbols.get(name, name)}={shown_value(value)}" for name, value in values.items()]
    return " ".join([str(what), *parts])


def shown_value(value: Value) -> str:
    """A value as people read it."""
    if value == TIED:
        return SYMBOLS["temperature"]
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float | int) else str(value)
