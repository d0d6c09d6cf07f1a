"""Teachers are fine-tuned, students distilled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from kdsearch.agenda import (
    Outcome,
    StudentTraining,
    TeacherTraining,
    TestScore,
)
from kdsearch.distill.artifacts import ensure, save_models
from kdsearch.distill.batch_loss import CachedOutputs, batch_loss
from kdsearch.distill.evaluation import Evaluation, evaluate
from kdsearch.distill.first_token import read_first_alone
from kdsearch.distill.lora import adapt, merged
from kdsearch.distill.models import (
    build_model,
    check_head,
    recompute,
)
from kdsearch.distill.outputs import KeptOutputs
from kdsearch.distill.progress import DiskCheckpoints
from kdsearch.distill.scale import logit_scale
from kdsearch.distill.terms import Terms
from kdsearch.distill.together import train_together
from kdsearch.distill.training import History, TrainingState, put_back, train
from kdsearch.distill.worker import Worker
from kdsearch.ledger import layout
from kdsearch.search import Labels, Objective, Taught, Tempered
from kdsearch.tasks import TASKS


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
        model, history = self._train(training, Labels())
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
        model, history = self._train(training, training.objective, kept)
        return self._scored(training, model, history, kept)

    def students(self, trainings: Sequence[StudentTraining]) -> tuple[Outcome, ...]:
        """Train several students in one pass; score the best epoch of each, one after another."""
        kept = [self._kept(training) for training in trainings]
        first = trainings[0]
        model = self._built(first)
        models = [model, *(deepcopy(model) for _ in trainings[1:])]
        begun = [
            self._begun(training, student, training.objective, taught_by)
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
                "best_epoch": epoch.epoch,
                "logit_scale": self._logit_scale(training, model, kept),
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
        objective: Objective,
        kept: KeptOutputs | None = None,
    ) -> tuple[nn.Module, History]:
        """Build the model and train it."""
        model = self._built(training)
        begun = self._begun(training, model, objective, kept)
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
        data = training.data
        torch.manual_seed(training.seed)
        tokenizer = self._tokenizer(training.model, data)
        model = build_model(
            *(training.model, TASKS[data.task], data.labels, tokenizer, self._resolved),
            dropout=training.settings.dropout,
        )
        if training.settings.lora is not None:
            adapt(model, training.settings.lora, TASKS[data.task])
        return model.to(self._device)

    def _begun(
        self,
        training: TeacherTraining | StudentTraining,
        model: nn.Module,
        objective: Objective,
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
        if task.wide:
            check_head(model, task, examples)
        terms = None
        if kept and (signals := kept.signals(examples)):
            assert isinstance(objective, Taught)
            # Drawn behind the model's weights, so that these are those of a student without terms.
            terms = Terms(objective, signals, model, examples)
        else:  # terms compare other tokens too
            read_first_alone(model, task, examples)
        if settings.gradient_checkpointing:
            recompute(model)
        validation = self._encoded(model, training.model, data, "validation", settings)
        reads = kept is not None and objective.reads_outputs
        taught_by = kept.on("train", len(examples.labels)) if kept and reads else None
        scale = self._logit_scale(training, model, kept)
        if isinstance(objective, Tempered) and scale is not None:
            objective = objective.at_scale(scale)
        state = TrainingState(
            *(model, task, examples, batch_loss(task, model, objective, taught_by), settings),
            learning_rate=training.learning_rate,
            parts=self._parts,
            evaluated_on=(validation,),
            terms=terms,
        )
        validate = partial(
            evaluate,
            *(model, task, tokenizer, validation, data, settings),
            parts=self._parts,
            teacher=kept.on("validation", len(validation.labels)) if kept else None,
        )
        minutes = self._resolved.study.resources.checkpoint_minutes
        checkpoints = DiskCheckpoints(self._ledger, training.key, minutes)
        return _Begun(state=state, validate=validate, checkpoints=checkpoints)

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
