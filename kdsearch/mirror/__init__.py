"""A study's results in an Optuna storage, for optuna-dashboard. The ledger stays the truth."""

from kdsearch.mirror.mirror import WARNING, Mirror
from kdsearch.mirror.watch import MirrorWatch

__all__ = ["WARNING", "Mirror", "MirrorWatch"]
