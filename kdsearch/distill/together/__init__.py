"""Several small students in one pass: where a step is overhead rather than arithmetic."""

from __future__ import annotations

from pathlib import Path

from kdsearch.agenda import DataSpec, ModelSpec
from kdsearch.distill.together.stack import Stack, UnlikeError
from kdsearch.distill.together.training import train_together
from kdsearch.study import TrainingSettings


def fusing_pays(
    model: ModelSpec, data: DataSpec, settings: TrainingSettings, folder: Path, *, device: str = ""
) -> int:
    """How many students of a model to train in one pass: 4, 8 or 16, or 1.

    1 where it does not pay (measured here and now, in a second or two, on `device`, by default the
    GPU if there is one, with the settings' threads), where the model, the task or the settings
    cannot be trained so, and where a step of a pass is not that of a training alone. No teacher is
    needed, the rows and the model's files are: those of the study in `folder`. Raises what
    building the model and reading the rows raise.
    """
    raise NotImplementedError


__all__ = ["Stack", "UnlikeError", "fusing_pays", "train_together"]
