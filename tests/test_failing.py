"""How commands fail under `--json`: an object for a program, the same words for a person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from fakes import a_study
from test_cli import Ended, kdsearch

from kdsearch.cli.app import app
from kdsearch.cli.job import _Output

FAILING: dict[str, list[str]] = {
    "validate": ["none.yaml"],
    "check": ["none.yaml"],
    "plan": ["none.yaml"],
    "status": ["none"],
    "explain": ["none"],
    "report": ["none"],
    "replay": ["none", "--strategy", "greedy"],
    "gc": ["none"],
    "verify": ["none"],
    "data check": ["none"],
}


def with_json(command: Any, *names: str) -> set[str]:
    """The commands that have `--json`."""
    inner = getattr(command, "commands", None)
    if inner:
        return set().union(*(with_json(each, *names, name) for name, each in inner.items()))
    options = [option for param in command.params for option in param.opts]
    return {" ".join(names)} if "--json" in options else set()


def told(ended: Ended) -> list[dict[str, str]]:
    """The problems that a program is told."""
    [line] = ended.out.splitlines()
    found = json.loads(line)
    assert [*found] == ["error"]
    assert [*found["error"]] == ["problems"]
    problems: list[dict[str, str]] = found["error"]["problems"]
    assert all([*problem] == ["place", "what", "remedy"] for problem in problems)
    return problems


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_command_that_has_json_is_tried_here() -> None:
    assert with_json(typer.main.get_command(app)) == {*FAILING}


@pytest.mark.parametrize("command", FAILING)
def test_a_command_that_fails_tells_it_to_programs_and_to_people(command: str) -> None:
    plain = kdsearch(*command.split(), *FAILING[command])
    found = kdsearch(*command.split(), *FAILING[command], "--json")
    assert (plain.code, plain.out) == (2, "")
    assert (found.code, found.err) == (plain.code, plain.err)
    [problem] = told(found)
    assert found.err.startswith(f"kdsearch: {problem['place']}: {problem['what']}")


@pytest.mark.parametrize("command", FAILING)
def test_a_command_line_that_cannot_be_understood_is_told_to_programs_too(command: str) -> None:
    found = kdsearch(*command.split(), *FAILING[command], "--jsn", "--json")
    assert found.code == 2
    [problem] = told(found)
    assert problem["place"] == f"kdsearch {command}"
    assert "--jsn" in problem["what"]
    assert problem["remedy"] == f"kdsearch {command} --help"
    assert "--jsn" in found.err
    assert kdsearch(*command.split(), *FAILING[command], "--jsn").out == ""


def test_a_command_that_there_is_not_is_told_to_programs_too() -> None:
    [problem] = told(kdsearch("valid", "--json"))
    assert (problem["place"], "valid" in problem["what"]) == ("kdsearch", True)


def test_every_problem_of_a_study_file_is_told(tmp_path: Path) -> None:
    Path("x.yaml").write_text(yaml.safe_dump(a_study(seed="one", tries=-1)))
    problems = told(kdsearch("validate", "x.yaml", "--json"))
    assert [problem["place"] for problem in problems] == ["x.yaml: seed", "x.yaml: tries"]


def test_what_the_disk_refuses_is_told() -> None:
    found = kdsearch("status", "a" * 300, "--json")
    assert found.code == 3
    [problem] = told(found)
    assert found.err == f"kdsearch: {problem['what']}\n"


def test_what_a_job_says_is_wrong_goes_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = _Output(begun=True)
    output('kdsearch: runs/x: is not a folder\n{"error": {"problems": []}}\n')
    printed = capsys.readouterr()
    assert printed.err == "kdsearch: runs/x: is not a folder\n"
    assert json.loads(printed.out) == {"error": {"problems": []}}
