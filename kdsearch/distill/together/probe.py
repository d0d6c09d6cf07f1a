"""Whether students of a model are faster in one pass: measured, since it is not to be told.

It pays where a step of a student is calls and not arithmetic; so, of a model, on some machines.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from kdsearch.agenda import DataSpec, ModelSpec, runs_alone
from kdsearch.distill.batch_loss import CachedOutputs, batch_loss
from kdsearch.distill.caches import Split, encoded, tokenizer_of
from kdsearch.distill.first_token import read_first_alone
from kdsearch.distill.models import build_model, known_inputs
from kdsearch.distill.together.modules import UnlikeError
from kdsearch.distill.together.training import Together
from kdsearch.distill.training import TrainingState, batches
from kdsearch.ledger import Ledger
from kdsearch.search import Ce
from kdsearch.study import TrainingSettings
from kdsearch.tasks import TASKS

_log = logging.getLogger(__name__)

SIZES = (4, 8, 16)
"""How many students in one pass are tried."""
_WORTH = 1.15
"""So many times more trainings per second, or it is left."""
_STEP_SECONDS = 0.05
"""A longer step of a single student is arithmetic on any machine."""
_TURNS = 3
_TURN_SECONDS = 0.05
_FEWEST_STEPS = 3
_COMPARED_STEPS = 8
_LEARNING_RATE = 1e-4
_EPOCHS = 10**6
"""Of a training that does not end before it is measured."""
_AGREEMENT = {"fp32": 1e-5, "bf16": 2e-2}
"""By precision: how far the losses of the first steps may lie apart, relatively. Two roundings of
a number in bf16 are 0.8 % apart."""


def fusing_pays(
    model: ModelSpec,
    data: DataSpec,
    settings: TrainingSettings,
    folder: Path,
    *,
    asked: int | None = None,
    device: str = "",
) -> int:
    """How many students of a model to train in one pass: 4, 8 or 16, or 1.

    1 where it does not pay (measured here and now, in a second or two, on `device`, by default the
    GPU if there is one, with the settings' threads), where the model, the task or the settings
    cannot be trained so, and where the steps of a pass are not those of a training alone. Where a
    number is `asked` for, only the latter is looked at. No teacher is needed, the rows and the
    model's files are: those of the study in `folder`. Raises what building the model and reading
    the rows raise.
    """
    task = TASKS[data.task]
    if task.wide or runs_alone(settings) or asked == 1:
        return 1
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with _as_a_worker(settings.cpu_threads, where):
        probe = _Probe(model, data, settings, folder, where)
        try:
            found = probe.agreeing(asked) if asked is not None else probe.fastest()
        except (UnlikeError, RuntimeError) as error:  # torch's, of shapes, and of its memory
            _log.info("%s: one student at a time: %s", model.name, error)
            return 1
    return found


class _Probe:
    """Students of one model, alone and together, on the batches of an epoch."""

    def __init__(
        self,
        spec: ModelSpec,
        data: DataSpec,
        settings: TrainingSettings,
        folder: Path,
        device: torch.device,
    ) -> None:
        self._task = TASKS[data.task]
        self._settings = settings.model_copy(update={"epochs": _EPOCHS})
        ledger = Ledger(folder)
        tokenizer = tokenizer_of(spec, data, folder)
        self._model = build_model(
            *(spec, self._task, data.labels, tokenizer, ledger.resolved()), dropout=settings.dropout
        ).to(device)
        split = Split(
            spec=spec,
            data=data,
            split="train",
            settings=settings,
            labelled=False,
            folder=folder,
            device=str(device),
        )
        self._examples = known_inputs(self._model, encoded(split))
        read_first_alone(self._model, self._task, self._examples)
        self._batches = list(batches(self._examples.lengths, settings.batch_size, 0, 1))
        with torch.no_grad():
            said = self._task.outputs(self._model.eval(), self._examples.batch(self._batches[0]))
        rows = int(self._examples.offsets[-1])
        values = torch.randn(rows, said.shape[-1], device=device)
        self._teacher = CachedOutputs(values=values, head=None)
        self._made: dict[int, TrainingState | Together] = {}

    def agreeing(self, students: int) -> int:
        """So many if they learn what each learns alone, else 1."""
        alone, together = self._steppers(1, students)
        few = list(islice(cycle(self._batches), _COMPARED_STEPS))
        losses = [_taken(each, few)[1] for each in (alone, together)]
        precision = self._settings.precision
        return students if math.isclose(*losses, rel_tol=_AGREEMENT[precision]) else 1

    def fastest(self) -> int:
        """The number of students of which most are trained per second."""
        fewest, *more = SIZES
        if self.agreeing(fewest) == 1:
            return 1
        found = self._gains(fewest)
        if found[fewest] > 1:  # or more of them gain nothing either
            found |= self._gains(*more)
        _log.info("trainings per second, over one after another: %s", found)
        best = max(found, key=lambda students: found[students])
        return best if found[best] > _WORTH else 1

    def _gains(self, *sizes: int) -> dict[int, float]:
        """By the number of students: trainings per second over those one after another.

        All take the same steps in turn; of each the fastest turn counts, the one least disturbed.
        """
        steppers = self._steppers(1, *sizes)
        seconds, _ = _taken(steppers[0], self._batches[:1])
        if seconds > _STEP_SECONDS:
            return dict.fromkeys(sizes, 0.0)
        steps = round(_TURN_SECONDS / (seconds * max(sizes)))
        some = list(islice(cycle(self._batches), max(_FEWEST_STEPS, steps)))
        turns = [[_taken(each, some)[0] for each in steppers] for _ in range(_TURNS)]
        alone, *together = map(min, zip(*turns, strict=True))
        return {k: k * alone / least for k, least in zip(sizes, together, strict=True)}

    def _steppers(self, *sizes: int) -> list[TrainingState | Together]:
        """A training alone, and several together, of students that begin alike."""
        for students in sizes:
            if students not in self._made:
                self._made[students] = self._stepper(students)
        return [self._made[students] for students in sizes]

    def _stepper(self, students: int) -> TrainingState | Together:
        torch.manual_seed(0)
        states = [self._state(number) for number in range(students)]
        if students == 1:
            return states[0]
        found = Together(states, self._task)
        found.stack.check(self._task, self._examples.batch(self._batches[0]))
        return found

    def _state(self, number: int) -> TrainingState:
        student = deepcopy(self._model)
        temperature = float(1 + number)
        objective = Ce(temperature=temperature, student_temperature=temperature, alpha=0.5)
        return TrainingState(
            *(student, self._task, self._examples),
            *(batch_loss(self._task, student, objective, self._teacher), self._settings),
            learning_rate=_LEARNING_RATE * (1 + number),
            evaluated_on=(),
        )


def _taken(stepper: TrainingState | Together, some: Sequence[Tensor]) -> tuple[float, float]:
    """The seconds of some steps behind a first, and the loss of the first student by then."""
    torch.manual_seed(0)
    stepper.begin(1)
    stepper.step(some[0], 1)  # sets up what all others use
    first = stepper.states[0] if isinstance(stepper, Together) else stepper
    # Of one thread the time that it worked, which others at work beside it do not change.
    alone = not first.total.is_cuda and first.settings.cpu_threads == 1
    now = time.process_time if alone else time.perf_counter
    float(first.total)  # waits for the device
    started = now()
    for indices in some:
        stepper.step(indices, 1)
    loss = float(first.total)
    return now() - started, loss


@contextmanager
def _as_a_worker(threads: int, device: torch.device) -> Iterator[None]:
    """With a training's threads and random numbers, of which nothing is left behind."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(before)
