"""How large models are and how fast: every model has one speed on a data set, and all one device.

A single timing is of what else its machine did, and, where text is written, of how long that
became. So a model's speed is the median over whatever was timed of it: students, or a teacher's
checkpoints.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from kdsearch.agenda import Outcome, OutputsTraining, SequencesTraining

_MATTERS = ("batch_size", "max_length", "stride", "beams", "precision", "cpu_threads")
"""The settings that a model's speed depends on."""

_Model = tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a model takes."""

    parameters: int
    bytes: int | None
    """Of its weights, in full precision."""
    examples_per_second: float | None
    """How fast it scores the test split on `device`: the median over all that was timed of it."""
    device: str | None
    """The same for every model of a data set, so that their speeds compare: the one on which most
    of them were timed. A model that was not timed there has no speed."""


class ModelSpeeds:
    """The sizes and speeds of a study's models, by an outcome of theirs."""

    def __init__(self, outcomes: Iterable[Outcome | None]) -> None:
        timed: dict[str, dict[str, dict[_Model, list[float]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )
        for outcome in outcomes:
            speed = outcome.cost.examples_per_second if outcome else None
            if outcome is not None and speed is not None:
                on = timed[outcome.training.data.test][outcome.cost.device]
                on[_model(outcome)].append(speed)
        self._timed = timed
        self._device = {test: _most(devices) for test, devices in timed.items()}

    def size(self, outcomes: Iterable[Outcome | None]) -> Size | None:
        """The size of the model of the first of `outcomes` that says it; None where none does."""
        found = next((o for o in outcomes if o is not None and o.parameters), None)
        if found is None:
            return None
        assert found.parameters is not None
        test = found.training.data.test
        device = self._device.get(test)
        speeds = self._timed[test][device].get(_model(found)) if device else None
        return Size(
            parameters=found.parameters,
            bytes=found.model_bytes,
            examples_per_second=median(speeds) if speeds else None,
            device=device if speeds else None,
        )


def _model(outcome: Outcome) -> _Model:
    """What two outcomes have in common that timed one model under one condition."""
    training = outcome.training
    source = (
        training.checkpoint
        if isinstance(training, OutputsTraining | SequencesTraining)
        else training
    )
    content = source.model.model_dump_json(exclude={"name", "tokenizer_name"})
    settings = (getattr(training.settings, name) for name in _MATTERS)
    return content, outcome.parameters, *settings


def _most(devices: dict[str, dict[_Model, list[float]]]) -> str:
    """The device with the most models, of equal ones that with the most timings."""
    return max(
        sorted(devices),
        key=lambda device: (len(devices[device]), sum(map(len, devices[device].values()))),
    )
