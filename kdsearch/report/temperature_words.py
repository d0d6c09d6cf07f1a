"""The words of a temperature study's section: what its tables say, and what lines are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kdsearch.analysis.origins import StudentOrigin, TeacherOrigin
from kdsearch.analysis.temperature_lines import TRIALS
from kdsearch.analysis.temperature_paired import SEEDS, Compared
from kdsearch.report.markdown import count
from kdsearch.search import SYMBOLS, Objective, shown_value

SOURCE = "arXiv 2603.02430"
TITLE = "Temperature"
HOW = (
    "Students that were trained alike but for the temperature τ, and tuned over as many trials, "
    "make a line. At each τ the "
    "learning rate, and whatever else the search tunes, is the best by validation; the score is "
    "that of the same trainings on test, the mean over the seeds ± the standard deviation between "
    "them. The τ with * is the best of its line by validation: no choice looks at a test score."
)
CLAIMS = (
    f"The claims of {SOURCE}, with statistics of our own: differences of test scores under each "
    "seed, in points of 100, which are above 0 where the claim holds; in brackets the 95 % t "
    "interval of their mean over the seeds. Of several comparisons of one thing the mean is taken "
    "seed by seed. "
    "A claim held where the intervals of all its differences lie above 0, and did not hold where "
    f"one lies below, from {SEEDS} seeds on; else it cannot be told. That data sets differ, or "
    "objectives, any pair of them can show: the more pairs, the wider their intervals "
    "(Bonferroni). What is the best, or the worst, is chosen for each seed by validation of the "
    "others. Only what was tuned over as many trials is compared. Small and large τ are the "
    "lower and the upper half of those that both sides have. All seeds share one teacher, its "
    "outputs and the views of augmented data: nothing here says how another teacher would do. "
    "There is no correction for the number of claims."
)
TEACHERS = (
    "How undecided teachers are at each τ: their relative entropy, and behind the stroke that "
    "without the most probable class. 0 is sure of one class, 1 prefers none. Students learn of "
    "the training split, under their augmentation if they have any. The charts have the mean of "
    "the softmax in sorted order there."
)
BY_TEACHER = (
    "Test scores by teacher, and its relative entropies at τ = 1 on what students learn of."
)
BY_STUDENT = (
    "Test scores by where the student starts, beside the same student on the labels alone, trained "
    "as long. In the last columns how undecided the student of the best τ is on test, at a "
    "temperature of 1."
)
BY_DATASET = (
    "The plateau begins at the lowest τ whose validation score is within the spread of the best "
    "one’s between seeds. How fine classes are, and whether the teacher’s pretraining had them, no "
    "study says."
)
NUMBERS = "The numbers of all lines"
CONTROLS = (
    "The teacher’s softmax at τ beside what keeps only some of it: “smoothed” is a smoothed label "
    "as undecided as the teacher’s mean softmax, “smoothed each” one for each example, “permuted "
    "after N” the softmax with its classes behind the N highest permuted."
)


_SETTINGS = {"adamw": "AdamW", "sgd": "SGD"}


def factor_in_words(name: str, value: Any) -> str:
    """A factor of a line as it is read: `batch size 64`, `AdamW`, `DKD`."""
    if name in ("dataset", "teacher", "student", "checkpoint", "supervision"):
        return str(value)
    if name == "objective":
        return Objective.kinds[value].title
    if name == "optimizer":
        return _SETTINGS.get(value, str(value))
    if name == "augmentation":
        return f"augmentation {str(value).replace(';', ',')}"
    if isinstance(value, bool):
        words = "standardised" if name == "standardise" else name.replace("_", " ")
        return words if value else f"not {words}"
    if name == "epochs":
        return count(value, "epoch")
    if name == TRIALS:
        return "1 trial" if value == 1 else f"best of {value} trials"
    return f"{SYMBOLS.get(name, name.replace('_', ' '))} {shown_value(value)}"


def teacher_in_words(origin: TeacherOrigin) -> str:
    """Where a teacher came from: `pretrained, 20 epochs, smoothing 0.1`."""
    if origin.epochs is None:
        return "given" if origin.model is not None else "a student of this study"
    first = "random weights" if origin.weights == "random" else origin.weights
    smoothing = [f"smoothing {origin.smoothing:g}"] if origin.smoothing else []
    return ", ".join([first, count(origin.epochs, "epoch"), *smoothing])


def student_in_words(origin: StudentOrigin) -> str:
    """What a student begins with: `pretrained, trained as teacher`."""
    first = "random weights" if origin.weights == "random" else origin.weights
    return first if origin.trained is None else f"{first}, trained as {origin.trained}"


def label(factors: Mapping[str, Any], names: Iterable[str]) -> str:
    """What of these names a line has, in words."""
    words = (
        factor_in_words(n, factors[n]) for n in names if n in factors and factors[n] is not None
    )
    return ", ".join(words)


def temperature_in_words(temperature: float | None) -> str:
    """Such as `τ 5`."""
    return "no τ" if temperature is None else f"τ {temperature:g}"


def where_in_words(each: Compared, names: Sequence[str]) -> str:
    """What a comparison is of."""
    return label(each.where, names) or "the only one"
