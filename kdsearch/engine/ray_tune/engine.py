"""Runs a queue's trainings on slots, the trials of one Ray Tune run, rebuilt when it dies."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.progress_reporter import TrialProgressCallback

from kdsearch.engine.base import EngineError, Fleet, Queue, Worker
from kdsearch.engine.ray_tune.cluster import Cluster
from kdsearch.engine.ray_tune.left_out import LeftOut
from kdsearch.engine.ray_tune.losses import PREEMPTED
from kdsearch.engine.ray_tune.mailbox import Mailbox, MailboxError
from kdsearch.engine.ray_tune.pool import MOST_WAITING, Pool
from kdsearch.engine.ray_tune.room import autoscaled
from kdsearch.engine.ray_tune.scheduler import SlotScheduler
from kdsearch.engine.ray_tune.searcher import SlotSearcher
from kdsearch.engine.ray_tune.slot import no_check, slot_class
from kdsearch.ledger import Ledger, storage_error
from kdsearch.study import ROLES

DAY = 24 * 3600.0
_MOST_REBUILDS = 3
_SECONDS_BETWEEN = 5.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class RayTuneEngine:
    """See `Engine`. Needs a connection to the cluster (`connect`)."""

    worker: Worker
    cluster: Cluster
    seconds: float = DAY
    """The longest that a training may take: one that hangs ends with its process."""
    max_slots: int | None = None
    """The most slots, to leave room for others; None for as many as the search has use for."""
    check: Callable[[], Sequence[str]] = no_check
    """Called in each slot's process before its first training: what this node lacks, in words.

    Picklable. A node that lacks something is named once and gets no slot for a while.
    """
    title: str = "kdsearch"
    """What the dashboard shows of the search, before the name of each slot."""
    _pool: Pool | None = field(default=None, init=False)

    @property
    def fleet(self) -> Fleet:
        """The slots there are now."""
        return self._pool.fleet if self._pool else Fleet()

    @property
    def room(self) -> int:
        """How many students could run at once on the nodes there are."""
        return self._pool.room if self._pool else 1

    def run(self, queue: Queue) -> None:
        """Run what `queue` gives, until it is complete.

        A run of Tune that dies is rebuilt from the ledger, never restored: what was running is
        asked for again. Raises `EngineError` when that does not help, and `StorageError` where the
        disk that Tune keeps its notes on is full.
        """
        deaths = 0
        left_out = LeftOut(
            self.cluster.needed, looked_at=self.cluster.left_out, told=self.cluster.told
        )
        while not queue.complete:
            before = queue.finished
            reason = "it ended early"
            cause: Exception | None = None
            mailbox = Mailbox()
            pool = self._pool = Pool(
                queue,
                mailbox,
                left_out,
                needed=self.cluster.needed,
                begun=self._begun,
                most=self.max_slots,
                scales=autoscaled(),
            )
            try:
                with _every_loss_is_an_actors():
                    self._fit(pool, mailbox)
            except Exception as error:  # of Tune or Ray, since the pool keeps its own
                if isinstance(error, OSError) and error.errno in _FULL:
                    raise storage_error(Path(tempfile.gettempdir()), error) from error
                reason, cause = f"{type(error).__name__}: {error}", error
            finally:
                for key in pool.in_hand:
                    queue.release(key)
                mailbox.close()
                self._pool = None
            if isinstance(pool.error, MailboxError | RayError | RuntimeError):
                reason, cause = str(pool.error), pool.error
            elif pool.error is not None:
                raise pool.error
            if queue.complete:
                return
            _log.warning("Ray Tune died and is being restarted: %s", reason)
            deaths = 1 if queue.finished > before else deaths + 1
            if deaths >= _MOST_REBUILDS:
                _log.error("why it died the last time:", exc_info=cause)
                raise EngineError(f"Ray Tune keeps dying: {reason}") from cause
            time.sleep(_SECONDS_BETWEEN)  # what ended it may pass

    def _begun(self, key: str) -> bool:
        ledger = Ledger(self.worker.folder)
        return ledger.watchdog(key).exists() or ledger.outcome(key) is not None

    def _fit(self, pool: Pool, mailbox: Mailbox) -> None:
        with _scratch() as scratch, _environment():
            tune.Tuner(
                slot_class(self.worker, mailbox.actor, self.seconds, self.check, self.title),
                tune_config=tune.TuneConfig(
                    search_alg=SlotSearcher(pool),
                    scheduler=SlotScheduler(pool),
                    num_samples=-1,
                    trial_name_creator=_trial_name,
                    trial_dirname_creator=_trial_name,
                ),
                run_config=tune.RunConfig(
                    name="kdsearch",
                    storage_path=scratch,
                    verbose=0,
                    callbacks=[_Silent()],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            ).fit()


class _Silent(TrialProgressCallback):
    """In place of Tune's own, which tells of each slot that ends, however quiet it is to be."""

    def _print(self, msg: str) -> None:
        pass


@contextmanager
def _every_loss_is_an_actors() -> Iterator[None]:
    """Have Tune take whatever ends a worker process as the end of that one slot.

    Tune 2.60 lets an error of Ray's that is of neither of two classes, such as that of its memory
    monitor, end the whole run. Where a later Tune has no such method, its run is built anew. Of an
    error we see the words alone, and Ray may have none for a node that was preempted.
    """
    name = "_actor_task_failed"
    original = getattr(RayActorManager, name, None)
    if original is None:
        yield
        return

    def failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=str(exception))
        elif isinstance(exception, RayActorError) and exception.preempted:
            exception = RayActorError(error_msg=f"{exception}\n{PREEMPTED}")
        original(self, tracked_actor_task=tracked_actor_task, exception=exception)

    setattr(RayActorManager, name, failed)
    try:
        yield
    finally:
        setattr(RayActorManager, name, original)


def _trial_name(trial: Any) -> str:
    return str(trial.config["slot"])


@contextmanager
def _scratch() -> Iterator[str]:
    """Where Tune keeps its own notes, which nothing ever reads."""
    folder = tempfile.mkdtemp(prefix="kdsearch-tune-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _environment() -> Iterator[None]:
    """Tune's settings that are environment variables only."""
    settings = {
        # How many slots may wait for room at once; the pool sees to that. It is one by default
        # for a searcher of one's own.
        "TUNE_MAX_PENDING_TRIALS_PG": str(MOST_WAITING * len(ROLES)),
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        # A slot whose node was preempted is over, as is any other that is lost. By default Tune
        # would start that trial again.
        "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "600",
        "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table of no use even when silenced
        # Ctrl-C reaches us as KeyboardInterrupt, instead of a fit() that returns as if all is well.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
