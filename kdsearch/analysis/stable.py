"""The rewards (Table 3) and the stable configuration that follows from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kdsearch.agenda import Agenda, CaseView
from kdsearch.analysis.gains import Comparison
from kdsearch.analysis.paper import REWARDS
from kdsearch.analysis.scores import over_label
from kdsearch.analysis.statistics import Chance, block_of, sign_test
from kdsearch.search import (
    CHECKPOINT,
    Checkpoint,
    Choice,
    Held,
    Progress,
    rewards,
    stable_values,
)


@dataclass(frozen=True, kw_only=True)
class RewardRow:
    """A row of Table 3, by validation score."""

    parameter: str
    label: str
    reward: int
    better: int
    worse: int
    equal: int
    unscored: int
    chance: Chance
    """The exact sign test: how likely such a reward is if nothing is better."""
    paper: int | None
    """The paper's R, of the same comparison."""


@dataclass(frozen=True, kw_only=True)
class Table3:
    """The rewards over the traversals that are finished, and why some comparisons are equal."""

    traversals: int
    blocks: int
    """How many blocks of cases these are of; see `statistics`."""
    rows: tuple[RewardRow, ...]
    coinciding: int
    """Cases whose teacher has one checkpoint for both t_hs and t_ll."""
    same_student_temperature: int
    """Cases in which both sides of the τ_s flip came to one objective: τ_t = τ_s = 1."""


@dataclass(frozen=True, kw_only=True)
class Stable:
    """The choice that is stable over the test cases; its τ_t is tuned in each."""

    choice: Choice
    deviations: Held
    """Where it leaves the default."""
    tuned: tuple[str, ...]
    """What is tuned under it in each case."""
    provisional: bool
    """Whether traversals are still under way, so that it may change."""
    traversals: int
    """How many finished traversals it rests on."""
    cases: int
    """How many there are."""


def table_3(agenda: Agenda, search: str | None = None) -> Table3:
    """Table 3: how often an alternative was better than its default, less how often worse."""
    traversed = [view for view in agenda.views_of(search) if view.traversed]
    found_in_all = agenda.rewards(search)
    axes = dict.fromkeys(found.axis for found in found_in_all)
    blocks: dict[object, list[Progress]] = {}
    for view in traversed:
        blocks.setdefault(block_of(view), []).append(view.progress)
    by_block = [
        {(each.axis, each.default, each.alternative): each.reward for each in rewards(of, axes)}
        for of in blocks.values()
    ]
    rows = []
    for found in found_in_all:
        what = (found.axis, found.default, found.alternative)
        label = over_label(found.axis, found.alternative, found.default)
        rows.append(
            RewardRow(
                parameter=found.axis,
                label=label,
                reward=found.reward,
                better=found.better,
                worse=found.worse,
                equal=found.equal,
                unscored=found.unscored,
                chance=sign_test(block.get(what, 0) for block in by_block),
                paper=REWARDS.get(label),
            )
        )
    return Table3(
        traversals=len(traversed),
        blocks=len(blocks),
        rows=tuple(rows),
        coinciding=sum(view.coinciding for view in traversed),
        same_student_temperature=sum(map(same_student_temperature, traversed)),
    )


def same_student_temperature(view: CaseView) -> bool:
    """Whether the τ_s flip compared a trial with itself: τ_t = 1 won on both sides."""
    decision = view.progress.decision("student_temperature")
    if decision is None:
        return False
    bests = [candidate.best for candidate in decision.candidates]
    default, *others = (best and (best.objective, best.checkpoint) for best in bests)
    return default is not None and default in others


def stable_configuration(agenda: Agenda, search: str | None = None) -> Stable | None:
    """The stable configuration, provisional until the second phase.

    None while no traversal is finished: nothing speaks for any value yet.
    """
    views = agenda.views_of(search)
    traversals = sum(view.traversed for view in views)
    if not traversals:
        return None
    decided = agenda.stable(search)
    values = stable_values(agenda.rewards(search)) if decided is None else decided
    space = agenda.resolved.study.every_search[search].space()
    there = {name for view in views for name in view.space.names}
    held = {n: value for n, value in (space.defaults() | dict(values)).items() if n in there}
    if CHECKPOINT in held:
        single = [view.space.values(CHECKPOINT)[0] for view in views]
        if {*single} <= {Checkpoint.GIVEN, Checkpoint.WINNER}:
            held[CHECKPOINT] = single[0]
    return Stable(
        choice=space.choice(held),
        deviations=dict(values),
        tuned=tuple(axis.name for axis in space.tunes(space.choice(held))),
        provisional=decided is None,
        traversals=traversals,
        cases=len(views),
    )


def at_least_as_good(best_over_stable: Comparison) -> float | None:
    """The share of cases in which the stable one is at least as good as the best (§4): gain ≤ 0."""
    return share_not_above_zero(each.gain for each in best_over_stable.gains)


def share_not_above_zero(gains: Iterable[float]) -> float | None:
    """The share of `gains` that are at most 0; None of nothing."""
    signs = [each <= 0 for each in gains]
    return sum(signs) / len(signs) if signs else None
