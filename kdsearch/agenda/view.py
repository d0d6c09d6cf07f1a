"""Where a test case stands, and what it wants next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdsearch.agenda.training import CheckpointSpec, OutputsTraining, TeacherTraining, Training
from kdsearch.search import NOT_BEGUN, Candidate, Checkpoint, Choice, Progress, Space, Trial
from kdsearch.study import Role, Search, TestCase

TRAINS_TEACHER = "teacher_training"
"""The stage of a teacher's trainings; `teacher` is the one that compares its checkpoints."""
STARTS = "start"
"""The stage of the trainings of which the student starts from the best, and of what that scores."""
LAZY = "lazy"
"""The stage of the lazy baseline."""
COMPARES = "comparison"
"""The stage of a search that compares whole choices."""
WINNER = "winner"
"""The stage of what a case chose, under seeds that its search did not have."""
AHEAD = "ahead"
"""The stage of what no decision has asked for yet: see `Speculation`."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A training that a test case wants, and the stage that wants it."""

    training: Training
    case: TestCase
    stage: str
    rounds: int = 1
    """Of students that follow one another from it on, itself included."""

    @property
    def role(self) -> Role:
        """What the training is for, which decides what it takes of the cluster."""
        return self.training.kind

    def __str__(self) -> str:
        return f"case={self.case} stage={self.stage} key={self.training.key}"


@dataclass(frozen=True, kw_only=True)
class Phase2:
    """The choices that a case is measured against once every traversal is done."""

    stable: Choice
    stable_tuned: Candidate | None
    lazy: Choice
    lazy_tuned: Candidate | None


@dataclass(frozen=True, kw_only=True)
class CaseView:
    """Where a test case stands. `blocked` says why it cannot go on, if it cannot."""

    case: TestCase
    search: Search
    space: Space
    wanted: tuple[Request, ...]
    before: tuple[TestCase, ...] = ()
    """The cases that its teacher comes from, where that is a student: see `cases_before`."""
    blocked: str | None = None
    blocked_at: str = TRAINS_TEACHER
    """The stage that this is of."""
    waits_for: TestCase | None = None
    """The case whose choice teaches it, until that is known."""
    teacher_training: TeacherTraining | None = None
    start: CheckpointSpec | None = None
    """Where its students start, once it is ready; None where they start from their model's own
    weights."""
    ready: bool = False
    """Whether its students can be asked for: its teacher is trained, or it has none, and so is what
    they start from."""
    outputs: Mapping[Checkpoint, tuple[OutputsTraining, ...]] = field(default_factory=dict)
    """Of its teacher's checkpoints, once it is ready."""
    progress: Progress = NOT_BEGUN
    phase2: Phase2 | None = None

    def taught_by(self, trial: Trial) -> OutputsTraining | None:
        """The outputs of a trial's checkpoint on the training split; None of one without."""
        return self.outputs[trial.checkpoint][0] if trial.checkpoint else None

    def has_checkpoint(self, trial: Trial) -> bool:
        """Whether there is such a checkpoint of its teacher; true of a trial that needs none."""
        return trial.checkpoint is None or trial.checkpoint in self.outputs

    @property
    def first_teacher(self) -> str | None:
        """Its teacher; where that is a student, the one that its generations began with."""
        return self.before[-1].teacher if self.before else self.case.teacher

    @property
    def traversed(self) -> bool:
        """Whether its search is finished, a second phase not yet told."""
        return self.progress.finished

    @property
    def finished(self) -> bool:
        """Whether it wants nothing more."""
        second = self.phase2 is not None or not self.search.flips
        return self.traversed and second and not self.wanted

    @property
    def chosen(self) -> Trial | None:
        """The best trial of what its search chose; None while that is unknown or has no score."""
        if not self.traversed:
            return None
        return self.progress.winner.best

    @property
    def best_has_score(self) -> bool:
        """Whether the traversal is finished, and what it chose has a score."""
        return self.chosen is not None

    @property
    def coinciding(self) -> bool:
        """Whether t_hs and t_ll turned out to be one."""
        names = (Checkpoint.HIGHEST_SCORE, Checkpoint.LOWEST_LOSS)
        keys = [self.outputs[name][0].key for name in names if name in self.outputs]
        return len(keys) == 2 and len(set(keys)) == 1
