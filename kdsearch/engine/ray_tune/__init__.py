"""Ray Tune as an engine: one Tuner at a time, our Searcher, reused actors."""

from kdsearch.engine.ray_tune.cluster import Cluster, connect, words
from kdsearch.engine.ray_tune.engine import RayTuneEngine
from kdsearch.engine.ray_tune.health import watch_health
from kdsearch.engine.ray_tune.task import run_on_worker

__all__ = ["Cluster", "RayTuneEngine", "connect", "run_on_worker", "watch_health", "words"]
