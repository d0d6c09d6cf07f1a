"""Teachers, their outputs, students. Needs torch and transformers, and nothing of ray.

Importing this package costs nothing: torch is imported when the first training runs.
"""

from pathlib import Path

from kdsearch.agenda import Outcome, Training
from kdsearch.study import Resolved


def run_training(training: Training, folder: Path, *, keep: bool = False) -> Outcome:
    """Run a training with the files of the study's folder; see `kdsearch.distill.run.run`."""
    from kdsearch.distill.run import run

    return run(training, folder, keep=keep)


def check_models(resolved: Resolved, place: str) -> None:
    """See `kdsearch.distill.check.check_models`."""
    from kdsearch.distill.check import check_models

    check_models(resolved, place)


__all__ = ["check_models", "run_training"]
