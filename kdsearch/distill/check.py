"""Finding out before a search whether its models can be built, without building any weights."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import CONFIG_MAPPING, AutoConfig, AutoTokenizer

from kdsearch.agenda import DataSpec
from kdsearch.distill.models import random_config, truncate
from kdsearch.errors import InputError, Problem, first_line
from kdsearch.study import Resolved, TestCase, given_labels, test_cases, weight_files
from kdsearch.tasks import TASKS, has_languages

_SHORTEST_LENGTH = 8
"""In tokens, the special ones among them."""
_SHORTEST_WINDOW = 24
"""In tokens: a quarter for the question, at most half shared, and some to move on by."""


def check_models(resolved: Resolved, place: str) -> None:
    """Build each model of the study, read from the file `place`, without weights.

    Raises `InputError` with every one that cannot be built, cut or given inputs this long, and
    with teachers and students that do not go together.
    """
    transformers.logging.set_verbosity_error()
    _tokenizer.cache_clear()
    _content.cache_clear()
    _check_weights.cache_clear()
    study = resolved.study
    used: set[tuple[str, str, int | None, str]] = set()
    for case in test_cases(study):
        student = study.students[case.student]
        for name in (*_teacher_models(resolved, case), student.model):
            used.add((f"models.{name}", name, None, case.dataset))
        if student.layers is not None:
            used.add((f"students.{case.student}", student.model, student.layers, case.dataset))
    problems = dict.fromkeys(_given_problems(resolved, place))
    problems |= dict.fromkeys(_length_problems(resolved, place))
    problems |= dict.fromkeys(_metric_problems(resolved, place))
    for where, name, layers, dataset in sorted(used, key=str):
        try:
            problem = _problem(resolved, name, layers, dataset)
        except InputError as error:
            problem = "; ".join(f"{p.what} ({p.mend})" for p in error.problems)
        except Exception as error:  # whatever transformers raises for a configuration
            problem = " ".join(str(error).split())[:300] or type(error).__name__
            if "trust_remote_code" in str(error):
                problem = (
                    "needs Python code that comes with it, which is not run; if you trust it with "
                    f"this machine: models.{name}.trust_remote_code: true"
                )
        if problem:
            problems[Problem(place=f"{place}: {where}", what=problem)] = None
    if not problems:
        problems |= dict.fromkeys(_pair_problems(resolved, place))
    if problems:
        raise InputError(problems)


def _teacher_models(resolved: Resolved, case: TestCase) -> tuple[str, ...]:
    teacher = resolved.study.teachers[case.teacher]
    return (*filter(None, [teacher.model]), *teacher.given.values())


def _given_problems(resolved: Resolved, place: str) -> Iterator[Problem]:
    """Given teachers whose number of outputs is not that of their labels."""
    for case in test_cases(resolved.study):
        teacher, data = resolved.study.teachers[case.teacher], resolved.datasets[case.dataset]
        if TASKS[data.task].wide:
            continue
        for model in teacher.given.values():
            found = resolved.models[model]
            labels = given_labels(teacher, found) if data.labels else ("start", "end")
            try:
                outputs = _config(resolved, model).num_labels
            except Exception:  # which is said of the model itself
                continue
            if labels is not None and outputs != len(labels):
                what = f"{model} has {outputs} outputs, for {len(labels)} labels"
                yield Problem(place=f"{place}: teachers.{case.teacher}", what=what)


def _length_problems(resolved: Resolved, place: str) -> Iterator[Problem]:
    """Lengths in which nothing fits beside the special tokens, windows that hardly move on."""
    training = resolved.study.training
    for name, data in resolved.datasets.items():
        own = resolved.study.datasets[name].max_length
        settings = training.for_task(data.task, own)
        length, stride = settings.max_length, settings.stride
        assert length is not None
        where = f"{place}: {'training' if own is None else f'datasets.{name}'}.max_length"
        shortest = _SHORTEST_LENGTH if stride is None else _SHORTEST_WINDOW
        if length < shortest:
            what = f"{name} would be read {length} tokens at a time"
            yield Problem(place=where, what=what, mend=f"make it {shortest} at least")
        elif stride is not None and stride > length // 2:
            what = f"windows of {length} tokens of {name} would share {stride}"
            mend = f"make it {length // 2} at most, half of a window"
            yield Problem(place=f"{place}: training.stride", what=what, mend=mend)


def _metric_problems(resolved: Resolved, place: str) -> Iterator[Problem]:
    """Metrics that need a package which is not there: BLEU of Japanese and Korean."""
    for name, data in resolved.datasets.items():
        spec = DataSpec(
            task=data.task,
            metric=data.metric,
            labels=data.labels,
            languages=data.languages,
            **{split: data.splits[split].digest for split in data.splits},
        )
        try:
            TASKS[data.task].signature(spec)
        except RuntimeError as error:
            what = f"{data.metric} cannot be computed: {' '.join(str(error).split())}"
            mend = "install what it asks for on every node, or take metric: chrf"
            yield Problem(place=f"{place}: datasets.{name}.metric", what=what, mend=mend)


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


def _problem(resolved: Resolved, name: str, layers: int | None, dataset: str) -> str | None:
    task = TASKS[resolved.datasets[dataset].task]
    fields = resolved.study.models[name].config
    kind = (fields or {}).get("model_type")
    if kind is not None and kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(kind, CONFIG_MAPPING.keys(), n=1)
        advice = f"; did you mean {near[0]}?" if near else ""
        return f"transformers knows no model_type {kind}{advice}"
    if fields is not None and (unknown := _unknown_fields(fields)):
        return unknown
    config = _config(resolved, name)
    _check_weights(resolved.models[name].path)
    wanted = resolved.datasets[dataset].task
    if config.is_encoder_decoder and not task.wide:
        if task.per_token:
            return f"{config.model_type} is an encoder-decoder; {wanted} needs an encoder"
        if type(config) not in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            return f"{config.model_type} is an encoder-decoder without a head for {wanted}"
    if task.wide and not config.is_encoder_decoder:
        return f"{config.model_type} is no encoder-decoder, which {wanted} needs"
    with torch.device("meta"):
        model = task.head.from_config(config, trust_remote_code=_trusted(resolved, name))
    if layers is not None:
        truncate(model, layers)
    return _tokenizer_problem(resolved, name, dataset) or _too_long(resolved, config, dataset)


@lru_cache(maxsize=32)
def _check_weights(path: str | None) -> None:
    """Raise `InputError` where a model's weights cannot be read without running anything."""
    for file in weight_files(Path(path)) if path is not None else ():
        try:
            if file.suffix == ".safetensors":
                safe_open(file, framework="pt")
            else:
                torch.load(file, map_location="meta", weights_only=True)
        except Exception as error:  # torch's and safetensors' have no common class
            what = f"{file.name} holds no plain weights: {first_line(error)}"
            raise InputError.one(file, what, "give model.safetensors") from None


