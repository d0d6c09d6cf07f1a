"""A study's results in an Optuna storage, for optuna-dashboard. The ledger stays the truth."""

from kdsearch.mirror.mirror import WARNING, Mirror
from kdsearch.mirror.url import VARIABLE, storage_url
from kdsearch.mirror.watch import MirrorWatch

__all__ = ["VARIABLE", "WARNING", "Mirror", "MirrorWatch", "storage_url"]
