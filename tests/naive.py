"""The paper's procedure as plain loops, one training at a time: what the search must agree with.

Written from the paper's text (arXiv 2401.06356, §2 and §3), not from the package: parameters and
values are plain strings and numbers, and nothing here stops, resumes or runs at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Score = Callable[..., float | None]
"""Of (distance, teacher, τ_t, τ_s, α, learning rate, targets); None if that training has no score.
"""


class Best(NamedTuple):
    """The best model under a choice of the four parameters."""

    score: float
    temperature: float | None
    rate: float


class Decision(NamedTuple):
    """Each value with its best model, and the value that is kept."""

    parameter: str
    candidates: tuple[tuple[Any, Best | None], ...]
    winner: Any


def neighbours(broad: Sequence[float], best: float) -> list[float]:
    """The four temperatures of the second round."""
    values = [*broad, broad[-1] * broad[-1] / broad[-2]]
    i = values.index(best)
    above = values[i + 1]
    if i == 0:
        found = [best + (above - best) * k / 5 for k in (1, 2, 3, 4)]
    else:
        below = values[i - 1]
        found = [below + (best - below) * k / 3 for k in (1, 2)]
        found += [best + (above - best) * k / 3 for k in (1, 2)]
    return [float(f"{value:.5e}") for value in found]


def tune(
    grid: Mapping[str, Any], score: Score, values: Mapping[str, Any], fixed: float | None = None
) -> Best | None:
    """Find the best (τ_t, learning rate) for the four values; a tie keeps the earlier pair."""
    best: Best | None = None
    rates, broad = grid["learning_rate"], grid["broad"]

    def train(temperature: float | None, rate: float) -> None:
        nonlocal best
        student = values["student_temperature"]
        if temperature is None:
            student = None
        elif student == "tied":
            student = temperature
        found = score(
            *(values["distance"], values["teacher"], temperature, student, values["alpha"], rate),
            values.get("targets", "data"),
        )
        if found is not None and (best is None or found > best.score):
            best = Best(found, temperature, rate)

    if values["distance"] == "mse" or fixed is not None:
        for rate in rates:
            train(None if values["distance"] == "mse" else fixed, rate)
        return best
    if grid["inner"] == "joint":
        for temperature in broad:
            for rate in rates:
                train(temperature, rate)
        if best is not None:
            for temperature in neighbours(broad, best.temperature):
                for rate in rates:
                    train(temperature, rate)
        return best
    for rate in rates:
        train(broad[(len(broad) - 1) // 2], rate)
    if best is not None:
        rate = best.rate
        for temperature in broad:
            train(temperature, rate)
        for temperature in neighbours(broad, best.temperature):
            train(temperature, rate)
    return best


def traverse(grid: Mapping[str, Any], score: Score) -> list[Decision]:
    """Flip one parameter at a time from the defaults, then every α."""
    held = {name: grid[name][0] for name in names(grid)}
    decisions = []
    for parameter in [*grid["order"], *(["targets"] if "targets" in grid else []), "alpha"]:
        if parameter != "alpha" and len(grid[parameter]) == 1:
            continue
        if parameter == "student_temperature" and held["distance"] == "mse":
            continue
        candidates = [
            (value, tune(grid, score, {**held, parameter: value})) for value in grid[parameter]
        ]
        winner, best = candidates[0]
        for value, found in candidates[1:]:
            if found is not None and (best is None or found.score > best.score):
                winner, best = value, found
        decisions.append(Decision(parameter, tuple(candidates), winner))
        held[parameter] = winner
    return decisions


def stable_values(traversals: Sequence[Sequence[Decision]]) -> dict[str, Any]:
    """The alternatives that win more cases than they lose; of several the most successful."""
    reward: dict[str, dict[Any, int]] = {}
    for decisions in traversals:
        for decision in decisions:
            if decision.parameter == "alpha":
                continue
            default = decision.candidates[0][1]
            for value, found in decision.candidates[1:]:
                by_value = reward.setdefault(decision.parameter, {})
                by_value.setdefault(value, 0)
                if default is not None and found is not None:
                    by_value[value] += found.score > default.score
                    by_value[value] -= found.score < default.score
    return {
        parameter: max(by_value, key=lambda value: by_value[value])
        for parameter, by_value in reward.items()
        if max(by_value.values()) > 0
    }


def stable_choice(grid: Mapping[str, Any], stable: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults, but for the stable values that the grid has."""
    return {
        name: stable[name] if stable.get(name) in grid[name] else grid[name][0]
        for name in names(grid)
    }


def names(grid: Mapping[str, Any]) -> list[str]:
    """The parameters that are compared."""
    every = ("distance", "teacher", "student_temperature", "targets", "alpha")
    return [name for name in every if name in grid]
