"""Waiting for room on a real cluster whose autoscaler has started no node yet."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from nodes import machines

from kdsearch.engine.ray_tune import Cluster
from kdsearch.engine.ray_tune.room import Needs, _settle

pytestmark = pytest.mark.undisturbed


@pytest.mark.parametrize(
    ("gpus", "there", "fit"),
    [(0.4, 2, 4), (0.6, 8, 8), (0.25, 2, 8), (0.2, 1, 5), (0.1, 1, 10), (1, 2, 2), (2, 5, 2)],
)
def test_a_part_of_a_gpu_is_of_one_gpu(gpus: float, there: int, fit: int) -> None:
    node = {"Resources": {"CPU": 64.0, "GPU": float(there)}, "Labels": {}}
    assert Needs(resources={"CPU": 1.0, "GPU": gpus}).room(node) == fit


def test_nodes_that_have_been_there_for_a_while_are_not_waited_for(cluster: Cluster) -> None:
    _settle()
    began = time.monotonic()
    _settle()
    assert time.monotonic() - began < 1


CONNECT = """
import sys, time
from kdsearch.engine.ray_tune import connect
from kdsearch.errors import InputError
from kdsearch.study import Resources
for gpus in (8, None):
    try:
        with connect(sys.argv[1], resources=Resources(cpus=1, gpus=gpus), threads=1) as cluster:
            print("connected:", cluster.needed["student"], cluster.slots)
    except InputError as error:
        print("refused:", error)
"""


def test_an_autoscaler_without_nodes_is_asked_for_one_and_what_it_can_never_bring_is_said(
    tmp_path: Path,
) -> None:
    log = tmp_path / "connect.log"
    with machines(tmp_path) as made:
        made.start_autoscaling("head", {"CPU": 1}, most=2)
        process = made.run("head", sys.executable, "-c", CONNECT, made.ray, log=log)
        assert process.wait(timeout=120) == 0, log.read_text()
    lines = log.read_text().splitlines()
    waiting = [line for line in lines if line.startswith("waiting for a node with room for 1 CPU")]
    assert len(waiting) <= 6
    refused, *others = [line for line in lines if line not in waiting]
    assert refused.startswith("refused: resources: a training asks for 1 CPU and 8 GPU; no node")
    assert others == [
        "this cluster has no GPU now: asking its autoscaler for one",
        "the autoscaler has no nodes with a GPU: trainings run on CPUs",
        "connected: 1 CPU 1",
    ]
