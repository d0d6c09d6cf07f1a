"""What running ahead of decisions brings: the paper's 39 test cases on simulated slots, on and off.

    python benchmarks/speculation.py [--slots 8 24 64 256] [--scores smooth]

The grid is a coarse one (four broad temperatures, two learning rates, two α), walked by the agenda
and the dispatcher of a real search; only engine, scores and durations are made up. A training takes
30 s and what rows, tokens, weights and epochs come to at 120 TFLOP/s, times 0.8 to 1.25 by data set
and model, and 0.95 to 1.05 by training. Scores are additive over the axes, with a peak over the
temperature and noise (`smooth`), or all drawn alike (`alike`), where nothing can be guessed.

Both sides must decide the same and need the same trainings, else it fails. Beside the time it gives
what was trained for nothing, and what looking for it cost the driver.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import yaml
from pairs import report

from kdsearch.agenda import (
    AHEAD,
    Agenda,
    Attempt,
    Cost,
    Kind,
    Outcome,
    Request,
    Speculation,
    StudentTraining,
    TestScore,
    Training,
    asked,
    kind_of,
    sizes,
    spare,
)
from kdsearch.driver import Dispatcher
from kdsearch.engine import TabulatedEngine
from kdsearch.ledger import Ledger
from kdsearch.search import ValidationScore
from kdsearch.study import (
    Resolved,
    ResolvedDataset,
    ResolvedModel,
    ResolvedSplit,
    known_rows,
    parse_study,
    shipped_studies,
    task_of,
)

GRID = {
    "inner": "coordinate",
    "temperature": {"broad": [1, 4, 16, 64]},
    "learning_rate": [1e-5, 3e-5],
    "alpha": [1, 0.5],
}
FLOPS_PER_SECOND = 1.2e14
METRICS = {"classification": "accuracy", "ner": "f1", "qa": "f1", "translation": "bleu"}


def resolved() -> Resolved:
    """The paper's study on the coarse grid, resolved to made-up digests and the rows it has."""
    paper = yaml.safe_load(shipped_studies()["paper"].read_text())
    study = parse_study({**paper, "name": "paper", "search": GRID}, place="paper")
    datasets = {}
    for name, dataset in study.datasets.items():
        rows, task = known_rows(name, dataset), task_of(name, dataset)
        assert rows is not None
        datasets[name] = ResolvedDataset(
            task=task,
            metric=METRICS[task],
            labels=("no", "yes") if task in ("classification", "ner") else (),
            splits={s: ResolvedSplit(digest=f"{name}-{s}", rows=n) for s, n in rows.items()},
        )
    models = {name: ResolvedModel(path=None, digest=name, labels=None) for name in study.models}
    return Resolved(study=study, datasets=datasets, models=models, versions={})


def number(*what: object) -> float:
    """One in [0, 1) that follows from what it is of."""
    return crc32(" ".join(map(str, what)).encode()) / 2**32


def alike(training: Training) -> float:
    """A score that says nothing of any other."""
    return number("score", training.key)


def smooth(training: Training) -> float:
    """A score to which each axis gives its own share."""
    if not isinstance(training, StudentTraining):
        return alike(training)
    case = (training.data.train, training.model.name, training.model.layers)

    def share(*what: object) -> float:
        return random.Random(f"{case} {what}").gauss(0, 1)

    values = training.objective.parameters
    temperature = values.get("temperature")
    off = math.log(temperature / 4) - 2 * share("peak") if temperature else 0.0
    checkpoint = training.teaching.checkpoint_name if training.teaching else None
    return (
        0.8
        - 0.002 * off**2
        + 0.01 * share("rate", training.learning_rate)
        + 0.004 * share("kind", training.objective.kind)
        + 0.003 * share("checkpoint", checkpoint)
        + 0.003 * share("student's", values.get("student_temperature") == 1)
        + 0.005 * share("alpha", values.get("alpha"))
        + 0.002 * share(training.key)
    )


SCORES: dict[str, Callable[[Training], float]] = {"smooth": smooth, "alike": alike}


