"""The ledger: the only state of a search, on storage that every node sees."""

from kdsearch.ledger import layout
from kdsearch.ledger.disk import Disk, OsDisk, open_own, storage_error, sync_and_digest
from kdsearch.ledger.layout import is_half, is_ours
from kdsearch.ledger.ledger import Ledger
from kdsearch.ledger.links import MARKER, files_in
from kdsearch.ledger.lock import driver_lock, driver_of, leave
from kdsearch.ledger.reading import (
    UnreadableError,
    open_plain,
    parse_json,
    read_object,
    read_plain,
)
from kdsearch.ledger.removal import discard, put
from kdsearch.ledger.results import Progress
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
    "discard",
    "driver_lock",
    "driver_of",
    "files_in",
    "is_half",
    "is_ours",
    "layout",
    "leave",
    "open_own",
    "open_plain",
    "parse_json",
    "put",
    "read_object",
    "read_plain",
    "storage_error",
    "sync_and_digest",
    "verify",
]
