"""The same training in other libraries: transformers' Trainer, torchdistill, TextBrewer.

Each as its own documentation has it, with what it has to avoid repeated work: batches padded to
their longest row, fused AdamW (the Trainer's default) for all, TextBrewer's cache of logits. Of
torchdistill no cache is known to be left (its version 1.1.5 has none).
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from pairs import Taken
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler
from transformers import (
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from kdsearch.search import Ce

OBJECTIVE = Ce(temperature=4.0, student_temperature=4.0, alpha=0.5)
TEMPERATURE, ALPHA = OBJECTIVE.temperature, OBJECTIVE.alpha
Features = Sequence[dict[str, Any]]


@dataclass
class Seen:
    """What a model in training has been given to read."""

    rows: int = 0
    tokens: int = 0
    padded: int = 0
    """Tokens with the padding."""
    first: float = 0.0
    """When the first batch came."""

    def watch(self, model: nn.Module) -> None:
        """Count what `model` reads from now on, while it trains."""

        def count(module: nn.Module, _: Any, given: dict[str, Any]) -> None:
            if module.training:
                self.first = self.first or time.perf_counter()
                self.rows += len(given["input_ids"])
                self.tokens += int(given["attention_mask"].sum())
                self.padded += given["input_ids"].numel()

        model.register_forward_pre_hook(count, with_kwargs=True)

    @property
    def numbers(self) -> dict[str, float]:
        """For a record."""
        return {"rows": self.rows, "tokens": self.tokens, "padded": self.padded}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training: what all sides have in common."""

    student: nn.Module
    """With its initial weights; every run trains a copy."""
    teacher: nn.Module
    tokenizer: Any
    rows: Features
    epochs: int
    precision: str
    folder: Path
    """For what a library insists on writing."""
    batch_size: int = 32
    learning_rate: float = 1e-4

    @property
    def bf16(self) -> bool:
        """Whether it is mixed precision."""
        return self.precision == "bf16"

    @cached_property
    def collate(self) -> Callable[[Features], dict[str, Tensor]]:
        """Rows as a batch that is as wide as its longest row."""
        padding = DataCollatorWithPadding(self.tokenizer)
        return lambda rows: dict(padding([dict(row) for row in rows]))

    def autocast(self) -> torch.autocast:
        """Mixed precision where it is asked for."""
        device = next(self.teacher.parameters()).device.type
        return torch.autocast(device, dtype=torch.bfloat16, enabled=self.bf16)

    def precise(self, model: nn.Module) -> nn.Module:
        """The model in mixed precision, as accelerate has it: within its own forward pass."""
        forward = model.forward

        def within(**given: Any) -> Any:
            with self.autocast():
                said = forward(**given)
            said.logits = said.logits.float()
            return said

        model.forward = within
        return model


@contextmanager
def timed(seen: Seen) -> Iterator[dict[str, Any]]:
    """What a library's own loop takes."""
    found: dict[str, Any] = {}
    cpu, started = time.process_time(), time.perf_counter()
    yield found
    ended = time.perf_counter()
    found["taken"] = Taken(
        seconds=ended - started,
        cpu=time.process_time() - cpu,
        more={**seen.numbers, "after_first_batch": ended - seen.first},
    )


def plain_loss(student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor) -> Tensor:
    """As a user of the Trainer writes it: (1 − α)·CE(labels) + α·CE(softened teacher)."""
    soft = -(teacher_BC / TEMPERATURE).softmax(-1) * (student_BC / TEMPERATURE).log_softmax(-1)
    hard = F.cross_entropy(student_BC, labels_B)
    return (1 - ALPHA) * hard + ALPHA * soft.sum(-1).mean()


class _Online(Trainer):
    """The usual recipe: the teacher reads each batch too."""

    recipe: Recipe
    taught = True

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any
    ) -> Tensor:
        """The loss of a batch."""
        labels = inputs.pop("labels")
        if not self.taught:
            return F.cross_entropy(model(**inputs).logits, labels)
        with torch.no_grad(), self.recipe.autocast():
            teacher_BC = self.recipe.teacher(**inputs).logits.float()
        return plain_loss(model(**inputs).logits, teacher_BC, labels)


class _Clock(TrainerCallback):
    """From the begin of the Trainer's training to its end."""

    def __init__(self, seen: Seen) -> None:
        self._timer, self.found = timed(seen), {}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.found = self._timer.__enter__()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._timer.__exit__(None, None, None)


