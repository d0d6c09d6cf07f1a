"""What runs in a Ray actor: one training after the other, in a process that stays warm."""

from __future__ import annotations

import faulthandler
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from kdsearch.agenda import parse_training
from kdsearch.engine.base import Worker
from kdsearch.ledger import Ledger, open_own


def slot_class(
    worker: Worker, resources: Mapping[str, float], seconds: float
) -> type[tune.Trainable]:
    """A Trainable that runs trainings with `worker`, and takes `resources` of the cluster.

    A training that takes longer than `seconds` ends with its process.
    """

    class Slot(tune.Trainable):
        """One slot of the cluster."""

        @classmethod
        def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
            return tune.PlacementGroupFactory([dict(resources)])

        def setup(self, config: dict[str, Any]) -> None:
            logging.basicConfig(
                level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
            )

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.config = new_config
            return True

        def step(self) -> dict[str, Any]:
            training = parse_training(json.loads(self.config["training"]))
            label = f"{self.config['label']} {training}"
            logging.info("%s: started", label)
            with _watched(Ledger(worker.folder).watchdog(training.key), seconds):
                try:
                    worker(training)
                except Exception as error:
                    logging.exception("%s: failed", label)
                    worker.fail(training, error)
                    # Raised on, so that Tune does not use this process again: after an error on a
                    # GPU it may be in no state to. Ours may not survive pickling, hence another.
                    raise RuntimeError(f"{type(error).__name__}: {error}") from None
            logging.info("%s: finished", label)
            return {"done": True, "key": training.key}

        def __repr__(self) -> str:
            # Of the actor, in the dashboard, for as long as it lives: it serves many trainings.
            return "kdsearch-slot"

    Slot.__qualname__ = "Slot"
    return Slot


@contextmanager
def _watched(path: Path, seconds: float) -> Iterator[None]:
    """Have this process end after `seconds`, with the place where it hangs in `path`.

    The thread that does it is no Python thread: it needs no lock that what hangs may hold.
    """
    with open_own(path, "w") as file:
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    path.unlink(missing_ok=True)
