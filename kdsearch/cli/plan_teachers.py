"""What `plan` says of each teacher: its trainings, its passes, and what is kept of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from kdsearch.agenda import (
    Counts,
    ViewsPassed,
    cached_bytes,
    checkpoint_models,
    passed_units,
    passes,
    resolved_signal_bytes,
    resolved_view_bytes,
    signal_bytes,
    view_bytes,
    views_passed,
)
from kdsearch.search import Bounds
from kdsearch.study import (
    HIDDEN,
    SAMPLED,
    SPECS,
    TOP_K,
    Resolved,
    ResolvedModel,
    Role,
    Study,
    TestCase,
    cache_bytes,
    cases_before,
    effective_settings,
    known_rows,
    label_count,
    one_teacher,
    output_rows_per_row,
    row_bytes,
    shape_of,
    start_cases,
    task_of,
)

Durations = Mapping[TestCase, Mapping[Role, float]]
Range = dict[str, float]
"""The `fewest` and the `most`."""
_WAYS = (HIDDEN, f"{SAMPLED} 64", f"{TOP_K} 128")
"""To keep a wide teacher's outputs, with usual numbers of tokens."""


def teachers_facts(
    study: Study, resolved: Resolved | None, counts: list[Counts], took: Durations
) -> dict[object, tuple[Counts, dict[str, Any]]]:
    """The counts of each teacher on a data set, and its row of `plan --json`, by `one_teacher`.

    Last are those that students start from and that nobody learns from.
    """
    of_teacher: dict[object, list[Counts]] = defaultdict(list)
    for each in counts:
        if each.case.teacher:
            of_teacher[one_teacher(study, each.case)].append(each)
    found = {}
    for teacher, of_one in of_teacher.items():
        shared = _shared(study, of_one)
        viewed = views_passed(study, [each.case for each in of_one])
        found[teacher] = shared, _cache(study, resolved, shared, took, viewed)
    for case in start_cases(study):
        if (teacher := (case.dataset, case.taught)) not in found:
            start = _start(study, case)
            found[teacher] = start, _start_row(study, resolved, start, took)
    return found


def _shared(study: Study, counts: list[Counts]) -> Counts:
    """The counts of one of a teacher's cases on a data set, with the passes for all of them."""
    outputs, sequences = passes(study, [each.case for each in counts])
    return replace(counts[-1], outputs=outputs, sequences=sequences)


def _start(study: Study, case: TestCase) -> Counts:
    """The counts of a teacher that students start from and that nobody learns from."""
    none = Bounds(fewest=0, most=0)
    return Counts(
        case=case,
        teachers=len(study.teachers[case.taught].fine_tune.learning_rate),
        outputs=Bounds(fewest=1, most=1),
        sequences=none,
        students=none,
        grid=0,
    )


def rows_of(study: Study, resolved: Resolved | None, case: TestCase) -> Mapping[str, int] | None:
    """The rows of each split of the data set of a case; None where it must be read to know that."""
    if resolved is not None:
        splits = resolved.datasets[case.dataset].splits
        return {name: split.rows for name, split in splits.items()}
    return known_rows(case.dataset, study.datasets[case.dataset])


def folders_of(study: Study, resolved: Resolved | None) -> dict[str, str]:
    """Where the models lie that are in a folder."""
    found = resolved.models if resolved else {}
    paths = {
        name: found[name].path if name in found else model.path
        for name, model in study.models.items()
    }
    return {name: path for name, path in paths.items() if path is not None}


def _cache(
    study: Study,
    resolved: Resolved | None,
    counts: Counts,
    took: Durations,
    viewed: ViewsPassed,
) -> dict[str, Any]:
    """A teacher's trainings on a data set, and its outputs that are kept."""
    case = counts.case
    dataset = study.datasets[case.dataset]
    per_row = output_rows_per_row(case.dataset, dataset)
    rows = rows_of(study, resolved, case)
    taken: int | None = None
    if resolved is not None:
        taken = cached_bytes(resolved, case)
    elif rows is not None and per_row is not None:
        train, names = rows["train"] * per_row, checkpoint_models(study, case)
        others = sum(rows.values()) * per_row - train
        passed_over = [*passed_units(study, case, train)]
        task, labels = task_of(case.dataset, dataset), label_count(case.dataset, dataset)
        settings = effective_settings(study, case, "outputs")
        models = (study.models[name] for name in names)
        taken = sum(
            cache_bytes(settings, task, each, some, labels, others=others)
            for each in models
            for some in passed_over
        )
    views = _views(study, resolved, case, rows)
    if views is not None and taken is not None and resolved is None:
        taken += sum(views.values())
    seconds = took.get(case)
    trained = counts.teachers * seconds["teacher"] if seconds else 0
    passed: Range = {}
    if seconds:
        written = as_range(counts.sequences, seconds["sequences"])
        passed = as_range(counts.outputs, seconds["outputs"])
        more = _seconds_of_views(viewed, rows, seconds["outputs"])
        passed = {end: some + written[end] + more[end] for end, some in passed.items()}
    return {
        "dataset": case.dataset,
        "teacher": case.teacher,
        **dict.fromkeys(("student", "search")),
        **({"student": case.student, "search": case.search} if cases_before(study, case) else {}),
        "trainings": counts.teachers,
        "passes": as_range(counts.outputs),
        "sequences": as_range(counts.sequences),
        "train_rows": rows["train"] if rows else None,
        "bytes": taken,
        **_each(study, resolved, case),
        "views": views,
        "signals": None if rows is None else _signals(study, resolved, case, rows["train"]),
        "seconds": {end: trained + some for end, some in passed.items()} or None,
    }


