"""A Ray of our own that starts beside other work: how it ends, why it did not start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from fakes import a_study, until

from kdsearch.engine import LocalRay

STARTING = """
import sys, time
from kdsearch.engine import LocalRay
ray = LocalRay()
ray.start()
if "up" in sys.argv:
    ray.address()
print("there", flush=True)
time.sleep(100)
"""


def marked(mark: str) -> list[psutil.Process]:
    """The processes that inherited an environment with this mark, but for this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("moment", ["starting", "up"])
def test_it_ends_with_the_process_that_it_is_for_however_that_ends(
    moment: str, tmp_path: Path
) -> None:
    environment = os.environ | {"MARK": str(tmp_path)}
    command = [sys.executable, "-c", STARTING, moment]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    until(lambda: len(marked(str(tmp_path))) > 2)  # itself, the one that starts Ray, Ray's
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not marked(str(tmp_path)))


def test_of_a_study_that_is_refused_while_it_starts_nothing_of_it_is_left(tmp_path: Path) -> None:
    wrong = {"model_type": "bert", "hidden_size": 33, "num_attention_heads": 2}
    study = a_study(models={"big": {"config": wrong}, "small": {"config": wrong}})
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(study))
    command = [sys.executable, "-m", "kdsearch", "launch", "wrong.yaml", "--address", "local"]
    environment = os.environ | {"MARK": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: len(marked(str(tmp_path))) > 1)  # a Ray has been begun
        _, said = process.communicate()
    assert process.returncode == 2, said
    assert "The hidden size (33) is not a multiple" in said
    assert not marked(str(tmp_path))


def test_one_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_TMPDIR", "f")
    ray = LocalRay()
    ray.start()
    with pytest.raises(ConnectionError, match=r"Not a directory|exists"):
        ray.address()
    ray.close()
