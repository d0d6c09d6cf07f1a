"""Tune's searcher: Tune asks for a trial, the pool says whether it wants one more slot."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from kdsearch.engine.ray_tune.pool import Pool


class SlotSearcher(Searcher):
    """Suggests a slot as long as the pool wants one more."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(metric=None, mode=None)
        self._pool = pool

    def suggest(  # type: ignore[override]  # ray leaves FINISHED out of its type
        self, trial_id: str
    ) -> dict[str, Any] | str | None:
        """One more slot; None while there are enough; FINISHED when all is done."""
        return str(Searcher.FINISHED) if self._pool.over else self._pool.grow(trial_id)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """`SlotScheduler` sees more of it."""

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """The pool itself limits how many there are."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing is saved: a search is rebuilt from the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the searcher for a restore that we never do.
        return {}
