"""Classification of a sentence, or of a pair: {"texts": [...], "label": number}."""

from __future__ import annotations

from typing import Any

from kdsearch.study.cells import BadRowError
from kdsearch.study.grammar import LABELS
from kdsearch.study.labels import numbers_of
from kdsearch.study.tasks.base import Columns, Parser, Row, TaskSpec, check_text, is_missing


def _classification(columns: Columns) -> Parser:
    number_of = numbers_of(columns.labels, "label")
    verb = "is" if len(columns.text) == 1 else "are"

    def parse(texts: list[Any], label: Any) -> Row:
        for column, text in zip(columns.text, texts, strict=True):
            check_text(text, column)
        if not any(text.strip() for text in texts):
            raise BadRowError(f"{' and '.join(columns.text)} {verb} empty", "leave the row out")
        return {"texts": texts, "label": None if is_missing(label) else number_of(label)}

    return parse


def _group(row: Row) -> str:
    first: str = row["texts"][0]
    return first if first.strip() else "\n".join(row["texts"])


CLASSIFICATION = TaskSpec(
    metrics=("f1", "accuracy"),  # F1 is binary of the second of two labels, macro of more
    columns=(1, 2),
    needed=("text", "label", "labels"),
    generated=(("sentence",), "label", LABELS),
    fewest_labels=2,
    one_label=True,
    tokens=60,
    sample=100,
    gold="label",
    parser=_classification,
    texts=lambda row: tuple(row["texts"]),
    group=_group,
    stratum=lambda label: label,
    output_rows=lambda row, unanswerable: 1,
    width=lambda labels: labels,
    pipeline="text-classification",
)
