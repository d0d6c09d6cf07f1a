"""Ray Tune as an engine: one Tuner at a time, our Searcher, reused actors."""

from kdsearch.engine.ray_tune.cluster import Cluster, connect, words
from kdsearch.engine.ray_tune.engine import RayTuneEngine
from kdsearch.engine.ray_tune.health import watch_health

__all__ = ["Cluster", "RayTuneEngine", "connect", "watch_health", "words"]
