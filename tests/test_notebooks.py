from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from test_analysis import before_tiny_met_mse, by_hand, searched, two_cases

import kdsearch
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
        for cell in code_cells(notebook)
        for output in cell.outputs
        if kind in output.get("data", {})
    ]


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook: Any) -> str:
    """What its cells print, and what they come to as text."""
    streams = (out.get("text", "") for cell in code_cells(notebook) for out in cell.outputs)
    return "".join([*streams, *outputs(notebook, "text/plain")])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_with_its_output_and_nothing_of_where_it_ran(path: Path) -> None:
    notebook = read(path)
    for number, cell in enumerate(code_cells(notebook), start=1):
        assert cell.execution_count == number  # run once, from the first to the last
        assert not cell.metadata  # no times
        kinds = {out.output_type for out in cell.outputs}
        assert kinds <= {"stream", "display_data", "execute_result"}
        assert all(out.get("name") != "stderr" for out in cell.outputs)
    assert outputs(notebook, "image/png")
    assert outputs(notebook, "text/html")
    texts = [printed(notebook), *outputs(notebook, "text/html")]
    assert not re.search(r"/(?:tmp|home|root|work)/", "".join(texts))


def test_the_stored_notebooks_are_small() -> None:
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 300_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_of_kdsearch_a_notebook_uses_what_is_public(path: Path) -> None:
    code = "\n".join(cell.source for cell in code_cells(read(path)))
    imported = {line for line in code.splitlines() if re.match("(from|import) kdsearch", line)}
    assert imported == {"import kdsearch"}
    assert set(re.findall(r"\bkdsearch\.(\w+)", code)) <= {"open", *kdsearch.__all__}


def test_the_notebook_shows_a_finished_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, _ = searched(tmp_path)
    notebook = executed(tmp_path, monkeypatch)
    text = printed(notebook)
    assert "<study by-hand: 2 of 2 test cases finished>" in text
    students = sum(outcome.training.kind == "student" for outcome in ledger.outcomes())
    assert f"{students} trials" in text
    assert "CE t_ll τ_s=τ_t α=1" in text
    assert len(outputs(notebook, "image/png")) == 3
    cases, trials, decisions, rewards, gains = outputs(notebook, "text/html")
    assert "g/t/tiny" in cases
    assert "finished" in cases
    assert "0.74" in trials  # the highest validation score of g/t/small
    assert "τ_s = 1" in decisions
    assert "t_ll over t_hs" in rewards
    assert "<td>+40.0</td>" in gains  # best over worst in g/t/small: 0.84 over 0.60
    assert "ERM" not in gains


def test_the_notebook_compares_with_students_without_a_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(tmp_path, by_hand, two_cases(erm=True))
    gains = outputs(executed(tmp_path, monkeypatch), "text/html")[-1]
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
    assert len(outputs(executed(tmp_path, monkeypatch), "image/png")) == 3


def test_the_papers_figures_are_rendered_and_every_row_is_the_papers() -> None:
    name = "paper_figures.ipynb"
    notebook = run(name)
    assert len(outputs(notebook, "image/png")) == 3
    *figures, rewards = outputs(notebook, "text/html")
    assert len(figures) == 3
    assert sum(html.count("<td>True</td>") for html in figures) == 9
    assert not any("<td>False</td>" in html for html in figures)
    assert "<td>11</td>" in rewards
    assert outputs(notebook, "text/html") == outputs(read(FOLDER / name), "text/html")
