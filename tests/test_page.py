from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fakes import (
    World,
    a_study,
    attempt_at,
    memory_ledger,
    resolved_of,
    search_through,
)
from test_analysis import (
    before_tiny_met_mse,
    blocked_study,
    failing_teacher,
    searched,
    without,
)

from kdsearch.agenda import Agenda
from kdsearch.analysis import analyse
from kdsearch.analysis.statistics import sign_test
from kdsearch.report import write_report
from kdsearch.report.document import document
from kdsearch.report.marks import AGAINST_ERM
from kdsearch.report.page import page
from kdsearch.study import load_study


def page_of(agenda: Agenda, **attempts: Any) -> str:
    return page(analyse(agenda), agenda, attempts)


def whole(**sections: Any) -> Agenda:
    resolved = resolved_of(a_study(**sections))
    return search_through(resolved, memory_ledger(resolved), World(seed=1))


def data_of(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


class Elements(HTMLParser):
    """Checks that elements close in order, and keeps what surrounds the scripts."""

    VOID = frozenset({"meta", "link", "input", "br", "wbr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_page_is_well_formed_and_its_ids_are_unique() -> None:
    found = Elements(page_of(whole()))
    assert len(found.ids) == len(set(found.ids))


def test_the_page_asks_no_network_for_anything() -> None:
    text = page_of(whole())
    assert not re.search(r"<(script|img|iframe)[^>]*\ssrc=", text)
    assert re.findall(r'<link[^>]*href="([^"]*)"', text) == ["data:,"]


@pytest.mark.parametrize("cases", [1, 39])
def test_every_test_case_has_a_row_and_its_details(cases: int) -> None:
    students = {f"s{i}": {"model": "small"} for i in range(cases)}
    text = page_of(whole(students=students))
    assert len(re.findall(r"<details id=\"case-\d+\"", text)) == cases
    assert len(data_of(text)["cases"]) == cases
    for i in range(cases):
        name = "/<wbr>".join(f"<bdi>{part}</bdi>" for part in ("sentences", "big", f"s{i}"))
        assert text.count(f'<a href="#case-{i}">{name}</a>') >= 1


def test_the_papers_study_fits_a_page_before_anything_has_run() -> None:
    study = load_study(Path(__file__).parent.parent / "search_spaces" / "paper.yaml")
    found = Elements(page_of(Agenda(resolved_of(study))))
    assert "0 of 39 test cases finished" in found.text


def test_what_a_study_names_is_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>"
    agenda = whole(datasets={evil: {"grammar": {"train": 20, "validation": 10, "test": 10}}})
    text = page_of(agenda)
    assert evil not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text


def test_a_name_cannot_end_the_pages_data() -> None:
    evil = "x<!--<script>"
    raw = a_study(students={evil: {"model": "small"}})
    resolved = resolved_of(raw)
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=1))
    assert evil not in page_of(agenda)
    Elements(page_of(agenda))


def test_a_complete_study_is_called_complete() -> None:
    assert 'id="state">complete</span>' in page_of(whole())


def test_a_half_done_study_is_called_partial_and_says_what_is_missing(tmp_path: Path) -> None:
    _, agenda = searched(tmp_path)
    found = Elements(page_of(without(agenda, before_tiny_met_mse))).text
    assert "partial" in found
    assert "Unfinished: trainings to run next" in found


def test_a_blocked_case_and_a_failed_training_are_shown_with_the_reason(tmp_path: Path) -> None:
    ledger, agenda = searched(tmp_path, failing_teacher, blocked_study())
    found = Elements(write_report(ledger, agenda).read_text()).text
    assert "complete, with failures" in found
    assert "Blocked: no training of its teacher succeeded" in found
    assert "failed (" in found


def test_a_study_without_any_result_has_a_page() -> None:
    found = Elements(page_of(Agenda(resolved_of(a_study())))).text
    assert "Nothing has been trained yet" in found


def test_failed_tries_are_counted_by_class() -> None:
    text = page_of(whole(), one=[attempt_at("one"), attempt_at("one")], two=[attempt_at("two")])
    assert '<th scope="row">an error</th><td>3</td>' in text


def test_the_data_holds_the_gains_of_the_analysis_in_percent_ascending(tmp_path: Path) -> None:
    _, agenda = searched(tmp_path)
    analysis = analyse(agenda)
    figure = data_of(page_of(agenda))["figures"]["figure-1"]
    for row, comparison in zip(figure["rows"], analysis.figure_1, strict=True):
        gains = sorted((each.gain, str(each.case)) for each in comparison.gains)
        assert [gain[1] for gain in row["gains"]] == pytest.approx([100 * g for g, _ in gains])
        assert [figure["cases"][gain[0]][1] for gain in row["gains"]] == [c for _, c in gains]
        assert row["median"] == pytest.approx(100 * (gains[0][0] + gains[1][0]) / 2)


def test_a_test_case_looks_the_same_in_the_figures_of_every_search() -> None:
    greedy = a_study()["search"]
    raw = a_study(
        students={"one": {"model": "small"}, "two": {"model": "big"}},
        searches={"first": greedy, "second": {**greedy, "alpha": [1]}},
        # Of one search alone, so that the numbers of its cases are others.
        test_cases=[{"student": "two", "search": "first"}, {"search": "second"}],
    )
    del raw["search"]
    resolved = resolved_of(raw)
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=1))
    figures = data_of(page_of(agenda))["figures"].values()
    looks = {(full.split("/")[2], look) for f in figures for _, full, look in f["cases"]}
    assert len(looks) == 2


