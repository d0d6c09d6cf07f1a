"""How much a study's teachers keep on the disk, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from kdsearch.agenda.count import views_passed, written_for
from kdsearch.agenda.training import SIGNALS, Signal, SignalName
from kdsearch.study import (
    BASE,
    SPECS,
    Resolved,
    ResolvedModel,
    Study,
    TestCase,
    asked_layers_of,
    cache_bytes,
    effective_settings,
    one_teacher,
    shape_of,
    space_of,
    start_cases,
    taught_cases,
    weight_files,
)

_VECTORS: Mapping[SignalName, int] = {
    "hidden_states": 1,
    "cls_states": 1,
    "attention": 2,
    "relations": 3,
}
"""How many vectors of a layer's width a signal has of each token, or example: see `Signal`."""
_BF16 = 2
_FP16 = 2
_FP32 = 4


def checkpoint_models(study: Study, case: TestCase) -> list[str]:
    """The model of each checkpoint that a case's teacher has at most."""
    teacher = study.teachers[case.taught]
    if teacher.model is not None:
        return [teacher.model] * _checkpoints(study)
    return list(teacher.given.values()) or [study.students[case.student].model]


def _checkpoints(study: Study) -> int:
    """How many checkpoints of a teacher that is fine-tuned here the searches ask for."""
    return len({name for search in study.every_search.values() for name in search.teacher or ()})


def checkpoint_bytes(resolved: Resolved) -> int:
    """About how many bytes the kept epochs of all teachers take, of those whose size is known."""
    study = resolved.study
    cases = (*taught_cases(study), *start_cases(study))
    pairs = {(case.dataset, case.taught) for case in cases}
    total = 0
    for _, name in pairs:
        teacher = study.teachers[name]
        path = resolved.models[teacher.model].path if teacher.model else None
        if path is not None:
            kept = _checkpoints(study) * len(teacher.fine_tune.learning_rate)
            total += kept * sum(file.stat().st_size for file in weight_files(Path(path)))
    return total


def resolved_signal_bytes(resolved: Resolved, case: TestCase) -> dict[str, int]:
    """See `signal_bytes`."""
    data, models = resolved.datasets[case.dataset], resolved.models
    folders = {name: model.path for name, model in models.items()}
    rows, tokens = data.splits["train"].rows, data.tokens / data.splits["train"].rows
    return signal_bytes(resolved.study, models, case, data.task, rows, folders, tokens or None)


def resolved_view_bytes(resolved: Resolved, case: TestCase) -> dict[str, int]:
    """See `view_bytes`."""
    data = resolved.datasets[case.dataset]
    units = {name: split.units for name, split in data.splits.items()}
    train = units.pop("train")
    return view_bytes(
        *(resolved.study, case, data.task, train, len(data.labels)), others=sum(units.values())
    )


def cached_bytes(resolved: Resolved, case: TestCase) -> int:
    """About how many bytes the outputs of a case's teacher take, of all its checkpoints."""
    study, data = resolved.study, resolved.datasets[case.dataset]
    others = data.splits["validation"].units + data.splits["test"].units
    viewed = resolved_view_bytes(resolved, case)
    settings = effective_settings(study, case, "outputs")
    return sum(viewed.values()) + sum(
        cache_bytes(
            settings,
            data.task,
            study.models[name],
            some,
            len(data.labels),
            resolved.models[name].path,
            others=others,
        )
        for name in checkpoint_models(study, case)
        for some in passed_units(study, case, data.splits["train"].units)
    )


def passed_units(study: Study, case: TestCase, train: float) -> Iterator[float]:
    """About how many units, beside other splits', the outputs of a checkpoint of a case are of.

    Of those on the training split, which has so many, and of those on each kind of texts that the
    teacher writes for any of its cases, taken to be as long as the labels.
    """
    yield train
    sequences = effective_settings(study, case, "sequences").sequences
    alike = _of_its_teacher(study, case)
    every = {each for same in alike for each in written_for(space_of(study, same))}
    for targets, reads in sorted(every):
        if reads:
            yield sequences.texts(targets) * train


def view_bytes(
    study: Study, case: TestCase, task: str, rows: float, labels: int, *, others: float = 0
) -> dict[str, int]:
    """About how many bytes the outputs of a case's teacher on views take, by augmentation.

    Of all of its checkpoints and all cases of this teacher and data set; on so many training rows
    in half precision, and on those of the `others` as they are.
    """
    width_of = SPECS[task].width
    if width_of is None or SPECS[task].reads != "pixels":
        return {}
    models, width = len(checkpoint_models(study, case)), width_of(labels)
    return {
        str(each): round(models * width * (each.views * rows * _FP16 + others * _FP32))
        for each in sorted(views_passed(study, _of_its_teacher(study, case)).every, key=str)
    }


def _of_its_teacher(study: Study, case: TestCase) -> list[TestCase]:
    """The cases that learn from the same outputs as a taught one, which is among them."""
    own = one_teacher(study, case)
    return [each for each in taught_cases(study) if one_teacher(study, each) == own]


def signal_bytes(
    study: Study,
    models: Mapping[str, ResolvedModel],
    case: TestCase,
    task: str,
    rows: float,
    folders: Mapping[str, str | None],
    per_row: float | None = None,
) -> dict[str, int]:
    """About how many bytes all that terms compare of a case's teacher takes, by signal.

    Of all of its checkpoints and all cases of this teacher and data set, of so many training rows,
    with as many tokens each as are known, or usual.
    """
    layers = asked_layers_of(study, models, _of_its_teacher(study, case))
    signals = {Signal(name=SIGNALS[term], layers=numbers) for term, numbers in layers}
    settings = effective_settings(study, case, "outputs").for_task(task)
    tokens = per_row or SPECS[task].tokens
    if task != "qa" and settings.max_length is not None:  # whose contexts are read in windows
        tokens = min(tokens, settings.max_length)
    found: dict[str, int] = {}
    for name in checkpoint_models(study, case):
        width = (shape_of(study.models[name], folders.get(name)) or BASE).width
        for signal in sorted(signals, key=str):
            count = rows if signal.name == "cls_states" else rows * tokens
            each = _VECTORS[signal.name] * len(signal.layers) * width * _BF16
            found[str(signal)] = found.get(str(signal), 0) + round(count * each)
    return found
