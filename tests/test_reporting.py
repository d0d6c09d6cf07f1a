"""The report of a search that runs, and of one that has ended: it fails none."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_analysis import searched
from test_cli import kdsearch, tiny, written

from kdsearch.cli.reporting import last_report, reporting


def until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_report_is_written_again_and_again_while_a_search_runs(tmp_path: Path) -> None:
    ledger, _ = searched(tmp_path / "study")
    page = ledger.folder / "report" / "report.html"
    said: list[str] = []
    with reporting(ledger, said.append, seconds=0.1):
        until(page.exists)
        page.unlink()
        until(page.exists)
    assert said == []


def test_that_it_cannot_be_written_is_said_once_and_the_search_goes_on(tmp_path: Path) -> None:
    ledger, _ = searched(tmp_path / "study")
    (ledger.folder / "report").write_text("in its place")
    said: list[str] = []
    with reporting(ledger, said.append, seconds=0.1):
        until(lambda: bool(said))
        time.sleep(5)  # it is tried again
    assert said == [f"the report cannot be written; why: kdsearch report {ledger.folder}"]


def test_an_error_that_ends_a_search_leaves_a_report(tmp_path: Path) -> None:
    ledger, _ = searched(tmp_path / "study")
    with pytest.raises(RuntimeError), reporting(ledger, print):
        raise RuntimeError("Ray dies again and again")
    until((ledger.folder / "report" / "report.html").exists)


def test_the_last_report_is_not_overtaken_by_one_that_was_begun_before(tmp_path: Path) -> None:
    ledger, agenda = searched(tmp_path / "study")
    page = ledger.folder / "report" / "report.html"
    with reporting(ledger, print, seconds=0.1):
        time.sleep(0.5)  # one has been begun
    assert last_report(ledger, agenda) == page
    written_at = page.stat().st_mtime_ns
    time.sleep(5)
    assert page.stat().st_mtime_ns == written_at


def test_a_report_that_cannot_be_written_is_a_line_and_the_exit_code_is_that_of_the_search(
    tmp_path: Path,
) -> None:
    study, folder = written(tmp_path / "tiny.yaml", tiny()), tmp_path / "run"
    command = ("launch", study, "--in-process", "--folder", folder)
    assert kdsearch(*command).code == 0
    for path in sorted((folder / "report").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (folder / "report").rmdir()
    (folder / "report").write_text("in its place")

    ended = kdsearch(*command)
    assert ended.code == 0
    assert "nothing is left to run" in ended.out
    [line] = ended.err.splitlines()
    assert line.startswith("kdsearch: the report could not be written: ")
    assert line.endswith(f"; try again: kdsearch report {folder}")

    (folder / "report").unlink()
    assert kdsearch("report", folder).code == 0