def test_the_papers_rows_are_not_shown_until_they_are_asked_for(tmp_path: Path) -> None:
    text = page_of(searched(tmp_path)[1])
    assert text.count('<tr class="paper" hidden>') == 9
    assert text.count('<tr class="paper"') == 9
    assert '<input type="checkbox" id="overlay">' in text
    assert "gains cannot be compared with the paper’s" in Elements(text).text


def test_where_the_paper_has_none_of_the_rows_there_is_nothing_to_switch_on() -> None:
    agenda = whole()
    analysis = analyse(agenda)
    without_paper = {
        name: tuple(replace(row, paper=None) for row in getattr(analysis, name))
        for name in ("figure_1", "figure_2", "figure_3")
    }
    assert 'id="overlay"' not in page(replace(analysis, **without_paper), agenda, {})


def test_a_figure_without_a_gain_has_no_chart_and_says_where_the_reason_stands() -> None:
    text = page_of(Agenda(resolved_of(a_study())))
    assert 'class="chart gains"' not in text
    assert "No test case has any of these gains; why stands in the last column." in text


def test_a_reward_that_cannot_be_told_from_chance_is_marked() -> None:
    found = Elements(page_of(whole())).text
    assert "cannot be told from chance with 1 untied block of cases" in found
    assert "can be told from chance" not in found  # one case proves nothing


def test_a_reward_that_can_be_told_from_chance_is_not_marked() -> None:
    agenda = whole()
    analysis = analyse(agenda)
    chance = sign_test([1] * 9)
    sure = tuple(replace(row, chance=chance) for row in analysis.table_3.rows)
    analysis = replace(analysis, table_3=replace(analysis.table_3, rows=sure))
    found = Elements(page(analysis, agenda, {})).text
    assert "can be told from chance" in found
    assert "cannot be told from chance" not in found


def test_one_block_of_cases_is_said_to_be_too_few() -> None:
    found = Elements(page_of(whole())).text
    assert "1 block of cases (those of one data set and teacher), too few to tell" in found


def test_what_distillation_brings_is_shown_if_the_study_asks_for_it() -> None:
    assert "What distillation brings" in Elements(page_of(whole(erm=True))).text
    assert "What distillation brings" not in Elements(page_of(whole())).text


def test_the_spread_between_seeds_stands_beside_the_scores() -> None:
    assert "± seeds" in Elements(page_of(whole(seeds=[0, 1]))).text
    assert "± seeds" not in Elements(page_of(whole())).text


def test_the_study_file_and_the_fingerprints_are_shown() -> None:
    agenda = whole()
    found = Elements(page_of(agenda)).text
    assert "learning_rate:" in found
    digest = agenda.resolved.datasets["sentences"].splits["train"].digest
    assert digest[:16] in found


def test_the_report_has_the_page_beside_the_other_files(tmp_path: Path) -> None:
    ledger, agenda = searched(tmp_path)
    path = write_report(ledger, agenda)
    assert path == ledger.folder / "report" / "report.html"
    assert path.read_text().startswith("<!doctype html>")
    tables = {file.name for file in (ledger.folder / "report" / "tables").iterdir()}
    assert {"rewards.csv", "rewards.tex"} <= tables


