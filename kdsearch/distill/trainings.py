"""Teachers are fine-tuned, students distilled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from kdsearch.agenda import (
    Outcome,
    OutputsTraining,
    StudentTraining,
    TeacherTraining,
    TestScore,
)
from kdsearch.distill.artifacts import ensure, save_models
from kdsearch.distill.batch_loss import CachedOutputs, TeacherOutputs, batch_loss
from kdsearch.distill.evaluation import Evaluation, evaluate
from kdsearch.distill.first_token import read_first_alone
from kdsearch.distill.images import check_parts
from kdsearch.distill.learnt_temperature import LearntTemperature
from kdsearch.distill.lora import adapt, merged
from kdsearch.distill.models import (
    build_model,
    check_head,
    recompute,
)
from kdsearch.distill.outputs import KeptOutputs
from kdsearch.distill.progress import DiskCheckpoints
from kdsearch.distill.scale import logit_scale
from kdsearch.distill.supervision import supervised
from kdsearch.distill.terms import Terms
from kdsearch.distill.together import train_together
from kdsearch.distill.training import (
    History,
    State,
    TrainingState,
    put_back,
    steps_per_epoch,
    train,
)
from kdsearch.distill.worker import Worker
from kdsearch.ledger import layout
from kdsearch.search import SOFTMAX, Ce, Ctkd, Objective, Taught, Tempered
from kdsearch.tasks import TASKS, Views


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A training before its first step, and what it needs on its way."""

    state: TrainingState
    validate: Callable[[], Evaluation]
    checkpoints: DiskCheckpoints


