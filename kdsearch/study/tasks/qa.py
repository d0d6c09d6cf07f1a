"""Extractive question answering, as in SQuAD.

{"question": text, "context": text, "answers": [{"text": text, "start": 0}]}; without answers where
the data set has unanswerable questions.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from kdsearch.errors import shortened
from kdsearch.study.cells import BadRowError, literal
from kdsearch.study.labels import is_whole
from kdsearch.study.tasks.base import (
    Columns,
    NoAnswerError,
    Parser,
    Row,
    TaskSpec,
    check_text,
    is_empty,
    is_missing,
)


def _qa(columns: Columns) -> Parser:
    def parse(texts: list[Any], answers: Any) -> Row:
        for column, text in zip(columns.text, texts, strict=True):
            check_text(text, column)
            if not text.strip():
                raise BadRowError(f"its {column} is empty", "leave the row out")
        question, context = texts
        row: Row = {"question": question, "context": context, "answers": None}
        if is_missing(answers):
            return row
        given = _answers(answers)
        if not columns.published:
            given = [(text, start) for text, start in given if not is_empty(text)]
        row["answers"] = [_answer(context, text, start) for text, start in given]
        if not row["answers"] and not columns.unanswerable:
            remedy = "leave the row out, or set unanswerable: true"
            raise NoAnswerError("its context has no answer", remedy)
        return row

    return parse


def _answers(value: Any) -> list[tuple[Any, Any]]:
    """SQuAD's {"text": [...], "answer_start": [...]}, or a list of one of these per answer."""
    remedy = 'give {"text": [...], "answer_start": [...]}'
    if isinstance(value, str):
        try:
            read = json.loads(value)  # as a cell of a .csv has it
        except (ValueError, RecursionError):
            read = literal(value)  # as pandas writes it there
        if read is None:
            raise BadRowError(f"its answers are text: {value[:40]!r}", remedy)
        value = read
    if hasattr(value, "tolist"):
        value = value.tolist()  # of a .parquet
    if isinstance(value, dict):
        given: tuple[Any, Any] = (value.get("text"), value.get("answer_start"))
        texts, starts = (part.tolist() if hasattr(part, "tolist") else part for part in given)
        if isinstance(texts, list) and isinstance(starts, list):
            if len(texts) == len(starts):
                return list(zip(texts, starts, strict=True))
            raise BadRowError(f"has {len(texts)} answers and {len(starts)} offsets", remedy)
    if isinstance(value, list) and all(isinstance(answer, dict) for answer in value):
        return [(answer.get("text"), answer.get("answer_start")) for answer in value]
    raise BadRowError("its answers are not in SQuAD's form", remedy)


def _answer(context: str, text: Any, start: Any) -> Row:
    check_text(text, "answer")
    if not text.strip():
        raise BadRowError("one of its answers is empty", "leave the answer out")
    if not is_whole(start):
        raise BadRowError(
            f"the offset of its answer {shortened(text)} is {shortened(start)}",
            "give a whole number",
        )
    start = int(start)
    found = context[start : start + len(text)] if start >= 0 else ""
    if found != text:
        at = context.find(text)
        remedy = f"the context has it at {at}" if at >= 0 else _nowhere(context, text)
        raise BadRowError(
            f"its answer {shortened(text)} is not at the offset {shortened(start)}, "
            f"where {shortened(found)} is",
            remedy,
        )
    return {"text": text, "start": start}


def _nowhere(context: str, text: str) -> str:
    """That a context lacks an answer; or has it in characters that look the same."""
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        if unicodedata.normalize(form, text) in unicodedata.normalize(form, context):
            written = next((f for f in ("NFC", "NFD") if unicodedata.is_normalized(f, context)), "")
            other = f" ({written})" if written else ""
            return f"the context has it in another Unicode form{other}: write both in the same one"
    return "it is nowhere in the context"


QA = TaskSpec(
    metrics=("f1", "exact_match"),  # SQuAD's
    columns=(2,),
    needed=(),
    usual=(("question", "context"), "answers"),
    generated=(("question", "context"), "answers", ()),
    has_unanswerable=True,
    max_length=384,  # of a window, as in the paper's App. B
    tokens=220,
    sample=20,
    gold="answers",
    parser=_qa,
    texts=lambda row: (row["question"], row["context"]),
    group=lambda row: str(row["context"]),
    group_column=-1,
    stratum=bool,  # whether there is an answer
    output_rows=lambda row, unanswerable: len(row["context"]) / 4 + unanswerable,  # [CLS]
    width=lambda labels: 2,
    pipeline="question-answering",
    auto_class="AutoModelForQuestionAnswering",
)
