"""What every kind of training of the worker needs: a device, its inputs, its outcome."""

from __future__ import annotations

import logging
import platform
import socket
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdsearch.agenda import (
    CheckpointSpec,
    Cost,
    DataSpec,
    ModelSpec,
    Outcome,
    Training,
)
from kdsearch.distill.artifacts import ensure
from kdsearch.distill.caches import Split, encoded, tokenizer_of
from kdsearch.distill.evaluation import Evaluation
from kdsearch.distill.lora import is_adapter
from kdsearch.distill.models import (
    known_inputs,
    load_checkpoint,
    load_model,
    model_folder,
)
from kdsearch.distill.training import History
from kdsearch.errors import StorageError
from kdsearch.ledger import Ledger, layout
from kdsearch.ledger.tested import Tested
from kdsearch.study import TrainingSettings, installed_versions
from kdsearch.tasks import TASKS, Encoded, Settings, Task, Views

_log = logging.getLogger(__name__)


class Worker:
    """A study's ledger and a device."""

    def __init__(
        self,
        ledger: Ledger,
        again: Callable[[Training, Path], Outcome],
        *,
        keep: bool = False,
        parts: int = 1,
    ) -> None:
        """`again` runs a training whose files are damaged or gone.

        `keep` keeps a student, and `parts` is how many a batch is taken in.
        """
        self._ledger, self._again = ledger, again
        self._resolved = ledger.resolved()
        self._keep = keep
        self._parts = parts
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def _ensure_sequences(self, key: str, teacher: CheckpointSpec) -> dict[str, str]:
        """See that what a teacher wrote is whole; the digest of its file, by its name."""
        ensure(self._ledger, key, layout.SEQUENCES, self._again, checkpoint=teacher)
        outcome = self._ledger.outcome(key)
        assert outcome is not None  # what reads it is asked for later
        return self._ledger.digests(outcome)

    def _keep_rows(
        self, training: Training, found: Evaluation, examples: Encoded
    ) -> dict[str, str]:
        """Keep what was made of each test row; the digest of that, by its file's name.

        What goes wrong is logged, and told by the driver: the training is done and scored, and only
        its noise is not known.
        """
        data = training.data
        try:
            rows = TASKS[data.task].statistics(found.predictions, examples.references, data)
            recorded = self._ledger.outcome(training.key)
            return Tested(self._ledger.folder).keep(training.key, rows, recorded)
        except Exception as error:  # whatever it is, it would cost the whole training
            # A disk that takes nothing more will end the search in words of its own.
            level = logging.INFO if isinstance(error, StorageError) else logging.WARNING
            _log.log(level, "key=%s: its test rows are not kept", training.key, exc_info=True)
            return {}

    def _tokenizer(self, spec: ModelSpec, data: DataSpec) -> Any:
        return tokenizer_of(spec, data, self._ledger.folder)

    def _encoded(
        self,
        model: nn.Module,
        spec: ModelSpec,
        data: DataSpec,
        split: str,
        settings: Settings,
        *,
        labelled: bool = False,
        sequences: str | None = None,
    ) -> Encoded:
        wanted = Split(
            spec=spec,
            data=data,
            split=split,
            settings=settings,
            labelled=labelled,
            folder=self._ledger.folder,
            device=str(self._device),
            sequences=sequences,
        )
        return known_inputs(model, encoded(wanted))

    def _views(
        self, settings: Settings, seed: int | None, *, pairs: bool = False
    ) -> tuple[Views, ...]:
        """In which views the examples of training are seen; `pairs`, the weak ones too."""
        strong = settings.augmentation
        if strong is None:
            return ()
        assert seed is not None
        every = (strong.weak, strong) if pairs else (strong,)
        return tuple(Views(augmentation=each, seed=seed) for each in every if each is not None)

    def _teacher(
        self, checkpoint: CheckpointSpec, task: Task, data: DataSpec, tokenizer: Any
    ) -> Any:
        spec = checkpoint.model
        if checkpoint.training is None:
            folder = model_folder(spec.name, spec.weights, self._resolved)
            return load_model(folder, spec.name, task, tokenizer)
        key, epoch = checkpoint.training, checkpoint.epoch
        where = layout.student(key) if epoch is None else layout.checkpoint(key, epoch)

        def load() -> Any:
            ensure(self._ledger, key, where, self._again, model=spec)
            folder = self._ledger.path(where)
            return load_checkpoint(folder, spec, task, data.labels, tokenizer, self._resolved)

        try:
            return load()
        except OSError:  # another worker that made it again too was putting its own in the place
            return load()

    def _outcome(self, training: Training, model: nn.Module, history: History | None) -> Outcome:
        # Adapters are merged into the weights that they adapt.
        own = [p for name, p in model.named_parameters() if not is_adapter(name)]
        trained = None
        settings = training.settings
        if isinstance(settings, TrainingSettings) and settings.lora is not None:
            trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return Outcome(
            key=training.key,
            training=training,
            state="diverged" if history is not None and history.diverged else "scored",
            epochs=tuple(history.epochs) if history else (),
            curve=history.curve if history else None,
            parameters=sum(p.numel() for p in own),
            trained_parameters=trained,
            model_bytes=sum(p.numel() * p.element_size() for p in own),
            metric=TASKS[training.data.task].signature(training.data),
            parts=self._parts,
            cost=self._cost(0),
        )

    def _cost(self, size: int, *, speed: float | None = None) -> Cost:
        cuda = self._device.type == "cuda"
        device = torch.cuda.get_device_name() if cuda else platform.machine() + " CPU"
        return Cost(
            seconds=0.0,
            device=device,
            host=socket.gethostname(),
            bytes_written=size,
            examples_per_second=speed,
            versions=_versions(),
        )


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    """What an outcome says of the software that it was made with."""
    installed = installed_versions()
    names = ("kdsearch", "python", "torch", "transformers", "tokenizers")
    cuda = {"cuda": torch.version.cuda} if torch.version.cuda else {}
    return {name: installed[name] for name in names} | cuda
