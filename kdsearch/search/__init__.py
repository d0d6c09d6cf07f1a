"""The method of arXiv 2401.06356 as pure functions of a space and of validation scores.

Standard library only: no clock, no randomness that is not seeded, no environment, no disk.
"""

from kdsearch.search.bounds import Bounds, count_bounds
from kdsearch.search.configuration import (
    Checkpoint,
    Choice,
    Configuration,
    Distance,
    Parameter,
    ParameterValue,
    StudentTemperature,
    Trial,
    ValidationScore,
)
from kdsearch.search.inner import Evaluate, Scores, Tuned, rounds, tune
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
)
from kdsearch.search.space import Inner, Space, choice_of, choices, configurations
from kdsearch.search.stable import (
    LAZY_TEMPERATURE,
    Reward,
    lazy_choice,
    rewards,
    stable_choice,
    stable_values,
)
from kdsearch.search.temperature import local_temperatures, middle
from kdsearch.search.traversal import (
    Candidate,
    Decision,
    Stage,
    Traversal,
    next_stage,
    rounds_after,
    traversal_rounds,
    traverse,
)

__all__ = [
    "LAZY_TEMPERATURE",
    "SYMBOLS",
    "TIED",
    "Bounds",
    "Candidate",
    "Ce",
    "Checkpoint",
    "Choice",
    "Configuration",
    "Decision",
    "Distance",
    "Dkd",
    "Evaluate",
    "GradientScale",
    "Inner",
    "Jsd",
    "LabelSmoothing",
    "Labels",
    "Mse",
    "Objective",
    "Parameter",
    "ParameterValue",
    "ReverseKl",
    "Reward",
    "Scores",
    "Softened",
    "Space",
    "Stage",
    "StudentTemperature",
    "Traversal",
    "Trial",
    "Tuned",
    "ValidationScore",
    "choice_of",
    "choices",
    "configurations",
    "count_bounds",
    "lazy_choice",
    "local_temperatures",
    "middle",
    "next_stage",
    "rewards",
    "rounds",
    "rounds_after",
    "stable_choice",
    "stable_values",
    "traversal_rounds",
    "traverse",
    "tune",
]
