"""Engines: trainings in, outcomes out, in any order."""

from kdsearch.engine.base import (
    Engine,
    EngineError,
    Fleet,
    Queue,
    RunTogether,
    RunTraining,
    Slot,
    Worker,
)
from kdsearch.engine.inprocess import InProcessEngine
from kdsearch.engine.local_ray import LocalRay
from kdsearch.engine.tabulated import TabulatedEngine

__all__ = [
    "Engine",
    "EngineError",
    "Fleet",
    "InProcessEngine",
    "LocalRay",
    "Queue",
    "RunTogether",
    "RunTraining",
    "Slot",
    "TabulatedEngine",
    "Worker",
]
