"""Which trial gets a worker process that has just become free."""

from __future__ import annotations

import time
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

_RAMP_UP_SECONDS = 120.0


class RampUpScheduler(FIFOScheduler):
    """First in, first out; but while processes still start, the last in.

    Tune gives a free process to the trial that the scheduler chooses, and ends the process that
    was being started for it. First in, first out, that is the trial whose process is almost ready:
    with trainings shorter than the start of a process, one slot then does all the work for ever.
    """

    def __init__(self, slots: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._slots = slots
        self._ramping_up = True
        self._since = time.monotonic()

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """See `TrialScheduler`."""
        trials: list[Trial] = tune_controller.get_trials()
        pending = [trial for trial in trials if trial.status == Trial.PENDING]
        if not pending:
            return None
        if len(pending) == 1:
            self._since = time.monotonic()  # there is no work yet for further processes
        running = sum(trial.status == Trial.RUNNING for trial in trials)
        in_time = time.monotonic() - self._since < _RAMP_UP_SECONDS  # a node may never come
        # One may have just become free, and is counted in.
        self._ramping_up = self._ramping_up and running < self._slots and in_time
        return pending[-1] if self._ramping_up and running < self._slots - 1 else pending[0]
