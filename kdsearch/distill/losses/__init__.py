"""The function that computes each objective, in a file of the objective's name."""

import importlib
import pkgutil

from kdsearch.distill.losses.registry import LOSSES, compute, loss_of
from kdsearch.distill.losses.units import Counts, KeptClasses, Units, label_loss, masked, mixed

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")

__all__ = [
    "LOSSES",
    "Counts",
    "KeptClasses",
    "Units",
    "compute",
    "label_loss",
    "loss_of",
    "masked",
    "mixed",
]
