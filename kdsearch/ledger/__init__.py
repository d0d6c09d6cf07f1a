"""The ledger: the only state of a search, on storage that every node sees."""

from kdsearch.ledger.disk import Disk, OsDisk, storage_error, sync_folder
from kdsearch.ledger.ledger import Ledger, Progress
from kdsearch.ledger.lock import driver_lock, driver_of, leave
from kdsearch.ledger.names import MARKER, files_in, is_half, is_key, is_ours, shared_link
from kdsearch.ledger.reading import (
    UnreadableError,
    open_own,
    open_plain,
    parse_json,
    read_object,
    read_plain,
)
from kdsearch.ledger.removal import put
from kdsearch.ledger.verify import CANNOT_KNOW, Verified, verify

__all__ = [
    "CANNOT_KNOW",
    "MARKER",
    "Disk",
    "Ledger",
    "OsDisk",
    "Progress",
    "UnreadableError",
    "Verified",
    "driver_lock",
    "driver_of",
    "files_in",
    "is_half",
    "is_key",
    "is_ours",
    "leave",
    "open_own",
    "open_plain",
    "parse_json",
    "put",
    "read_object",
    "read_plain",
    "shared_link",
    "storage_error",
    "sync_folder",
    "verify",
]
