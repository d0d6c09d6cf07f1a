"""Where a test case stands, and what it wants next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdsearch.agenda.training import OutputsTraining, TeacherTraining, Training
from kdsearch.search import NOT_BEGUN, Candidate, Checkpoint, Choice, Progress, Space, Trial
from kdsearch.study import Role, Search, TestCase

TRAINS_TEACHER = "teacher_training"
"""The stage of a teacher's trainings; `teacher` is the one that compares its checkpoints."""
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
    blocked: str | None = None
    teacher_training: TeacherTraining | None = None
    ready: bool = False
    """Whether its students can be asked for: its teacher is trained, or it has none."""
    outputs: Mapping[Checkpoint, tuple[OutputsTraining, ...]] = field(default_factory=dict)
    """Of its teacher's checkpoints, once it is ready."""
    progress: Progress = NOT_BEGUN
    phase2: Phase2 | None = None

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
        """Whether the teacher's two checkpoints turned out to be one."""
        pairs = self.outputs.values()
        return len(pairs) == 2 and len({outputs[0].key for outputs in pairs}) == 1
