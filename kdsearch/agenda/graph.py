"""From a resolved study to its trainings: which there are, and what each one's key covers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kdsearch.agenda.training import (
    CheckpointSpec,
    DataSpec,
    ForwardSettings,
    ModelSpec,
    OutputsTraining,
    StudentTraining,
    TeacherTraining,
    Teaching,
)
from kdsearch.search import Trial, Value
from kdsearch.study import (
    SPLITS,
    Resolved,
    Role,
    TestCase,
    TrainingSettings,
    effective_settings,
    given_labels,
    teacher_of,
)

_NOTHING: Mapping[str, Value] = MappingProxyType({})


class Graph:
    """Makes the trainings of a resolved study's test cases."""

    def __init__(self, resolved: Resolved) -> None:
        self._resolved = resolved
        self._study = resolved.study
        self._version = resolved.training_version

    def teachers(self, case: TestCase) -> tuple[TeacherTraining, ...]:
        """The trainings of a case's teacher, one per learning rate; none where none is trained."""
        teacher = teacher_of(self._study, case)
        if teacher is None or teacher.model is None:
            return ()
        settings = self.settings(case, "teacher").model_copy(update={"hidden_dtype": None})
        return tuple(
            TeacherTraining(
                version=self._version,
                data=self.data(case),
                model=self._model(teacher.model, teacher.layers),
                learning_rate=rate,
                settings=settings,
                seed=self._study.seed,
            )
            for rate in teacher.fine_tune.learning_rate
        )

    def checkpoint(self, training: TeacherTraining, epoch: int) -> CheckpointSpec:
        """An epoch of a teacher that was fine-tuned here."""
        return CheckpointSpec(
            model=training.model, training=training.key, epoch=epoch, labels=training.data.labels
        )

    def given(self, case: TestCase, model: str) -> CheckpointSpec:
        """A checkpoint that was given."""
        teacher = self._study.teachers[case.taught]
        wanted = self._resolved.datasets[case.dataset].labels
        labels = given_labels(teacher, self._resolved.models[model], wanted)
        if not wanted:
            labels = ()  # its task has none
        assert labels is not None  # a study without them does not resolve
        return CheckpointSpec(model=self._model(model), training=None, epoch=None, labels=labels)

    def outputs(self, case: TestCase, checkpoint: CheckpointSpec) -> tuple[OutputsTraining, ...]:
        """The outputs of a checkpoint on each split, the training split first."""
        settings = self.settings(case, "outputs")
        assert settings.max_length is not None  # `for_task` filled it in
        return tuple(
            OutputsTraining(
                version=self._version,
                data=self.data(case),
                checkpoint=checkpoint,
                split=split,
                settings=ForwardSettings(
                    batch_size=settings.batch_size,
                    max_length=settings.max_length,
                    stride=settings.stride,
                    beams=settings.beams if split != "train" else None,
                    hidden_dtype=settings.hidden_dtype if split == "train" else None,
                    precision=settings.precision,
                    cpu_threads=settings.cpu_threads,
                ),
            )
            for split in SPLITS
        )

    def student(self, case: TestCase, layers: int | str | None = None) -> ModelSpec:
        """A case's student before any training, with these layers or with its own."""
        student = self._study.students[case.student]
        return self._model(student.model, layers or student.layers)

    def students(
        self, case: TestCase, trial: Trial, outputs: OutputsTraining | None
    ) -> tuple[StudentTraining, ...]:
        """A trial's student under each seed, taught by the checkpoint whose `outputs` these are.

        None under an objective without a teacher.
        """
        return self._student(case, trial, outputs).under(self._study.student_seeds)

    def _student(
        self, case: TestCase, trial: Trial, outputs: OutputsTraining | None
    ) -> StudentTraining:
        changed = dict(trial.settings)
        learning_rate, layers = changed.pop("learning_rate"), changed.pop("layers", None)
        settings, teaching = self.settings(case, at=changed), None
        if outputs is None:
            settings = settings.model_copy(update={"hidden_dtype": None})
        else:
            assert trial.checkpoint is not None
            teaching = Teaching(
                teacher=outputs.checkpoint,
                outputs=outputs.key,
                checkpoint_name=trial.checkpoint,
            )
        return StudentTraining(
            version=self._version,
            data=self.data(case),
            model=self.student(case, layers),
            teaching=teaching,
            objective=trial.objective,
            learning_rate=learning_rate,
            settings=settings,
            seed=self._study.seed,
        )

    def settings(
        self, case: TestCase, role: Role = "student", at: Mapping[str, Value] = _NOTHING
    ) -> TrainingSettings:
        """How a case's trainings of a role go, `at` values of axes of the space."""
        task = self._resolved.datasets[case.dataset].task
        return effective_settings(self._study, case, role).at(at).for_task(task)

    def data(self, case: TestCase) -> DataSpec:
        """What a case is trained and scored on."""
        dataset = self._resolved.datasets[case.dataset]
        return DataSpec(
            task=dataset.task,
            metric=dataset.metric,
            labels=dataset.labels,
            languages=dataset.languages,
            train=dataset.splits["train"].digest,
            validation=dataset.splits["validation"].digest,
            test=dataset.splits["test"].digest,
            unanswerable=dataset.unanswerable,
        )

    def _model(self, name: str, layers: int | str | None = None) -> ModelSpec:
        model = self._study.models[name]
        tokenizer_name = None
        if model.config is None:
            tokenizer_name = name
        elif model.tokenizer != "words":
            tokenizer_name = model.tokenizer
        digest = self._resolved.models[tokenizer_name].digest if tokenizer_name else None
        return ModelSpec(
            name=name,
            weights=self._resolved.models[name].digest,
            config=model.config,
            tokenizer=digest or "words",
            tokenizer_name=tokenizer_name,
            layers=layers,
        )
