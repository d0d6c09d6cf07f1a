"""Tasks: one short file each, behind one contract."""

from kdsearch.tasks.base import IGNORED, PIXELS, Batch, Encoded, Settings, Task
from kdsearch.tasks.classification import Classification
from kdsearch.tasks.heads import head_weights
from kdsearch.tasks.image_classification import ImageClassification
from kdsearch.tasks.images import ImageProcessor
from kdsearch.tasks.lm import GENERATING, LanguageModelling, prompts_and_completions
from kdsearch.tasks.ner import Ner
from kdsearch.tasks.qa import QuestionAnswering
from kdsearch.tasks.translation import Translation, has_languages
from kdsearch.tasks.views import Views
from kdsearch.tasks.writing import Gumbel, Writer

TASKS: dict[str, Task] = {
    "classification": Classification(),
    "ner": Ner(),
    "qa": QuestionAnswering(),
    "translation": Translation(),
    "lm": LanguageModelling(),
    "image_classification": ImageClassification(),
}

__all__ = [
    "GENERATING",
    "IGNORED",
    "PIXELS",
    "TASKS",
    "Batch",
    "Classification",
    "Encoded",
    "Gumbel",
    "ImageClassification",
    "ImageProcessor",
    "LanguageModelling",
    "Ner",
    "QuestionAnswering",
    "Settings",
    "Task",
    "Translation",
    "Views",
    "Writer",
    "has_languages",
    "head_weights",
    "prompts_and_completions",
]
