"""The student without a teacher: its learning rate is tuned by validation, as any other's is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from kdsearch.agenda import Agenda, CaseView, TestScore
from kdsearch.analysis.scores import Tested, tested
from kdsearch.search import ValidationScore


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
    spread: float | None = None
    """The standard deviation of these; None of a single one."""
    learning_rate: float | None = None
    key: str | None = None
    """Of the training under the first seed."""

    @property
    def tested(self) -> Tested | None:
        """Its test scores, to compare with others."""
        return Tested(by_seed=self.by_seed) if self.by_seed else None


def tuned_erm(agenda: Agenda, view: CaseView) -> Erm | None:
    """The tuned student without a teacher; None while trainings of it are missing, or unwanted."""
    trainings = agenda.erm(view.case)
    if not trainings or any(t.key not in agenda.results for t in trainings):
        return None
    best = Erm(trials=len(trainings))
    for rate, group in groupby(trainings, key=lambda training: training.learning_rate):
        seeds = list(group)
        outcomes = [agenda.results[training.key] for training in seeds]
        scores = [o.validation for o in outcomes if o is not None and o.validation is not None]
        mean = ValidationScore(fmean(scores)) if len(scores) == len(seeds) else None
        if mean is None or (best.validation is not None and mean <= best.validation):
            continue
        found = tested(agenda, seeds)
        best = Erm(
            trials=len(trainings),
            validation=mean,
            test=found.mean if found else None,
            by_seed=found.by_seed if found else (),
            spread=found.spread if found else None,
            learning_rate=rate,
            key=seeds[0].key,
        )
    return best
