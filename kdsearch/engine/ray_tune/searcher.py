"""Between Tune and our queue: Tune asks for a trial, the queue says which training it is."""

from __future__ import annotations

import json
from typing import Any

from ray.tune import Callback
from ray.tune.search import Searcher

from kdsearch.engine.base import Queue

_ENDED = ("ERROR", "TERMINATED")


class QueueSearcher(Searcher):
    """Suggests the queue's trainings. Tune's own results are not looked at: the ledger has them.

    No hook raises, since Tune would run a finished trial again: an error is kept in `error`, and
    the search ends. A trial can end without Tune telling the searcher; `Reconcile` shows it the
    live list of trials, and what has ended there unannounced is taken as lost.
    """

    def __init__(self, queue: Queue) -> None:
        super().__init__(metric=None, mode=None)
        self.error: Exception | None = None
        self.trials: list[Any] = []
        self._queue = queue
        self._live: dict[str, str] = {}
        self._suspects: set[str] = set()

    @property
    def live(self) -> tuple[str, ...]:
        """The keys of the trainings that Tune has in hand."""
        return tuple(self._live.values())

    def suggest(  # type: ignore[override]  # ray leaves FINISHED out of its type
        self, trial_id: str
    ) -> dict[str, Any] | str | None:
        """The next training; None while none can start; FINISHED when all is done."""
        try:
            self._reconcile()
            if self.error is not None or self._queue.complete:
                return str(Searcher.FINISHED)
            request = self._queue.take()
            if request is None:
                return None
        except Exception as error:
            self.error = error
            return str(Searcher.FINISHED)
        self._live[trial_id] = request.training.key
        return {
            "training": json.dumps(request.training.model_dump(mode="json")),
            "label": str(request),
            "key": request.training.key,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial ended; the ledger says how."""
        key = self._live.pop(trial_id, None)
        if key is None:
            return
        try:
            if error:
                self._queue.lost(key, "its worker process ended without a word")
            else:
                self._queue.done(key)
        except Exception as problem:
            self.error = self.error or problem

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """The queue itself limits what runs."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing is saved: a search is rebuilt from the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the searcher for a restore that we never do.
        return {}

    def _reconcile(self) -> None:
        ended = {t.trial_id for t in self.trials if t.status in _ENDED} & set(self._live)
        for trial_id in ended & self._suspects:
            self._queue.lost(self._live.pop(trial_id), "its trial ended unannounced")
        self._suspects = ended


class Reconcile(Callback):
    """Shows the searcher Tune's live list of trials."""

    def __init__(self, searcher: QueueSearcher) -> None:
        self._searcher = searcher

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tune passes its list by reference; it stays current."""
        self._searcher.trials = trials

    def __getstate__(self) -> dict[str, Any]:
        return {}
