"""The student without a teacher: its learning rate is tuned by validation, as any other's is."""

from __future__ import annotations

from dataclasses import dataclass

from kdsearch.agenda import Agenda, CaseView, StudentTraining, TestScore
from kdsearch.analysis.scores import TestScores, candidate_on_test
from kdsearch.analysis.speeds import Size
from kdsearch.search import Trial, ValidationScore, Value
from kdsearch.study import AXES, SECTIONS, WORDS


@dataclass(frozen=True, kw_only=True)
class Erm:
    """A student trained on labels alone, at its best learning rate by validation.

    Where no learning rate has a score, nothing of it is known but its `trials`.
    """

    trials: int
    validation: ValidationScore | None = None
    test: TestScore | None = None
    by_seed: tuple[TestScore, ...] = ()
    """The test score under each seed."""
    keys: tuple[tuple[str, ...], ...] = ()
    """Of the trainings that these are of."""
    spread: float | None = None
    """The standard deviation of these; None of a single one."""
    learning_rate: float | None = None
    key: str | None = None
    """Of the training under the first seed."""
    size: Size | None = None

    @property
    def on_test(self) -> TestScores | None:
        """Its test scores, to compare with others."""
        return TestScores(by_seed=self.by_seed, keys=self.keys) if self.by_seed else None


def tuned_erm(agenda: Agenda, view: CaseView) -> Erm | None:
    """The tuned student without a teacher; None while trainings of it are missing, or unwanted."""
    other = agenda.without_teacher(view.case)
    if other is None or other.case == view.case or not other.traversed:
        return None
    winner = other.progress.winner
    if winner.best is None:
        return Erm(trials=len(winner.trials))
    found = candidate_on_test(agenda, other, winner)
    return Erm(
        trials=len(winner.trials),
        validation=winner.score,
        test=found.mean if found else None,
        by_seed=found.by_seed if found else (),
        keys=found.keys if found else (),
        spread=found.spread if found else None,
        learning_rate=winner.best.get("learning_rate"),
        key=agenda.training(other, winner.best).key,
    )


@dataclass(frozen=True, kw_only=True)
class OtherSetting:
    """A setting in which a student differs from the one without a teacher beside it."""

    name: str
    student: Value
    erm: Value


def other_settings(agenda: Agenda, view: CaseView, trial: Trial) -> tuple[OtherSetting, ...]:
    """Where a trial was trained otherwise than the tuned student without a teacher.

    Each has a learning rate of its own, which is no difference. Nothing where there is no such
    student.
    """
    other = agenda.without_teacher(view.case)
    if other is None or other.case == view.case or not other.traversed:
        return ()
    best = other.progress.winner.best
    if best is None:
        return ()
    mine = settings_of(agenda.training(view, trial))
    plain = settings_of(agenda.training(other, best))
    return tuple(
        OtherSetting(name=name, student=mine.get(name), erm=plain.get(name))
        for name in AXES
        if mine.get(name) != plain.get(name)
    )


def settings_of(training: StudentTraining) -> dict[str, Value]:
    """What a search may have as an axis, as a student was trained; None of another optimizer."""
    settings = training.settings
    section, _ = SECTIONS[settings.optimizer]
    held = {**vars(getattr(settings, section)), **vars(settings)}
    held["lora_rank"] = settings.lora and settings.lora.r
    held["augmentation"] = settings.augmentation and settings.augmentation.shown
    held["layers"] = "all" if training.model.layers is None else training.model.layers
    return {
        name: WORDS.get(name) if held[name] is None else held[name] for name in AXES if name in held
    }