def trainer_of(
    recipe: Recipe, student: nn.Module, *, taught: bool, grouped: bool = False
) -> _Online:
    """The Trainer, with its defaults but for what all sides have in common.

    `grouped`: rows of similar length together, which it offers.
    """
    given = TrainingArguments(
        output_dir=str(recipe.folder / "trainer"),
        per_device_train_batch_size=recipe.batch_size,
        num_train_epochs=recipe.epochs,
        train_sampling_strategy="group_by_length" if grouped else "random",
        learning_rate=recipe.learning_rate,
        weight_decay=0.01,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        bf16=recipe.bf16,
        use_cpu=next(student.parameters()).device.type == "cpu",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = _Online(
        model=student, args=given, train_dataset=recipe.rows, data_collator=recipe.collate
    )
    trainer.recipe, trainer.taught = recipe, taught
    trainer.remove_callback(PrinterCallback)
    return trainer


def run_trainer(recipe: Recipe, *, taught: bool, grouped: bool = False) -> Taken:
    """Train a copy of the student with the Trainer."""
    seen, student = Seen(), copy.deepcopy(recipe.student)
    seen.watch(student)
    trainer, clock = trainer_of(recipe, student, taught=taught, grouped=grouped), _Clock(seen)
    trainer.add_callback(clock)
    trainer.train()
    return clock.found["taken"]


def torchdistill_box(recipe: Recipe, student: nn.Module) -> Any:
    """Torchdistill's DistillationBox. Its loss has the teacher's entropy less, a constant."""
    from torchdistill.common.constant import def_logger
    from torchdistill.core.distillation import get_distillation_box
    from torchdistill.datasets.registry import register_collate_func

    def_logger.setLevel(logging.ERROR)
    register_collate_func(recipe.collate, key="padded")
    model = {"forward_proc": "forward_batch_only_as_kwargs"}
    hook = {"forward_hook": {"input": [], "output": ["classifier"]}}
    kd = {
        "student_module_path": "classifier",
        "student_module_io": "output",
        "teacher_module_path": "classifier",
        "teacher_module_io": "output",
        "temperature": TEMPERATURE,
        "alpha": 1 - ALPHA,
        "beta": ALPHA / TEMPERATURE**2,
    }
    config = {
        "num_epochs": recipe.epochs,
        "train_data_loader": {
            "dataset_id": "train",
            "requires_supp": False,
            "sampler": {"class_or_func": RandomSampler},
            "collate_fn": "padded",
            "kwargs": {"batch_size": recipe.batch_size},
        },
        "teacher": {"requires_grad": False, **model, **hook},
        "student": {**model, **hook},
        "optimizer": {"key": "AdamW", "kwargs": {"lr": recipe.learning_rate, "fused": True}},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {"kd": {"criterion": {"key": "KDLoss", "kwargs": kd}, "weight": 1.0}}
            },
        },
    }
    device = next(student.parameters()).device
    teacher = copy.deepcopy(recipe.teacher).eval()
    data = {"train": recipe.rows}
    return get_distillation_box(teacher, student, data, config, device, None, False, 1.0)


def torchdistill_loss(recipe: Recipe, box: Any, batch: dict[str, Tensor]) -> Tensor:
    """The loss of a batch."""
    labels = batch.pop("labels")
    with recipe.autocast():
        return box.forward_process(batch, labels, None)


def run_torchdistill(recipe: Recipe) -> Taken:
    """Train a copy of the student with torchdistill."""
    seen, student = Seen(), copy.deepcopy(recipe.student)
    seen.watch(student)
    box = torchdistill_box(recipe, student)
    with timed(seen) as found:
        for epoch in range(recipe.epochs):
            box.pre_epoch_process(epoch=epoch)
            for batch in box.train_data_loader:
                box.pre_forward_process()
                box.post_forward_process(loss=torchdistill_loss(recipe, box, batch))
            box.post_epoch_process()
    return found["taken"]


def textbrewer_distiller(recipe: Recipe, student: nn.Module) -> Any:
    """TextBrewer's BasicDistiller, which keeps batches and the teacher's logits in memory."""
    from textbrewer import BasicDistiller, DistillationConfig, TrainingConfig

    training = TrainingConfig(
        device=next(student.parameters()).device,
        output_dir=str(recipe.folder / "textbrewer"),
        ckpt_frequency=0,
    )
    distilling = DistillationConfig(
        temperature=TEMPERATURE,
        kd_loss_weight=ALPHA,
        hard_label_weight=1 - ALPHA,
        is_caching_logits=True,
    )
    return BasicDistiller(
        training,
        distilling,
        recipe.precise(copy.deepcopy(recipe.teacher).eval()),
        recipe.precise(student),
        lambda batch, said: {"logits": said.logits},
        lambda batch, said: {"logits": said.logits, "losses": said.loss},
    )


def run_textbrewer(recipe: Recipe) -> Taken:
    """Train a copy of the student with TextBrewer."""
    seen, student = Seen(), copy.deepcopy(recipe.student)
    seen.watch(student)
    distiller = textbrewer_distiller(recipe, student)
    optimizer = torch.optim.AdamW(student.parameters(), lr=recipe.learning_rate, fused=True)
    loader = DataLoader(
        recipe.rows, batch_size=recipe.batch_size, shuffle=True, collate_fn=recipe.collate
    )
    with distiller, timed(seen) as found:
        distiller.train(optimizer, loader, num_epochs=recipe.epochs)
    return found["taken"]


def missing() -> dict[str, str]:
    """The libraries that are not here, and how to have them."""
    needed = {
        "trainer": ("accelerate",),
        "torchdistill": ("torchdistill", "torchvision"),
        "textbrewer": ("textbrewer", "tensorboardX"),
    }
    how = "pip install -r benchmarks/requirements.txt"
    found = {}
    for library, modules in needed.items():
        gone = [name for name in modules if importlib.util.find_spec(name) is None]
        if gone:
            found[library] = f"{', '.join(gone)} not found: {how}"
    return found
