"""Finding out before a search whether its models can be built, without building any weights."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from kdsearch.agenda import DataSpec
from kdsearch.distill.consent import trusts
from kdsearch.distill.headers import read_shapes
from kdsearch.distill.image_check import (
    kind_problem,
    lacks_timm,
    processor_problem,
    recomputing_problem,
    size_problem,
)
from kdsearch.distill.layers import text_config, truncate
from kdsearch.distill.lora import adapted_layers
from kdsearch.distill.models import dropout_fields, random_config
from kdsearch.distill.vocabulary import (
    tokenizer_content,
    tokenizer_of,
    tokenizer_problem,
    tokenizer_source,
    unlike_tokenizers,
)
from kdsearch.errors import InputError, Problem
from kdsearch.study import (
    SPECS,
    Lora,
    Resolved,
    Role,
    Student,
    Teacher,
    TestCase,
    TrainingSettings,
    effective_settings,
    given_labels,
    lora_place,
    place_of,
    setting_axes,
    source_of,
    space_of,
    start_cases,
    taught_cases,
    teacher_of,
    test_cases,
)
from kdsearch.tasks import TASKS

_OTHER_PROBLEMS = {
    "multi_label_classification": "several labels at once",
    "regression": "regression",
}
_READ_BOTH_WAYS = {"bert-generation", "cpmant", "xlnet"}
"""Unless they are told otherwise, though transformers has them among causal models."""
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
    tokenizer_of.cache_clear()
    tokenizer_content.cache_clear()
    _check_weights.cache_clear()
    problems = dict.fromkeys(_given_problems(resolved, place))
    problems |= dict.fromkeys(_length_problems(resolved, place))
    problems |= dict.fromkeys(_metric_problems(resolved, place))
    broken: set[str] = set()
    for use in sorted(set(_uses(resolved)), key=str):  # models before what is cut from them
        if use.layers is not None and use.model in broken:
            continue
        try:
            problem = _problem(resolved, use)
        except InputError as error:
            problem = "; ".join(f"{p.what} ({p.remedy})" for p in error.problems)
        except Exception as error:  # whatever transformers raises for a configuration
            problem = " ".join(str(error).split())[:300] or type(error).__name__
            if isinstance(error, (ArithmeticError, AttributeError, LookupError, TypeError)):
                problem = f"{type(error).__name__}: {problem}"
                problem = f"the fields of its configuration do not fit one another: {problem}"
            if "trust_remote_code" in str(error):
                problem = (
                    "needs Python code that comes with it, which is not run; if you trust it with "
                    f"this machine: models.{use.model}.trust_remote_code: true"
                )
        if problem:
            problems[Problem(place=f"{place}: {use.where}", what=problem)] = None
            broken.add(use.model)
    if not problems:
        problems |= dict.fromkeys(_pair_problems(resolved, place))
    if problems:
        raise InputError(problems)


class _Use(NamedTuple):
    """A model, or some layers of it, on a data set."""

    where: str
    model: str
    layers: int | str | None
    dataset: str
    length: int
    length_of: str
    """Where the study says what its length is."""
    dropout_of: str | None
    """The same of its dropout, if that is set."""
    lora: Lora | None = None
    """The adapters that it gets; those of another rank are on the same layers."""
    recomputed: bool = False
    """Whether its activations are computed again for the gradient."""


def _uses(resolved: Resolved) -> Iterator[_Use]:
    study = resolved.study
    for case in (*test_cases(study), *start_cases(study)):
        teacher, student = teacher_of(study, case), study.students[case.student]
        for name in teacher_models(resolved, case):
            assert teacher is not None
            use = _use(resolved, case, "teacher" if teacher.model else "outputs", name)
            yield use
            if teacher.layers is not None:
                yield use._replace(where=f"teachers.{case.teacher}", layers=teacher.layers)
        use = _use(resolved, case, "student", student.model)
        yield use
        if student.layers is not None:
            yield use._replace(where=f"students.{case.student}", layers=student.layers)
        axes = setting_axes(space_of(study, case))
        for layers in axes.get("layers", ()):
            yield use._replace(where=f"{place_of(case)}.layers", layers=layers)
        yield from _memory_uses(resolved, case)
        if "dropout" in axes:
            yield use._replace(dropout_of=f"{place_of(case)}.dropout")


def _memory_uses(resolved: Resolved, case: TestCase) -> Iterator[_Use]:
    """The models of a case's trainings that get adapters, or whose activations are not kept."""
    study, teacher = resolved.study, teacher_of(resolved.study, case)
    roles: tuple[tuple[Role, Student | Teacher | None], ...] = (
        ("student", study.students[case.student]),
        ("teacher", teacher),
    )
    for role, user in roles:
        if user is None or user.model is None:
            continue
        use = _use(resolved, case, role, user.model)
        settings = settings_for(resolved, case, role)
        if (where := lora_place(study, case, role)) is not None:
            yield use._replace(where=where, lora=settings.lora or Lora())
        if settings.gradient_checkpointing:
            where = source_of(study, case, role, "gradient_checkpointing")
            yield use._replace(where=where, recomputed=True)


