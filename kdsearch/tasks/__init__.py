"""Tasks: one short file each, behind one contract."""

from kdsearch.tasks.base import IGNORED, Batch, Encoded, Settings, Task
from kdsearch.tasks.classification import Classification
from kdsearch.tasks.ner import Ner
from kdsearch.tasks.qa import QuestionAnswering
from kdsearch.tasks.translation import Translation, has_languages, head_weights

TASKS: dict[str, Task] = {
    "classification": Classification(),
    "ner": Ner(),
    "qa": QuestionAnswering(),
    "translation": Translation(),
}

__all__ = [
    "IGNORED",
    "TASKS",
    "Batch",
    "Classification",
    "Encoded",
    "Ner",
    "QuestionAnswering",
    "Settings",
    "Task",
    "Translation",
    "has_languages",
    "head_weights",
]
