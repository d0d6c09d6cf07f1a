"""Engines: trainings in, outcomes out, in any order."""

from kdsearch.engine.base import Engine, EngineError, Queue, RunTraining, Worker
from kdsearch.engine.inprocess import InProcessEngine
from kdsearch.engine.tabulated import TabulatedEngine

__all__ = [
    "Engine",
    "EngineError",
    "InProcessEngine",
    "Queue",
    "RunTraining",
    "TabulatedEngine",
    "Worker",
]
