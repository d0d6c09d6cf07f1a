"""What became of a slot whose process ended, from the words in which Ray says so (2.60)."""

from __future__ import annotations

import re

from kdsearch.agenda import Failure

PREEMPTED = "the actor's node was preempted"
_NODE_LOST = (
    "its node has died",
    "the actor's node was ",  # preempted, terminated, …
    "ActorUnavailableError",  # while no one knows yet whether the node lives
    "actor is temporarily unavailable",
)
"""Whole phrases: a traceback holds the names of folders too."""
_ADDRESS = re.compile(r"\bip[:=]\s*([0-9a-fA-F.:]+)")
MESSAGES: dict[Failure, str] = {
    "worker_lost": "its worker process ended without a message",
    "host_oom": "its node ran low on memory, and Ray ended it",
    "preempted": "its node went away or cannot be reached",
}


def failure_of(reason: str) -> Failure:
    """The class of a failure that Ray words so: one of those in `MESSAGES`."""
    if "low on memory" in reason:
        return "host_oom"
    if any(words in reason for words in _NODE_LOST):
        return "preempted"
    return "worker_lost"


def address_of(reason: str) -> str | None:
    """The address of the node on which it happened, where Ray names it."""
    found = _ADDRESS.search(reason)
    return found[1] if found else None
