"""The ledger: the only state of a search, on storage that every node sees."""

from kdsearch.ledger.disk import Disk, OsDisk, storage_error, sync_folder
from kdsearch.ledger.ledger import Ledger, Progress
from kdsearch.ledger.lock import driver_lock, driver_of, leave
from kdsearch.ledger.verify import Verified, verify

__all__ = [
    "Disk",
    "Ledger",
    "OsDisk",
    "Progress",
    "Verified",
    "driver_lock",
    "driver_of",
    "leave",
    "storage_error",
    "sync_folder",
    "verify",
]