def _start_row(
    study: Study, resolved: Resolved | None, counts: Counts, took: Durations
) -> dict[str, Any]:
    """The same of a teacher that students start from: no more is kept of it than checkpoints."""
    case, passed = counts.case, as_range(counts.outputs)
    rows, seconds = rows_of(study, resolved, case), took.get(case)
    taken = seconds and counts.teachers * seconds["teacher"] + seconds["outputs"]
    return {
        "dataset": case.dataset,
        "teacher": case.teacher,
        **dict.fromkeys(("student", "search")),
        "trainings": counts.teachers,
        "passes": passed,
        "sequences": as_range(counts.sequences),
        "train_rows": rows["train"] if rows else None,
        "bytes": 0,
        "each": "row",
        **dict.fromkeys(("bytes_each", "cache")),
        **{name: {} for name in ("ways", "views", "signals")},
        "seconds": None if taken is None else dict.fromkeys(passed, taken),
    }


def _seconds_of_views(
    viewed: ViewsPassed, rows: Mapping[str, int] | None, of_split: float
) -> Range:
    """What passing all views takes beyond a pass over a split, the mean of all, for each."""
    share = rows["train"] / fmean(rows.values()) if rows else 1.0
    views, passes = as_range(viewed.views, share), as_range(viewed.passes)
    return {end: (views[end] - passes[end]) * of_split for end in views}


def _views(
    study: Study, resolved: Resolved | None, case: TestCase, rows: Mapping[str, int] | None
) -> dict[str, int] | None:
    """The bytes of a teacher's outputs on views, by augmentation; None where that is not known."""
    if resolved is not None:
        return resolved_view_bytes(resolved, case)
    dataset = study.datasets[case.dataset]
    labels = label_count(case.dataset, dataset)
    if rows is None or labels is None:
        return None
    others = sum(rows.values()) - rows["train"]
    task = task_of(case.dataset, dataset)
    return view_bytes(study, case, task, rows["train"], labels, others=others)


def _each(study: Study, resolved: Resolved | None, case: TestCase) -> dict[str, Any]:
    """What a teacher's outputs take for each token, or row of data, and would in other `ways`.

    None where that is not known until the data is read.
    """
    dataset, settings = study.datasets[case.dataset], effective_settings(study, case, "outputs")
    task = task_of(case.dataset, dataset)
    labels, per_row = label_count(case.dataset, dataset), output_rows_per_row(case.dataset, dataset)
    name = checkpoint_models(study, case)[0]
    path = None
    if resolved is not None:
        labels = len(resolved.datasets[case.dataset].labels)
        train = resolved.datasets[case.dataset].splits["train"]
        per_row, path = train.units / train.rows, resolved.models[name].path

    def each(cache: str) -> int:
        kept = settings.model_copy(update={"cache": cache})
        return row_bytes(kept, task, study.models[name], labels, path)

    if SPECS[task].width is not None:
        known = round(each(HIDDEN) * (per_row or 0))
        return {"each": "row", "bytes_each": known or None, "cache": None, "ways": {}}
    chosen = {way.partition(" ")[0]: way for way in (*_WAYS, settings.cache)}
    return {
        "each": "token",
        "bytes_each": each(settings.cache),
        "cache": settings.cache,
        "ways": {way: each(way) for way in chosen.values()},
    }


def _signals(study: Study, resolved: Resolved | None, case: TestCase, rows: int) -> dict[str, int]:
    """The bytes of what terms compare of a teacher, by signal; before anything is read, a guess."""
    if resolved is not None:
        return resolved_signal_bytes(resolved, case)
    folders = folders_of(study, None)
    shapes = {name: shape_of(model, folders.get(name)) for name, model in study.models.items()}
    models = {
        name: ResolvedModel(path=None, digest=None, labels=None, depth=shape and shape.layers)
        for name, shape in shapes.items()
    }
    task = task_of(case.dataset, study.datasets[case.dataset])
    return signal_bytes(study, models, case, task, rows, folders)


def as_range(bounds: Bounds, factor: float = 1) -> Range:
    """So many times the bounds."""
    return {"fewest": bounds.fewest * factor, "most": bounds.most * factor}
