"""Tune's scheduler: tells the pool what becomes of slots, and ends those that it wants no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from kdsearch.engine.ray_tune.pool import Pool


class SlotScheduler(FIFOScheduler):
    """Every slot goes on until it is done."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pool = pool

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """None: Tune itself starts all that wait. Called in each turn of its loop."""
        self._pool.look()
        trials: list[Trial] = tune_controller.get_trials()
        if self._pool.over:
            self._pool.close()
            ended = [t for t in trials if t.status in (Trial.PENDING, Trial.RUNNING)]
        else:
            waiting = {t.trial_id: t for t in trials if t.status == Trial.PENDING}
            ended = [waiting[each] for each in self._pool.superfluous(list(waiting))]
        for trial in ended:
            tune_controller.stop_trial(trial)
        return None

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """A slot came up, or ended a training and stays."""
        self._pool.reported(trial.trial_id, result)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """A slot has ended; with its last training, if that failed."""
        if not self._pool.over:
            self._pool.reported(trial.trial_id, result)
        self._pool.gone(trial.trial_id)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """A slot is waited for no more."""
        self._pool.gone(trial.trial_id)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """A slot's process ended, or its node."""
        self._pool.gone(trial.trial_id, _reason(trial))

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _reason(trial: Trial) -> str:
    """What Tune wrote down of a trial's error."""
    path: str | None = trial.error_file
    there = path and Path(path).exists()
    return Path(path).read_text(encoding="utf-8", errors="replace") if path and there else ""