def terms_of(text: str) -> dict[str, str]:
    """What the page says of each term, by every form of it."""
    found = re.search(r'<script type="application/json" id="terms">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return {form: said for forms, said in json.loads(found.group(1)) for form in forms}


def test_the_glossary_says_what_the_symbols_of_the_page_mean() -> None:
    text = page_of(whole(erm=True))
    shown = Elements(text.partition('<section id="glossary">')[2].partition("</section>")[0]).text
    for symbol in ("t_hs", "t_ll", "τ_s", "τ_t", "α", "CE", "MSE", "ERM", "lazy", "R", "p", "±"):
        assert f"{symbol} {terms_of(text)[symbol]}" in shown.replace("&gt;", ">")
    assert '<a href="#glossary">' in text


def test_the_glossary_leaves_out_what_a_study_does_not_have() -> None:
    terms = terms_of(page_of(whole()))
    assert {"JSD", "beta", "dropout", "BLEU", "gap closed"}.isdisjoint(terms)


def test_the_glossary_has_the_objectives_and_axes_of_other_searches() -> None:
    searches = {
        "other": {
            "strategy": "exhaustive",
            "objective": ["jsd", "reverse_kl"],
            "beta": [0.3],
            "temperature": [1, 2],
            "optimizer": ["adamw", "sgd"],
            "learning_rate": [1e-5],
        }
    }
    raw = a_study(searches=searches)
    raw.pop("search")
    resolved = resolved_of(raw)
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=1))
    assert {"JSD", "reverse KL", "beta", "optimizer"} <= terms_of(page_of(agenda)).keys()


def test_the_report_in_markdown_ends_with_the_glossary() -> None:
    agenda = whole()
    text = document(analyse(agenda), agenda, {})
    glossary = text.partition("## Glossary\n\n")[2]
    assert glossary.startswith("- **teacher**: ")
    assert "- **t_hs**: The teacher as it was after the epoch of its highest" in glossary


def rows_of(text: str) -> list[list[str]]:
    """The header and the rows of the table of test cases, cell by cell."""
    table = text.partition('<table id="case-table"')[2].partition("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    cells = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows)
    return [[re.sub(r"<[^>]*>", "", cell) for cell in row] for row in cells]


def test_the_table_of_cases_has_no_state_once_all_are_finished(tmp_path: Path) -> None:
    assert "state" not in rows_of(page_of(whole()))[0]
    _, agenda = searched(tmp_path)
    headers, *rows = rows_of(page_of(without(agenda, before_tiny_met_mse)))
    assert {row[headers.index("state")] for row in rows} == {"unfinished"}


@pytest.mark.parametrize(("rows", "score"), [(10, "0.1"), (200, "0.123"), (2000, "0.1234")])
def test_scores_of_a_case_have_the_decimals_that_its_test_rows_tell(rows: int, score: str) -> None:
    resolved = resolved_of(a_study(erm=True))
    splits = resolved.datasets["sentences"].splits
    splits["test"] = splits["test"].model_copy(update={"rows": rows})
    agenda = search_through(resolved, memory_ledger(resolved), World(seed=1))
    [headers, row, *_] = rows_of(page_of(agenda))
    shown = [row[headers.index(name)] for name in ("test", "labels alone (ERM)", "teacher")]
    assert [len(each) for each in shown] == [len(score)] * 3


def test_a_case_says_what_speaks_against_its_numbers() -> None:
    agenda = whole(erm=True)
    analysis = analyse(agenda)
    for verdict, words in AGAINST_ERM.items():
        cases = tuple(replace(each, verdict=verdict) for each in analysis.answer.cases)
        judged = replace(analysis, answer=replace(analysis.answer, cases=cases))
        [headers, row, *_] = rows_of(page(judged, agenda, {}))
        assert row[headers.index("verdict")] == words


def test_a_case_has_its_metric_beside_its_score() -> None:
    [headers, *rows] = rows_of(page_of(whole()))
    assert {row[headers.index("metric")] for row in rows} == {"F1"}


def test_each_part_of_a_name_keeps_its_own_direction() -> None:
    arabic = "بيانات"
    agenda = whole(datasets={arabic: {"grammar": {"train": 20, "validation": 10, "test": 10}}})
    name = f"<bdi>{arabic}</bdi>/<wbr><bdi>big</bdi>/<wbr><bdi>small</bdi>"
    assert page_of(agenda).count(f"<h3>{name}</h3>") == 1


def test_a_case_before_its_first_training_has_no_empty_tables() -> None:
    text = page_of(Agenda(resolved_of(a_study())))
    details = text.partition('<details id="case-')[2].partition("</details>")[0]
    assert "Unfinished: trainings to run next" in details
    assert "<table" not in details


def test_what_a_case_chose_and_its_baselines_are_named_by_what_they_are() -> None:
    [case, *_] = data_of(page_of(whole(erm=True)))["cases"]
    assert [run["role"] for run in case["runs"] if run["role"]] == [
        "chosen",
        "stable",
        "lazy",
        "ERM",
    ]
