"""Running a study's models on a few real rows, before a GPU is used for anything longer."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor

from kdsearch.agenda import SIGNALS, CheckpointSpec, DataSpec, Graph, ModelSpec, Signal
from kdsearch.distill.evaluation import evaluate
from kdsearch.distill.models import (
    build_model,
    check_head,
    known_inputs,
    load_model,
    load_tokenizer,
    model_folder,
)
from kdsearch.distill.signals import watch
from kdsearch.errors import InputError, Problem, first_line
from kdsearch.ledger import Ledger
from kdsearch.study import (
    SPECS,
    Doubt,
    Resolved,
    TeacherSample,
    asked_terms,
    space_of,
    start_cases,
    teacher_of,
    test_cases,
)
from kdsearch.tasks import TASKS, Encoded, Settings, Task

_FIRST = 64
"""Of how many training rows the shortest and the longest are run."""
_MOST_LETTERS = 200

Found = TeacherSample | Doubt | Problem


@dataclass(frozen=True, kw_only=True)
class _Use:
    """A model on one of its data sets, as a training takes it."""

    dataset: str
    data: DataSpec
    spec: ModelSpec
    settings: Settings
    teacher: str | None = None
    """The name of the teacher that the model is; None of one that is trained first."""
    checkpoint: CheckpointSpec | None = None
    signals: tuple[Signal, ...] = ()
    """What terms compare of it."""

    @property
    def load(self) -> str:
        """What is equal for all uses that one loaded model serves."""
        width = None if self.checkpoint else len(self.data.labels)
        of_rows = self.spec.tokenizer_name is None or SPECS[self.data.task].reads == "pixels"
        tokenizer = self.data.train if of_rows else ""
        return repr((self.spec, self.checkpoint is None, self.data.task, width, tokenizer))

    @property
    def key(self) -> str:
        """What is equal for uses that are one."""
        signals = sorted(signal.name for signal in self.signals)
        return repr((self.load, self.dataset, self.teacher, self.checkpoint, signals))


def forward_passes(
    resolved: Resolved, ledger: Ledger, place: str, *, device: str = "cpu"
) -> tuple[Sequence[TeacherSample], Sequence[Doubt], Sequence[Problem]]:
    """Run each model on two rows of each of its data sets, and score given teachers on a sample.

    A model is loaded once for all data sets for which it has the same head. On a CPU everything is
    computed in single precision, on a GPU a sample's score in that of the study.
    """
    torch.set_num_threads(resolved.study.training.cpu_threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    loads: dict[str, dict[str, _Use]] = {}
    for use in _uses(resolved):
        loads.setdefault(use.load, {}).setdefault(use.key, use)
    run = _Run(resolved=resolved, ledger=ledger, place=place, device=device)
    # After each model it is waited for the collector, which need not look at all that is imported.
    gc.freeze()
    try:
        found = dict.fromkeys(each for uses in loads.values() for each in run.look(uses.values()))
    finally:
        gc.unfreeze()
    return (
        [each for each in found if isinstance(each, TeacherSample)],
        [each for each in found if isinstance(each, Doubt)],
        [each for each in found if isinstance(each, Problem)],
    )


def _uses(resolved: Resolved) -> Iterator[_Use]:
    """Each case's student, and its teacher: given, or before its fine-tuning."""
    graph = Graph(resolved)
    for case in (*test_cases(resolved.study), *start_cases(resolved.study)):
        teacher = teacher_of(resolved.study, case)
        asked = asked_terms(space_of(resolved.study, case)) if teacher else None
        names = sorted({SIGNALS[term] for term in asked.terms}) if asked else ()
        signals = tuple(Signal(name=name, layers=(0,)) for name in names)
        for model in teacher.given.values() if teacher else ():
            checkpoint = graph.given(case, model)
            _, outputs, _ = graph.outputs(case, checkpoint)
            yield _Use(
                dataset=case.dataset,
                data=outputs.data,
                spec=checkpoint.model,
                settings=outputs.settings,
                teacher=case.teacher,
                checkpoint=checkpoint,
                signals=signals,
            )
        for training in graph.teachers(case)[:1]:
            yield _Use(
                dataset=case.dataset,
                data=training.data,
                spec=training.model,
                settings=training.settings,
                signals=signals,
            )
        yield _Use(
            dataset=case.dataset,
            data=graph.data(case),
            spec=graph.student(case),
            settings=graph.settings(case),
            signals=signals,
        )


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What is the same for all models of a study."""

    resolved: Resolved
    ledger: Ledger
    place: str
    device: str

    def look(self, uses: Iterable[_Use]) -> Iterator[Found]:
        """Load a model once and run it on each of its data sets."""
        model: Any = None
        tokenizer: Any = None
        for use in uses:
            place = f"{self.place}: models.{use.spec.name}"
            try:
                if model is None:
                    tokenizer = self._tokenizer(use)
                    model = self._model(use, tokenizer)
                yield from self._look(use, model, tokenizer, place)
            except InputError as error:
                for problem in error.problems:
                    yield Problem(place=place, what=problem.what, remedy=problem.remedy)
            except Exception as error:  # whatever a model raises for its inputs
                yield _in_words(error, place, use.dataset)
            if model is None:  # which the next data set would not change
                break
        del model
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _tokenizer(self, use: _Use) -> Any:
        train = partial(self.ledger.rows, use.data.train)
        return load_tokenizer(use.spec, TASKS[use.data.task], train, self.resolved)

    def _model(self, use: _Use, tokenizer: Any) -> Any:
        spec, task = use.spec, TASKS[use.data.task]
        if use.checkpoint is None:
            model = build_model(spec, task, use.data.labels, tokenizer, self.resolved)
        else:
            folder = model_folder(spec.name, spec.weights, self.resolved)
            model = load_model(folder, spec.name, task, tokenizer)
        return model.to(self.device).eval()

    def _look(self, use: _Use, model: Any, tokenizer: Any, place: str) -> Iterator[Found]:
        task = TASKS[use.data.task]
        rows = self.ledger.rows(use.data.train, _FIRST)
        examples = self._encoded(use, model, tokenizer, rows, training=True)
        beyond = _beyond(model, tokenizer, examples)
        if beyond:
            yield Problem(place=place, what=f"{use.dataset}: {beyond}", remedy=_OWN_TOKENIZER)
            return
        by_length = examples.lengths.argsort(stable=True)
        two = by_length[[0, -1]] if len(examples) > 1 else by_length
        values = _outputs(model, task, examples, two)
        finite = torch.isfinite(values)
        if len(values) and not finite.any():
            yield Problem(place=place, what=_NOT_FINITE, remedy=_remedy_of(model))
            return
        if not finite.all():
            what = f"outputs NaN or infinity for some rows of {use.dataset}"
            yield Doubt(place=place, what=what, remedy=_remedy_of(model))
        elif not _alike(values, _outputs(model, task, examples, two[:1])):
            what = f"its output for a row of {use.dataset} depends on the other rows of the batch"
            remedy = "take a model that ignores padding"
            yield Doubt(place=place, what=what, remedy=remedy)
        if task.wide:
            check_head(model, task, examples)
        if use.signals:
            watch(model, use.signals, lambda: _outputs(model, task, examples, two))
        if use.checkpoint is not None:
            yield from self._sample(use, model, tokenizer, place)

    def _encoded(
        self, use: _Use, model: Any, tokenizer: Any, rows: list[Any], *, training: bool
    ) -> Encoded:
        task = TASKS[use.data.task]
        examples = task.encode(rows, tokenizer, use.data, use.settings, training=training)
        return known_inputs(model, examples.to(self.device))

    def _sample(self, use: _Use, model: Any, tokenizer: Any, place: str) -> Iterator[Found]:
        """Score a given teacher on some validation rows, drawn by the study's seed."""
        assert use.checkpoint is not None
        assert use.teacher is not None
        task, data = TASKS[use.data.task], use.data
        spec = SPECS[data.task]
        every = [row for row in self.ledger.rows(data.validation) if row[spec.gold] is not None]
        rows = random.Random(self.resolved.study.seed).sample(every, min(len(every), spec.sample))
        examples = self._encoded(use, model, tokenizer, rows, training=False)
        settings = use.settings
        if self.device == "cpu":
            settings = settings.model_copy(update={"precision": "fp32"})
        order = [use.checkpoint.labels.index(label) for label in data.labels]
        scored = evaluate(model, task, tokenizer, examples, data, settings, order=order)
        chance = _chance(task, examples.references, data)
        yield TeacherSample(
            teacher=use.teacher,
            model=use.spec.name,
            dataset=use.dataset,
            rows=len(rows),
            score=scored.score,
            chance=chance,
        )
        of = f"{len(rows)} validation rows of {use.dataset}"
        if scored.score is None:
            what = f"not all of its outputs for {of} are finite, so it cannot teach them"
            yield Doubt(place=place, what=what, remedy=_remedy_of(model))
        elif _is_poor(scored.score, chance, data) and _tell_apart(examples.references, data):
            what = f"scores {scored.score:.4f} on {of}"
            if chance is not None:
                what += f"; one label for all of them scores {chance:.4f}"
            labels = ", and that its labels are in the right order" if data.labels else ""
            yield Doubt(
                place=place, what=what, remedy=f"check that its {spec.reader} is its own{labels}"
            )


