"""A job on several machines, of which one is lost, one joins and one sees no folder.

Of each alone there is a test in test_failures.py, test_slots.py and test_nodes.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import COST
from nodes import machines
from test_ray import TINY

from kdsearch.agenda import Outcome
from kdsearch.ledger import Ledger

pytestmark = pytest.mark.undisturbed

LONGER = TINY.replace("epochs: 2", "epochs: 4") + "seeds: [0, 1]\n"


def hosts(ledger: Ledger) -> Counter[str]:
    return Counter(outcome.cost.host for outcome in ledger.outcomes())


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 150
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def results(folder: Path) -> dict[str, Outcome]:
    """The outcomes, but for what they cost."""
    return {
        outcome.key: outcome.model_copy(update={"cost": COST})
        for outcome in Ledger(folder).outcomes()
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_survives_its_machines_and_finds_what_one_machine_finds(tmp_path: Path) -> None:
    shared, empty = tmp_path / "shared", tmp_path / "empty"
    shared.mkdir()
    empty.mkdir()
    study, log = shared / "tiny.yaml", tmp_path / "launch.log"
    study.write_text(LONGER)
    launch = (sys.executable, "-m", "kdsearch", "launch", str(study), "--folder")
    ledger = Ledger(shared / "run")
    with machines(tmp_path) as made:
        made.start("one", dashboard=True)
        made.start("two")
        made.start("blind", hidden={shared: empty})
        blind = made.address("blind")
        command = (*launch, str(ledger.folder), "--address", "http://127.0.0.1:8265")
        process = made.run("one", *command, log=log)
        wait_for(lambda: bool(hosts(ledger)), process, log)
        made.start("three")
        wait_for(lambda: hosts(ledger).keys() == {"one", "two", "three"}, process, log)
        made.stop("two")
        assert process.wait(timeout=300) == 0, log.read_text()
    output = log.read_text()
    line = f"node blind ({blind}) is left out: it does not see {ledger.folder}"
    assert output.count(line) == 1
    assert os.listdir(empty) == []
    nodes = json.loads((ledger.folder / "nodes.json").read_text())["nodes"]
    assert {node["name"].split()[0] for node in nodes if node["lacks"]} == {"blind"}
    assert hosts(ledger).keys() == {"one", "two", "three"}
    failures = {each.failure for tries in ledger.attempts().values() for each in tries}
    assert failures <= {"preempted"}
    assert (ledger.folder / "report" / "report.html").exists()

    alone = tmp_path / "alone"
    found = subprocess.run([*launch, str(alone), "--in-process"], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    assert results(ledger.folder) == results(alone)
