"""Drives a search: from the agenda through an engine to the ledger."""

from kdsearch.driver.deadline import Deadline
from kdsearch.driver.dispatcher import Dispatcher
from kdsearch.driver.estimate import Estimate, duration, estimate, rough, span
from kdsearch.driver.fusing import Pays, Probe, fused_words, measure, unmeasured
from kdsearch.driver.garbage import Garbage, Left, garbage
from kdsearch.driver.preflight import Look, preflight_once, present
from kdsearch.driver.search import check_disk, open_study, run_search
from kdsearch.driver.versions import version_changes
from kdsearch.driver.watch import Watch, note_launch

__all__ = [
    "Deadline",
    "Dispatcher",
    "Estimate",
    "Garbage",
    "Left",
    "Look",
    "Pays",
    "Probe",
    "Watch",
    "check_disk",
    "duration",
    "estimate",
    "fused_words",
    "garbage",
    "measure",
    "note_launch",
    "open_study",
    "preflight_once",
    "present",
    "rough",
    "run_search",
    "span",
    "unmeasured",
    "version_changes",
]
