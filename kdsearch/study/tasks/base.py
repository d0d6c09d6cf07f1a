"""What a task is, apart from its models: a value of plain fields and small functions of rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

from kdsearch.errors import shortened
from kdsearch.study.cells import BadRowError, listed
from kdsearch.study.tags import Scheme

Row = dict[str, Any]
Parser = Callable[[list[Any], Any], Row]
"""From what the columns of a raw row hold, texts and label, to a checked row."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What to read of a data set, and how its scores are computed."""

    task: str
    text: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    """Of ner, empty until they have been collected from the data."""
    metric: str
    languages: tuple[str, str] | None = None
    collected: bool = False
    """Whether the labels were collected from the data, so that numbers mean nothing."""
    group: str | None = None
    """The column that says which training rows belong together; None: what the task says."""
    written: tuple[str, ...] = ()
    """Of ner: the tags of the data in the order of their numbers, where IOB2 is made of them."""
    scheme: Scheme = "IOB2"
    """Of ner: that of the data's tags."""
    unanswerable: bool = False
    """Of qa: whether a question may have no answer."""
    prompt: str | None = None
    """Of lm: what is made of the columns of text, as `{column}` in a template; None: the first."""
    choices: str | tuple[str, ...] | None = None
    """Of lm: the column of each row's choices, the last of `text`; or the choices of every row."""
    answer: str | None = None
    """Of lm: the pattern of a final answer, which every completion has."""
    also: tuple[str, ...] = ()
    """Further metrics."""
    published: bool = False
    """Whether the rows are somebody else's, and stay as they were when first read."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """All that is known of a task without torch; its torch side is in `kdsearch/tasks`."""

    reads: Literal["text", "pixels"] = "text"
    """What its models read: tokens of texts, or images, for which there is no tokenizer."""
    metrics: tuple[str, ...]
    """The default first."""
    largest_score: float = 1.0
    """Of what is right throughout."""
    columns: tuple[int, ...]
    """How many columns a model may read."""
    needed: tuple[str, ...]
    """What a data set of one's own files must say."""
    usual: tuple[tuple[str, ...], str] = ((), "")
    """Text and label of one's own files, where nearly all data sets have the same columns."""
    generated: tuple[tuple[str, ...], str, tuple[str, ...]]
    """Text and label of the rows that the grammar makes, and their labels."""
    fewest_labels: int = 0
    """0: it has no labels."""
    one_label: bool = False
    """Whether a row has one of the labels as a whole."""
    has_languages: bool = False
    has_unanswerable: bool = False
    writes: bool = False
    """Whether its models write texts, which a teacher's students may learn on."""
    answers: bool = False
    """Whether such a text comes to an answer that is right or wrong."""
    max_length: int = 128
    """In tokens, where the study says nothing."""
    tokens: int
    """Of a row, about: a guess, since nothing is tokenized before a training."""
    sample: int
    """How many validation rows a given teacher is tried on: windows and beams take their time."""
    gold: str
    """The field of a row that holds what a model should say."""
    parser: Callable[[Columns], Parser]
    texts: Callable[[Row], tuple[str, ...]]
    """What a model reads of a row."""
    group: Callable[[Row], str]
    """What rows that must not be parted have in common: the context, the premise or the text."""
    group_column: int = 0
    """Which of the columns of text that is."""
    stratum: Callable[[Any], Hashable]
    """Of what a model should say, what is spread evenly over splits that are drawn."""
    output_rows: Callable[[Row, bool], float]
    """About how many rows of a teacher's outputs a row of data has; whether there may be no answer
    is told too."""
    width: Callable[[int], int] | None
    """How many numbers such a row of outputs has with so many labels; None: hidden states."""
    pipeline: str
    """The Hub's tag of its models."""
    auto_class: str | None = None
    """What transformers loads a model with, where transformers 5 has no pipeline for it."""

    @property
    def reader(self) -> str:
        """What of a model's files says how it reads a row."""
        return "tokenizer" if self.reads == "text" else "image processor"


class NoAnswerError(BadRowError):
    """A question without an answer, in a data set whose questions have one."""


def items(value: Any, column: str) -> list[Any]:
    """The parts of a list, in any of the forms it may have."""
    found = listed(value)
    if found is None and isinstance(value, str):
        what = f"its {column} is in brackets, but neither JSON nor a Python list: "
        raise BadRowError(what + shortened(value), 'give ["a", "b"], or words with spaces between')
    if not isinstance(found, list | tuple):
        remedy = "give a list, or text with spaces between words"
        raise BadRowError(f"its {column} is not a list", remedy)
    return list(found)


def check_text(value: Any, column: str) -> None:
    """Refuse what is no text, or holds the halves of characters that JSON can spell."""
    if not isinstance(value, str):
        raise BadRowError(f"its {column} is missing or not text")
    if not encodable(value):
        raise BadRowError(f"its {column} holds half a surrogate pair")


def encodable(text: str) -> bool:
    """Whether a text has no halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_missing(value: Any) -> bool:
    """None, an empty cell of a .csv, or the NaN that pandas puts in its place."""
    return value is None or is_empty(value) or (isinstance(value, float) and value != value)


def is_empty(value: Any) -> bool:
    """A text of nothing but spaces."""
    return isinstance(value, str) and not value.strip()
