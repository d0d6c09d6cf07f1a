"""What a shell completes, asked as bash asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import a_study, resolved_of
from test_cli import kdsearch

from kdsearch.ledger import Ledger

KDSEARCH = str(Path(sys.executable).with_name("kdsearch"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two test cases that nothing has been trained of."""
    ledger = Ledger(tmp_path_factory.mktemp("runs") / "study")
    ledger.prepare()
    students = {"small": {"model": "small"}, "other": {"model": "small", "layers": 1}}
    models = {**a_study()["models"], "small": "/small"}
    ledger.write_resolved(resolved_of(a_study(students=students, models=models)))
    return ledger.folder


Completed = Callable[[str], list[str]]


@pytest.fixture
def completed(monkeypatch: pytest.MonkeyPatch) -> Completed:
    """What bash is offered for the last of the words that follow `kdsearch`."""

    def of(words: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", f"kdsearch {words}")
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" "))))
        monkeypatch.setenv("_KDSEARCH_COMPLETE", "complete_bash")
        ended = kdsearch()
        assert (ended.code, ended.err) == (0, "")
        return ended.out.split()

    return of


@pytest.mark.parametrize("command", ["explain", "export"])
def test_the_test_cases_of_a_folder_are_completed(
    command: str, folder: Path, completed: Completed
) -> None:
    words = f"{command} {folder} "
    assert completed(words) == ["sentences/big/small", "sentences/big/other"]
    assert completed(f"{words}sentences/big/o") == ["sentences/big/other"]
    assert completed(f"{words}big") == []


def test_a_folder_whose_cases_are_completed_may_be_named_from_home(
    folder: Path, completed: Completed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert completed("explain ~/study ") == ["sentences/big/small", "sentences/big/other"]


@pytest.mark.parametrize("content", [None, "", "{}"])
def test_of_a_folder_that_cannot_be_read_nothing_is_completed(
    content: str | None, tmp_path: Path, completed: Completed
) -> None:
    if content is not None:
        (tmp_path / "resolved.json").write_text(content)
    assert completed(f"explain {tmp_path} ") == []
    assert completed(f"explain {tmp_path}/none ") == []


def test_neither_torch_nor_ray_is_imported_to_complete() -> None:
    code = "import sys; import kdsearch.cli.app; print({'torch', 'ray'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_case_with_what_kdsearch_prints_for_it(folder: Path) -> None:
    script = f"""
    eval "$(_KDSEARCH_COMPLETE=bash_source {KDSEARCH})"
    complete -p kdsearch
    COMP_WORDS=(kdsearch explain {folder} sentences/big/s) COMP_CWORD=3
    _kdsearch_completion {KDSEARCH}
    echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "complete -o default -F _kdsearch_completion kdsearch",
        "sentences/big/small",
    ]


def test_completion_is_shown_and_installed_for_the_shell_that_is_used(tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}

    def told(*option: str) -> str:
        return subprocess.run(
            [KDSEARCH, *option], env=env, capture_output=True, text=True, check=True
        ).stdout

    assert "complete -o default" in told("--show-completion", "bash")
    assert "bash completion installed" in told("--install-completion", "bash")
    assert "completion" in (tmp_path / ".bashrc").read_text()
