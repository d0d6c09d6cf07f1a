"""How many students are trained in one pass: found out at the first launch, then fixed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from kdsearch.agenda import Agenda, DataSpec, Graph, ModelSpec, most_fused
from kdsearch.ledger import Ledger
from kdsearch.study import SPECS, Fused, Resolved, TrainingSettings, test_cases

_SAMPLE = 200
"""Rows by whose length it is told which data set has the longest."""


class Probe(NamedTuple):
    """What is measured: a student on a data set."""

    model: ModelSpec
    data: DataSpec
    settings: TrainingSettings


Pair = tuple[str, str]
"""A student and a data set of the study."""
Pays = Callable[[Sequence[Probe], int | None], Sequence[int]]
"""How many of each of several probes to train in one pass. Where a number is asked for, that one
if several learn what each learns alone, else 1."""


def unmeasured(resolved: Resolved) -> dict[Pair, Probe]:
    """What of a study was not measured for what its file asks for; nothing where it asks for 1."""
    fuse, fused = resolved.study.resources.fuse, resolved.fused
    if fuse == 1:
        return {}
    known = fused.most if fused and fused.asked == fuse else {}
    return {
        (student, dataset): probe
        for (student, dataset), probe in _pairs(resolved).items()
        if dataset not in known.get(student, {})
    }


def measure(agenda: Agenda, probes: Mapping[Pair, Probe], ledger: Ledger, pays: Pays) -> None:
    """Fix, in the agenda and in the ledger's folder, what `pays` says of the `probes`.

    Of data sets that a student is trained on alike, that of the longest rows speaks for all: where
    it pays there, it pays on shorter ones.
    """
    fuse, before = agenda.resolved.study.resources.fuse, agenda.resolved.fused
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair, (model, data, settings) in probes.items():
        groups[f"{model} {data.task} {settings}"].append(pair)
    longest = [
        max((probes[pair] for pair in group), key=partial(_length, ledger))
        for group in groups.values()
    ]
    found = pays(longest, None if fuse == "auto" else fuse)
    known = before.most if before and before.asked == fuse else {}
    most = {student: dict(datasets) for student, datasets in known.items()}
    for group, number in zip(groups.values(), found, strict=True):
        for student, dataset in group:
            most.setdefault(student, {})[dataset] = number
    fused = Fused(asked=fuse, most=most)
    agenda.resolved = agenda.resolved.model_copy(update={"fused": fused})
    ledger.rewrite_resolved(agenda.resolved)


def kept_fused(resolved: Resolved, before: Resolved) -> Fused | None:
    """What an earlier version of a study found out of the pairs that are still the same."""
    if before.fused is None:
        return None
    now, then = _pairs(resolved), _pairs(before)
    return before.fused.model_copy(
        update={
            "most": {
                student: {
                    dataset: most
                    for dataset, most in datasets.items()
                    if (pair := (student, dataset)) in now and now[pair] == then.get(pair)
                }
                for student, datasets in before.fused.most.items()
            }
        }
    )


def fused_words(resolved: Resolved) -> str:
    """Such as `8 students of small at a time on sentences`; empty where each is trained alone."""
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for (student, dataset), most in most_fused(resolved).items():
        found[student, most].append(dataset)
    return "; ".join(
        f"{most} at a time of {student} on {', '.join(datasets)}"
        for (student, most), datasets in found.items()
    )


def _pairs(resolved: Resolved) -> dict[Pair, Probe]:
    graph, found = Graph(resolved), {}
    for case in test_cases(resolved.study):
        if (pair := (case.student, case.dataset)) not in found:
            probe = Probe(graph.student(case), graph.data(case), graph.settings(case))
            found[pair] = probe
    return found


def _length(ledger: Ledger, probe: Probe) -> int:
    rows = ledger.rows(probe.data.train, _SAMPLE)
    if SPECS[probe.data.task].reads == "pixels":
        return sum(row["pixels"].size for row in rows)
    return sum(len(str(row)) for row in rows)
