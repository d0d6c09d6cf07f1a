"""How long the paper's 39 test cases keep a cluster, and how full of work: in simulation.

    python benchmarks/makespan.py [--slots 8 16 24 64 256] [--grids paper coarse]

With made-up scores and durations: 30 s and what the weights, the tokens and the epochs come to at
120 TFLOP/s; times 0.8 to 1.25 by data set and model, and 0.95 to 1.05 by training. The search knows
of that the size alone; it learns the rest.

The order is the agenda's, beside the one it once had: by the students that a case has left, and
with the lazy baseline after all traversals. The bound is the longer of all work over all slots and
of what the study takes on slots without end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from zlib import crc32

import yaml

from kdsearch.agenda import Job, Kind, Simulated, Simulation, Walk, kinds_of
from kdsearch.agenda.speed import per_row
from kdsearch.search import Held, Inner, Wanted
from kdsearch.study import Study, known_rows, parse_study, shipped_studies, test_cases

COORDINATE = {"inner": "coordinate"}
GRIDS = {
    "coarse": {
        **COORDINATE,
        "temperature": {"broad": [1, 4, 16, 64]},
        "learning_rate": [1e-5, 3e-5],
        "alpha": [1, 0.5],
    },
    "coordinate": COORDINATE,
    "joint": {"inner": "joint"},
}
"""The paper's grid with either inner tuning, and a coarse one."""
FLOPS_PER_SECOND = 1.2e14


class Before(Simulation):
    """The order that the agenda once had."""

    def urgency(self, job: Job) -> float:
        """By the number of students that the case has left, whatever they take."""
        walk = job.walk
        if walk.finished:
            return 1
        space = walk.space
        temperatures = len(space.values("temperature")) + 4
        rates = len(space.values("learning_rate"))
        joint = space.inner is Inner.JOINT
        per_choice = temperatures * rates if joint else temperatures + rates - 1
        decided = {decision.axis for decision in walk.decisions}
        left = sum(len(a.values) - 1 for a in space.compared if a.name not in decided)
        return per_choice * (left + (not decided))

    def with_teacher(self, walk: Walk) -> Wanted:
        """The traversal alone."""
        return walk.start()

    def with_stable(self, walk: Walk, values: Held) -> Wanted:
        """The stable configuration and the lazy baseline."""
        return {**walk.lazy(), **walk.stable(values)}


def noise(text: str, low: float, high: float) -> float:
    """A number between two, from a text."""
    return low * (high / low) ** (crc32(text.encode()) / 2**32)


class World:
    """What trainings take, and what a search guesses."""

    def __init__(self, study: Study) -> None:
        self.guess: dict[Kind, float] = {}
        self._mean: dict[Kind, float] = {}
        for case in test_cases(study):
            dataset = study.datasets[case.dataset]
            rows = known_rows(case.dataset, dataset)
            assert rows is not None
            for kind in kinds_of(study, case, case.dataset).values():
                self.guess[kind] = rows["train"] * per_row(study, case, kind)
                flops = 6 * self.guess[kind]
                self._mean[kind] = 30 + flops / FLOPS_PER_SECOND * noise(str(kind), 0.8, 1.25)

    def seconds(self, job: Job) -> float:
        """What a training takes, whatever runs beside it."""
        what = " ".join(map(str, job.what)) if isinstance(job.what, tuple) else job.what
        return self._mean[job.kind] * noise(f"{job.walk.case} {job.role} {what}", 0.95, 1.05)


def compare(grid: str, study: Study, slot_counts: Sequence[int]) -> None:
    """Simulate a study in either order, print."""
    world = World(study)

    def run(kind: type[Simulation], slots: int) -> Simulated:
        return kind(study, slots, world.seconds, world.guess).run()

    endless, before = run(Simulation, sys.maxsize), run(Before, sys.maxsize)
    work, path = endless.busy, endless.makespan
    print(
        f"{grid}: {endless.trainings} trainings, {work / 3600:,.0f} h of a slot; longest path",
        end="",
    )
    print(f" {path / 3600:.2f} h (before: {before.makespan / 3600:.2f} h)")
    print("slots     bound      before ratio   used         now ratio   used")
    for slots in slot_counts:
        bound = max(work / slots, path)
        line = f"{slots:5} {bound / 3600:7.2f} h"
        for found in (run(Before, slots), run(Simulation, slots)):
            line += f"  {found.makespan / 3600:8.2f} h {found.makespan / bound:.3f}"
            line += f" {found.utilisation:6.1%}"
        print(line, flush=True)


def main() -> None:
    """Simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, nargs="+", default=[8, 16, 24, 64, 256])
    parser.add_argument("--grids", nargs="+", choices=GRIDS, default=["coarse", "coordinate"])
    given = parser.parse_args()
    paper = yaml.safe_load(shipped_studies()["paper"].read_text())
    for grid in given.grids:
        study = parse_study({**paper, "name": grid, "search": GRIDS[grid]}, place=grid)

        compare(grid, study, given.slots)


if __name__ == "__main__":
    main()
