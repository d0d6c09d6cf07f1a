"""Whatever names, labels and messages hold, a report and a model card show it as it is."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from fakes import World, a_study, attempt_at, resolved_of, search_through
from markdown_it import MarkdownIt

from kdsearch.agenda import Agenda
from kdsearch.analysis import analyse
from kdsearch.ledger import Ledger
from kdsearch.report import card, write_report
from kdsearch.report.latex import latex
from kdsearch.report.markdown import escape
from kdsearch.study import Doubt, Preflight

NAMES = {
    "html": "<img src=x onerror=\"alert('1')\">&lt;",
    "an open comment": "<!--<script>",
    "markdown": "![a](b) **c** _d_ `e` ~~f~~ $g$ | h <i> # [j]",
    "latex": "[1em] & 50% #1 $x$ a_b ^ ~ {} *",
}
LABEL = "</script><script>alert(1)</script>]]>"


class Page(HTMLParser):
    """The elements of a page, and its text but for scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.words = ""
        self.scripts: list[str] = []
        self.within = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.within = tag

    def handle_endtag(self, tag: str) -> None:
        self.within = ""

    def handle_data(self, data: str) -> None:
        if self.within == "script":
            self.scripts.append(data)
        else:
            self.words += data


def searched(folder: Path, name: str, label: str) -> tuple[Ledger, Agenda]:
    """A study whose data set, models, teacher and student have this name, with such labels."""
    usual = a_study()
    resolved = resolved_of(
        a_study(
            datasets={name: usual["datasets"]["sentences"]},
            models={name: usual["models"]["big"], "small": {"config": {"model_type": label}}},
            teachers={name: {**usual["teachers"]["big"], "model": name}},
            students={name: {"model": name}},
        )
    )
    data = resolved.datasets[name]
    many = data.splits["test"].model_copy(update={"rows": 10**6})  # no gain is over less than a row
    splits = {**data.splits, "test": many}
    data = data.model_copy(update={"labels": (label, "other"), "splits": splits})
    resolved = resolved.model_copy(update={"datasets": {name: data}})
    ledger = Ledger(folder)
    ledger.prepare()
    ledger.write_resolved(resolved)
    agenda = search_through(resolved, ledger, World(seed=1))
    ledger.write_attempt(attempt_at(next(iter(agenda.results)), message=label))
    doubt = Doubt(place=name, what=f"has no row of {label}")
    ledger.write_preflight(Preflight(digest="", doubts=(doubt,)))
    write_report(ledger, agenda)
    return ledger, agenda


def card_of(agenda: Agenda) -> str:
    [result], [view] = analyse(agenda).cases, agenda.views()
    assert view.progress is not None
    best = view.progress.winner.best
    assert best is not None
    outcome: Any = agenda.results[agenda.training(view, best).key]
    return card(agenda, result, outcome, stable=False, again=None)


def rendered(markdown: str) -> Page:
    return Page(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown))


def shown(text: str) -> str:
    return " ".join(text.split())


Both = tuple[tuple[Ledger, Agenda], tuple[Ledger, Agenda]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ledger, Agenda]:
    return searched(tmp_path_factory.mktemp("plain"), "name", "label")


@pytest.fixture(scope="module", params=[*NAMES.values()], ids=[*NAMES])
def both(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    plain: tuple[Ledger, Agenda],
) -> tuple[str, Both]:
    """An odd name, the study that has it, and one with plain names."""
    return request.param, (searched(tmp_path_factory.mktemp("odd"), request.param, LABEL), plain)


def test_the_page_shows_names_labels_and_messages_as_they_are(both: tuple[str, Both]) -> None:
    name, studies = both
    pages = ((ledger.folder / "report" / "report.html").read_text() for ledger, _ in studies)
    found, expected = map(Page, pages)
    assert found.elements == expected.elements
    assert len(found.scripts) == len(expected.scripts)
    assert f"{name}/{name}/{name}" in shown(found.words)
    assert LABEL in found.words
    assert f"{name}: has no row of {LABEL}" in shown(found.words)


def test_the_document_shows_names_as_they_are(both: tuple[str, Both]) -> None:
    name, studies = both
    texts = ((ledger.folder / "report" / "report.md").read_text() for ledger, _ in studies)
    found, expected = map(rendered, texts)
    assert found.elements == expected.elements
    assert f"{name}/{name}/{name}" in found.words
    assert f"{name}: has no row of {LABEL}" in found.words


def test_the_model_card_shows_names_and_labels_as_they_are(both: tuple[str, Both]) -> None:
    name, studies = both
    texts = [card_of(agenda) for _, agenda in studies]
    fronts, bodies = zip(*(text.split("---\n", 2)[1:] for text in texts), strict=True)
    odd, usual = map(yaml.safe_load, fronts)
    for front, expected in ((odd, name), (usual, "name")):
        [index] = front["model-index"]
        [of_case] = index["results"]
        assert index.pop("name") == f"{expected}/{expected}/{expected}"
        assert of_case.pop("dataset") == {"name": expected, "type": expected, "split": "test"}
    assert odd == usual
    found, expected = map(rendered, bodies)
    assert found.elements == expected.elements
    assert f"{name}/{name}/{name}" in found.words
    assert LABEL in found.words


@pytest.mark.parametrize("text", [*NAMES.values(), LABEL, "\\input{x}", "t_hs"])
def test_a_table_for_latex_holds_no_command_of_a_name(text: str) -> None:
    def marks(name: str) -> list[str]:
        table = latex(pd.DataFrame({"first": [name, "x"], name: [name, 1.0]}))
        table = re.sub(r"\\text(?:backslash|ascii\w+)\{\}|\\[&%$#_{}]|\{[\[*]\}", "", table)
        return re.findall(r"[&%$#_{}\\^~*\[]", table)

    assert marks(text) == marks("name")


@pytest.mark.parametrize("text", [*NAMES.values(), LABEL, "t_hs", "_", "a_", "\\", "\\_a_"])
def test_what_is_escaped_reads_the_same_when_it_is_rendered(text: str) -> None:
    assert rendered(f"x {escape(text)}").words.strip() == f"x {text}"