@torch.no_grad()
def _outputs(model: Any, task: Task, examples: Encoded, indices: Tensor) -> Tensor:
    return task.outputs(model, examples.batch(indices)).float()


def _alike(together: Tensor, alone: Tensor) -> bool:
    """Whether the first rows of a batch are what its first example gives alone."""
    if not len(alone):  # none of its words has a token
        return True
    there = together[: len(alone)]
    return torch.allclose(there, alone, rtol=0, atol=1e-3 * float(alone.abs().max()))


def _is_poor(score: float, chance: float | None, data: DataSpec) -> bool:
    """Whether a teacher says no more than one label for all would, or next to nothing."""
    if chance is not None:
        return score <= chance
    # A good model of a language has a perplexity of 10 and more.
    least = {"translation": 1.0, "lm": 0.01}.get(data.task, 0.1)  # of 100, of 1
    return score <= least


def _tell_apart(references: Sequence[Any], data: DataSpec) -> bool:
    """Whether rows can tell a good model from a bad one: they have two labels, or an entity."""
    if SPECS[data.task].one_label:
        return len(set(references)) > 1
    if data.task == "ner":
        return any(len(set(sentence.tags)) > 1 for sentence in references)
    return True


def _chance(task: Task, references: Sequence[Any], data: DataSpec) -> float | None:
    """The best score of saying one and the same label to everything."""
    if not SPECS[data.task].one_label or len(set(references)) == 1:
        return None
    return max(
        task.score([label] * len(references), references, data) for label in range(len(data.labels))
    )


