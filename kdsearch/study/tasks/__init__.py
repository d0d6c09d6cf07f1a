"""What the study knows of each task: a file with one value each; see `TaskSpec`."""

from collections.abc import Mapping
from typing import Literal

from kdsearch.study.tasks.base import Columns, NoAnswerError, Row, TaskSpec
from kdsearch.study.tasks.classification import CLASSIFICATION
from kdsearch.study.tasks.image_classification import IMAGE_CLASSIFICATION
from kdsearch.study.tasks.lm import LM
from kdsearch.study.tasks.ner import NER
from kdsearch.study.tasks.qa import QA
from kdsearch.study.tasks.translation import TRANSLATION

TaskName = Literal["classification", "ner", "qa", "translation", "lm", "image_classification"]
SPECS: Mapping[str, TaskSpec] = {
    "classification": CLASSIFICATION,
    "ner": NER,
    "qa": QA,
    "translation": TRANSLATION,
    "lm": LM,
    "image_classification": IMAGE_CLASSIFICATION,
}


def largest_score(metric: str) -> float:
    """The score of what is right throughout."""
    return next(spec.largest_score for spec in SPECS.values() if metric in spec.metrics)


__all__ = ["SPECS", "Columns", "NoAnswerError", "Row", "TaskName", "TaskSpec", "largest_score"]
