"""Trainings, what became of them, and which come next. No torch, no ray, no disk, no clock."""

from kdsearch.agenda.agenda import Agenda, CaseView, Phase2, Request, Results
from kdsearch.agenda.count import (
    Counts,
    cached_bytes,
    case_counts,
    checkpoint_bytes,
    checkpoint_models,
    left,
    remaining,
)
from kdsearch.agenda.graph import Graph
from kdsearch.agenda.needs import asked, settled, unneeded, used
from kdsearch.agenda.outcome import (
    Attempt,
    Cost,
    Epoch,
    Failure,
    Outcome,
    TestScore,
    failed_for_good,
)
from kdsearch.agenda.training import (
    VERSION,
    CheckpointSpec,
    DataSpec,
    ErmTraining,
    ForwardSettings,
    ModelSpec,
    OutputsTraining,
    StudentTraining,
    TeacherTraining,
    Training,
    parse_training,
)

__all__ = [
    "VERSION",
    "Agenda",
    "Attempt",
    "CaseView",
    "CheckpointSpec",
    "Cost",
    "Counts",
    "DataSpec",
    "Epoch",
    "ErmTraining",
    "Failure",
    "ForwardSettings",
    "Graph",
    "ModelSpec",
    "Outcome",
    "OutputsTraining",
    "Phase2",
    "Request",
    "Results",
    "StudentTraining",
    "TeacherTraining",
    "TestScore",
    "Training",
    "asked",
    "cached_bytes",
    "case_counts",
    "checkpoint_bytes",
    "checkpoint_models",
    "failed_for_good",
    "left",
    "parse_training",
    "remaining",
    "settled",
    "unneeded",
    "used",
]
