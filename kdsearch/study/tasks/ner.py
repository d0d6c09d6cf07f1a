"""Named entity recognition: {"words": [word, ...], "tags": [number, ...]}."""

from __future__ import annotations

from typing import Any

from kdsearch.errors import shortened
from kdsearch.study.cells import BadRowError
from kdsearch.study.grammar import TAGS
from kdsearch.study.labels import numbers_of, short_label
from kdsearch.study.tags import follows, to_iob2
from kdsearch.study.tasks.base import (
    Columns,
    Parser,
    Row,
    TaskSpec,
    check_text,
    is_missing,
    items,
)


def _ner(columns: Columns) -> Parser:
    written = columns.written or columns.labels
    number_of = numbers_of(written, "tag", names_only=columns.collected)

    def numbers(tags: list[Any]) -> list[int]:
        found = [number_of(tag) for tag in tags]
        names = [written[number] for number in found]
        if not columns.written:
            if not follows(names, columns.scheme):
                what = f"its tags are not in {columns.scheme}: {shortened(names)}"
                raise BadRowError(what, "write them as in its given teacher")
            return found
        converted = to_iob2(names)
        missing = next((tag for tag in converted if tag not in columns.labels), None)
        if missing is not None:
            there = ", ".join(map(short_label, columns.labels[:50]))
            raise BadRowError(f"its tags make {missing} in IOB2", f"available: {there}")
        return [columns.labels.index(tag) for tag in converted]

    def parse(texts: list[Any], tags: Any) -> Row:
        words = items(texts[0], columns.text[0])
        for word in words:
            check_text(word, columns.text[0])
        if not any(word.strip() for word in words):
            raise BadRowError("has no words", "leave the row out")
        if is_missing(tags):
            return {"words": words, "tags": None}
        given = items(tags, columns.label)
        if len(given) != len(words):
            what = f"has {len(words)} words in {columns.text[0]} and {len(given)} tags"
            raise BadRowError(f"{what} in {columns.label}", "each word needs one tag")
        return {"words": words, "tags": numbers(given)}

    return parse


NER = TaskSpec(
    metrics=("f1", "accuracy"),  # entities' F1, words' accuracy
    columns=(1,),
    needed=("text", "label"),
    generated=(("tokens",), "ner_tags", TAGS),
    fewest_labels=1,
    tokens=30,
    sample=100,
    gold="tags",
    parser=_ner,
    texts=lambda row: tuple(row["words"]),
    group=lambda row: "\n".join(row["words"]),
    stratum=frozenset,  # of whose tags a draw takes the rarest
    output_rows=lambda row, unanswerable: len(row["words"]),
    width=lambda labels: labels,
    pipeline="token-classification",
)
