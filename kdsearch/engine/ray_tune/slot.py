"""What runs in a Ray actor: one bundle after the other, in a process that stays warm."""

from __future__ import annotations

import faulthandler
import json
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from kdsearch.agenda import Bundle, parse_training, written
from kdsearch.engine.base import Worker
from kdsearch.engine.ray_tune.room import Needs
from kdsearch.ledger import Ledger, OsDisk, open_own

_STDERR = 2


def no_check() -> Sequence[str]:
    """Find nothing wrong with a node."""
    return ()


def own_gpus() -> list[str]:
    """The ids of the GPUs that Ray gave this process, on its node; none outside of Ray."""
    if not ray.is_initialized():
        return []
    return ray.get_runtime_context().get_accelerator_ids().get("GPU", [])


def config(name: str, group: str, needs: Needs, without: Sequence[str]) -> dict[str, Any]:
    """The configuration of the trial of a slot that must not be on the nodes `without`.

    By the name `group` of its placement group the driver sees whether it has found room.
    """
    return {
        "slot": name,
        "group": group,
        "resources": dict(needs.resources),
        "labels": needs.where(without),
    }


def order(bundle: Bundle) -> str:
    """What a slot is told to run."""
    orders = [{"label": str(each), "training": written(each.training)} for each in bundle]
    return json.dumps(orders)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What the slots of a search do."""

    worker: Worker
    mailbox: Any
    seconds: float
    check: Callable[[], Sequence[str]]
    title: str


def slot_class(
    worker: Worker,
    mailbox: Any,
    seconds: float,
    check: Callable[[], Sequence[str]],
    title: str = "kdsearch",
) -> type[tune.Trainable]:
    """A Trainable that runs the trainings it gets from `mailbox` with `worker`.

    Its first result says on which node it is, and what that lacks by `check`; a slot on a node
    that lacks something is done. Each later one says which trainings ended. A training that takes
    longer than `seconds` ends with its process, as does one that fails: after an error on a GPU
    the process may be in no state for another. The dashboard shows it by `title` and its name.
    """
    work = _Work(worker=worker, mailbox=mailbox, seconds=seconds, check=check, title=title)
    # Tune makes each slot of a class, and tells it nothing but what a trial's configuration holds.
    return type("Slot", (_Slot,), {"work": work})


class _Slot(tune.Trainable):
    """One slot of the cluster; its class has its `work`."""

    work: _Work

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        where = config["labels"]
        labels: dict[str, Any] = {"bundle_label_selector": [where]} if where else {}
        return tune.PlacementGroupFactory([config["resources"]], name=config["group"], **labels)

    def setup(self, config: dict[str, Any]) -> None:
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
        )
        self._known = False

    def step(self) -> dict[str, Any]:
        if not self._known:
            self._known = True
            return self._introduction()
        given = ray.get(self.work.mailbox.take.remote(self.config["slot"]))
        return {"done": True} if given is None else self._run(json.loads(given))

    def _introduction(self) -> dict[str, Any]:
        # Not in `setup`: it may fetch models, and until `setup` ends the slot seems to wait.
        lacks = list(self.work.check())
        if not lacks:
            self.work.worker.limit(self.config["resources"].get("GPU", 0.0))
        return {
            "node": socket.gethostname(),
            "node_id": ray.get_runtime_context().get_node_id(),
            "gpus": own_gpus(),
            "lacks": lacks,
            "done": bool(lacks),
        }

    def _run(self, given: list[dict[str, Any]]) -> dict[str, Any]:
        worker = self.work.worker
        trainings = [parse_training(each["training"]) for each in given]
        keys = [training.key for training in trainings]
        pairs = zip(given, trainings, strict=True)
        label = ", ".join(f"{each['label']} {training}" for each, training in pairs)
        logging.info("%s: started", label)
        began = time.monotonic()
        ledger = Ledger(worker.folder)
        seconds = self.work.seconds * len(keys)  # at the worst a pass is as long as all of them
        try:
            with watched([ledger.watchdog(key) for key in keys], seconds):
                worker(*trainings)
        except Exception as error:
            logging.exception("%s: failed", label)
            with _ends_after(seconds):
                worker.fail(error, *trainings)
            return {"done": True, "keys": keys, "failed": True}
        logging.info("%s: finished in %.1f s", label, time.monotonic() - began)
        return {"keys": keys, "failed": False}

    def __repr__(self) -> str:
        # Of the actor, in the dashboard, for as long as it lives: it serves many trainings.
        return f"{self.work.title} {self.config['slot']}"


@contextmanager
def watched(paths: Sequence[Path], seconds: float) -> Iterator[None]:
    """Have this process end after `seconds`, with the place where it hangs in each of `paths`.

    Where their storage hangs itself, this place stands in the log of the process.
    """
    first, *others = paths
    disk = OsDisk()
    with _ends_after(seconds):
        for path in paths:
            disk.remove(path)
        with open_own(first, "w") as file:
            for other in others:  # one file under every name, since it is written only once
                disk.link(first, other)
            faulthandler.dump_traceback_later(seconds, exit=True, file=file)
            try:
                yield
            finally:
                faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
        for path in paths:
            disk.remove(path)


@contextmanager
def _ends_after(seconds: float) -> Iterator[None]:
    """Have this process end after `seconds`.

    The thread that does it is no Python thread: it needs no lock that what hangs may hold.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
