"""Evaluating a choice: what is not a KD choice (τ_t, the learning rate) is tuned (§3, step 1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product

from kdsearch.search.configuration import Choice, Trial, ValidationScore
from kdsearch.search.space import Inner, Space
from kdsearch.search.temperature import local_temperatures, middle

MOST_ROUNDS = 3
"""Coordinate tuning: the learning rate, the broad temperatures, the local ones."""

Scores = Mapping[Trial, ValidationScore | None]
"""What is known: a score, None for a trial that diverged or failed, absent while unknown."""


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Trials whose scores are needed before anything else can be said."""

    missing: Mapping[Trial, int]
    """Each with how many rounds of trials follow one another from it on, itself included."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A choice after its tuning. `best` is None when no trial of it has a score."""

    trials: tuple[Trial, ...]
    best: Trial | None
    score: ValidationScore | None


def tune(
    choice: Choice, space: Space, scores: Scores, *, temperature: float | None = None
) -> Evaluate | Tuned:
    """Tune τ_t and the learning rate under `choice`, as far as `scores` reach.

    A given `temperature` is kept, and the learning rate alone is tuned: the lazy baseline. A round
    without any score ends the tuning: nothing says where the next round should look.
    """
    tried: list[Trial] = []
    for index in range(MOST_ROUNDS):
        best = best_trial(tried, scores)
        if index and best is None:
            break
        trials = _round(index, choice, space, best, temperature)
        missing = tuple(trial for trial in trials if trial not in scores)
        if missing:
            left = rounds(choice, space, fixed=temperature is not None) - index
            return Evaluate(missing=dict.fromkeys(missing, left))
        tried += [trial for trial in trials if trial not in tried]
    best = best_trial(tried, scores)
    return Tuned(trials=tuple(tried), best=best, score=scores[best] if best else None)


def rounds(choice: Choice, space: Space, *, fixed: bool = False) -> int:
    """How many rounds of trials the tuning of `choice` takes; `fixed`: at a given temperature."""
    if fixed or not choice.has_temperature:
        return 1
    return {Inner.COORDINATE: MOST_ROUNDS, Inner.JOINT: 2}[space.inner]


def best_trial(trials: Iterable[Trial], scores: Scores) -> Trial | None:
    """The trial of the highest score; of equals the first, since ties keep what is held."""
    scored = [trial for trial in trials if scores[trial] is not None]
    return max(scored, key=lambda trial: scores[trial] or 0.0, default=None)


def _round(
    index: int, choice: Choice, space: Space, best: Trial | None, fixed: float | None
) -> tuple[Trial, ...]:
    """The trials of a round, given the best trial of the rounds before it; () when none is left."""
    rates = space.learning_rates
    if not choice.has_temperature or fixed is not None:
        temperature = fixed if choice.has_temperature else None
        return _grid(choice, (temperature,), rates) if index == 0 else ()
    if best is None:
        if space.inner is Inner.JOINT:
            return _grid(choice, space.broad, rates)
        return _grid(choice, (middle(space.broad),), rates)
    if space.inner is Inner.COORDINATE:
        rates = (best.learning_rate,)
        if index == 1:
            return _grid(choice, space.broad, rates)
    elif index == 2:
        return ()
    held = best.configuration.temperature
    assert held is not None
    return _grid(choice, local_temperatures(space.broad, held), rates)


def _grid(
    choice: Choice, temperatures: Iterable[float | None], rates: Iterable[float]
) -> tuple[Trial, ...]:
    return tuple(
        Trial(configuration=choice.at(temperature), learning_rate=rate)
        for temperature, rate in product(temperatures, rates)
    )
