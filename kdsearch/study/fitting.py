"""What of a study does not fit the data and the models that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdsearch.errors import Problem
from kdsearch.search import DATA, OBJECTIVE, Objective, SequenceKd
from kdsearch.study.cases import TestCase, start_cases, teacher_of, test_cases
from kdsearch.study.effective import (
    asked_layers,
    effective_settings,
    place_of,
    search_of,
    source_of,
    space_of,
)
from kdsearch.study.layers import fewest_layers, kept_layers, shown_layers
from kdsearch.study.model_files import config_of
from kdsearch.study.preflight import Doubt
from kdsearch.study.resolved import ResolvedDataset, ResolvedModel
from kdsearch.study.resources import ROLES
from kdsearch.study.schema import Study
from kdsearch.study.search import Search
from kdsearch.study.settings import Sequences, TrainingSettings
from kdsearch.study.tasks import SPECS

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
        named, least = isinstance(wanted, str), min(sides)
        has = least if named else len(sides) * least
        if fewest_layers(wanted) > has:
            each = " on each side" if named and len(sides) > 1 else ""
            what = f"asks for {shown_layers(wanted)} of {model}, which has {has}{each}"
            remedy = f"use 0 to {least - 1}" if named else ""
            problems.append(Problem(place=f"{place}: {where}", what=what, remedy=remedy))
    return problems


def equal_layers(study: Study, models: Mapping[str, ResolvedModel], place: str) -> list[Doubt]:
    """Values of an axis that keep the same layers of a student's model: each is trained.

    They cannot be one value, since of a deeper model they may be two.
    """
    doubts: dict[Doubt, None] = {}
    for case in test_cases(study):
        name, where = study.students[case.student].model, f"{place}: {place_of(case)}.layers"
        path, seen = models[name].path, dict[object, Any]()
        sides = None if path is None else _sides(config_of(Path(path)))
        for layers in search_of(study, case).axes.get("layers", ()):
            if sides is None:  # which is refused
                continue
            each = layers // len(sides) if isinstance(layers, int) else layers
            kept = tuple(kept_layers(each, total) for total in sides)
            if kept in seen:
                what = (
                    f"of {name}, {seen[kept]} and {layers} are the same layers: each student is "
                    "trained twice"
                )
                doubts[Doubt(place=where, what=what, remedy="leave one of them out")] = None
            seen.setdefault(kept, layers)
    return list(doubts)


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
    found: dict[Problem, None] = {}

    def add(case: TestCase, what: str, remedy: str) -> None:
        train, where = datasets[case.dataset].splits["train"], f"{place}: datasets.{case.dataset}"
        what = f"{train.unlabelled} of {train.rows} training rows have no label, {what}"
        found[Problem(place=where, what=what, remedy=remedy)] = None

    for case in test_cases(study):
        train, search = datasets[case.dataset].splits["train"], search_of(study, case)
        if train.unlabelled and search.taught and search.learns_labels:
            needs, remedy = _needed_labels(search, place_of(case))
            add(case, f"and {needs} needs them", remedy)
        if train.unlabelled == train.rows and case.teacher is None:
            remedy = f"leave {case.search or 'it'} out, or give labelled rows"
            add(case, f"which is all that {case.search or 'a student'} learns from", remedy)
    starts = start_cases(study)
    for case in (*test_cases(study), *starts):
        train, teacher = datasets[case.dataset].splits["train"], teacher_of(study, case)
        if train.unlabelled == train.rows and teacher is not None and not teacher.there:
            other = "" if case in starts else "give a teacher that is already fine-tuned, or "
            add(case, f"so {case.teacher} cannot be fine-tuned", f"{other or 'give '}labelled rows")
    return list(found)


_ALPHA = (("alpha", 1),)


def _needed_labels(search: Search, place: str) -> tuple[str, str]:
    """What of a search learns from labels, and how it might do without."""
    kinds = [kind for kind in search.distance if search.learns_labels_by(kind)]
    without = dict.fromkeys(Objective.kinds[kind].unlabelled_at or () for kind in kinds)
    ways = [
        f"leave only 1 in {place}.alpha"
        if values == _ALPHA
        else f"set {' and '.join(f'{name}: {value}' for name, value in values)} in {place}"
        for values in without
        if values
    ]
    needs = "α < 1" if without == {_ALPHA: None} else " or ".join(kinds)
    return needs, ", or ".join([*ways, "leave these rows out"])


def writing_problems(
    study: Study, datasets: dict[str, ResolvedDataset], place: str
) -> list[Problem]:
    """Texts that students would learn on, and a teacher cannot write."""
    problems: dict[Problem, None] = {}
    for case in test_cases(study):
        task = datasets[case.dataset].task
        for kind, targets in _targets(study, case):
            where = f"{place}: {place_of(case)}.{'targets' if kind is None else 'distance'}"
            if targets != DATA and not SPECS[task].writes:
                what = f"{kind or targets} has students learn on texts that their teacher writes, "
                what += f"and {case.dataset} is for {task}, whose models write none"
                remedy = "leave it out, or give it data of translation or lm by test_cases"
                problems[Problem(place=where, what=what, remedy=remedy)] = None
            elif targets == "rejection" and not SPECS[task].answers:
                what = f"rejection keeps texts whose answer is right, and {task} of {case.dataset} "
                what += "has no such answers"
                remedy = "take sample, beam or greedy"
                problems[Problem(place=where, what=what, remedy=remedy)] = None
    return [*problems, *_unread_sequences(study, place)]


def _unread_sequences(study: Study, place: str) -> Iterator[Problem]:
    """How texts are written, where none are."""
    cases = test_cases(study)
    if any(targets != DATA for case in cases for _, targets in _targets(study, case)):
        return
    for case in cases:
        if effective_settings(study, case, "sequences").sequences != Sequences():
            where = source_of(study, case, "sequences", "sequences")
            what, remedy = "is for texts that teachers write", "list targets in a search: [greedy]"
            yield Problem(place=f"{place}: {where}", what=f"{what}, and none does", remedy=remedy)
            return


def _targets(study: Study, case: TestCase) -> Iterator[tuple[str | None, str]]:
    """What a case's students learn on, and the objective that says so if it is not the axis."""
    space = space_of(study, case)
    if "targets" in space.names:
        yield from ((None, targets) for targets in space.values("targets"))
    elif SequenceKd.kind in space.values(OBJECTIVE):
        yield SequenceKd.kind, SequenceKd().targets


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
        reader = tokenizer or models[model.tokenizer].digest
        return models[name].digest, model.config, model.random, reader

    problems = []
    first: dict[str, TestCase] = {}
    for case in test_cases(study):
        teacher, student = teacher_of(study, case), study.students[case.student]
        names = teacher and (teacher.model, teacher.checkpoint, teacher.t_hs, teacher.t_ll)
        same = repr(
            (
                datasets[case.dataset].model_copy(update={"files": None}),
                [content(name) for name in names or ()],
                teacher and (teacher.fine_tune, teacher.labels, teacher.layers, teacher.student_of),
                (content(student.model), student.layers, student.start, space_of(study, case)),
                [_told_apart(effective_settings(study, case, role)) for role in ROLES],
                search_of(study, case).walk,
            )
        )
        if same in first:
            what = f"{case} is {first[same]} under another name"
            problems.append(Problem(place=f"{place}: test_cases", what=what, remedy="keep one"))
        first.setdefault(same, case)
    return problems


def _told_apart(settings: TrainingSettings) -> TrainingSettings:
    """Without what is in no key."""
    return settings.model_copy(update={"gradient_checkpointing": False})
