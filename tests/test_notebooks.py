from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from test_analysis import before_tiny_met_mse, by_hand, searched, two_cases

from kdsearch.ledger import Ledger

pytest.importorskip("matplotlib")

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def run(name: str) -> Any:
    """A notebook, after all of its cells."""
    notebook = read(FOLDER / name)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(FOLDER)}}).execute()
    return notebook


def executed(study: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The notebook that reads a study, run on one."""
    monkeypatch.setenv("KDSEARCH_STUDY", str(study))
    return run("read_a_study.ipynb")


def outputs(notebook: Any, kind: str) -> list[str]:
    return [
        output["data"][kind]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if kind in output.get("data", {})
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_ships_without_outputs(path: Path) -> None:
    for cell in read(path).cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def test_the_notebook_shows_a_finished_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, _ = searched(tmp_path)
    notebook = executed(tmp_path, monkeypatch)
    text = "".join(
        output.get("text", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    students = sum(outcome.training.kind == "student" for outcome in ledger.outcomes())
    assert "by-hand: 2 test cases, complete" in text
    assert f"{students} students" in text
    assert len(outputs(notebook, "image/png")) == 4
    cases, trained, scores, gains, cost = outputs(notebook, "text/html")
    assert "tiny" in cases
    assert "finished" in cases
    assert "τ_t" in trained
    assert "0.74" in scores  # the highest validation score of g/t/small, of CE
    assert "<td>+40.0</td>" in gains  # best over worst in g/t/small: 0.84 over 0.60
    assert "ERM" not in gains
    assert "outputs" in cost


def test_the_notebook_compares_with_students_without_a_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(tmp_path, by_hand, two_cases(erm=True))
    gains = outputs(executed(tmp_path, monkeypatch), "text/html")[3]
    assert "chosen over ERM" in gains
    assert "<td>+2.5</td>" in gains  # g/t/small: 0.82 over the 0.80 of a student on labels alone


def test_the_notebook_shows_a_study_that_is_not_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, agenda = searched(tmp_path, by_hand, two_cases())
    for key, outcome in agenda.results.items():
        if outcome is not None and before_tiny_met_mse(outcome.training):
            (ledger.folder / "outcomes" / f"{key}.json").unlink()
    assert len(Ledger(tmp_path).results()) < len(agenda.results)
    assert len(outputs(executed(tmp_path, monkeypatch), "image/png")) == 4


def test_the_papers_figures_are_rendered_and_every_row_is_the_papers() -> None:
    notebook = run("paper_figures.ipynb")
    assert len(outputs(notebook, "image/png")) == 3
    *figures, rewards = outputs(notebook, "text/html")
    assert len(figures) == 3
    assert sum(html.count("<td>True</td>") for html in figures) == 9
    assert not any("<td>False</td>" in html for html in figures)
    assert "<td>11</td>" in rewards
