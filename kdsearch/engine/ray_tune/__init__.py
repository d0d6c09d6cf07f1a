"""Ray Tune as an engine: one Tuner at a time, our Searcher, reused actors."""

from kdsearch.engine.ray_tune.cluster import Cluster, connect, words
from kdsearch.engine.ray_tune.engine import EngineError, RayTuneEngine

__all__ = ["Cluster", "EngineError", "RayTuneEngine", "connect", "words"]
