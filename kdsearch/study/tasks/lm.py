"""Language modelling: {"prompt": text or messages, "completion": text}.

Messages are [{"role": "user", "content": text}, …], which the tokenizer's chat template writes. A
row with choices has all of them too, {…, "choices": [text, …]}: its completion is the right one.
"""

from __future__ import annotations

import json
import re
from typing import Any

from kdsearch.study.cells import BadRowError, literal
from kdsearch.study.tasks.base import Columns, Parser, Row, TaskSpec, check_text, is_missing
from kdsearch.study.tasks.choices import right_choice
from kdsearch.study.tasks.templates import filled

_LIKE_MESSAGES = re.compile(r"\s*\[\s*\{[^}]*[\"']role[\"']")
_SHAPE = 'give [{"role": "user", "content": "…"}, …]'
_LEAVE_OUT = "leave the row out"


def _lm(columns: Columns) -> Parser:
    asked, offered = columns.text, columns.choices
    if isinstance(offered, str):  # the last is that of the choices
        asked = asked[:-1]

    def parse(values: list[Any], said: Any) -> Row:
        by_name = dict(zip(columns.text, values, strict=True))
        prompt = (
            _prompt(by_name[asked[0]], asked[0])
            if columns.prompt is None
            else filled(columns.prompt, {name: by_name[name] for name in asked})
        )
        choices = None
        if offered is not None:
            column, given = "choices", offered
            if isinstance(offered, str):
                column, given = offered, by_name[offered]
            choices, said = right_choice(given, column, said, columns.label)
        if columns.prompt is None and offered is None and asked[0] == columns.label:
            prompt, said = _last_message(prompt, columns.label)
        elif not isinstance(prompt, str) and prompt[-1]["role"] == "assistant":
            raise BadRowError(
                f"its {asked[0]} end with an answer of the assistant",
                f"leave that message out; if it is what to learn: label: {asked[0]}",
            )
        row: Row = {"prompt": prompt, "completion": _completion(said, columns.label)}
        if choices is not None:
            row["choices"] = choices
        if offered is not None or columns.prompt is not None:
            row = _with_space(row)
        if columns.answer is not None and answer_of(row["completion"], columns.answer) is None:
            what = f"nothing in its {columns.label} is an answer by the pattern"
            raise BadRowError(what, f"{_LEAVE_OUT}, or change the pattern")
        return row

    return parse


def answer_of(text: str, pattern: str) -> str | None:
    """What the last match of a pattern holds, its group or else all of it; None without one."""
    answer = None
    for found in re.finditer(pattern, text):
        answer = found[found.re.groups]
    return answer


def pattern_problem(pattern: str) -> str | None:
    """What is wrong with a pattern of answers."""
    try:
        found = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"is not a regular expression: {error}"
    if found.groups > 1:
        return f"has {found.groups} groups; keep one, and write (?:…) for the others"
    return "matches an empty text; make it ask for a character" if found.search("") else None


def _last_message(prompt: Any, column: str) -> tuple[Any, str]:
    """The messages before the last one, and what that says."""
    if isinstance(prompt, str):
        raise BadRowError(f"its {column} is text, but stands for both sides", _SHAPE)
    *prompt, last = prompt
    if last["role"] != "assistant" or not prompt:
        what = f"its {column} do not end with an answer of the assistant"
        raise BadRowError(what, _LEAVE_OUT)
    return prompt, last["content"]


def _completion(value: Any, column: str) -> str:
    if is_missing(value):
        what = "empty" if isinstance(value, str) else "missing"
        raise BadRowError(f"its {column} is {what}", _LEAVE_OUT)
    check_text(value, column)
    return str(value)


def _with_space(row: Row) -> Row:
    """A row with a space between prompt and completion, where neither has one there."""
    if not isinstance(row["prompt"], str) or row["prompt"][-1].isspace():
        return row
    row["completion"] = _spaced(row["completion"])
    if "choices" in row:
        row["choices"] = [*map(_spaced, row["choices"])]
    return row


def _spaced(text: str) -> str:
    return text if text[0].isspace() else f" {text}"


def _prompt(value: Any, column: str) -> str | list[dict[str, str]]:
    if hasattr(value, "tolist"):
        value = value.tolist()  # of a .parquet
    if isinstance(value, str) and _LIKE_MESSAGES.match(value):  # a cell of a .csv
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = literal(value)  # as pandas writes it there
        if value is None:
            remedy = f'{_SHAPE}; if it is text, say so: prompt: "{{{column}}}" in place of text'
            raise BadRowError(f"its {column} looks like messages and cannot be read", remedy)
    if not isinstance(value, list):
        check_text(value, column)
        if not value.strip():
            raise BadRowError(f"its {column} is empty", _LEAVE_OUT)
        return str(value)
    if not value:
        raise BadRowError(f"its {column} has no messages", _LEAVE_OUT)
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
    metrics=("likelihood", "exact_match", "multiple_choice", "rouge_l"),
    columns=(1,),
    needed=("text", "label"),
    generated=(("prompt",), "completion", ()),
    writes=True,
    answers=True,
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
