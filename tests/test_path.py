"""What each decision of a search brought, from the default to what it chose."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from fakes import World, a_study, memory_ledger, resolved_of, search_through
from hypothesis import given, settings
from hypothesis import strategies as st
from test_analysis import before_tiny_met_mse, searched, without

from kdsearch.analysis import analyse
from kdsearch.analysis.noise import Noises
from kdsearch.analysis.path import over_default, steps
from kdsearch.report.page import page
from kdsearch.report.path import path_lines
from kdsearch.report.plain import plain
from kdsearch.report.tables import steps as steps_table

WORLDS = st.builds(
    World,
    seed=st.integers(0, 10_000),
    levels=st.sampled_from([2, 5, 1000]),  # few levels make ties
    diverging=st.sampled_from([0.0, 0.3, 0.7]),
)


@settings(max_examples=30)
@given(world=WORLDS)
def test_a_path_never_loses_on_validation_and_adds_up(world: World) -> None:
    """With ties and without scores too."""
    resolved = resolved_of(a_study())
    agenda = search_through(resolved, memory_ledger(resolved), world)
    (view,) = agenda.views()
    noises = Noises(agenda)
    found, in_all = steps(agenda, view, noises), over_default(agenda, view, noises)
    decisions = view.progress.decisions
    assert len(found) == len(decisions)
    if in_all is None:
        assert not decisions
        return
    scores = [decisions[0].candidates[0].score, *(step.validation for step in found)]
    for (before, after), step in zip(pairwise(scores), found, strict=True):
        if before is None:  # no score loses to any
            assert step.gain.validation is None
            assert step.kept == (after is None)
        else:
            assert after is not None
            assert step.gain.validation == after - before >= 0
            assert step.kept == (after == before)  # a tie keeps what was held
    assert found[-1].validation == view.progress.winner.score
    gains = [step.gain.test for step in found if step.gain.test is not None]
    if in_all.test is not None:
        assert scores[0] is not None
        assert scores[-1] is not None
        assert math.fsum(gains) == pytest.approx(in_all.test)
        assert in_all.validation == pytest.approx(scores[-1] - scores[0])


def test_on_test_a_step_may_lose(tmp_path: Path) -> None:
    _, agenda = searched(tmp_path)
    gains = [step.gain for case in analyse(agenda).cases for step in case.steps]
    assert min(gain.test for gain in gains if gain.test is not None) < 0
    assert min(gain.validation for gain in gains if gain.validation is not None) == 0


def test_whole_choices_that_are_compared_have_no_path() -> None:
    searches = {"all": {"strategy": "exhaustive", "objective": "ce", "temperature": [1, 4]}}
    raw = {name: value for name, value in a_study().items() if name != "search"}
    resolved = resolved_of({**raw, "searches": searches, "learning_rate": [1e-5]})
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=1))
    (case,) = analyse(agenda).cases
    assert case.path
    assert (case.steps, case.over_default, path_lines(case)) == ((), None, [])
    assert 'data-chart="path"' not in page(analyse(agenda), agenda, {})


def test_under_several_seeds_a_gain_has_the_spread_of_its_differences() -> None:
    resolved = resolved_of(a_study(seeds=[0, 1, 2]))
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=5))
    (case,) = analyse(agenda).cases
    changed = [step for step in case.steps if not step.kept]
    assert changed
    for step in changed:
        assert step.gain.spread is not None
        assert step.gain.noise is not None
        assert step.gain.noise.of == "seeds"  # of rows that are not known
        assert step.gain.noise.deviation == pytest.approx(step.gain.spread / math.sqrt(3))


def test_a_path_is_told_on_one_line_for_validation_and_one_for_test(tmp_path: Path) -> None:
    _, agenda = searched(tmp_path)
    (tiny,) = (case for case in analyse(agenda).cases if case.case.student == "tiny")
    assert path_lines(replace(tiny, digits=2)) == [
        "Validation: default 0.60 → t_ll: +0.05 → τ_s = τ_t: kept → MSE: +0.01 → α = 0.5: +0.04 "
        "→ 0.70",
        "Test: default 0.50 → t_ll: +0.05 → τ_s = τ_t: kept → MSE: −0.11 → α = 0.5: −0.04 → 0.40; "
        "in all −0.10",
    ]


def test_a_default_that_is_kept_throughout_is_said_to_be() -> None:
    resolved = resolved_of(a_study())
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=1, levels=1))
    (case,) = analyse(agenda).cases
    assert path_lines(case) == ["The default is kept by every decision: validation 1.0, test 0.0."]
    assert 'data-chart="path"' not in page(analyse(agenda), agenda, {})


def test_an_unfinished_path_says_that_it_goes_so_far(tmp_path: Path) -> None:
    _, agenda = searched(tmp_path)
    _, tiny = analyse(without(agenda, before_tiny_met_mse)).cases
    assert tiny.winner is None
    assert all(" so far" in line for line in path_lines(tiny))


def test_the_tables_have_a_row_per_step_and_json_the_same(tmp_path: Path) -> None:
    _, agenda = searched(tmp_path)
    found = analyse(agenda)
    rows = steps_table(found).to_dict("records")
    plainly = [step for case in plain(found)["cases"] for step in case["steps"]]
    assert len(rows) == len(plainly) == 8
    for row, step in zip(rows, plainly, strict=True):
        assert [row[name] for name in ("value", "kept", "test")] == [
            step[name] for name in ("value", "kept", "test")
        ]
        assert row["test_gain"] == step["gain"]["test"]
