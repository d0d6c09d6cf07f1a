"""Between Tune and our queue: Tune asks for a trial, the queue says which training it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.search import Searcher

from kdsearch.agenda import Failure
from kdsearch.engine.base import EngineError, Queue

_ENDED = ("ERROR", "TERMINATED")
_MOST_STILLBORN = 5
_NODE_LOST = (
    "node has died",
    "node was terminated",
    "preempt",
    "ActorUnavailableError",  # while no one knows yet whether the node lives
    "is temporarily unavailable",
)
_MESSAGES: dict[Failure, str] = {
    "worker_lost": "its worker process ended without a word",
    "host_oom": "its node ran low on memory, and Ray ended it",
    "preempted": "its node went away, or cannot be reached",
}


def _reason(trial: Any) -> str:
    """What Tune wrote down of a trial's error."""
    path = trial.error_file
    there = path and Path(path).exists()
    return Path(path).read_text(encoding="utf-8", errors="replace") if there else ""


def _failure(reason: str) -> Failure:
    """The class of a failure that Ray words so (2.60)."""
    if "low on memory" in reason:
        return "host_oom"
    if any(words in reason for words in _NODE_LOST):
        return "preempted"
    return "worker_lost"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no word")


class QueueSearcher(Searcher):
    """Suggests the queue's trainings. Tune's own results are not looked at: the ledger has them.

    No hook raises, since Tune would run a finished trial again: an error is kept in `error`, and
    the search ends. A trial can end without Tune telling the searcher; `Reconcile` shows it the
    live list of trials, and what has ended there unannounced is taken as lost.
    """

    def __init__(self, queue: Queue, begun: Callable[[str], bool]) -> None:
        """`begun` tells of a key whether a worker process has begun its training."""
        super().__init__(metric=None, mode=None)
        self.error: Exception | None = None
        self._begun = begun
        self._stillborn = 0
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
                self._lost(trial_id, key)
            else:
                self._stillborn = 0
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

    def _lost(self, trial_id: str, key: str) -> None:
        """A process ended. If it had not begun its training, that is no try of it."""
        reason = next((_reason(t) for t in self.trials if t.trial_id == trial_id), "")
        failure = _failure(reason)
        if failure != "worker_lost" or self._begun(key):
            self._stillborn = 0
            self._queue.lost(key, _MESSAGES[failure], failure)
            return
        self._queue.release(key)
        self._stillborn += 1
        if self._stillborn >= _MOST_STILLBORN:
            raise EngineError(f"worker processes die at their start: {_last_line(reason)}")

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
