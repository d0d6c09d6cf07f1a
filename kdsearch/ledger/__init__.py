"""The ledger: the only state of a search, on storage that every node sees."""

from kdsearch.ledger.disk import Disk, OsDisk, storage_error, sync_folder
from kdsearch.ledger.ledger import Ledger
from kdsearch.ledger.lock import driver_lock, driver_of

__all__ = ["Disk", "Ledger", "OsDisk", "driver_lock", "driver_of", "storage_error", "sync_folder"]
