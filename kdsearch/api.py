"""A study from Python: `kdsearch.open(FOLDER)`, as typed values and as pandas tables.

The types are those of `kdsearch.analysis`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.agenda import Agenda
from kdsearch.analysis import (
    Analysis,
    CaseResult,
    Comparison,
    Figures,
    Stable,
    Status,
    TrialResult,
    analyse,
    trial_results,
)
from kdsearch.analysis.temperature import Temperatures, temperatures
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.report import analyse_folder
from kdsearch.report.searches import flipping

if TYPE_CHECKING:
    import pandas as pd


def open_folder(folder: Path) -> tuple[Ledger, Agenda]:
    """The ledger of a study's folder, and its agenda as far as the outcomes go.

    Raises `InputError` for a folder without a study, or with one of another kdsearch.
    """
    if not folder.is_dir():
        remedy = "give the folder that `kdsearch launch` printed"
        raise InputError.one(folder, "is not a folder", remedy)
    ledger = Ledger(folder.resolve())
    return ledger, Agenda(ledger.resolved(), ledger.results())


def open(folder: str | PathLike[str]) -> StudyResults:
    """What the study in `folder` has found so far, also while its search runs.

    Raises `InputError` for a folder without a study, or with one of another kdsearch.
    """
    ledger, agenda = open_folder(Path(folder).expanduser())
    return StudyResults(agenda, lambda: analyse_folder(ledger, agenda))


class StudyResults:
    """What a study has found, complete or not, as its folder was when it was opened.

    Test scores are for the reader alone: no search sees one.
    """

    def __init__(self, agenda: Agenda, analysis: Callable[[], Analysis]) -> None:
        self._agenda = agenda
        self._analysis = analysis

    @cached_property
    def analysis(self) -> Analysis:
        """Everything below, and what is not: costs, seeds."""
        return self._analysis()

    @property
    def name(self) -> str:
        """The study's."""
        return self._agenda.resolved.study.name

    @property
    def status(self) -> Status:
        """How many test cases are finished, and how many trainings have no score."""
        return self.analysis.status

    @property
    def cases(self) -> tuple[CaseResult, ...]:
        """Every test case, in the order of the study file."""
        return self.analysis.cases

    def case(self, name: str) -> CaseResult:
        """The test case of this name, or the only one whose name has this part.

        Raises `InputError` where there is none, or are several.
        """
        named = {str(each.case): each for each in self.cases}
        found = [name] if name in named else [each for each in named if name in each]
        if len(found) != 1:
            what = "several test cases match" if found else "no test case matches"
            remedy = f"available: {', '.join(found or named)}"
            raise InputError.one("case", f"{what} {name}", remedy)
        return named[found[0]]

    @cached_property
    def trials(self) -> tuple[TrialResult, ...]:
        """Every trial that the test cases have asked for so far, case by case.

        Two of one key are one training, such as where the teacher's checkpoints coincide.
        """
        return trial_results(self._agenda)

    @property
    def searches(self) -> tuple[Figures, ...]:
        """Of each search that flips one axis at a time: its figures, rewards, stable choice."""
        return tuple(flipping(self.analysis))

    @property
    def stable(self) -> Stable | None:
        """The stable configuration of the first of these searches; None before there is one."""
        return self.analysis.stable

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every row of the figures, search by search."""
        return tuple(row for search in self.searches for row in search.comparisons)

    @cached_property
    def temperature(self) -> Temperatures | None:
        """Students over the temperature, and the claims; None where no search sweeps it."""
        return temperatures(self._agenda)

    @cached_property
    def tables(self) -> Tables:
        """The same for pandas."""
        return Tables(self)

    def __repr__(self) -> str:
        status = self.status
        return f"<study {self.name}: {status.finished} of {status.cases} test cases finished>"


class Tables:
    """A study's results as data frames. Scores are as measured, gains fractions."""

    def __init__(self, study: StudyResults) -> None:
        # It imports pandas, which takes as long as many a command.
        from kdsearch.report import tables

        self._frames = tables
        self._study = study

    @property
    def cases(self) -> pd.DataFrame:
        """A row per test case: its state, what it chose, its scores, teacher, sizes, seconds."""
        frame = self._frames.cases(self._study.analysis)
        frame.insert(0, "case", [str(each.case) for each in self._study.cases])
        return frame

    @property
    def trials(self) -> pd.DataFrame:
        """A row per trial of each test case; a parameter that is inactive in it is empty."""
        return self._frames.trials(self._study.trials)

    @property
    def decisions(self) -> pd.DataFrame:
        """A row per candidate of each decision of each test case, with the best of its trials."""
        frame = self._frames.path(self._study.analysis)
        rows = [(each.case, step) for each in self._study.cases for step in each.path]
        frame.insert(0, "case", [str(case) for case, step in rows for _ in step.candidates])
        return frame

    @property
    def comparisons(self) -> pd.DataFrame:
        """A row per comparison: the deciles over its test cases, and after it the paper's."""
        return self._of_each_search(lambda found: self._frames.comparisons(found.comparisons))

    @property
    def gains(self) -> pd.DataFrame:
        """A row per test case of each comparison."""
        return self._of_each_search(lambda found: self._frames.gains(found.comparisons))

    @property
    def rewards(self) -> pd.DataFrame:
        """Table 3: a row per alternative."""
        return self._of_each_search(self._frames.rewards)

    @property
    def temperature(self) -> pd.DataFrame:
        """A row per temperature of each line of students that were trained alike but for it."""
        return self._tempered("temperature")

    @property
    def temperature_teachers(self) -> pd.DataFrame:
        """A row per temperature, split and teacher: its relative entropies."""
        return self._tempered("temperature_teachers")

    @property
    def temperature_claims(self) -> pd.DataFrame:
        """A row per difference of each claim: over all comparisons, then of each."""
        return self._tempered("temperature_claims")

    def _tempered(self, name: str) -> pd.DataFrame:
        import pandas as pd

        from kdsearch.report.temperature_tables import temperature_tables

        return temperature_tables(self._study.temperature).get(name, pd.DataFrame())

    def _of_each_search(self, table: Callable[[Figures], pd.DataFrame]) -> pd.DataFrame:
        import pandas as pd

        study = self._study
        none = [(None, table(study.analysis)[:0])]
        found = [(each.search, table(each)) for each in study.searches] or none
        for name, frame in found:
            frame.insert(0, "search", name)
        return pd.concat([frame for _, frame in found], ignore_index=True)


def made_up_studies() -> tuple[StudyResults, StudyResults]:
    """Two studies whose figures are the paper's: one has Figures 1 and 3, the other Figure 2.

    Both have Table 3. Their outcomes are made up; see `kdsearch.analysis.synthetic`.
    """
    from kdsearch.analysis.synthetic import figure_2, figures_1_and_3

    first, second = figures_1_and_3(), figure_2()
    return (
        StudyResults(first, lambda: analyse(first)),
        StudyResults(second, lambda: analyse(second)),
    )