class Timed(Speculation):
    """Also how often it was asked, and the longest and all time until it gave what it had."""

    calls, longest, seconds = 0, 0.0, 0.0

    def __iter__(self) -> Iterator[Request]:
        begun = time.process_time()
        try:
            yield from super().__iter__()
        finally:
            took = time.process_time() - begun
            self.calls, self.seconds = self.calls + 1, self.seconds + took
            self.longest = max(self.longest, took)


class Ahead:
    """A watch that counts what ran ahead."""

    def __init__(self) -> None:
        self.started_ahead = 0

    def started(self, request: Request) -> None:
        """See `Watch`."""
        self.started_ahead += request.stage == AHEAD

    def finished(self, request: Request, outcome: Outcome) -> None:
        """See `Watch`."""

    def failed(self, request: Request, attempt: Attempt, *, for_good: bool) -> None:
        """See `Watch`."""

    def tick(self) -> None:
        """See `Watch`."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A simulated search."""

    agenda: Agenda
    hours: float
    busy: float
    """Hours of slots at work; of what was given up at the end, all that it would have taken."""
    ahead: int
    speculation: Timed | None


def searched(study: Resolved, slots: int, score: Callable[[Training], float], on: bool) -> Search:
    """Run it to its end."""
    known = sizes(study)

    def seconds(training: Training) -> float:
        kind: Kind = kind_of(training)
        mean = 30 + 6 * known[kind] / FLOPS_PER_SECOND * 0.8 * (1.25 / 0.8) ** number(kind)
        return mean * 0.95 * (1.05 / 0.95) ** number(training.key)

    def look_up(training: Training) -> None:
        outcome = Outcome(
            key=training.key,
            training=training,
            state="scored",
            validation=ValidationScore(score(training)),
            test=TestScore(0.5),
            best_epoch=1,
            lowest_loss_epoch=2,
            cost=Cost(seconds=seconds(training), device="none", host="here"),
        )
        ledger.write_outcome(outcome)

    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        ledger.prepare()
        ledger.write_resolved(study)
        agenda, watch = Agenda(study), Ahead()
        speculation = Timed(agenda) if on else None
        engine = TabulatedEngine(look_up=look_up, seconds=seconds, slots=slots)
        engine.run(Dispatcher(agenda, ledger, (watch,), speculation=speculation))
    return Search(
        agenda=agenda,
        hours=engine.clock / 3600,
        busy=engine.busy / 3600,
        ahead=watch.started_ahead,
        speculation=speculation,
    )


def compare(study: Resolved, slots: int, scores: str) -> None:
    """Both sides; print, and record."""
    off, on = (searched(study, slots, SCORES[scores], on) for on in (False, True))
    assert on.agenda.views() == off.agenda.views(), "the decisions differ"
    assert asked(on.agenda) == asked(off.agenda), "the trainings that are needed differ"
    assert on.speculation is not None
    unasked, calls = len(spare(on.agenda)), on.speculation.calls
    print(
        f"{scores} {slots:4} slots: {off.hours:6.2f} h at {off.busy / slots / off.hours:4.0%}, "
        f"ahead {on.hours:6.2f} h at {on.busy / slots / on.hours:4.0%}; needed "
        f"{len(off.agenda.results)}, ran ahead {on.ahead}, not asked for {unasked} "
        f"({on.busy - off.busy:.0f} of {on.busy:.0f} slot-h)"
    )
    if calls:
        mean = 1000 * on.speculation.seconds / calls
        longest = 1000 * on.speculation.longest
        print(
            f"  {calls} looks for what to run ahead, {mean:.2f} ms each, the longest {longest:.0f}"
        )
    report(
        f"speculation.{scores}.{slots}",
        f"simulated hours of 39 test cases on {slots} slots, ahead of decisions ÷ never",
        [on.hours / off.hours],
        unit="×",
        needed=len(off.agenda.results),
        not_asked_for=unasked,
        slot_hours_more=round(on.busy - off.busy, 1),
        hours=round(off.hours, 2),
    )


def main() -> None:
    """Simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, nargs="+", default=[8, 24, 64, 256])
    parser.add_argument("--scores", nargs="+", choices=SCORES, default=["smooth"])
    given = parser.parse_args()
    study = resolved()
    for scores in given.scores:
        for slots in given.slots:
            compare(study, slots, scores)


if __name__ == "__main__":
    main()
