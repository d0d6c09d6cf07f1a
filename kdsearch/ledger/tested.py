"""What a model made of each row of the test split, from which its score follows.

Kept beside the outcomes and never in one: what decides reads outcomes. That nothing of it imports
this module is one of the import contracts.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence

from kdsearch.agenda import Outcome
from kdsearch.ledger import layout
from kdsearch.ledger.reading import UnreadableError, parse_json
from kdsearch.ledger.storage import Storage

TestRows = Mapping[str, Sequence[float]]
"""Columns of numbers by name, each with one for every row, in the order of the rows."""

_MOST_BYTES = 2**26
"""Unpacked; a folder may come from someone else."""


class Tested(Storage):
    """The test rows of a study's trainings, a file for each that was scored."""

    def keep(self, key: str, rows: TestRows, recorded: Outcome | None) -> dict[str, str]:
        """Write the rows of the training `key`: the digest of the file, by its name.

        Nothing is written where the outcome that is `recorded` already is one of other rows, as of
        a training that is repeated on another machine. Raises `StorageError`.
        """
        content = gzip.compress(json.dumps(rows, separators=(",", ":")).encode(), mtime=0)
        digest = hashlib.sha256(content).hexdigest()
        name = layout.tested(key, digest)
        if recorded is not None and name not in recorded.digests:
            return {}
        path = self.path(name)
        self.make_folder(path.parent)
        self._commit(path, content)
        return {name: digest}

    def rows(self, outcome: Outcome) -> TestRows | None:
        """The rows behind an outcome's test score.

        None of an earlier version's, which kept none, and where the file is damaged or gone.
        """
        name = next(filter(layout.is_tested, outcome.digests), None)
        if name is None:
            return None
        try:
            if self.digest(name) != outcome.digests[name]:
                return None
            unpacked = zlib.decompressobj(wbits=31)
            content = unpacked.decompress(self.disk.read(self.path(name)), _MOST_BYTES)
            found = parse_json(content)
        except (OSError, UnreadableError, zlib.error):
            return None
        return found if unpacked.eof and isinstance(found, dict) else None
