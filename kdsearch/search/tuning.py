"""Tuning a choice, over what is not compared: τ_t and the learning rate (§3, step 1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType

from kdsearch.search.space import Choice, Held, Inner, Space, Trial, ValidationScore, Value
from kdsearch.search.temperature import local_temperatures, middle

Scores = Mapping[Trial, ValidationScore | None]
"""What is known: a score, None for a trial that diverged or failed, absent while unknown."""

NOTHING: Held = MappingProxyType({})


Wanted = Mapping[Trial, int]
"""Trials whose scores are needed before anything else can be said.

Each with how many rounds of trials follow one another from it on, itself included.
"""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A choice after its tuning."""

    choice: Choice
    value: Value = None
    """Of the axis that is decided on; None where whole choices are compared."""
    trials: tuple[Trial, ...]
    best: Trial | None
    """The trial of the highest score; None where none has one."""
    score: ValidationScore | None
    """Its score."""

    @classmethod
    def of(cls, choice: Choice, trials: Iterable[Trial], scores: Scores) -> Candidate:
        """The candidate of trials that are all known."""
        known = tuple(trials)
        best = best_trial(known, scores)
        return cls(choice=choice, trials=known, best=best, score=scores[best] if best else None)


class Tuning:
    """The tuning of a choice over the axes that are active under it, taken up where it stood.

    A score that is known never changes, so that neither does what followed from it. The values of
    axes in `fixed` are kept: the lazy baseline has a temperature. A round without any score ends
    the tuning: nothing says where the next round should look.
    """

    def __init__(self, choice: Choice, space: Space, fixed: Held = NOTHING) -> None:
        self._choice, self._space, self._fixed = choice, space, fixed
        self._count = rounds(choice, space, fixed=fixed)
        self._index = 0
        self._known: dict[Trial, None] = {}
        """The trials of the rounds before."""
        self._trials = self._missing = _round(0, choice, space, None, fixed)
        self._found: Candidate | None = None

    def copy(self) -> Tuning:
        """One that goes on by itself from here, by whatever scores."""
        other = copy(self)
        other._known = dict(self._known)
        return other

    def go_on(self, scores: Scores) -> Candidate | Wanted:
        """Tune as far as `scores` reach, which hold all that were known before."""
        while self._found is None:
            self._missing = tuple(trial for trial in self._missing if trial not in scores)
            if self._missing:
                return dict.fromkeys(self._missing, self._count - self._index)
            self._known |= dict.fromkeys(self._trials)
            self._index += 1
            best = best_trial(self._known, scores)
            if best is None or self._index == self._count:
                self._found = Candidate.of(self._choice, self._known, scores)
            else:
                self._trials = self._missing = _round(
                    self._index, self._choice, self._space, best, self._fixed
                )
        return self._found


class Remembered(Mapping[Trial, ValidationScore | None]):
    """Scores of which there may be more each time, that keep how far each tuning by them is."""

    def __init__(self) -> None:
        self.tunings: dict[tuple[object, ...], Tuning] = {}


def tune(
    choice: Choice, space: Space, scores: Scores, *, fixed: Held = NOTHING
) -> Candidate | Wanted:
    """Tune the axes that are active under `choice`, as far as `scores` reach: see `Tuning`."""
    if not isinstance(scores, Remembered):
        return Tuning(choice, space, fixed).go_on(scores)
    key = (choice, space, *fixed.items())
    if key not in scores.tunings:
        scores.tunings[key] = Tuning(choice, space, fixed)
    return scores.tunings[key].go_on(scores)


def rounds(choice: Choice, space: Space, *, fixed: Held = NOTHING) -> int:
    """How many rounds of trials the tuning of `choice` takes.

    Joint: the broad values of the refined axis with all of the others, then the local ones.
    Coordinate: the others at the middle broad value, then the broad ones, then the local ones.
    """
    if not space.refines(choice) or space.refined in fixed:
        return 1
    return {Inner.COORDINATE: 3, Inner.JOINT: 2}[space.inner]


def best_trial(trials: Iterable[Trial], scores: Scores) -> Trial | None:
    """The trial of the highest score; of equals the first, since ties keep what is held."""
    scored = [trial for trial in trials if scores[trial] is not None]
    return max(scored, key=lambda trial: scores[trial] or 0.0, default=None)


def _round(
    index: int, choice: Choice, space: Space, best: Trial | None, fixed: Held
) -> tuple[Trial, ...]:
    """The trials of a round, given the best trial of the rounds before it."""
    values = {axis.name: axis.values for axis in space.tunes(choice)}
    values |= {name: (value,) for name, value in fixed.items() if name in values}
    refined, count = space.refined, rounds(choice, space, fixed=fixed)
    if refined is not None and count > 1:
        broad = values[refined]
        if best is None and space.inner is Inner.COORDINATE:
            values[refined] = (middle(broad),)
        elif best is not None:
            if space.inner is Inner.COORDINATE:
                values = {name: (best.get(name),) for name in values}
            last = index == count - 1
            values[refined] = local_temperatures(broad, best.get(refined)) if last else broad
    grid = product(*values.values())
    return tuple(space.trial(choice, dict(zip(values, point, strict=True))) for point in grid)
