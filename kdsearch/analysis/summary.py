"""The whole analysis of a study, which may be complete, half done or have failures."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from types import MappingProxyType

from kdsearch.agenda import Agenda, used
from kdsearch.analysis.answer import Answer, answer_of
from kdsearch.analysis.cases import CaseResult, State, case_results
from kdsearch.analysis.comparisons import figure_1, figure_2, figure_3, over_erm, stable_over_others
from kdsearch.analysis.cost import Spent, beside, cost, fused, reused
from kdsearch.analysis.edges import (
    Edge,
    TeacherEdge,
    Unconverged,
    edges,
    teacher_edges,
    unconverged,
)
from kdsearch.analysis.floor import Facts, Without, medians_without, rewards_without
from kdsearch.analysis.gains import Comparison
from kdsearch.analysis.generations import Line, lines_of
from kdsearch.analysis.levels import Levels, levels
from kdsearch.analysis.measures import case_measures
from kdsearch.analysis.noise import Noises
from kdsearch.analysis.sizes import Sizes, sizes
from kdsearch.analysis.speeds import ModelSpeeds
from kdsearch.analysis.stable import (
    Stable,
    Table3,
    at_least_as_good,
    stable_configuration,
    table_3,
)
from kdsearch.analysis.trends import Trend, trends
from kdsearch.study import TestCase

NO_FACTS: Facts = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Status:
    """How many test cases are where, and how many trainings have no score."""

    finished: int
    unfinished: int
    blocked: int
    diverged: int
    failed: int

    @property
    def cases(self) -> int:
        """All test cases."""
        return self.finished + self.unfinished + self.blocked

    @property
    def complete(self) -> bool:
        """Whether nothing is left to run; a blocked case does not wait for anything."""
        return not self.unfinished


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The paper's figures and Table 3, of a search that flips one axis at a time."""

    search: str | None
    """Its name; None of a study's single one."""
    stable: Stable | None
    figure_1: tuple[Comparison, ...]
    figure_2: tuple[Comparison, ...]
    figure_3: tuple[Comparison, ...]
    stable_over_lazy: Comparison
    stable_over_random: Comparison
    best_over_erm: Comparison
    """What each traversal chose by validation, over the student without a teacher."""
    stable_over_erm: Comparison
    at_least_as_good: float | None
    """The share of cases in which the stable configuration is at least as good as the best."""
    table_3: Table3
    without_floor: tuple[Without, ...]
    """Rewards and medians without the cases at the floor; empty where there are none."""

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every row of the figures, and those that the paper does not make."""
        over_others = (self.stable_over_lazy, self.stable_over_random)
        over_erm = (self.best_over_erm, self.stable_over_erm)
        return (*self.figure_1, *self.figure_2, *self.figure_3, *over_others, *over_erm)


@dataclass(frozen=True, kw_only=True)
class Analysis(Figures):
    """What a study says: its figures, and every test case.

    The figures are those of its first search that has any, empty where none has.
    """

    study: str
    seeds: tuple[int, ...]
    """That each student was trained under."""
    winner_seeds: tuple[int, ...]
    """That what each case chose is trained under; empty where the study has none."""
    status: Status
    answer: Answer
    """Whether distilling was worth it, for who wants a student."""
    flips: bool
    """Whether any search has figures."""
    further: tuple[Figures, ...]
    """Of its other searches."""
    cases: tuple[CaseResult, ...]
    levels: Levels
    """Token against sequence level."""
    generations: tuple[Line, ...]
    """Where students teach students."""
    sizes: tuple[Sizes, ...]
    """The models of each data set by size, speed and score."""
    trends: tuple[Trend, ...]
    """What goes with what; empty of a study with one student and one teacher."""
    edges: tuple[Edge, ...]
    unconverged: tuple[Unconverged, ...]
    teacher_edges: tuple[TeacherEdge, ...]
    cost: tuple[Spent, ...]
    beside: Spent
    """What the students took that no decision asked for: where slots would have been idle."""
    reused: int
    """How often a training was wanted again after it had run for another choice or test case."""
    fused: int
    """How many students were trained with others in one pass."""


def analyse(agenda: Agenda, noises: Noises | None = None, facts: Facts = NO_FACTS) -> Analysis:
    """Analyse the study of `agenda` as far as its results reach.

    Without `noises` nothing is known of test rows; `facts` are the preflight's about the data sets,
    which say what takes no learning.
    """
    noises = noises or Noises(agenda)
    speeds = ModelSpeeds(used(agenda).values())
    cases = case_results(agenda, noises, facts, speeds)
    floor = {case.case for case in cases if case.at_floor}
    taken = cost(agenda)
    states = [case.state for case in cases]
    first, *others = agenda.flipping or (None,)
    figures = figures_of(agenda, noises, first, floor)
    return Analysis(
        **{field.name: getattr(figures, field.name) for field in fields(figures)},
        study=agenda.resolved.study.name,
        seeds=agenda.resolved.study.student_seeds,
        winner_seeds=agenda.resolved.study.winner_seeds or (),
        status=Status(
            finished=states.count(State.FINISHED),
            unfinished=states.count(State.UNFINISHED),
            blocked=states.count(State.BLOCKED),
            diverged=sum(each.diverged for each in taken),
            failed=sum(each.failed for each in taken),
        ),
        answer=answer_of(agenda, cases, taken, noises),
        flips=bool(agenda.flipping),
        further=tuple(figures_of(agenda, noises, search, floor) for search in others),
        cases=cases,
        levels=levels(agenda, noises),
        generations=lines_of(agenda, cases, noises),
        sizes=sizes(agenda, cases, speeds),
        trends=trends(agenda, cases, case_measures(agenda, cases)),
        edges=edges(agenda),
        unconverged=unconverged(agenda),
        teacher_edges=teacher_edges(agenda),
        cost=taken,
        beside=beside(agenda),
        reused=reused(agenda),
        fused=fused(agenda),
    )


def figures_of(
    agenda: Agenda, noises: Noises, search: str | None, floor: Collection[TestCase]
) -> Figures:
    """The figures of a search, empty of one that flips nothing; these cases are at the `floor`."""
    first, second, third = (
        figure(agenda, noises, search) for figure in (figure_1, figure_2, figure_3)
    )
    best_over_erm, stable_over_erm = over_erm(agenda, noises, search)
    over_lazy, over_random = stable_over_others(agenda, noises, search)
    without: tuple[Without, ...] = ()
    if any(view.case in floor for view in agenda.views_of(search)):
        others = (over_lazy, over_random, best_over_erm, stable_over_erm)
        without = rewards_without(agenda, search, floor)
        without += medians_without((*first, *second, *third, *others), floor)
    return Figures(
        search=search,
        stable=stable_configuration(agenda, search),
        figure_1=first,
        figure_2=second,
        figure_3=third,
        stable_over_lazy=over_lazy,
        stable_over_random=over_random,
        best_over_erm=best_over_erm,
        stable_over_erm=stable_over_erm,
        at_least_as_good=at_least_as_good(third[-1]),
        table_3=table_3(agenda, search),
        without_floor=without,
    )