def _too_long(resolved: Resolved, config: Any, dataset: str) -> str | None:
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and "roberta" in config.model_type:
        positions -= 2  # they are counted from behind the padding token's
    own = resolved.study.datasets[dataset].max_length
    task = resolved.datasets[dataset].task
    length = resolved.study.training.for_task(task, own).max_length
    assert length is not None
    if isinstance(positions, int) and 0 < positions < length:
        where = "training" if own is None else f"datasets.{dataset}"
        return (
            f"has {positions} positions; {dataset} is read {length} tokens at a time: "
            f"make {where}.max_length no more than {positions}"
        )
    return None


def _tokenizer_problem(resolved: Resolved, name: str, dataset: str) -> str | None:
    """A tokenizer that cannot pad, point into its text or name the languages of the data."""
    data = resolved.datasets[dataset]
    tokenizer = _tokenizer(*_tokenizer_path(resolved, name))
    explicit = resolved.study.datasets[dataset].languages
    if tokenizer is None:  # of the training split's words
        return None if explicit is None else f"words have no language codes; {dataset} names some"
    if tokenizer.pad_token_id is None:
        return "its tokenizer has no padding token"
    task = TASKS[data.task]
    if task.per_token and not task.wide and not tokenizer.is_fast:
        return f"its tokenizer does not say where a token stands in its text; {data.task} needs it"
    if not task.wide:
        return None
    if not has_languages(tokenizer):
        if explicit is None:
            return None
        return f"its tokenizer has no language codes; remove datasets.{dataset}.languages"
    if data.languages is None:
        return f"its tokenizer needs two language codes: datasets.{dataset}.languages"
    # A word of the vocabulary is no code: mBART's has the word `de` beside the code `de_DE`.
    known = list(getattr(tokenizer, "lang_code_to_token", tokenizer.all_special_tokens))
    for code in data.languages:
        if code not in known:
            near = difflib.get_close_matches(code, known, n=3, cutoff=0.3)
            advice = f"; did you mean {' or '.join(near)}?" if near else ""
            return f"its tokenizer knows no language {code} of {dataset}{advice}"
    return None


