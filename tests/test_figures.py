"""The figures that report.md and the page share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fakes import a_study
from test_analysis import searched, two_cases
from test_edges import by_rate, study

from kdsearch.analysis import Analysis, CaseGain, analyse
from kdsearch.analysis.noise import Noise, NoiseOf
from kdsearch.analysis.paper import ROWS as PAPERS
from kdsearch.analysis.statistics import sign_test
from kdsearch.report.figures import (
    MANY,
    Figure,
    figures,
    gain_cell,
    lines,
    short_names,
    too_few,
    with_deciles,
)
from kdsearch.report.row_words import ROWS, described
from kdsearch.study import TestCase


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """Of two cases, each also without a teacher."""
    folder: Path = tmp_path_factory.mktemp("figures")
    return analyse(searched(folder, raw=two_cases(erm=True))[1])


def test_every_comparison_stands_in_one_figure(analysis: Analysis) -> None:
    shown = [row.label for figure in figures(analysis) for row in figure.rows]
    assert sorted(shown) == sorted(row.label for row in analysis.comparisons)


def test_what_distillation_brings_is_the_first_figure(analysis: Analysis) -> None:
    assert [figure.of_erm for figure in figures(analysis)] == [True, False, False, False, False]


def test_of_too_few_cases_a_table_has_no_columns_for_an_interval_or_a_test(
    analysis: Analysis,
) -> None:
    certainty = {"median, 95 %", "p", "least p"}
    for figure in figures(analysis):
        headers, rows = lines(figure, analysis, str)
        assert not certainty & {*headers}
        assert {len(line.cells) for line in rows} == {len(headers)}
    assert too_few(analysis) == ["Too few test cases for an interval or a test."]
    row = replace(analysis.figure_2[0], intervals=((0.1, 0.2),) * 11, chance=sign_test([1] * 9))
    sure = replace(analysis, figure_2=(row, *analysis.figure_2[1:]))
    each = next(figure for figure in figures(sure) if row in figure.rows)
    assert certainty <= {*lines(each, sure, str)[0]}
    assert too_few(sure) == []


def test_rows_that_are_better_in_either_direction_share_no_figure(analysis: Analysis) -> None:
    for figure in figures(analysis):
        behind = {row.label.startswith("best over") for row in figure.rows}
        assert behind == {figure.lower_is_better}
        assert ("lower is better" in figure.axis) == figure.lower_is_better


def with_gains(analysis: Analysis, *gains: float) -> Figure:
    """Figure 1 with a row of these gains, of the data sets 0, 1, …"""
    first = next(each for each in figures(analysis) if each.lower_is_better)
    found = tuple(
        CaseGain(case=case(str(i)), gain=gain, points=0.0, spread=None, noise=None)
        for i, gain in enumerate(gains)
    )
    return replace(first, rows=(replace(first.rows[0], n=len(gains), gains=found),))


def case(dataset: str, teacher: str = "t", student: str = "s") -> TestCase:
    return TestCase(dataset=dataset, teacher=teacher, student=student, search=None)


def ends(figure: Figure, analysis: Analysis) -> tuple[object, ...]:
    _, [line, *_] = lines(figure, analysis, lambda each: each.dataset)
    return line.cells[2:4]


def test_the_lowest_and_the_highest_case_stand_by_name(analysis: Analysis) -> None:
    figure = with_gains(analysis, 0.1, 0.3, 0.2)
    assert ends(figure, analysis) == ("10.0 (0)", "30.0 (1)")


def test_of_many_cases_the_worst_stands_by_name(analysis: Analysis) -> None:
    figure = with_gains(analysis, *range(MANY))
    many = replace(analysis, figure_1=figure.rows)
    for lower, end, name in ((True, "case of D10", str(MANY - 1)), (False, "case of D0", "0")):
        either = replace(figure, lower_is_better=lower)
        headers, [line, *_] = lines(either, many, lambda each: each.dataset)
        assert line.cells[headers.index(end)] == name


def test_where_several_cases_share_the_highest_gain_none_is_named(analysis: Analysis) -> None:
    figure = with_gains(analysis, 0.3, 0.1 + 0.2, 0.0)
    assert ends(figure, analysis) == ("0.0 (2)", "30.0 (2 cases)")


@pytest.mark.parametrize(("n", "deciles"), [(MANY - 1, False), (MANY, True)])
def test_deciles_are_of_many_cases(analysis: Analysis, n: int, *, deciles: bool) -> None:
    row = replace(analysis.figure_1[0], n=n)
    many = replace(analysis, figure_1=(row, *analysis.figure_1[1:]))
    assert with_deciles(many) == deciles
    figure = next(each for each in figures(many) if each.lower_is_better)
    headers, _ = lines(figure, many, str)
    assert ("D4" in headers, "case of D10" in headers) == (deciles, deciles)


def test_beside_many_cases_a_row_of_few_has_no_deciles_but_its_ends_and_median(
    analysis: Analysis,
) -> None:
    many, few = analysis.figure_1[0], analysis.figure_1[1]
    two = replace(analysis, figure_1=(replace(many, n=MANY, paper=None), few))
    figure = next(each for each in figures(two) if each.lower_is_better)
    _, [_, line, *_] = lines(figure, two, str)
    known = [k for k, cell in enumerate(line.cells[1:12]) if cell is not None]
    assert known == [0, 5, 10]


def test_a_gain_whose_sides_no_row_tells_apart_is_called_identical() -> None:
    def cell(gain: float, deviation: float, of: NoiseOf = NoiseOf.ROWS) -> str:
        noise = Noise(deviation=deviation, of=of)
        return gain_cell(CaseGain(case=case("a"), gain=gain, points=0.0, spread=None, noise=noise))

    assert cell(0.0, 0.0) == "0.0, identical"
    assert cell(0.0, 0.01) == "0.0\u00a0±\u00a01.0 (0.0)"
    # Seeds of one score need not agree on any row.
    assert cell(0.0, 0.0, NoiseOf.SEEDS) == "0.0\u00a0±\u00a00.0 (0.0)"


def test_a_short_name_has_the_parts_that_tell_the_cases_apart() -> None:
    def short(*cases: TestCase) -> list[str]:
        return list(short_names(cases).values())

    assert short(case("a"), case("b")) == ["a", "b"]
    assert short(case("a", student="x"), case("a", student="y")) == ["x", "y"]
    square = [case(d, student=s) for d in "ab" for s in "xy"]
    assert short(*square) == ["a/x", "a/y", "b/x", "b/y"]
    assert short(case("a"), case("a")) == ["a"]


def test_every_row_that_an_analysis_can_have_is_described(analysis: Analysis) -> None:
    constant = {row.label for row in analysis.comparisons if row.figure != 2}
    papers = {row.label for row in PAPERS if "over all α" not in row.label}
    assert set(ROWS) == constant | papers


def test_rows_of_values_are_described_by_these() -> None:
    search = {**a_study()["search"], "alpha": [0.5, 1], "distance": ["mse", "reverse_kl"]}
    found = analyse(study(by_rate, search={**search, "batch_size": [8, 16]}))
    words = {row.label: described(row.label) for row in found.figure_2}
    assert words["batch_size = 16 over batch_size = 8"] == (
        "batch_size = 16, in place of the default, batch_size = 8."
    )
    assert words["reverse KL over MSE"] == "reverse KL, in place of the default, MSE."
    assert words["best α by validation over α = 0.5"].endswith("over the default, α = 0.5.")
    assert "it can only gain" in words["maximum by test over all α, over α = 0.5"]
