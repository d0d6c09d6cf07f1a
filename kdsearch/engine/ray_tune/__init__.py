"""Ray Tune as an engine: one Tuner at a time, a trial per slot, many trainings per trial."""

import os

# Of a worker process or a node that died Ray prints many lines of its own; we say it in one. Ray
# reads this as it is imported.
os.environ.setdefault(
    "RAY_DEDUP_LOGS_SKIP_REGEX",
    "^(A worker died or was killed while executing|Raylet is terminated|The node with node id)",
)

from kdsearch.engine.ray_tune.cluster import Cluster, Expected, connect
from kdsearch.engine.ray_tune.engine import RayTuneEngine
from kdsearch.engine.ray_tune.health import watch_health
from kdsearch.engine.ray_tune.metrics import Metrics
from kdsearch.engine.ray_tune.nodes import gpu_memory, slot_check, watch_nodes
from kdsearch.engine.ray_tune.room import Needs, kinds, room, words
from kdsearch.engine.ray_tune.task import run_on_worker

__all__ = [
    "Cluster",
    "Expected",
    "Metrics",
    "Needs",
    "RayTuneEngine",
    "connect",
    "gpu_memory",
    "kinds",
    "room",
    "run_on_worker",
    "slot_check",
    "watch_health",
    "watch_nodes",
    "words",
]
