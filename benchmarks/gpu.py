"""What a student's training costs on a GPU, and how one GPU is best filled with trainings.

    python benchmarks/gpu.py [--layers 4 6 12] [--steps 60] [--peak 989e12]
                             [--works trainer compile processes fused]
    python benchmarks/gpu.py --tiny [--device cpu]     # small shapes, to try this script

RoBERTa's shapes with random weights: a large teacher, students as wide as the base model; bf16,
batches of 32 rows of 128 tokens, two classes. Needs kdsearch.distill and accelerate, not Ray.

trainer: kdsearch's steps, the teacher's outputs at hand, beside transformers' Trainer with the
teacher online. By the models' sizes alone the ratio would be (3 student + teacher) / (3 student),
passes forwards: 0.8 of it is to be reached. What is above is host time that the Trainer adds: the
share of the time in which the GPU computes is reported of both sides.
compile: kdsearch's steps with a compiled student, and with one in CUDA graphs.
processes: so many trainings of the smallest student at once on the one GPU, in processes of their
own, as `resources.gpus` has them with a fraction.
fused: so many in one pass of one process, as `resources.fuse` has them.
Both as trainings per GPU-hour, of MRPC's 3,668 rows for 10 epochs.
`--peak` is what the GPU does at best, in bf16 operations a second (an H100's and an H200's).
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from others import OBJECTIVE, Recipe, missing, run_trainer
from pairs import Figure, Taken, report, report_parts, take_turns
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForSequenceClassification

from kdsearch.distill.batch_loss import CachedOutputs, batch_loss
from kdsearch.distill.first_token import read_first_alone
from kdsearch.distill.training import TrainingState, batches
from kdsearch.study import TrainingSettings
from kdsearch.tasks import TASKS, Encoded

TASK = TASKS["classification"]
LENGTH, BATCH, CLASSES = 128, 32, 2
BASE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
TRAINING = 3668 * 10
"""Rows that a training reads."""
WORKS = ("trainer", "compile", "processes", "fused")


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """The models, and where they are."""

    teacher: dict[str, int]
    teacher_layers: int
    student: dict[str, int]
    device: torch.device
    steps: int
    peak: float

    def model(self, width: dict[str, int], layers: int, seed: int = 0) -> Any:
        """A classifier at random, on the device."""
        config = AutoConfig.for_model(
            "roberta",
            num_hidden_layers=layers,
            vocab_size=50265,
            max_position_embeddings=514,
            type_vocab_size=1,
            pad_token_id=1,
            num_labels=CLASSES,
            **width,
        )
        torch.manual_seed(seed)
        return AutoModelForSequenceClassification.from_config(config).to(self.device)

    def wait(self) -> None:
        """For all that the GPU was asked for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def encoded(rows: int, device: torch.device) -> Encoded:
    """Rows of random tokens, as long as they may be."""
    generator = torch.Generator().manual_seed(rows)
    inputs = torch.randint(5, 50265, (rows, LENGTH), generator=generator)
    labels = torch.randint(0, CLASSES, (rows,), generator=generator)
    return Encoded(
        inputs={"input_ids": inputs},
        lengths=torch.full((rows,), LENGTH),
        counted=torch.ones(rows, 1, dtype=torch.bool),
        labels=labels,
        references=labels.tolist(),
    ).to(device)


def state_of(shapes: Shapes, student: nn.Module, *, alone: bool = True) -> TrainingState:
    """A training of the student at its begin, the teacher's outputs at hand."""
    examples = encoded(shapes.steps * BATCH, shapes.device)
    if alone:
        read_first_alone(student, TASK, examples)
    generator = torch.Generator().manual_seed(1)
    outputs_NC = torch.randn(len(examples), CLASSES, generator=generator).to(shapes.device)
    settings = TrainingSettings(
        epochs=10**6, batch_size=BATCH, max_length=LENGTH, precision="bf16"
    ).for_task("classification")
    loss_of = batch_loss(TASK, student, OBJECTIVE, CachedOutputs(values=outputs_NC, head=None))
    state = TrainingState(student, TASK, examples, loss_of, settings, learning_rate=1e-5)
    state.begin(1)
    return state


