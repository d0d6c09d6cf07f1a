"""Teachers, their outputs, students. Needs torch and transformers, and nothing of ray.

Importing this package costs nothing: torch is imported when the first training runs.
"""

from pathlib import Path

from kdsearch.agenda import Outcome, Training


def run_training(training: Training, folder: Path) -> Outcome:
    """Run a training with the files of the study's folder; see `kdsearch.distill.run.run`."""
    from kdsearch.distill.run import run

    return run(training, folder)


__all__ = ["run_training"]