def _use(resolved: Resolved, case: TestCase, role: Role, model: str) -> _Use:
    study, settings = resolved.study, settings_for(resolved, case, role)
    assert settings.max_length is not None  # `for_task` filled it in
    drops = settings.dropout is not None and role != "outputs"
    return _Use(
        where=f"models.{model}",
        model=model,
        layers=None,
        dataset=case.dataset,
        length=settings.max_length,
        length_of=source_of(study, case, role, "max_length"),
        dropout_of=source_of(study, case, role, "dropout") if drops else None,
    )


def settings_for(resolved: Resolved, case: TestCase, role: Role) -> TrainingSettings:
    """A case's settings for a role, with every default of its task."""
    task = resolved.datasets[case.dataset].task
    return effective_settings(resolved.study, case, role).for_task(task)


def teacher_models(resolved: Resolved, case: TestCase) -> tuple[str, ...]:
    """The models of a test case's teacher: the one to fine-tune, those given, or its student's."""
    study, teacher = resolved.study, teacher_of(resolved.study, case)
    if teacher is None:
        return ()
    if teacher.student_of is not None:
        return (study.students[case.student].model,)
    return (*filter(None, [teacher.model]), *teacher.given.values())


def _given_problems(resolved: Resolved, place: str) -> Iterator[Problem]:
    """Given teachers whose number of outputs is not that of their labels."""
    for case in taught_cases(resolved.study):
        teacher, data = resolved.study.teachers[case.taught], resolved.datasets[case.dataset]
        if TASKS[data.task].wide:
            continue
        for model in teacher.given.values():
            found = resolved.models[model]
            labels = given_labels(teacher, found, data.labels) if data.labels else ("start", "end")
            try:
                config = config_of(resolved, model)
                outputs, problem = config.num_labels, config.problem_type
            except Exception:  # which is said of the model itself
                continue
            if SPECS[data.task].one_label and problem in _OTHER_PROBLEMS:
                other = _OTHER_PROBLEMS[problem]
                what = f"{model} was fine-tuned for {other}, so its outputs are not a distribution"
                remedy = "give one that predicts a single label"
                yield Problem(place=f"{place}: teachers.{case.teacher}", what=what, remedy=remedy)
            if labels is not None and outputs != len(labels):
                what = f"{model} has {outputs} outputs for {len(labels)} labels"
                yield Problem(place=f"{place}: teachers.{case.teacher}", what=what)


def _length_problems(resolved: Resolved, place: str) -> Iterator[Problem]:
    """Lengths in which nothing fits beside the special tokens, windows that hardly move on."""
    study = resolved.study
    roles: tuple[Role, ...] = ("outputs", "student")
    for case, role in product((*test_cases(study), *start_cases(study)), roles):
        if role == "outputs" and case.teacher is None:
            continue
        if SPECS[resolved.datasets[case.dataset].task].reads == "pixels":
            continue
        name, settings = case.dataset, settings_for(resolved, case, role)
        length, stride = settings.max_length, settings.stride
        assert length is not None  # `for_task` filled it in
        shortest = _SHORTEST_LENGTH if stride is None else _SHORTEST_WINDOW
        if length < shortest:
            where = f"{place}: {source_of(study, case, role, 'max_length')}"
            what = f"{name} would be read {length} tokens at a time"
            yield Problem(place=where, what=what, remedy=f"make it at least {shortest}")
        elif stride is not None and stride > length // 2:
            where = f"{place}: {source_of(study, case, role, 'stride')}"
            what = f"windows of {length} tokens of {name} would share {stride}"
            remedy = f"make it at most {length // 2}, half of a window"
            yield Problem(place=where, what=what, remedy=remedy)