def _pair_problems(resolved: Resolved, place: str) -> Iterator[Problem]:
    """Teachers and students that must read the same tokens and do not."""
    for case in test_cases(resolved.study):
        task = resolved.datasets[case.dataset].task
        if not TASKS[task].per_token:
            continue
        student = resolved.study.students[case.student].model
        for teacher in _teacher_models(resolved, case):
            where = f"{place}: students.{case.student}"
            if _vocabulary(resolved, teacher) != _vocabulary(resolved, student):
                what = (
                    f"{student} and the teacher {teacher} have different tokenizers; "
                    f"{task} compares their outputs token by token"
                )
                mend = "take models of one tokenizer; only classification can do without"
                yield Problem(place=where, what=what, mend=mend)
            elif TASKS[task].wide and _width(resolved, teacher) != _width(resolved, student):
                what = (
                    f"{student} has {_width(resolved, student)} outputs, and the teacher "
                    f"{teacher} {_width(resolved, teacher)}"
                )
                yield Problem(place=where, what=what, mend="take models of one vocabulary")


def _config(resolved: Resolved, name: str) -> Any:
    path = resolved.models[name].path
    if path is not None:
        return AutoConfig.from_pretrained(Path(path), trust_remote_code=_trusted(resolved, name))
    return random_config(resolved.study.models[name].config or {})


def _trusted(resolved: Resolved, name: str) -> bool:
    return resolved.study.models[name].trust_remote_code


def _width(resolved: Resolved, name: str) -> object:
    """How many outputs a model for translation has."""
    if resolved.models[name].path is not None:
        return _config(resolved, name).vocab_size
    tokenizer = _tokenizer(*_tokenizer_path(resolved, name))
    return "words" if tokenizer is None else len(tokenizer)


def _vocabulary(resolved: Resolved, name: str) -> str:
    return _content(*_tokenizer_path(resolved, name))


@lru_cache(maxsize=32)
def _content(path: str | None, trusted: bool) -> str:
    """What makes a tokenizer: all of it but how it pads and cuts, and for which languages."""
    tokenizer = _tokenizer(path, trusted)
    if tokenizer is None:
        return "words"
    if not tokenizer.is_fast:
        return json.dumps(tokenizer.get_vocab(), sort_keys=True)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    state = ("padding", "truncation", *(["post_processor"] * has_languages(tokenizer)))
    rest = {key: value for key, value in content.items() if key not in state}
    return json.dumps(rest, sort_keys=True)


def _tokenizer_path(resolved: Resolved, name: str) -> tuple[str | None, bool]:
    """Where the tokenizer of a model lies, and whether code of its may run.

    None for the words of the training split.
    """
    model = resolved.study.models[name]
    if model.config is not None:
        name = model.tokenizer
    if model.config is not None and name == "words":
        return None, False
    return resolved.models[name].path, _trusted(resolved, name)


@lru_cache(maxsize=32)
def _tokenizer(path: str | None, trusted: bool) -> Any:
    if path is None:
        return None
    return AutoTokenizer.from_pretrained(Path(path), trust_remote_code=trusted)
