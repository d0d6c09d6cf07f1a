"""The report of a search that runs, and of one that has ended: it fails none."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from fakes import BusyDisk, until
from test_analysis import searched
from test_cli import kdsearch, tiny, written

from kdsearch.agenda import Agenda
from kdsearch.cli.reporting import last_report, report_so_far, reporting
from kdsearch.ledger import Ledger
from kdsearch.report import check_report


def reports_under_way(folder: Path) -> set[int]:
    """The processes that write one of this folder."""
    found: set[int] = set()
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if str(folder) in child.cmdline():
                found.add(child.pid)
    return found


def obstruct(folder: Path) -> None:
    """Have no report written there any more."""
    (folder / "report" / "report.html").mkdir(parents=True)
    (folder / "report" / "report.html" / "in its place").touch()


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
    obstruct(ledger.folder)
    said: list[str] = []
    with reporting(ledger, said.append, seconds=0.1):
        until(lambda: bool(said))
        more: set[int] = set()

        def tried_twice_more() -> bool:
            more.update(reports_under_way(ledger.folder))
            return len(more) == 2

        until(tried_twice_more)  # and one of them has failed, else there were no other
    assert said == [f"the report cannot be written; to see why: kdsearch report {ledger.folder}"]


def test_an_error_that_ends_a_search_leaves_a_report(tmp_path: Path) -> None:
    ledger, _ = searched(tmp_path / "study")
    with pytest.raises(RuntimeError), reporting(ledger, print):
        raise RuntimeError("Ray dies again and again")
    until((ledger.folder / "report" / "report.html").exists)


def test_the_last_report_is_not_overtaken_by_one_that_was_begun_before(tmp_path: Path) -> None:
    ledger, agenda = searched(tmp_path / "study")
    page = ledger.folder / "report" / "report.html"
    with reporting(ledger, print, seconds=0.1):
        until(lambda: bool(reports_under_way(ledger.folder)))
    assert not reports_under_way(ledger.folder)
    assert last_report(ledger, agenda) == page


def test_a_report_overtaken_by_that_of_the_completed_study_is_written_again(
    tmp_path: Path,
) -> None:
    ledger, complete = searched(tmp_path / "study")
    last = max(ledger.folder.glob("outcomes/*.json"))
    aside = last.rename(tmp_path / last.name)

    def the_search_ends() -> None:
        if aside.exists():
            aside.rename(last)
            last_report(ledger, complete)

    slow = Ledger(ledger.folder, BusyDisk(the_search_ends))
    before = Agenda(slow.resolved(), slow.results())
    assert not before.complete
    report_so_far(slow, before)
    assert not aside.exists()
    assert check_report(ledger, complete) == ([], [])


def test_a_report_that_cannot_be_written_is_a_line_and_the_exit_code_is_that_of_the_search(
    tmp_path: Path,
) -> None:
    study, folder = written(tmp_path / "tiny.yaml", tiny()), tmp_path / "run"
    command = ("launch", study, "--in-process", "--folder", folder)
    assert kdsearch(*command).code == 0
    (folder / "report" / "report.html").unlink()
    obstruct(folder)

    ended = kdsearch(*command)
    assert ended.code == 0
    assert "nothing left to run" in ended.out
    [line] = ended.err.splitlines()
    assert line.startswith("kdsearch: the report could not be written: ")
    assert line.endswith(f"; to try again: kdsearch report {folder}")

    (folder / "report" / "report.html" / "in its place").unlink()
    (folder / "report" / "report.html").rmdir()
    assert kdsearch("report", folder).code == 0