def stepped(shapes: Shapes, step: Callable[[Tensor, int], None], state: TrainingState) -> Taken:
    """What an epoch of steps takes."""
    order = list(batches(state.examples.lengths, BATCH, 0, 1))
    shapes.wait()
    cpu, started = time.process_time(), time.perf_counter()
    for indices in order:
        step(indices, 1)
    shapes.wait()
    return Taken(seconds=time.perf_counter() - started, cpu=time.process_time() - cpu)


class PlainRecipe(Recipe):
    """Rows that are all of one length need no tokenizer."""

    @property
    def collate(self) -> Any:
        """Rows as a batch."""
        return lambda rows: {n: torch.stack([row[n] for row in rows]) for n in rows[0]}


def recipe_of(shapes: Shapes, student: nn.Module, teacher: nn.Module, folder: Path) -> Recipe:
    """The Trainer's side: as many steps on the same rows."""
    examples = encoded(shapes.steps * BATCH, torch.device("cpu"))
    ones = torch.ones(LENGTH, dtype=torch.long)
    rows = [
        {"input_ids": ids, "attention_mask": ones, "labels": label}
        for ids, label in zip(examples.inputs["input_ids"], examples.labels, strict=True)
    ]
    return PlainRecipe(
        student=student,
        teacher=teacher.eval(),
        tokenizer=None,
        rows=rows,
        epochs=1,
        precision="bf16",
        folder=folder,
        learning_rate=1e-5,
    )


def operations(model: Any, width: dict[str, int], layers: int) -> float:
    """Multiplications and additions of one pass over one row, forwards."""
    weights = sum(p.numel() for name, p in model.named_parameters() if "embeddings" not in name)
    return 2 * LENGTH * weights + 4 * layers * LENGTH**2 * width["hidden_size"]


def busy(shapes: Shapes, work: Callable[[], Taken]) -> float:
    """The share of the time in which the GPU computed, in percent."""
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        taken = work()
    kernels = sum(event.self_device_time_total for event in seen.key_averages())
    return 100 * kernels / 1e6 / taken.seconds


def beside_trainer(shapes: Shapes, layers: int, teacher: Any, folder: Path) -> None:
    """Report kdsearch's steps beside the Trainer's, and how busy either keeps the GPU."""
    student = shapes.model(shapes.student, layers)
    own = operations(student, shapes.student, layers)
    passed = operations(teacher, shapes.teacher, shapes.teacher_layers)
    state = state_of(shapes, shapes.model(shapes.student, layers))
    ours = partial(stepped, shapes, state.step, state)
    theirs = partial(run_trainer, recipe_of(shapes, student, teacher, folder), taught=True)
    rounds = take_turns({"kdsearch": ours, "trainer": theirs}, 3)
    by_size = (3 * own + passed) / (3 * own)
    rows = shapes.steps * BATCH
    conditions = {"layers": layers, "by_size": by_size, "steps": shapes.steps}
    report(
        f"gpu.{layers}.trainer",
        f"{layers} layers: kdsearch ÷ the Trainer with its teacher; by the sizes {by_size:.2f}",
        rounds.speedup("kdsearch", "trainer"),
        unit="×",
        at_least=0.8 * by_size,
        **conditions,
    )
    for side, turns in rounds.turns.items():
        rates = [rows / turn.seconds for turn in turns]
        report(f"gpu.{layers}.{side}_rate", f"{layers} layers: {side}", rates, unit="rows/s")
    peak = [100 * rows * 3 * own / turn.seconds / shapes.peak for turn in rounds.turns["kdsearch"]]
    report(f"gpu.{layers}.peak", f"{layers} layers: share of the peak", peak, unit="%")
    if shapes.device.type == "cuda":
        shares = {"kdsearch": busy(shapes, ours), "trainer": busy(shapes, theirs)}
        report_parts(f"gpu.{layers}.busy", f"{layers} layers: the GPU computes", shares)


