"""The ledger: the only state of a search, on storage that every node sees."""

from kdsearch.ledger.disk import Disk, OsDisk, storage_error, sync_folder
from kdsearch.ledger.ledger import Ledger, Progress
from kdsearch.ledger.lock import driver_lock, driver_of, leave

__all__ = [
    "Disk",
    "Ledger",
    "OsDisk",
    "Progress",
    "driver_lock",
    "driver_of",
    "leave",
    "storage_error",
    "sync_folder",
]
