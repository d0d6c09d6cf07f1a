"""How the tokenizers of a study's models read its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import transformers

from kdsearch.distill.check import config_of, settings_for, teacher_models
from kdsearch.distill.layers import text_config
from kdsearch.distill.reader import Count, Reader
from kdsearch.distill.vocabulary import tokenizer_content, tokenizer_source
from kdsearch.errors import InputError, Problem, shortened_list
from kdsearch.study import (
    SPECS,
    SPLITS,
    Doubt,
    Reading,
    Resolved,
    Role,
    Row,
    TrainingSettings,
    source_of,
    test_cases,
)

_MOST_UNKNOWN = 0.95
"""A vocabulary that knows less than this of the validation split is of something else."""
_MANY_UNKNOWN = 0.1
_MANY_CUT = 0.2
_MANY_BEYOND = 0.01
_SPLIT = {"train": "training", "validation": "validation", "test": "test"}


def readings(
    resolved: Resolved, rows: Callable[[str], list[Row]], place: str
) -> tuple[Sequence[Reading], Sequence[Doubt], Sequence[Problem]]:
    """Each model's reading of each of its data sets; `rows` gives a split's by its digest.

    Models of one tokenizer read alike, so that each tokenizer reads a split once.
    """
    transformers.logging.set_verbosity_error()
    found: list[Reading] = []
    doubts: list[Doubt] = []
    problems: list[Problem] = []
    for dataset, groups in _alike(resolved).items():
        every = {
            split: rows(data.digest) for split, data in resolved.datasets[dataset].splits.items()
        }
        for alike in groups:
            models = list(alike.models)
            reader = Reader(resolved, dataset, models[0], every["train"], alike.settings)
            try:
                counts = {split: reader.count(split, every[split]) for split in SPLITS}
            except InputError as error:  # of messages that its tokenizer does not write
                where = f"{place}: {', '.join(f'models.{model}' for model in models)}"
                problems += (
                    Problem(place=where, what=f"{p.place} {p.what}", remedy=p.remedy)
                    for p in error.problems
                )
                continue
            for split, count in counts.items():
                found += (count.reading(dataset, model, split) for model in models)
            for said in (
                *_unknown_words(reader, models, counts, place),
                *_cut_rows(reader, alike, counts, place),
            ):
                if isinstance(said, Problem):
                    problems.append(said)
                else:
                    doubts.append(said)
            for model in models:
                problems += _embedding_problem(resolved, model, reader, every, place)
    return found, doubts, problems


@dataclass(kw_only=True)
class _Alike:
    """Models that read a data set alike: with one tokenizer, inputs of one length."""

    settings: TrainingSettings
    length_of: str
    """Where the study says what their length is."""
    models: dict[str, None] = field(default_factory=dict)


def _alike(resolved: Resolved) -> dict[str, list[_Alike]]:
    """By data set the models that read it, those that read it alike together."""
    wanted: dict[str, dict[tuple[object, ...], _Alike]] = {}
    for case in test_cases(resolved.study):
        if SPECS[resolved.datasets[case.dataset].task].reads == "pixels":
            continue
        groups = wanted.setdefault(case.dataset, {})
        student = resolved.study.students[case.student].model
        readers: list[tuple[str, Role]] = [
            *((model, "outputs") for model in teacher_models(resolved, case)),
            (student, "student"),
        ]
        for model, role in readers:
            settings = settings_for(resolved, case, role)
            content = tokenizer_content(*tokenizer_source(resolved, model))
            where = source_of(resolved.study, case, role, "max_length")
            key = (content, settings.max_length, settings.stride)
            group = groups.setdefault(key, _Alike(settings=settings, length_of=where))
            group.models[model] = None
    return {dataset: list(groups.values()) for dataset, groups in wanted.items()}


def _embedding_problem(
    resolved: Resolved, model: str, reader: Reader, every: Mapping[str, Sequence[Row]], place: str
) -> Iterator[Problem]:
    """Tokens of the data that a model has no embedding for; of all rows, as one is enough."""
    size = reader.size  # of a model at random
    if resolved.models[model].path is not None:
        size = getattr(text_config(config_of(resolved, model)), "vocab_size", size)
    if reader.vocabulary <= size:
        return
    using, tokens = 0, dict[str, None]()
    for split, rows in every.items():
        count, found = reader.outside(rows, split, size)
        using += count
        tokens |= dict.fromkeys(found)
    if using:
        what = (
            f"its tokenizer has {reader.vocabulary} tokens, its embeddings {size}: "
            f"{using} rows of {reader.dataset} use {shortened_list(list(tokens))}"
        )
        remedy = (
            "give the tokenizer it was trained with, or call resize_token_embeddings and train it"
        )
        yield Problem(place=f"{place}: models.{model}", what=what, remedy=remedy)


def _unknown_words(
    reader: Reader, models: Sequence[str], counts: Mapping[str, Count], place: str
) -> Iterator[Doubt | Problem]:
    """A problem where next to nothing of the validation split is known, else perhaps a doubt."""
    split = max(counts, key=lambda split: counts[split].unknown_share)
    refused = counts["validation"].unknown_share > _MOST_UNKNOWN
    if refused:
        split = "validation"
    share = counts[split].unknown_share
    if share <= _MANY_UNKNOWN:
        return
    where = f"{place}: {', '.join(f'models.{model}' for model in models)}"
    what = (
        f"{share:.0%} of the tokens of the {_SPLIT[split]} split of {reader.dataset} "
        "are unknown to its tokenizer"
    )
    remedy = "take a model for the data's language, or the tokenizer that belongs to it"
    if reader.of_words:
        remedy = "its tokenizer has the words of train: give more rows, or another tokenizer"
    made = Problem if refused else Doubt
    yield made(place=where, what=what, remedy=remedy)


def _cut_rows(
    reader: Reader, alike: _Alike, counts: Mapping[str, Count], place: str
) -> Iterator[Doubt | Problem]:
    """Of the split where most is lost: rows that are cut, entities and answers behind the cut.

    A problem where no training pair would be left.
    """
    split = max(counts, key=lambda split: (counts[split].beyond_share, counts[split].cut_share))
    left_out = reader.task in ("translation", "lm")
    nothing_left = left_out and counts["train"].cut == counts["train"].rows
    if nothing_left:
        split = "train"
    count, length, models = counts[split], reader.longest, list(alike.models)
    if count.cut_share <= _MANY_CUT and count.beyond_share <= _MANY_BEYOND:
        return
    rows = f"{count.cut} of {count.rows} {_SPLIT[split]}"
    if reader.task == "qa":
        what = f"{rows} questions are longer than {length // 4} tokens, a quarter of max_length"
        what += f"; {count.beyond} of {count.parts} answers are in no window as a whole"
    elif left_out:
        lost = "left out" if split == "train" else "cut"
        long = "pairs have a side of" if reader.task == "translation" else "rows have"
        what = f"{rows} {long} more than {length} tokens and are {lost}"
    else:
        what = f"{rows} rows are longer than {length} tokens"
        if count.parts is not None:
            what += f"; {count.beyond} of {count.parts} entities are beyond the cut"
    what += f", as {shortened_list(models)} read{'s' * (len(models) == 1)} them"
    remedy = f"raise {alike.length_of}, as far as the models have positions"
    made = Problem if nothing_left else Doubt
    yield made(place=f"{place}: datasets.{reader.dataset}", what=what, remedy=remedy)