_NOT_FINITE = "outputs NaN or infinity for every row"
_OWN_TOKENIZER = "give it the tokenizer it was trained with, or resize its embeddings"


def _remedy_of(model: Any) -> str:
    weights = model.named_parameters()
    broken = next((name for name, weight in weights if not weight.isfinite().all()), None)
    if broken is not None:
        return f"not all of its {broken} is finite: fetch it again, or take an earlier checkpoint"
    return "its weights are finite: see training.precision"


def _beyond(model: Any, tokenizer: Any, examples: Encoded) -> str | None:
    """A token that the model has no embedding for; on a GPU it would end the process."""
    try:
        size = model.get_input_embeddings().num_embeddings
    except (NotImplementedError, AttributeError):  # of CANINE and others that hash or quantise
        return None
    if "input_ids" not in examples.inputs:
        return None
    largest = int(examples.inputs["input_ids"].max())
    if largest < size:
        return None
    token = tokenizer.convert_ids_to_tokens(largest)
    return f"has {size} embeddings, but the token {token} of its tokenizer is number {largest}"


def _in_words(error: Exception, place: str, dataset: str) -> Problem:
    """What went wrong in a model, and what to do about it where that is known."""
    text = " ".join(first_line(error).split())[:_MOST_LETTERS] or type(error).__name__
    what, remedy = f"cannot be run on {dataset}: {text}", ""
    if "<eos> token" in text:
        what = (
            f"reads the last end-of-text token, and rows of {dataset} differ in how many they have"
        )
        remedy = "give it the tokenizer it was trained with, which ends every text with one"
    elif isinstance(error, torch.OutOfMemoryError | MemoryError):
        what, remedy = f"does not fit into memory with two rows of {dataset}", "take a smaller one"
    return Problem(place=place, what=what, remedy=remedy)