def _metric_problems(resolved: Resolved, place: str) -> Iterator[Problem]:
    """Metrics that need a package which is not there: BLEU of Japanese and Korean."""
    for name, data in resolved.datasets.items():
        for metric in (data.metric, *data.also):
            spec = DataSpec.of(data).model_copy(update={"metric": metric})
            try:
                TASKS[data.task].signature(spec)
            except RuntimeError as error:
                what = f"{metric} cannot be computed: {' '.join(str(error).split())}"
                remedy = "install what it asks for on every node, or set metric: chrf"
                yield Problem(place=f"{place}: datasets.{name}.metric", what=what, remedy=remedy)


def _unknown_fields(fields: dict[str, Any]) -> str | None:
    """Fields that transformers would take without a word and that change nothing."""
    default = CONFIG_MAPPING[fields["model_type"]]()
    known = {*default.to_dict(), *default.attribute_map, "attn_implementation"}
    texts = []
    for name in fields.keys() - known:
        near = difflib.get_close_matches(name, known, n=1)
        texts.append(
            f"config.{name} is not one of its fields"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    return ", ".join(sorted(texts)) or None


def _problem(resolved: Resolved, use: _Use) -> str | None:
    name, dataset = use.model, use.dataset
    task = TASKS[resolved.datasets[dataset].task]
    fields = resolved.study.models[name].config
    kind = (fields or {}).get("model_type")
    if kind is not None and kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(kind, CONFIG_MAPPING.keys(), n=1)
        advice = f"; did you mean {near[0]}?" if near else ""
        return f"{kind} is not a model_type of transformers{advice}"
    if fields is not None and (unknown := _unknown_fields(fields)):
        return unknown
    if lacks_timm(resolved, name):
        return "needs timm, which is not installed: pip install 'kdsearch[images]', on every node"
    config = config_of(resolved, name)
    if use.dropout_of is not None and not dropout_fields(config):
        return f"{config.model_type} has no dropout in its configuration: remove {use.dropout_of}"
    if (path := resolved.models[name].path) is not None:
        _check_weights(path)
    if SPECS[resolved.datasets[dataset].task].reads == "pixels":
        problem = kind_problem(config, dataset)
    else:
        problem = _kind_problem(resolved, dataset, config)
    if problem:
        return problem
    if use.lora is not None and find_spec("peft") is None:
        return "adapters need peft, which is not installed: pip install peft, on every node"
    if use.lora is not None and resolved.study.models[name].random:
        return f"{name} is drawn at random, so that adapters would adapt nothing: give a model"
    with torch.device("meta"):
        model = task.head.from_config(config, trust_remote_code=trusts(name))
    if use.layers is not None:
        truncate(model, use.layers)
    if use.lora is not None:
        adapted_layers(model, use.lora.modules)
    if use.recomputed and not model.supports_gradient_checkpointing:
        return f"{config.model_type} keeps its activations: transformers cannot recompute them"
    if task.reads_pixels:
        return (
            (recomputing_problem(model) if use.recomputed else None)
            or processor_problem(resolved, name)
            or size_problem(resolved, name, dataset, model)
        )
    return tokenizer_problem(resolved, name, dataset) or _too_long(config, use)


def _kind_problem(resolved: Resolved, dataset: str, config: Any) -> str | None:
    """What is wrong with the kind of a model that is to read the texts of a data set."""
    wanted = resolved.datasets[dataset].task
    task = TASKS[wanted]
    if config.is_encoder_decoder and wanted != "translation":
        if task.per_token:
            kind = "a decoder" if task.wide else "an encoder"
            return f"{config.model_type} is an encoder-decoder; {wanted} needs {kind}"
        if type(config) not in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            return f"{config.model_type} is an encoder-decoder without a head for {wanted}"
    if wanted == "translation" and not config.is_encoder_decoder:
        return f"{config.model_type} is not an encoder-decoder model, which {wanted} needs"
    if wanted == "lm" and not reads_forward(config):
        return (
            f"{config.model_type} does not read from left to right, which {wanted} needs: a token "
            "would be seen before it is said"
        )
    if resolved.datasets[dataset].unanswerable and reads_forward(config):
        return (
            f"{config.model_type} reads from left to right, so [CLS], which stands for no "
            f"answer, cannot see the question: remove datasets.{dataset}.unanswerable, or take "
            "an encoder"
        )
    return None


def reads_forward(config: Any) -> bool:
    """Whether a token knows those before it alone, as in GPT and Llama."""
    kind = config.model_type
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys()
    return kind in causal - _READ_BOTH_WAYS


@lru_cache(maxsize=32)
def _check_weights(path: str) -> None:
    """Raise `InputError` where a model's weights cannot be read without running anything."""
    read_shapes(path)


def _too_long(config: Any, use: _Use) -> str | None:
    positions = getattr(text_config(config), "max_position_embeddings", None)
    if isinstance(positions, int) and "roberta" in config.model_type:
        positions -= 2  # they are counted from behind the padding token's
    if isinstance(positions, int) and 0 < positions < use.length:
        return (
            f"has {positions} positions; {use.dataset} is read {use.length} tokens at a time: "
            f"make {use.length_of} at most {positions}"
        )
    return None


def _pair_problems(resolved: Resolved, place: str) -> Iterator[Problem]:
    """Teachers and students that must read the same tokens and do not."""
    for case in taught_cases(resolved.study):
        task = resolved.datasets[case.dataset].task
        if not TASKS[task].per_token:
            continue
        student = resolved.study.students[case.student].model
        where = f"{place}: students.{case.student}"
        yield from unlike_lengths(resolved, case, where)
        for teacher in teacher_models(resolved, case):
            if _content(resolved, teacher) != _content(resolved, student):
                what = (
                    f"{student} and the teacher {teacher} have different tokenizers; "
                    f"{task} compares their outputs token by token"
                )
                more, remedy = unlike_tokenizers(resolved, student, teacher)
                yield Problem(place=where, what=what + more, remedy=remedy)
            elif task == "lm" and (other := _unlike_manner(resolved, case, teacher, student)):
                what = (
                    f"the tokenizers of {student} and the teacher {teacher} have different "
                    f"{other}, so that they would read different tokens"
                )
                remedy = "copy the files of one tokenizer into a copy of the other model's folder"
                yield Problem(place=where, what=what, remedy=remedy)
            # The surplus of lm's tables is left out: see `Batch.classes`.
            elif task == "translation" and _width(resolved, teacher) != _width(resolved, student):
                what = (
                    f"{student} has {_width(resolved, student)} outputs, and the teacher "
                    f"{teacher} {_width(resolved, teacher)}"
                )
                yield Problem(place=where, what=what, remedy="take models with the same vocabulary")


def unlike_lengths(resolved: Resolved, case: TestCase, where: str) -> Iterator[Problem]:
    """Lengths of a teacher and a student whose outputs are compared token by token."""
    teacher, student = (settings_for(resolved, case, role) for role in ("outputs", "student"))
    for name in ("max_length", "stride"):
        theirs, own = getattr(teacher, name), getattr(student, name)
        if theirs != own:
            what = (
                f"its {name} is {own}, and that of the teacher {case.teacher} is {theirs}: "
                f"their outputs on {case.dataset} are compared token by token"
            )
            remedy = f"set {name} for the data set or the study, not for one of the two"
            yield Problem(place=where, what=what, remedy=remedy)


def config_of(resolved: Resolved, name: str) -> Any:
    """The transformers configuration of a model of the study."""
    path = resolved.models[name].path
    if path is not None:
        return AutoConfig.from_pretrained(Path(path), trust_remote_code=trusts(name))
    return random_config(resolved.study.models[name].config or {})


def _width(resolved: Resolved, name: str) -> object:
    """How many outputs a model with a wide vocabulary has."""
    if resolved.models[name].path is not None:
        return config_of(resolved, name).vocab_size
    tokenizer = tokenizer_of(*tokenizer_source(resolved, name))
    return "words" if tokenizer is None else len(tokenizer)


def _content(resolved: Resolved, name: str) -> str:
    return tokenizer_content(*tokenizer_source(resolved, name))


def _unlike_manner(resolved: Resolved, case: TestCase, teacher: str, student: str) -> str | None:
    """By what models with the same tokenizer would still write texts, or end them, differently."""
    theirs, own = (tokenizer_of(*tokenizer_source(resolved, name)) for name in (teacher, student))
    names = {"chat_template": "chat templates", "eos_token": "end-of-text tokens"}
    if not resolved.datasets[case.dataset].messages:
        del names["chat_template"]
    unlike = (name for name in names if getattr(theirs, name, None) != getattr(own, name, None))
    return " and ".join(names[name] for name in unlike) or None
