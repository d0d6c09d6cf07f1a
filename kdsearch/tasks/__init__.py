"""Tasks: one short file each, behind one contract."""

from kdsearch.tasks.base import Encoded, Task
from kdsearch.tasks.classification import Classification

TASKS: dict[str, Task] = {"classification": Classification()}

__all__ = ["TASKS", "Classification", "Encoded", "Task"]
