"""Which trial gets a worker process that has just become free."""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler


class RampUpScheduler(FIFOScheduler):
    """First in, first out; but while processes still start, the last in.

    Tune gives a free process to the trial that the scheduler chooses, and ends the process that
    was being started for it. First in, first out, that is the trial whose process is almost ready:
    with trainings shorter than the start of a process, one slot then does all the work for ever.
    """

    def __init__(self, slots: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._slots = slots

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """See `TrialScheduler`."""
        trials: list[Trial] = tune_controller.get_trials()
        pending = [trial for trial in trials if trial.status == Trial.PENDING]
        if not pending:
            return None
        running = sum(trial.status == Trial.RUNNING for trial in trials)
        ramping_up = running < self._slots - 1  # one has just become free
        return pending[-1] if ramping_up else pending[0]
