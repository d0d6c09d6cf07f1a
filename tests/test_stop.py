"""Ending a real launch: signals, `kdsearch stop`, a deadline, a second driver, a dead raylet."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import Result
from fakes import a_study, attempt_at, resolved_of, until
from test_ray import ONE_SLOT, TINY, launch, wait_for_outcomes
from typer.testing import CliRunner

from kdsearch.agenda import Agenda
from kdsearch.cli.app import app
from kdsearch.cli.stop import parse_deadline
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, driver_of

pytestmark = pytest.mark.undisturbed

LONG = TINY.replace("alpha: [1, 0.5]", f"alpha: {[n / 100 for n in range(100, 0, -1)]}")
GOES_ON = "to resume, run the same command: kdsearch launch"


def kdsearch(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kdsearch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def keys_of(folder: Path, event: str) -> list[str]:
    log = (folder / "run" / "launch.log").read_text()
    return re.findall(rf"key=([0-9a-f]+) {event}", log)


def reported(folder: Path) -> bool:
    """Whether a report comes, which a process of its own may be writing still."""
    deadline = time.monotonic() + 60
    while not (folder / "run" / "report" / "report.html").exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def test_a_second_launch_is_refused_by_name_and_a_drained_one_ends_what_runs_and_no_more(
    tmp_path: Path, address: str
) -> None:
    first = launch(tmp_path, "--address", address, study=LONG)
    wait_for_outcomes(tmp_path, 2, first)
    driver = driver_of(tmp_path / "run")
    assert driver is not None
    second = kdsearch("launch", tmp_path / "tiny.yaml", "--folder", tmp_path / "run")
    assert second.returncode == 2
    assert f"process {first.pid} on {driver['host']} since {driver['since']}" in second.stderr

    asked = kdsearch("stop", tmp_path / "run", "--drain")
    assert asked.returncode == 0, asked.stderr
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 1, output
    assert "it was asked to stop" in output
    ledger = Ledger(tmp_path / "run")
    assert not Agenda(ledger.resolved(), ledger.results()).complete
    assert ledger.attempts() == {}
    assert set(keys_of(tmp_path, "finished")) == {outcome.key for outcome in ledger.outcomes()}
    assert driver_of(tmp_path / "run") is None
    assert (tmp_path / "run" / "report" / "report.html").exists()


def test_a_driver_whose_raylet_died_ends_with_the_command_that_goes_on(tmp_path: Path) -> None:
    process = launch(tmp_path, study=LONG + ONE_SLOT)
    wait_for_outcomes(tmp_path, 2, process)
    children = psutil.Process(process.pid).children(recursive=True)
    [raylet] = [child for child in children if child.name() == "raylet"]
    raylet.kill()
    killed = time.monotonic()
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 1, output
    assert time.monotonic() - killed < 90
    assert GOES_ON in output
    assert driver_of(tmp_path / "run") is None
    _, alive = psutil.wait_procs(children, timeout=10)
    assert [child.name() for child in alive] == []  # nothing is left behind on the machine
    assert reported(tmp_path)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_stopped_driver_has_left_before_what_stopped_it_would_kill_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = launch(tmp_path, study=LONG + ONE_SLOT)
    wait_for_outcomes(tmp_path, 2, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    process.wait(timeout=3)  # `ray job stop` gives three seconds
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 130
    assert GOES_ON in output
    assert "Traceback" not in output
    assert driver_of(tmp_path / "run") is None
    assert not (tmp_path / "run" / "driver.json").exists()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert [child.name() for child in alive] == []
    assert reported(tmp_path)


TWO_SIGNALS = """
import signal, sys, threading
from pathlib import Path
from rich.console import Console
from kdsearch.cli.stop import stoppable
from kdsearch.ledger import Ledger

both = {signal.SIGINT, signal.SIGTERM}
with stoppable(Ledger(Path(sys.argv[1])), Console(), None):
    signal.pthread_sigmask(signal.SIG_BLOCK, both)
    for number in both:
        signal.pthread_kill(threading.main_thread().ident, number)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
    except KeyboardInterrupt:
        sys.exit("interrupted")
"""


def test_two_signals_at_once_stop_a_launch_once_and_without_a_traceback(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TWO_SIGNALS, str(tmp_path)], capture_output=True, text=True
    )
    assert ended.stderr == "interrupted\n"
    assert ended.stdout.count("stopped; what was finished is kept") == 1


IN_A_CALLBACK = """
import signal, sys
from pathlib import Path
from rich.console import Console
from kdsearch.cli.stop import stoppable
from kdsearch.ledger import Ledger

with stoppable(Ledger(Path(sys.argv[1])), Console(), None):
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        raise ValueError("a serializer failed")
"""


def test_a_signal_that_a_library_turns_into_its_own_error_stops_a_launch_all_the_same(
    tmp_path: Path,
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_CALLBACK, str(tmp_path)], capture_output=True, text=True
    )
    assert "ValueError" not in ended.stderr
    assert ended.stderr.endswith("KeyboardInterrupt\n")
    assert "stopped; what was finished is kept" in ended.stdout


def test_a_launch_with_a_deadline_has_ended_by_then(tmp_path: Path, address: str) -> None:
    process = launch(tmp_path, "--address", address, "--deadline", "40s", study=LONG)
    until(lambda: driver_of(tmp_path / "run") is not None)  # the imports come before it counts
    started = time.monotonic()
    process.wait(timeout=120)
    assert time.monotonic() - started < 55
    output, _ = process.communicate(timeout=10)
    assert process.returncode in (1, 130), output
    ledger = Ledger(tmp_path / "run")
    assert list(ledger.outcomes())
    assert not Agenda(ledger.resolved(), ledger.results()).complete


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("1.5h", 5400), ("2d", 172800)])
def test_a_deadline_is_a_time_from_now(text: str, seconds: float) -> None:
    assert parse_deadline(text).at - time.monotonic() == pytest.approx(seconds, abs=1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("soon", "is not a time"),
        ("5", "is not a time"),
        ("2001-01-01", "is in the past"),
        ("0s", "is in the past"),
    ],
)
def test_a_deadline_that_is_none_is_refused(text: str, why: str) -> None:
    with pytest.raises(InputError, match=rf"--deadline: .*{why}"):
        parse_deadline(text)


def test_what_is_not_driven_cannot_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    found = kdsearch("stop", tmp_path / "run")
    assert found.returncode == 2
    assert "holds no study" in found.stderr


def test_retry_forgives_the_classes_that_are_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.prepare()
    resolved = resolved_of(a_study(tries=1))
    ledger.write_resolved(resolved)
    key = Agenda(resolved).requests()[0].training.key
    ledger.write_attempt(attempt_at(key))
    assert "0 trainings" in retry(tmp_path, "--class", "timeout").output
    assert ledger.results() == {key: None}
    assert "1 training will" in retry(tmp_path).output
    assert ledger.results() == {}
    assert isinstance(retry(tmp_path, "--class", "no").exception, InputError)
    assert json.loads((tmp_path / "attempts" / key / "1.retried").read_text())["key"] == key


def retry(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["retry", str(folder), *options])
