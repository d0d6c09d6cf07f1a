"""Objectives, spaces and the strategies that walk them: pure functions of validation scores.

Standard library only: no clock, no randomness that is not seeded, no environment, no disk.
"""

from kdsearch.search.bounds import Bounds, count_bounds
from kdsearch.search.exhaustive import Exhaustive
from kdsearch.search.greedy import Greedy, alternatives, rounds_after
from kdsearch.search.objectives import (
    SYMBOLS,
    TIED,
    Ce,
    Dkd,
    GradientScale,
    Jsd,
    Labels,
    LabelSmoothing,
    Mse,
    Objective,
    ReverseKl,
    Softened,
    Tied,
)
from kdsearch.search.random_trials import Random
from kdsearch.search.space import (
    CHECKPOINT,
    OBJECTIVE,
    Axis,
    Checkpoint,
    Choice,
    Held,
    Inner,
    Space,
    Trial,
    ValidationScore,
    Value,
    shown_value,
)
from kdsearch.search.stable import (
    LAZY_TEMPERATURE,
    LAZY_VALUES,
    Reward,
    lazy_choice,
    rewards,
    stable_choice,
    stable_values,
)
from kdsearch.search.strategy import Candidate, Comparing, Decision, Progress, Strategy, best_of
from kdsearch.search.temperature import local_temperatures, middle
from kdsearch.search.tuning import NOTHING, Missing, Scores, Tuned, rounds, tune

__all__ = [
    "CHECKPOINT",
    "LAZY_TEMPERATURE",
    "LAZY_VALUES",
    "NOTHING",
    "OBJECTIVE",
    "SYMBOLS",
    "TIED",
    "Axis",
    "Bounds",
    "Candidate",
    "Ce",
    "Checkpoint",
    "Choice",
    "Comparing",
    "Decision",
    "Dkd",
    "Exhaustive",
    "GradientScale",
    "Greedy",
    "Held",
    "Inner",
    "Jsd",
    "LabelSmoothing",
    "Labels",
    "Missing",
    "Mse",
    "Objective",
    "Progress",
    "Random",
    "ReverseKl",
    "Reward",
    "Scores",
    "Softened",
    "Space",
    "Strategy",
    "Tied",
    "Trial",
    "Tuned",
    "ValidationScore",
    "Value",
    "alternatives",
    "best_of",
    "count_bounds",
    "lazy_choice",
    "local_temperatures",
    "middle",
    "rewards",
    "rounds",
    "rounds_after",
    "shown_value",
    "stable_choice",
    "stable_values",
    "tune",
]
