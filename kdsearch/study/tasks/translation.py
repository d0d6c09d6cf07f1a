"""Translation: {"source": text, "target": text}."""

from __future__ import annotations

from typing import Any

from kdsearch.study.cells import BadRowError
from kdsearch.study.tasks.base import Columns, Parser, Row, TaskSpec, check_text


def _translation(columns: Columns) -> Parser:
    names = (columns.text[0], columns.label)

    def parse(texts: list[Any], target: Any) -> Row:
        for column, text in zip(names, (texts[0], target), strict=True):
            check_text(text, column)
            if not text.strip():
                raise BadRowError(f"its {column} is empty", "leave the row out")
        return {"source": texts[0], "target": target}

    return parse


TRANSLATION = TaskSpec(
    metrics=("bleu", "chrf"),  # sacrebleu's
    largest_score=100.0,
    columns=(1,),
    needed=("text", "label"),
    generated=(("source",), "target", ()),
    has_languages=True,
    writes=True,
    tokens=60,
    sample=8,
    gold="target",
    parser=_translation,
    texts=lambda row: (row["source"],),
    group=lambda row: str(row["source"]),
    stratum=lambda target: 0,
    output_rows=lambda row, unanswerable: len(row["target"]) / 3.5 + 2,
    width=None,
    pipeline="translation",
    auto_class="AutoModelForSeq2SeqLM",
)