class Trainings(Worker):
    """The kinds of training that move a model's weights."""

    def teacher(self, training: TeacherTraining) -> Outcome:
        """Fine-tune a teacher, and keep its best and its lowest-loss epoch, and those to keep."""
        model, history = self._train(training)
        outcome = self._outcome(training, model, history)
        if history.diverged:
            return outcome
        assert history.best is not None
        assert history.lowest_loss is not None
        epochs = dict(history.named)
        epochs |= {epoch.epoch: state for epoch, state in (history.best, history.lowest_loss)}
        kept = {f"epoch-{number}": state for number, state in epochs.items()}
        folder = self._ledger.path(layout.checkpoints(training.key))
        digests, size = save_models(self._ledger, self._resolved, folder, training, model, kept)
        return outcome.model_copy(
            update={
                "validation": history.best[0].validation,
                "best_epoch": history.best[0].epoch,
                "lowest_loss_epoch": history.lowest_loss[0].epoch,
                "digests": digests,
                "cost": self._cost(size),
            }
        )

    def student(self, training: StudentTraining) -> Outcome:
        """Train a student, with a teacher's cached outputs or without; score its best epoch."""
        kept = self._kept(training)
        model, history = self._train(training, kept)
        return self._scored(training, model, history, kept)

    def students(self, trainings: Sequence[StudentTraining]) -> tuple[Outcome, ...]:
        """Train several students in one pass; score the best epoch of each, one after another."""
        kept = [self._kept(training) for training in trainings]
        first = trainings[0]
        model = self._built(first)
        models = [model, *(deepcopy(model) for _ in trainings[1:])]
        begun = [
            self._begun(training, student, taught_by)
            for training, student, taught_by in zip(trainings, models, kept, strict=True)
        ]
        histories = train_together(
            [each.state for each in begun],
            TASKS[first.data.task],
            [each.validate for each in begun],
            seed=first.seed,
            checkpoints=[each.checkpoints for each in begun],
        )
        fused = {"fused": len(trainings)}
        return tuple(
            self._scored(*each).model_copy(update=fused)
            for each in zip(trainings, models, histories, kept, strict=True)
        )

    def _kept(self, training: StudentTraining) -> KeptOutputs | None:
        """What its teacher says; called before anything is seeded, since it may run a training."""
        taught = training.teaching
        if taught is None:
            return None
        read = [taught.outputs] if training.objective.reads_outputs else []
        read += [taught.weak] if taught.weak else []
        read += (taught.signals or {}).values()
        if taught.sequences:
            self._ensure_sequences(taught.sequences, taught.teacher)
            for key in read:  # those on other rows than are there now, which were written again
                ensure(self._ledger, key, layout.SEQUENCES, self._again, checkpoint=taught.teacher)
        for key in dict.fromkeys((taught.outputs, *read)):
            ensure(self._ledger, key, layout.OUTPUTS, self._again, checkpoint=taught.teacher)
        return KeptOutputs(self._ledger, training, self._device)

    def _scored(
        self,
        training: StudentTraining,
        model: nn.Module,
        history: History,
        kept: KeptOutputs | None,
    ) -> Outcome:
        """Score the best epoch of a student that was trained, and keep it where that is asked."""
        data, settings = training.data, training.settings
        task, tokenizer = TASKS[data.task], self._tokenizer(training.model, data)
        outcome = self._outcome(training, model, history)
        if history.diverged:
            return outcome
        assert history.best is not None
        epoch, state = history.best
        put_back(model, state)
        test = self._encoded(model, training.model, data, "test", settings)
        if training.teaching is not None and training.teaching.signals:
            read_first_alone(model, task, test)  # as others were trained and are timed
        teacher = kept.on("test", len(test.labels)) if kept else None
        with merged(model):  # as it is exported
            found = evaluate(
                *(model, task, tokenizer, test, data, settings),
                parts=self._parts,
                teacher=teacher,
                also=data.also,
                timed=True,
                temperatures=(1,),
            )
        if found.score is None:
            return outcome.model_copy(update={"state": "diverged"})
        digests: dict[str, str] = {}
        size = 0
        if self._keep or self._is_kept(training):
            folder = self._ledger.path(layout.student(training.key))
            digests, size = save_models(
                self._ledger, self._resolved, folder, training, model, {"": state}
            )
        return outcome.model_copy(
            update={
                "validation": epoch.validation,
                "test": TestScore(found.score),
                "measures": found.measures,
                "softmax": found.softmax,
                "best_epoch": epoch.epoch,
                "logit_scale": self._logit_scale(training, model, kept),
                "learnt_temperature": epoch.learnt_temperature,
                "smoothing": history.smoothing,
                "digests": digests | self._keep_rows(training, found, test),
                "cost": self._cost(size, speed=found.examples_per_second),
            }
        )

    def _is_kept(self, training: StudentTraining) -> bool:
        """Whether the study keeps the student.

        `best` is for export, which gives the first seed; of that one is a student that teaches.
        """
        study = self._resolved.study
        teaches = any(teacher.student_of for teacher in study.teachers.values())
        first = training.seed == study.student_seeds[0]
        return study.keep_students == "all" or (
            first and (study.keep_students == "best" or teaches)
        )

    def _train(
        self,
        training: TeacherTraining | StudentTraining,
        kept: KeptOutputs | None = None,
    ) -> tuple[nn.Module, History]:
        """Build the model and train it."""
        model = self._built(training)
        begun = self._begun(training, model, kept)
        history = train(
            begun.state,
            begun.validate,
            seed=training.seed,
            keep_lowest_loss=isinstance(training, TeacherTraining),
            keep_epochs=training.kept_epochs if isinstance(training, TeacherTraining) else (),
            checkpoints=begun.checkpoints,
        )
        return model, history

    def _built(self, training: TeacherTraining | StudentTraining) -> nn.Module:
        """A training's model before its first step.

        Everything random comes after the seed, and in the same order in every process.
        """
        data, start = training.data, self._start(training)
        torch.manual_seed(training.seed)
        tokenizer = self._tokenizer(training.model, data)
        model = build_model(
            *(training.model, TASKS[data.task], data.labels, tokenizer, self._resolved),
            dropout=training.settings.dropout,
        )
        if start is not None:
            model.load_state_dict(start)
        if training.settings.lora is not None:
            adapt(model, training.settings.lora, TASKS[data.task])
        return model.to(self._device)

    def _start(self, training: TeacherTraining | StudentTraining) -> State | None:
        """The weights of the checkpoint that a student starts from.

        Called before anything is seeded, since it may run the training that kept them.
        """
        start = training.start if isinstance(training, StudentTraining) else None
        if start is None:
            return None
        data, tokenizer = training.data, self._tokenizer(start.model, training.data)
        found: State = self._teacher(start, TASKS[data.task], data, tokenizer).state_dict()
        return found

    def _begun(
        self,
        training: TeacherTraining | StudentTraining,
        model: nn.Module,
        kept: KeptOutputs | None,
    ) -> _Begun:
        """A training before its first step.

        Without a teacher, whose outputs are `kept`, rows that have a label are learnt from.
        """
        data, settings = training.data, training.settings
        task, tokenizer = TASKS[data.task], self._tokenizer(training.model, data)
        taught = training.teaching if isinstance(training, StudentTraining) else None
        examples = self._encoded(
            *(model, training.model, data, "train", settings),
            labelled=not kept,
            sequences=taught.sequences if taught else None,
        )
        examples = replace(examples, views=self._views_of(training))
        if task.wide:
            check_head(model, task, examples)
        terms = None
        if kept and (signals := kept.signals(examples)):
            assert isinstance(training.objective, Taught)
            # Drawn behind the model's weights, so that these are those of a student without terms.
            terms = Terms(training.objective, signals, model, examples)
        else:  # terms compare other tokens too
            read_first_alone(model, task, examples)
        if settings.gradient_checkpointing:
            recompute(model)
        if self._parts > 1:
            check_parts(model, settings.batch_size)
        validation = self._encoded(model, training.model, data, "validation", settings)
        objective, taught_by, smoothing = self._learnt(training, model, kept, len(examples.labels))
        steps = settings.epochs * steps_per_epoch(examples, settings)
        temperature = (
            LearntTemperature(objective, settings, steps, self._device)
            if isinstance(objective, Ctkd)
            else None
        )
        state = TrainingState(
            *(model, task, examples),
            *(batch_loss(task, model, objective, taught_by, temperature), settings),
            learning_rate=training.learning_rate,
            parts=self._parts,
            evaluated_on=(validation,),
            terms=terms,
            temperature=temperature,
        )
        state.history.smoothing = smoothing
        validate = partial(
            evaluate,
            *(model, task, tokenizer, validation, data, settings),
            parts=self._parts,
            teacher=kept.on("validation", len(validation.labels)) if kept else None,
        )
        minutes = self._resolved.study.resources.checkpoint_minutes
        checkpoints = DiskCheckpoints(self._ledger, training.key, minutes)
        return _Begun(state=state, validate=validate, checkpoints=checkpoints)

    def _learnt(
        self,
        training: TeacherTraining | StudentTraining,
        model: nn.Module,
        kept: KeptOutputs | None,
        rows: int,
    ) -> tuple[Objective, TeacherOutputs | None, float | None]:
        """What a training minimises, and of what that its teacher says of so many rows.

        Beside them the coefficient of smoothed labels, where these are learnt in its place.
        """
        objective = training.objective
        taught_by = kept.on("train", rows) if kept and objective.reads_outputs else None
        scale = self._logit_scale(training, model, kept)
        if isinstance(objective, Tempered) and scale is not None:
            objective = objective.at_scale(scale)
        if isinstance(objective, Ce) and objective.supervision != SOFTMAX:
            assert isinstance(taught_by, CachedOutputs)
            return supervised(objective, taught_by, training.seed)
        return objective, taught_by, None

    def _views_of(self, training: TeacherTraining | StudentTraining) -> tuple[Views, ...]:
        """Those that it sees: where a teacher says something of views, the same ones."""
        taught = training.teaching if isinstance(training, StudentTraining) else None
        outcome = self._ledger.outcome(taught.outputs) if taught else None
        seed = training.seed
        if outcome is not None and isinstance(outcome.training, OutputsTraining):
            shared = outcome.training.settings.views_seed
            seed = training.seed if shared is None else shared
        pairs = taught is not None and taught.weak is not None
        return self._views(training.settings, seed, pairs=pairs)

    def _logit_scale(
        self,
        training: TeacherTraining | StudentTraining,
        model: nn.Module,
        kept: KeptOutputs | None,
    ) -> float | None:
        """The teacher's, where a student's temperatures are in units of it."""
        if kept is None or not isinstance(training, StudentTraining):
            return None
        objective, data = training.objective, training.data
        if not isinstance(objective, Tempered) or objective.temperature_unit == "none":
            return None
        outcome = self._ledger.outcome(training.taught.outputs)
        if outcome is not None and outcome.logit_scale is not None:
            return outcome.logit_scale
        # An earlier version kept the outputs.
        examples = self._encoded(
            *(model, training.model, data, "train", training.settings),
            sequences=training.taught.sequences,
        )
        taught_by = kept.on("train", len(examples.labels))
        assert isinstance(taught_by, CachedOutputs)
        return logit_scale(TASKS[data.task], taught_by, examples)
