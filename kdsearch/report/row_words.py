"""What each comparison compares, in a sentence: for whoever meets a row by its name alone."""

from __future__ import annotations

from kdsearch.analysis.comparisons import (
    BEST_ALPHA,
    CHOSEN_OVER_ERM,
    STABLE_OVER_ERM,
    STABLE_OVER_LAZY,
    STABLE_OVER_RANDOM,
)
from kdsearch.analysis.paper import MAXIMUM, OVER_ANOTHER_RANDOM, OVER_RANDOM

ROWS = {
    "best over worst": (
        "The candidate of the highest test score over that of the lowest: what the worst choice "
        "would cost."
    ),
    OVER_RANDOM: (
        "The candidate of the highest test score over one drawn at random: a single draw in each "
        "test case, so that another draw has another gain. It is not the draw of Figure 3."
    ),
    "best over the expectation": (
        "The candidate of the highest test score over the mean of all candidates: what a random "
        "choice costs on average, without the luck of a draw."
    ),
    "best over lazy": (
        "The candidate of the highest test score over the lazy baseline: one choice drawn at "
        "random, its τ_t not tuned."
    ),
    OVER_ANOTHER_RANDOM: (
        "The candidate of the highest test score over one drawn at random: a single draw in each "
        "test case, another one than in Figure 1."
    ),
    "best over stable": (
        "The candidate of the highest test score over the stable configuration, which is the same "
        "in every test case."
    ),
    STABLE_OVER_LAZY: (
        "The stable configuration over the lazy baseline: one choice drawn at random, its τ_t not "
        "tuned."
    ),
    STABLE_OVER_RANDOM: (
        "The stable configuration over a candidate drawn at random: the draw of Figure 3, one in "
        "each test case."
    ),
    CHOSEN_OVER_ERM: (
        "What the search chose by validation over the same student trained on the labels alone."
    ),
    STABLE_OVER_ERM: (
        "The stable configuration over the same student trained on the labels alone."
    ),
    "MSE over CE": (
        "Squared error between the logits as the distance to the teacher, in place of "
        "cross-entropy."
    ),
    "t_ll over t_hs": (
        "The teacher’s checkpoint of the lowest validation loss, in place of that of the highest "
        "validation score."
    ),
    "τ_s = 1 over τ_s = τ_t": ("The student’s temperature held at 1, in place of the teacher’s."),
}
"""By the row's name; those that hold values of an axis are made by `described`."""


def described(label: str) -> str:
    """What a row of a figure, or of the rewards, compares."""
    if label in ROWS:
        return ROWS[label]
    target, _, default = label.rpartition(" over ")
    if target == BEST_ALPHA:
        return f"The α of the highest validation score, over the default, {default}."
    if target.startswith(MAXIMUM):
        return (
            f"The α of the highest test score, over the default, {default}. It is chosen by what "
            "it is then judged by, so that it can only gain, as the paper’s row seems to be."
        )
    return f"{target}, in place of the default, {default}."
