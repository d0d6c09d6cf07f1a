"""How far a search is, in a few words and numbers."""

from __future__ import annotations

import random

from fakes import World, a_study, memory_ledger, outcome_of, random_study, resolved_of
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.agenda import DONE, STAGES, Agenda, answered, best_so_far, stage_of, used


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1))
def test_on_any_way_through_a_search_what_is_told_of_it_holds(seed: int) -> None:
    draw = random.Random(seed)
    resolved = resolved_of(random_study(draw))
    ledger, world = memory_ledger(resolved), World(seed=seed, failing=0.05, diverging=0.05)
    agenda = Agenda(resolved)
    best: dict[object, float] = {}
    while requests := agenda.requests():
        key = requests[0].training.key
        world.commit(ledger, requests[0].training)
        agenda.add(key, ledger.outcome(key))
        for view in agenda.views():
            assert stage_of(view) in STAGES
            score = best_so_far(agenda, view.case)
            if view.case in best:  # a decision may bring other candidates, and none goes
                assert score is not None
                assert score >= best[view.case]
            if score is not None:
                best[view.case] = score
        assert answered(agenda) >= len(used(agenda))
    for view in agenda.views():
        assert stage_of(view) == ("blocked" if view.blocked else DONE)
        if view.best_has_score and view.progress is not None:
            assert best[view.case] >= (view.progress.winner.score or 0)


def test_what_two_cases_share_is_answered_twice() -> None:
    # Two students of one teacher.
    resolved = resolved_of(a_study(students={"one": {"model": "small"}, "other": {"model": "big"}}))
    agenda = Agenda(resolved)
    [request] = agenda.requests()
    assert answered(agenda) == 0
    agenda.add(request.training.key, outcome_of(request.training, 0.5, lowest_loss_epoch=1))
    assert answered(agenda) == 2
    assert len(used(agenda)) == 1
