"""From a resolved study to its trainings: which there are, and what each one's key covers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from kdsearch.agenda.training import (
    SIGNALS,
    CheckpointSpec,
    DataSpec,
    ForwardSettings,
    ModelSpec,
    OutputsTraining,
    SequencesTraining,
    Signal,
    StudentTraining,
    TeacherTraining,
    Teaching,
    Training,
    WritingSettings,
)
from kdsearch.search import DATA, Taught, Trial, Value, Written
from kdsearch.study import (
    HIDDEN,
    SPLITS,
    Augmentation,
    Resolved,
    Role,
    Sequences,
    TestCase,
    TrainingSettings,
    cached_at,
    checkpoints_of,
    effective_settings,
    given_labels,
    kept_depth,
    start_of,
    teacher_of,
    term_layers,
)

_NOTHING: Mapping[str, Value] = MappingProxyType({})
_WITHOUT_TEACHER = {"hidden_dtype": None, "cache": HIDDEN}
"""The settings of a teacher's outputs, of a training that reads none."""


class Graph:
    """Makes the trainings of a resolved study's test cases."""

    def __init__(self, resolved: Resolved) -> None:
        self._resolved = resolved
        self._study = resolved.study
        self._version = resolved.training_version
        self._sequences: dict[tuple[object, ...], SequencesTraining] = {}
        self._of_written: dict[tuple[str, str], OutputsTraining] = {}
        self._on_views: dict[tuple[str, Augmentation], OutputsTraining] = {}
        self._signals: dict[tuple[str, str, tuple[int, ...]], OutputsTraining] = {}

    def teachers(self, case: TestCase) -> tuple[TeacherTraining, ...]:
        """The trainings of a case's teacher, one per learning rate; none where none is trained."""
        teacher = teacher_of(self._study, case)
        if teacher is None or teacher.model is None:
            return ()
        settings = self.settings(case, "teacher").model_copy(update=_WITHOUT_TEACHER)
        epochs = {checkpoint.epoch for checkpoint in checkpoints_of(self._study, case)}
        return tuple(
            TeacherTraining(
                version=self._version,
                data=self.data(case),
                model=self._model(teacher.model, teacher.layers),
                learning_rate=rate,
                settings=settings,
                seed=self._study.seed,
                kept_epochs=tuple(sorted(epoch for epoch in epochs if epoch is not None)),
                smoothing=teacher.fine_tune.smoothing,
            )
            for rate in teacher.fine_tune.learning_rate
        )

    def starts(self, case: TestCase) -> tuple[TeacherTraining, ...]:
        """The trainings of which a case's student starts from the best, one per learning rate.

        None where it starts from its model's own weights.
        """
        start = start_of(self._study, case)
        return () if start is None else self.teachers(start)

    def of_start(self, case: TestCase, start: CheckpointSpec | None) -> tuple[Training, ...]:
        """The same, and of the `start` once that is known what scores it on test."""
        found = start_of(self._study, case)
        if found is None or start is None:
            return self.starts(case)
        *_, scored = self.outputs(found, start)
        return (*self.starts(case), scored)

    def checkpoint(self, training: TeacherTraining, epoch: int) -> CheckpointSpec:
        """An epoch of a teacher that was fine-tuned here."""
        return CheckpointSpec(
            model=training.model, training=training.key, epoch=epoch, labels=training.data.labels
        )

    def winner(self, training: StudentTraining) -> CheckpointSpec:
        """A student that teaches, as it was at its best epoch."""
        return CheckpointSpec(
            model=training.model, training=training.key, epoch=None, labels=training.data.labels
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
        some: dict[str, Any] = {}
        if settings.cache != HIDDEN:
            some = {"cache": settings.cache, "temperature": cached_at(self._study, case)}
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
                    **(some if split == "train" else {}),
                ),
            )
            for split in SPLITS
        )

    def prerequisites(
        self, case: TestCase, trial: Trial, outputs: OutputsTraining | None
    ) -> tuple[Training, ...]:
        """What must have a scored outcome before the students of a trial can run.

        `outputs` are those of its checkpoint on the training split, None under an objective without
        a teacher. Each reads of the others those before it alone.
        """
        if outputs is None:
            return ()
        learnt, sequences = self._learnt(case, trial, outputs)
        weak = self._weak(case, trial, outputs)
        signals = self.signals(case, trial, outputs).values()
        return (*([sequences] if sequences else []), *([weak] if weak else []), learnt, *signals)

    def _learnt(
        self, case: TestCase, trial: Trial, outputs: OutputsTraining
    ) -> tuple[OutputsTraining, SequencesTraining | None]:
        """The outputs that a trial's students are given, and what they are on in place of the data.

        An objective that reads none has those on the data, to measure agreement with.
        """
        targets = trial.objective.parameters.get("targets", DATA)
        if targets == DATA:
            augmentation = self._augmentation(case, trial)
            if augmentation is None or not trial.objective.reads_outputs:
                return outputs, None
            return self._outputs_on_views(outputs, augmentation), None
        sequences = self.sequences(case, outputs.checkpoint, targets)
        if not trial.objective.reads_outputs:
            return outputs, sequences
        return self._outputs_on(sequences, outputs), sequences

    def _outputs_on(
        self, sequences: SequencesTraining, outputs: OutputsTraining
    ) -> OutputsTraining:
        """The same outputs on what was written."""
        known = (sequences.key, outputs.key)
        if known not in self._of_written:
            update = {"sequences": sequences.key}
            self._of_written[known] = outputs.model_copy(update=update)
        return self._of_written[known]

    def _augmentation(self, case: TestCase, trial: Trial) -> Augmentation | None:
        """That of a trial's students."""
        return self.settings(case, at=_changed(trial)).augmentation

    def _weak(
        self, case: TestCase, trial: Trial, outputs: OutputsTraining
    ) -> OutputsTraining | None:
        """The outputs on the weak views, under an objective that takes two views."""
        if not trial.objective.parameters.get("two_views"):
            return None
        augmentation = self._augmentation(case, trial)
        weak = augmentation and augmentation.weak
        assert weak is not None  # a study that lacks one of the two does not load
        return self._outputs_on_views(outputs, weak)

    def _outputs_on_views(
        self, outputs: OutputsTraining, augmentation: Augmentation
    ) -> OutputsTraining:
        """The same outputs on the views of the training split that all students share."""
        known = (outputs.key, augmentation)
        if known not in self._on_views:
            views = {"augmentation": augmentation, "views_seed": self._study.seed}
            update = {"settings": outputs.settings.model_copy(update=views)}
            self._on_views[known] = outputs.model_copy(update=update)
        return self._on_views[known]

    def sequences(
        self, case: TestCase, checkpoint: CheckpointSpec, how: Written
    ) -> SequencesTraining:
        """What a checkpoint writes for the students of a case."""
        known = (case, checkpoint.training, checkpoint.epoch, checkpoint.model.name, how)
        if known not in self._sequences:
            self._sequences[known] = self._written(case, checkpoint, how)
        return self._sequences[known]

    def _written(
        self, case: TestCase, checkpoint: CheckpointSpec, how: Written
    ) -> SequencesTraining:
        settings = self.settings(case, "sequences")
        assert settings.max_length is not None  # `for_task` filled it in
        wanted, drawn = settings.sequences, how in ("sample", "rejection")
        return SequencesTraining(
            version=self._version,
            data=self.data(case),
            checkpoint=checkpoint,
            how=how,
            settings=WritingSettings(
                batch_size=settings.batch_size,
                max_length=settings.max_length,
                stride=None,
                beams=wanted.beams if how == "beam" else None,
                hidden_dtype=None,
                samples=wanted.texts(how) if drawn else None,
                temperature=wanted.temperature if drawn else None,
                precision=settings.precision,
                cpu_threads=settings.cpu_threads,
            ),
            seed=self._study.seed if drawn else None,
        )

    def signals(
        self, case: TestCase, trial: Trial, outputs: OutputsTraining
    ) -> dict[str, OutputsTraining]:
        """By the terms of a trial's objective, the teacher's signals that they compare.

        Their layers are those that are mapped, so that students of equal depth share them.
        """
        objective = trial.objective
        if not isinstance(objective, Taught) or not objective.terms:
            return {}
        if objective.targets != DATA:
            sequences = self.sequences(case, outputs.checkpoint, objective.targets)
            outputs = self._outputs_on(sequences, outputs)
        student = self.student(case, dict(trial.settings).get("layers"))
        teacher = self._depth(outputs.checkpoint.model)
        # Without what says how outputs are kept.
        own = ("batch_size", "max_length", "stride", "precision", "cpu_threads")
        kept = {name: getattr(outputs.settings, name) for name in own}
        settings = ForwardSettings(**kept, beams=None, hidden_dtype=None)
        found = {}
        for term in objective.terms:
            layers = term_layers(term, objective.layer_mapping, teacher, self._depth(student))
            known = (outputs.key, SIGNALS[term], layers)
            if known not in self._signals:
                signal = Signal(name=SIGNALS[term], layers=layers)
                update = {"settings": settings, "signal": signal}
                self._signals[known] = outputs.model_copy(update=update)
            found[term] = self._signals[known]
        return found

    def _depth(self, spec: ModelSpec) -> int:
        """How many layers a model has."""
        depth = kept_depth(self._resolved.models[spec.name], spec.layers)
        assert depth is not None  # a study with terms does not resolve without
        return depth

    def student(self, case: TestCase, layers: int | str | None = None) -> ModelSpec:
        """A case's student before any training, with these layers or with its own."""
        student = self._study.students[case.student]
        return self._model(student.model, layers or student.layers)

    def students(
        self,
        case: TestCase,
        trial: Trial,
        outputs: OutputsTraining | None,
        start: CheckpointSpec | None = None,
    ) -> tuple[StudentTraining, ...]:
        """A trial's student under each seed, taught by the checkpoint whose `outputs` these are.

        None under an objective without a teacher. `start` is the best of the case's `starts`.
        """
        found = self._student(case, trial, outputs).model_copy(update={"start": start})
        return found.under(self._study.student_seeds)

    def _student(
        self, case: TestCase, trial: Trial, outputs: OutputsTraining | None
    ) -> StudentTraining:
        fixed = dict(trial.settings)
        settings, teaching = self.settings(case, at=_changed(trial)), None
        if outputs is None:
            settings = settings.model_copy(update=_WITHOUT_TEACHER)
        else:
            assert trial.checkpoint is not None
            learnt, sequences = self._learnt(case, trial, outputs)
            weak = self._weak(case, trial, outputs)
            every = self.signals(case, trial, outputs)
            signals = {term: training.key for term, training in every.items()}
            teaching = Teaching(
                teacher=outputs.checkpoint,
                outputs=learnt.key,
                sequences=sequences.key if sequences else None,
                weak=weak.key if weak else None,
                checkpoint_name=trial.checkpoint,
                signals=signals or None,
            )
        return StudentTraining(
            version=self._version,
            data=self.data(case),
            model=self.student(case, fixed.get("layers")),
            teaching=teaching,
            objective=trial.objective,
            learning_rate=fixed["learning_rate"],
            settings=settings,
            seed=self._study.seed,
        )

    def settings(
        self, case: TestCase, role: Role = "student", at: Mapping[str, Value] = _NOTHING
    ) -> TrainingSettings:
        """How a case's trainings of a role go, `at` values of axes of the space."""
        task = self._resolved.datasets[case.dataset].task
        settings = effective_settings(self._study, case, role).at(at).for_task(task)
        if role == "sequences":
            return settings
        return settings.model_copy(update={"sequences": Sequences()})

    def data(self, case: TestCase) -> DataSpec:
        """What a case is trained and scored on."""
        return DataSpec.of(self._resolved.datasets[case.dataset])

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
            random=model.weights == "random",
        )


def _changed(trial: Trial) -> dict[str, Value]:
    """The settings of a training that a trial changes: all of its own but rate and layers."""
    return {n: value for n, value in trial.settings if n not in ("learning_rate", "layers")}
