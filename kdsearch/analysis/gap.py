"""The gap from a student without a teacher to the teacher, and how much of it another closes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kdsearch.agenda import Agenda, CaseView
from kdsearch.analysis.noise import DEVIATIONS, Noise, NoiseOf, Noises
from kdsearch.analysis.scores import TestScores, candidate_on_test, on_test, row_worth
from kdsearch.search import CHECKPOINT, Candidate
from kdsearch.study import SPECS

_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class GapClosed:
    """A share of a gap on test: (student − ERM) / (teacher − ERM)."""

    share: float
    noise: Noise | None
    """Over test rows, and over the students' seeds; None where it is not known."""


def gap_closed(
    agenda: Agenda,
    view: CaseView,
    candidate: Candidate | None,
    erm: TestScores | None,
    noises: Noises,
) -> GapClosed | None:
    """What a candidate closes of the gap from `erm` to the checkpoint that taught it.

    None where one of the three has no score, and of a gap that the test split cannot tell from
    none: see `least_gap`.
    """
    outputs = view.outputs.get(candidate.choice.get(CHECKPOINT)) if candidate else None
    if candidate is None or outputs is None or erm is None:
        return None
    student = candidate_on_test(agenda, view, candidate)
    teacher = on_test(agenda, [training for training in outputs if training.split == "test"])
    if student is None or teacher is None:
        return None
    gap = float(teacher.mean - erm.mean)
    if gap < least_gap(agenda, view, teacher, erm, noises) * (1 - _ROUNDING):
        return None
    share = float(student.mean - erm.mean) / gap
    return GapClosed(share=share, noise=noises.of_share(student, erm, teacher))


def least_gap(
    agenda: Agenda, view: CaseView, teacher: TestScores, erm: TestScores, noises: Noises
) -> float:
    """The least gap that a share of it says anything of: above its noise and one row's worth.

    Where the noise over rows is not known, the standard error of `erm` stands for it, as if each
    row were right or wrong.
    """
    data, worth = agenda.resolved.datasets[view.case.dataset], row_worth(agenda, view)
    noise = noises.of_difference(teacher, erm)
    if noise is not None and noise.of is not NoiseOf.SEEDS:
        return max(DEVIATIONS * noise.deviation, worth)
    largest, score = SPECS[data.task].largest_score, float(erm.mean)
    error = math.sqrt(max(score * (largest - score), 0.0) * worth / largest)
    return max(DEVIATIONS * error, worth)
