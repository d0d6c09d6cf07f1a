"""What of a study does not fit the data and the models that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdsearch.errors import Problem
from kdsearch.search import Objective
from kdsearch.study.cases import TestCase, teacher_of, test_cases
from kdsearch.study.effective import (
    asked_layers,
    effective_settings,
    place_of,
    search_of,
    space_of,
)
from kdsearch.study.layers import named_layers, shown_layers
from kdsearch.study.model_files import config_of
from kdsearch.study.resolved import ResolvedDataset, ResolvedModel
from kdsearch.study.resources import ROLES
from kdsearch.study.schema import Study

_LAYER_FIELDS = ("encoder_layers", "num_hidden_layers", "n_layers", "num_layers", "n_layer")
_DECODER_FIELDS = ("decoder_layers", "num_decoder_layers")


def too_many_layers(study: Study, models: dict[str, ResolvedModel], place: str) -> list[Problem]:
    """Layers that are asked for and that a model does not have."""
    problems = []
    for where, model, wanted in dict.fromkeys(asked_layers(study)):
        donor = models.get(model)
        sides = None if donor is None or donor.path is None else _sides(config_of(Path(donor.path)))
        if sides is None:
            continue
        named, least = named_layers(wanted), min(sides)
        if (wanted > len(sides) * least) if named is None else (named[-1] >= least):
            each = " on each side" if named is not None and len(sides) > 1 else ""
            has = least if named is not None else len(sides) * least
            what = f"asks for {shown_layers(wanted)} of {model}, which has {has}{each}"
            remedy = f"use 0 to {least - 1}" if named is not None else ""
            problems.append(Problem(place=f"{place}: {where}", what=what, remedy=remedy))
    return problems


def _sides(config: dict[str, Any]) -> tuple[int, ...] | None:
    """The layers of a model; of an encoder-decoder those of its encoder and its decoder."""
    numbers = {field: value for field, value in config.items() if isinstance(value, int)}
    encoder = next((numbers[f] for f in _LAYER_FIELDS if f in numbers), None)
    if encoder is None or not config.get("is_encoder_decoder"):
        return None if encoder is None else (encoder,)
    return encoder, next((numbers[f] for f in _DECODER_FIELDS if f in numbers), encoder)


def unlabelled_problems(
    study: Study, datasets: dict[str, ResolvedDataset], place: str
) -> list[Problem]:
    """Training rows without labels, where the labels are asked for after all."""
    problems = {}
    for case in test_cases(study):
        train = datasets[case.dataset].splits["train"]
        where = f"{place}: datasets.{case.dataset}"
        what = f"{train.unlabelled} of {train.rows} training rows have no label"
        teacher = teacher_of(study, case)
        search = search_of(study, case)
        if train.unlabelled and search.taught and search.learns_labels:
            mixes = any(alpha < 1 for alpha in search.alpha or ())
            only = f"leave only 1 in {place_of(case)}.alpha, or " if mixes else ""
            remedy = f"{only}leave these rows out"
            needs = "α < 1" if mixes else " or ".join(search.distance)
            problems[where] = Problem(
                place=where, what=f"{what}, and {needs} needs them", remedy=remedy
            )
        if train.unlabelled == train.rows and teacher is None:
            who = case.search or "a student"
            remedy = f"leave {case.search or 'it'} out, or give labelled rows"
            problem = Problem(
                place=where, what=f"{what}, which is all that {who} learns from", remedy=remedy
            )
            problems[f"{where} {case.search}"] = problem
        if train.unlabelled == train.rows and teacher is not None and not teacher.given:
            remedy = "give a teacher that is already fine-tuned, or labelled rows"
            what = f"{what}, so {case.teacher} cannot be fine-tuned"
            problems[f"{where} {case.teacher}"] = Problem(place=where, what=what, remedy=remedy)
    return list(problems.values())


def class_problems(study: Study, datasets: dict[str, ResolvedDataset], place: str) -> list[Problem]:
    """Objectives that are no loss of their own with so few classes."""
    problems: dict[Problem, None] = {}
    for case in test_cases(study):
        labels = datasets[case.dataset].labels
        for kind in search_of(study, case).distance:
            fewest = Objective.kinds[kind].fewest_classes
            if labels and len(labels) < fewest:
                what = (
                    f"{kind} needs at least {fewest} classes, and {case.dataset} has {len(labels)}"
                )
                remedy = f"leave {kind} out, or give it other data sets by test_cases"
                where = f"{place}: {place_of(case)}.distance"
                problems[Problem(place=where, what=what, remedy=remedy)] = None
    return list(problems)


def equal_cases(
    study: Study,
    datasets: dict[str, ResolvedDataset],
    models: dict[str, ResolvedModel],
    place: str,
) -> list[Problem]:
    """Test cases that are one under two names: they would count twice in every comparison."""

    def content(name: str | None) -> object:
        if name is None:
            return None
        model = study.models[name]
        tokenizer = model.tokenizer if model.config is None or model.tokenizer == "words" else ""
        return models[name].digest, model.config, tokenizer or models[model.tokenizer].digest

    problems = []
    first: dict[str, TestCase] = {}
    for case in test_cases(study):
        teacher, student = teacher_of(study, case), study.students[case.student]
        names = teacher and (teacher.model, teacher.checkpoint, teacher.t_hs, teacher.t_ll)
        same = repr(
            (
                datasets[case.dataset].model_copy(update={"files": None}),
                [content(name) for name in names or ()],
                teacher and (teacher.fine_tune, teacher.labels, teacher.layers),
                (content(student.model), student.layers, space_of(study, case)),
                [effective_settings(study, case, role) for role in ROLES],
                search_of(study, case).walk,
            )
        )
        if same in first:
            what = f"{case} is {first[same]} under another name"
            problems.append(Problem(place=f"{place}: test_cases", what=what, remedy="keep one"))
        first.setdefault(same, case)
    return problems
