"""Whether the files of a model hold the model's weights, from the files' headers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import AutoModel

from kdsearch.distill.check import config_of, teacher_models
from kdsearch.distill.consent import trusts
from kdsearch.distill.headers import Shapes, read_shapes
from kdsearch.distill.models import of_the_head
from kdsearch.errors import InputError, Problem, shortened_list
from kdsearch.study import Resolved, teacher_of, test_cases
from kdsearch.tasks import TASKS, Task

_LEFT_BY = {
    "_orig_mod.": (
        "as torch.compile leaves them",
        "save the module itself: model._orig_mod.save_pretrained",
    ),
    "module.": (
        "as DataParallel and DistributedDataParallel leave them",
        "save the module itself: model.module.save_pretrained",
    ),
    "model.": (
        "as PyTorch Lightning leaves them",
        "save the model within its module: module.model.save_pretrained",
    ),
    "base_model.model.": (
        "as PEFT leaves them",
        "save the merged model: model.merge_and_unload().save_pretrained",
    ),
}
"""By what stands before the names of a file's weights: who leaves it there, how to fix it."""


def weight_problems(resolved: Resolved, place: str) -> Iterator[Problem]:
    """Every pretrained model of the study whose files lack weights other than the head's.

    A given teacher needs its head too. Files that cannot be read are for `check_models`.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    wanted: dict[str, set[tuple[bool, str]]] = {}
    for case in test_cases(resolved.study):
        task = resolved.datasets[case.dataset].task
        teacher = teacher_of(resolved.study, case)
        given = teacher is not None and bool(teacher.given)
        for name in teacher_models(resolved, case):
            wanted.setdefault(name, set()).add((given, task))
        student = resolved.study.students[case.student].model
        wanted.setdefault(student, set()).add((False, task))
    for name, uses in sorted(wanted.items()):
        if resolved.models[name].path is not None:
            yield from _problem(resolved, name, uses, place)


def _problem(
    resolved: Resolved, name: str, uses: Collection[tuple[bool, str]], place: str
) -> Iterator[Problem]:
    """The first thing that is wrong with a model, for what needs most of it first."""
    for given, task in sorted(uses, reverse=True):
        try:
            found = _compared(resolved, name, TASKS[task], given=given)
        except InputError:  # which `check_models` says
            return
        except Exception:  # said by running the model, which reads the same files
            continue
        if (said := _in_words(found, task if given else None)) is not None:
            what, remedy = said
            yield Problem(place=f"{place}: models.{name}", what=what, remedy=remedy)
            return


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """The weights that a model needs, and what its files have of them."""

    kind: str
    """The model's type."""
    needed: Collection[str]
    missing: Collection[str]
    other_shape: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    """By the weight's name: its shape in the file, and in the model."""
    file: Shapes
    body: str
    """What stands before the names of the weights that are not the head's."""


def _compared(resolved: Resolved, name: str, task: Task, *, given: bool) -> _Compared:
    """Have transformers itself load weights of these names and shapes, of one number each."""
    config = config_of(resolved, name)
    path = resolved.models[name].path
    assert path is not None
    shapes = read_shapes(path)
    with torch.device("meta"):
        built = task.head.from_config(config, trust_remote_code=trusts(name))
    number = torch.zeros(())
    loaded, info = _uninitialised(type(built)).from_pretrained(
        None,
        config=config,
        state_dict={weight: number.expand(shape) for weight, shape in shapes.items()},
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    every = {weight for weight, _ in loaded.named_parameters()}
    body = every & _body(loaded, trusted=trusts(name))
    needed = every if given else {weight for weight in body if not of_the_head(loaded, weight)}
    return _Compared(
        kind=config.model_type,
        needed=needed,
        missing={weight for weight in info["missing_keys"] if weight in needed},
        other_shape={
            weight: (tuple(there), tuple(here))
            for weight, there, here in info["mismatched_keys"]
            if weight in needed
        },
        file=shapes,
        body="" if loaded.base_model is loaded else f"{loaded.base_model_prefix}.",
    )


def _uninitialised(kind: type[Any]) -> Any:
    """The class of model that leaves what it finds no weights for as the memory was.

    Drawing them would take as much time and memory as the model.
    """
    name, module = kind.__name__, kind.__module__
    return type(name, (kind,), {"initialize_weights": lambda self: None, "__module__": module})


def _body(model: Any, *, trusted: bool) -> set[str]:
    """The weights of a model that are not drawn anew for a task, as its head and its pooler are."""
    if model.base_model is not model:
        prefix = f"{model.base_model_prefix}."
        names = [f"{prefix}{name}" for name, _ in model.base_model.named_parameters()]
    else:  # T5's for translation has the parts of its body beside its head
        with torch.device("meta"):
            body = AutoModel.from_config(model.config, trust_remote_code=trusted)
        names = [name for name, _ in body.named_parameters()]
    return {name for name in names if "pooler" not in name.split(".")}


def _in_words(found: _Compared, task: str | None) -> tuple[str, str] | None:
    """What is wrong, and how to fix it; `task`: of a given teacher."""
    count = f"{len(found.needed)} weights of {found.kind}"
    if found.missing:
        return _of_missing(found, count, task)
    if found.other_shape:
        weight, (there, here) = max(found.other_shape.items(), key=lambda item: len(item[1][0]))
        what = (
            f"its file has {len(found.other_shape)} of the {count} in another shape than its "
            f"config.json says, such as {weight}: {list(there)}, not {list(here)}"
        )
        return what, "take config.json and the weights from the same model"
    return None


def _of_missing(found: _Compared, count: str, task: str | None) -> tuple[str, str]:
    missing = sorted(found.missing, key=lambda weight: (weight.count("."), weight))
    if task is not None and not any(weight.startswith(found.body) for weight in missing):
        what = f"its file lacks the head's {shortened_list(missing)}"
        return what, f"give a model that was fine-tuned for {task}"
    if len(missing) == len(found.needed):
        what = f"its file has none of the {count}"
    else:
        what = f"its file lacks {len(missing)} of the {count}, such as {missing[0]}"
    prefix, instead = _prefix(found)
    if not prefix:
        there = f"it has {shortened_list(sorted(found.file), 2)}" if found.file else "it is empty"
        return f"{what}; {there}", "take config.json and the weights from the same model"
    alike = sum(name.startswith(prefix) for name in found.file)
    whose = "all its names" if alike == len(found.file) else f"{alike} of its names"
    what = f"{what}; {whose} begin with {prefix}"
    if prefix in _LEFT_BY and not (instead and prefix == "model."):  # also the name of bodies
        left_by, remedy = _LEFT_BY[prefix]
        return f"{what}, {left_by}", remedy
    return what + f" in place of {instead}" * bool(instead), "rename them"


def _prefix(found: _Compared) -> tuple[str, str]:
    """What stands in the file before the names of most of the missing weights, and should not.

    With it, what should stand there instead. Two empty texts where there is no such thing.
    """
    names = {weight.removeprefix(found.body): found.body for weight in found.missing}
    names |= dict.fromkeys(found.missing, "")
    before: Counter[tuple[str, str]] = Counter()
    for name in found.file:
        parts = name.split(".")
        for cut in range(1, len(parts)):
            if (rest := ".".join(parts[cut:])) in names:
                before[".".join(parts[:cut]) + ".", names[rest]] += 1
                break
    return before.most_common(1)[0][0] if before else ("", "")
