"""Where the teacher and the student of a test case come from.

What a report needs of "teacher origination" and "student initialization" (A Unified Revisit of
Temperature in Classification-Based Knowledge Distillation, arXiv 2603.02430, §3.2, Tables 1 and 2):

- how a teacher came to be, and over how many epochs: `teacher_origin`;
- how a student begins, of four ways: `student_origin`;
- what a student that starts from a training of the study scores before it is distilled: its
  `start`. The same student trained further on the labels alone is `Agenda.without_teacher`, whose
  test case starts there too, and `tuned_erm` its score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kdsearch.agenda import Agenda, CaseView, TeacherTraining, TestScore
from kdsearch.search import ValidationScore
from kdsearch.study import Study, teacher_of

Weights = Literal["random", "pretrained"]


@dataclass(frozen=True, kw_only=True)
class TeacherOrigin:
    """How a teacher came to be."""

    model: str | None
    """In the study; None of a student that teaches."""
    weights: Weights
    """Before its training; a given teacher and a student that teaches count as pretrained."""
    epochs: int | None
    """Of its fine-tuning here, at the settings of its data set; None where there is none."""
    smoothing: float
    """Of its labels."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """The checkpoint of a training of the study that a student starts from."""

    teacher: str
    """Whose training it is, by its name in the study."""
    epoch: int
    learning_rate: float
    validation: ValidationScore | None
    test: TestScore | None
    """What it scores as it is, before the student goes on from there; None while not known."""
    key: str
    """Of the training."""


@dataclass(frozen=True, kw_only=True)
class StudentOrigin:
    """What a student begins with."""

    weights: Weights
    """Of its model."""
    trained: str | None
    """The teacher from whose training it starts, so that it has seen the labels before."""

    @property
    def name(self) -> str:
        """One of the four ways in words."""
        if self.trained is None:
            return self.weights
        return f"{self.weights}, then trained on the labels"


def teacher_origin(agenda: Agenda, view: CaseView) -> TeacherOrigin | None:
    """Where the teacher of a case comes from; None of a case without one."""
    study, trainings = agenda.resolved.study, agenda.graph.teachers(view.case)
    teacher = teacher_of(study, view.case)
    if teacher is None:
        return None
    return TeacherOrigin(
        model=teacher.model or next(iter(teacher.given.values()), None),
        weights=weights_of(study, teacher.model),
        epochs=trainings[0].settings.epochs if trainings else None,
        smoothing=trainings[0].smoothing if trainings else 0.0,
    )


def student_origin(agenda: Agenda, view: CaseView) -> StudentOrigin:
    """What the student of a case begins with."""
    study = agenda.resolved.study
    student = study.students[view.case.student]
    return StudentOrigin(weights=weights_of(study, student.model), trained=student.start)


def start_found(agenda: Agenda, view: CaseView) -> Start | None:
    """Where the students of a case start; None of the model's own weights, and while not known."""
    name = agenda.resolved.study.students[view.case.student].start
    if view.start is None or view.start.epoch is None or name is None:
        return None
    trained, scored = (
        agenda.results.get(key)
        for key in (view.start.training or "", agenda.graph.of_start(view.case, view.start)[-1].key)
    )
    assert trained is not None  # its best epoch is known
    assert isinstance(trained.training, TeacherTraining)
    return Start(
        teacher=name,
        epoch=view.start.epoch,
        learning_rate=trained.training.learning_rate,
        validation=trained.validation,
        test=scored.test if scored else None,
        key=trained.key,
    )


def weights_of(study: Study, model: str | None) -> Weights:
    """What a model of the study begins with."""
    return "random" if model is not None and study.models[model].random else "pretrained"