def compiled(shapes: Shapes, layers: int) -> None:
    """Report steps of a compiled student beside the plain ones. Real batches differ in length."""
    sides: dict[str, Callable[[], Taken]] = {}
    for name, how in (("plain", None), ("compile", "default"), ("graphs", "reduce-overhead")):
        student = shapes.model(shapes.student, layers)
        state = state_of(shapes, student)
        if how is not None:
            student.forward = torch.compile(student.forward, mode=how)
        sides[name] = partial(stepped, shapes, state.step, state)
    rounds = take_turns(sides, 3)
    for name in ("compile", "graphs"):
        words = f"{layers} layers, rows of one length: {name} ÷ plain steps"
        report(f"gpu.{layers}.{name}", words, rounds.speedup(name, "plain"), unit="×")


def one_of_several(shapes: Shapes, layers: int, together: Any) -> float:
    """The rows a second of one training beside others, all of which measure at the same time."""
    torch.set_num_threads(1)  # as trainings do
    state = state_of(shapes, shapes.model(shapes.student, layers))
    stepped(shapes, state.step, state)
    together.wait()
    return shapes.steps * BATCH / stepped(shapes, state.step, state).seconds


def in_processes(shapes: Shapes, layers: int, counts: list[int]) -> None:
    """Report how many trainings an hour of the GPU gives, with so many processes."""
    context = multiprocessing.get_context("spawn")
    for count in counts:
        with context.Manager() as manager, context.Pool(count) as pool:
            together = manager.Barrier(count)
            tasks = [(shapes, layers, together)] * count
            rate = sum(pool.starmap(one_of_several, tasks, chunksize=1))
        words = f"trainings per GPU-hour, {layers} layers, {count} at once in processes"
        report(f"gpu.processes.{count}", words, [rate * 3600 / TRAINING], unit="an hour")


def in_one_pass(shapes: Shapes, layers: int, counts: list[int]) -> None:
    """Report how many trainings an hour of the GPU gives, so many in one pass."""
    from kdsearch.distill.together import Together

    for count in counts:
        students = [shapes.model(shapes.student, layers) for _ in range(count)]
        states = [state_of(shapes, student, alone=False) for student in students]
        every = Together(states, TASK)
        every.begin(1)
        work = partial(stepped, shapes, every.step, states[0])
        rounds = take_turns({"fused": work}, 3)
        rows = count * shapes.steps * BATCH
        hourly = [rows / turn.seconds * 3600 / TRAINING for turn in rounds.turns["fused"]]
        words = f"trainings per GPU-hour, {layers} layers, {count} in one pass"
        report(f"gpu.fused.{count}", words, Figure(values=hourly), unit="an hour")


def main() -> None:
    """Measure, print, and append to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 6, 12])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--fused", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--peak", type=float, default=989e12)
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try this script")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    if given.device == "cpu" and not given.tiny:
        parser.error("there is no GPU; to try this script: --tiny")
    transformers.logging.set_verbosity_error()
    shapes = Shapes(
        teacher=LARGE,
        teacher_layers=24,
        student=BASE,
        device=torch.device(given.device),
        steps=given.steps,
        peak=given.peak,
    )
    if given.tiny:
        shapes = replace(shapes, teacher=TINY, teacher_layers=2, student=TINY)
    skipped = missing().get("trainer")
    if "trainer" in given.works and skipped:
        print(f"SKIPPED: trainer; {skipped}")
    elif "trainer" in given.works:
        teacher = shapes.model(shapes.teacher, shapes.teacher_layers)
        with tempfile.TemporaryDirectory() as folder:
            for layers in given.layers:
                beside_trainer(shapes, layers, teacher, Path(folder))
        del teacher
    if "compile" in given.works:
        for layers in given.layers:
            compiled(shapes, layers)
    if "processes" in given.works:
        in_processes(shapes, given.layers[0], given.processes)
    if "fused" in given.works:
        in_one_pass(shapes, given.layers[0], given.fused)


if __name__ == "__main__":
    main()
