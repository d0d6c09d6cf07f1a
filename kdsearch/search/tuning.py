"""Tuning a choice, over what is not compared: τ_t and the learning rate (§3, step 1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def tune(
    choice: Choice, space: Space, scores: Scores, *, fixed: Held = NOTHING
) -> Candidate | Wanted:
    """Tune the axes that are active under `choice`, as far as `scores` reach.

    The values of axes in `fixed` are kept: the lazy baseline has a temperature. A round without
    any score ends the tuning: nothing says where the next round should look.
    """
    known: dict[Trial, None] = {}
    count = rounds(choice, space, fixed=fixed)
    for index in range(count):
        best = best_trial(known, scores)
        if index and best is None:
            break
        trials = _round(index, choice, space, best, fixed)
        missing = tuple(trial for trial in trials if trial not in scores)
        if missing:
            return dict.fromkeys(missing, count - index)
        known |= dict.fromkeys(trials)
    return Candidate.of(choice, known, scores)


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
