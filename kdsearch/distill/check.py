"""Finding out before a search whether its models can be built, without building any weights."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer

from kdsearch.distill.models import random_config, truncate
from kdsearch.errors import InputError, Problem
from kdsearch.study import Resolved, given_labels, test_cases
from kdsearch.tasks import TASKS


def check_models(resolved: Resolved, place: str) -> None:
    """Build each model of the study, read from the file `place`, without weights.

    Raises `InputError` with every one that cannot be built, cut or given inputs this long.
    """
    transformers.logging.set_verbosity_error()
    study = resolved.study
    used: set[tuple[str, str, int | None, str]] = set()
    for case in test_cases(study):
        teacher, student = study.teachers[case.teacher], study.students[case.student]
        task = resolved.datasets[case.dataset].task
        for name in (*filter(None, [teacher.model]), *teacher.given.values(), student.model):
            used.add((f"models.{name}", name, None, task))
        if student.layers is not None:
            used.add((f"students.{case.student}", student.model, student.layers, task))
    problems = dict.fromkeys(_given_problems(resolved, place))
    for where, name, layers, task in sorted(used, key=str):
        try:
            problem = _problem(resolved, name, layers, task)
        except Exception as error:  # whatever transformers raises for a configuration
            problem = " ".join(str(error).split())[:300] or type(error).__name__
        if problem:
            problems[Problem(place=f"{place}: {where}", what=problem)] = None
    if problems:
        raise InputError(problems)


def _given_problems(resolved: Resolved, place: str) -> Iterator[Problem]:
    """Given teachers whose number of outputs is not that of their labels."""
    for name, teacher in resolved.study.teachers.items():
        for model in teacher.given.values():
            found = resolved.models[model]
            labels = given_labels(teacher, found)
            outputs = AutoConfig.from_pretrained(Path(found.path or "")).num_labels
            if labels is not None and outputs != len(labels):
                what = f"{model} has {outputs} outputs, for {len(labels)} labels"
                yield Problem(place=f"{place}: teachers.{name}", what=what)


def _unknown_fields(fields: dict[str, Any]) -> str | None:
    """Fields that transformers would take without a word and that change nothing."""
    default = CONFIG_MAPPING[fields["model_type"]]()
    known = {*default.to_dict(), *default.attribute_map, "attn_implementation"}
    texts = []
    for name in fields.keys() - known:
        near = difflib.get_close_matches(name, known, n=1)
        texts.append(
            f"config.{name} is no field of it" + (f"; did you mean {near[0]}?" if near else "")
        )
    return ", ".join(sorted(texts)) or None


def _problem(resolved: Resolved, name: str, layers: int | None, task: str) -> str | None:
    fields = resolved.study.models[name].config
    path = resolved.models[name].path
    kind = (fields or {}).get("model_type")
    if kind is not None and kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(kind, CONFIG_MAPPING.keys(), n=1)
        advice = f"; did you mean {near[0]}?" if near else ""
        return f"transformers knows no model_type {kind}{advice}"
    if fields is not None and (unknown := _unknown_fields(fields)):
        return unknown
    config: Any = AutoConfig.from_pretrained(Path(path)) if path else random_config(fields or {})
    if config.is_encoder_decoder:
        return f"{config.model_type} is an encoder-decoder; {task} needs an encoder"
    with torch.device("meta"):
        model = TASKS[task].head.from_config(config)
    if layers is not None:
        truncate(model, layers)
    if path is not None and AutoTokenizer.from_pretrained(Path(path)).pad_token_id is None:
        return "its tokenizer has no padding token"
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and "roberta" in config.model_type:
        positions -= 2  # they are counted from behind the padding token's
    length = resolved.study.training.max_length
    if isinstance(positions, int) and 0 < positions < length:
        return f"has {positions} positions; training.max_length is {length}: make it no more"
    return None
