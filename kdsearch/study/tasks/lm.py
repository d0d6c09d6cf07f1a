"""Language modelling: {"prompt": text or messages, "completion": text}.

Messages are [{"role": "user", "content": text}, …], which the tokenizer's chat template writes.
"""

from __future__ import annotations

import json
import re
from typing import Any

from kdsearch.study.cells import BadRowError, literal
from kdsearch.study.tasks.base import Columns, Parser, Row, TaskSpec, check_text

_LIKE_MESSAGES = re.compile(r"\s*\[\s*\{[^}]*[\"']role[\"']")
_SHAPE = 'give [{"role": "user", "content": "…"}, …]'


def _lm(columns: Columns) -> Parser:
    prompt_column, label = columns.text[0], columns.label

    def parse(texts: list[Any], completion: Any) -> Row:
        prompt = _prompt(texts[0], prompt_column)
        if prompt_column == label:
            if isinstance(prompt, str):
                raise BadRowError(f"its {label} is text, but stands for both sides", _SHAPE)
            *prompt, last = prompt
            if last["role"] != "assistant" or not prompt:
                what = f"its {label} do not end with an answer of the assistant"
                raise BadRowError(what, "leave the row out")
            completion = last["content"]
        elif not isinstance(prompt, str) and prompt[-1]["role"] == "assistant":
            raise BadRowError(
                f"its {prompt_column} end with an answer of the assistant",
                f"leave that message out; if it is what to learn: label: {prompt_column}",
            )
        check_text(completion, label)
        if not completion.strip():
            raise BadRowError(f"its {label} is empty", "leave the row out")
        return {"prompt": prompt, "completion": completion}

    return parse


def _prompt(value: Any, column: str) -> str | list[dict[str, str]]:
    if hasattr(value, "tolist"):
        value = value.tolist()  # of a .parquet
    if isinstance(value, str) and _LIKE_MESSAGES.match(value):  # a cell of a .csv
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = literal(value)  # as pandas writes it there
        if value is None:
            raise BadRowError(f"its {column} looks like messages and cannot be read", _SHAPE)
    if not isinstance(value, list):
        check_text(value, column)
        if not value.strip():
            raise BadRowError(f"its {column} is empty", "leave the row out")
        return str(value)
    if not value:
        raise BadRowError(f"its {column} has no messages", "leave the row out")
    messages = []
    for message in value:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise BadRowError(f"its {column} is not a list of messages", _SHAPE)
        for field in ("role", "content"):
            check_text(message[field], f"message's {field}")
        messages.append({"role": message["role"], "content": message["content"]})
    return messages


def texts_of(row: Row) -> tuple[str, ...]:
    """The texts of a row's prompt."""
    prompt = row["prompt"]
    return (prompt,) if isinstance(prompt, str) else tuple(each["content"] for each in prompt)


LM = TaskSpec(
    metrics=("likelihood", "exact_match"),
    columns=(1,),
    needed=("text", "label"),
    generated=(("prompt",), "completion", ()),
    max_length=512,
    tokens=250,
    sample=8,
    gold="completion",
    parser=_lm,
    texts=texts_of,
    group=lambda row: json.dumps(row["prompt"]),
    stratum=lambda completion: 0,
    output_rows=lambda row, unanswerable: len(row["completion"]) / 3.5 + 2,
    width=None,
    pipeline="text-generation",
)
