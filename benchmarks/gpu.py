"""What a student's training costs on a GPU: kdsearch beside the Trainer with an online teacher.

    python benchmarks/gpu.py [--layers 4 6 12] [--steps 60] [--at-once 1 2 4] [--peak 989e12]

RoBERTa's shapes with random weights: a large teacher, students as wide as the base model; bf16,
batches of 32 rows of 128 tokens, two classes. Of each side the examples per second while it
trains: the time of a longer run less that of a shorter one, which takes out what is done once.
Where the teacher's passes were all that differs, their ratio would follow from the models' sizes:
it is printed beside, as is what a step of AdamW takes in torch's two ways. `--at-once` runs so many
trainings of the smallest student side by side on the one GPU, in processes of their own. `--peak`
is what the GPU does at best, in bf16 operations a second (an H100's and an H200's by default).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from kdsearch.agenda import DataSpec
from kdsearch.distill.batch_loss import BatchLoss
from kdsearch.distill.losses import Units, compute
from kdsearch.distill.training import train
from kdsearch.search import Ce
from kdsearch.study import TrainingSettings
from kdsearch.tasks import TASKS, Batch, Encoded

TASK = TASKS["classification"]
LENGTH, BATCH, CLASSES = 128, 32, 2
ROWS = 64
"""Of the validation split; what it takes is in both runs alike."""
BASE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
TINY = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def model_of(width: dict[str, int], layers: int) -> Any:
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
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).to(DEVICE)


def encoded(rows: int) -> Encoded:
    """Rows of random tokens, as long as they may be."""
    generator = torch.Generator().manual_seed(rows)
    inputs = torch.randint(5, 50265, (rows, LENGTH), generator=generator)
    labels = torch.randint(0, CLASSES, (rows,), generator=generator)
    return Encoded(
        inputs={"input_ids": inputs},
        lengths=torch.full((rows,), LENGTH),
        counted=torch.ones(rows, 1, dtype=torch.long),
        labels=labels,
        references=labels.tolist(),
    ).to(DEVICE)


def loss_of(student_BC: Tensor, teacher_BC: Tensor, labels_B: Tensor) -> Tensor:
    """The same of both sides."""
    units = Units(student=student_BC, teacher=teacher_BC, labels=labels_B)
    return compute(Ce(temperature=4.0, student_temperature=4.0, alpha=0.5), units)


def ours(student: Any, steps: int) -> None:
    """kdsearch's training, the teacher's outputs at hand."""
    examples = encoded(steps * BATCH)
    outputs_NC = torch.randn(len(examples), CLASSES, device=DEVICE)

    def batch_loss(values_RW: Tensor, batch: Batch) -> Tensor:
        rows = batch.rows.to(DEVICE)
        return loss_of(values_RW, outputs_NC[rows], TASK.labels(batch))

    fit(student, examples, batch_loss)


def fit(student: Any, examples: Encoded, batch_loss: BatchLoss) -> None:
    """One epoch."""
    names = tuple(map(str, range(CLASSES)))
    data = DataSpec(
        task="classification", metric="accuracy", labels=names, train="", validation="", test=""
    )
    settings = TrainingSettings(
        epochs=1, batch_size=BATCH, max_length=LENGTH, precision="bf16"
    ).for_task("classification")
    train(
        student,
        TASK,
        None,
        data,
        examples,
        encoded(ROWS),
        batch_loss,
        settings=settings,
        learning_rate=1e-5,
        seed=0,
    )


class Online(Trainer):
    """The usual recipe: the teacher reads each batch as the student does."""

    teacher: Any = None

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any
    ) -> Tensor:
        """The loss of a batch, whose teacher's outputs are made here."""
        labels = inputs.pop("labels")
        with torch.no_grad():
            teacher_BC = self.teacher(**inputs).logits
        return loss_of(model(**inputs).logits, teacher_BC, labels)


def trainer(student: Any, steps: int, *, teacher: Any) -> None:
    """Transformers' Trainer with its defaults."""
    examples = encoded(steps * BATCH)
    ids, labels = examples.inputs["input_ids"].cpu(), examples.labels.cpu()
    ones = torch.ones(LENGTH, dtype=torch.long)
    rows = [
        {"input_ids": ids[n], "attention_mask": ones, "labels": labels[n]} for n in range(len(ids))
    ]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            bf16=DEVICE.type == "cuda",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            learning_rate=1e-5,
        )
        recipe = Online(model=student, args=arguments, train_dataset=rows)
        recipe.teacher = teacher.eval()
        recipe.remove_callback(PrinterCallback)
        recipe.train()


def seconds(run: Callable[[int], None], steps: int) -> float:
    """What a run of so many steps takes."""
    wait()
    started = time.perf_counter()
    run(steps)
    wait()
    return time.perf_counter() - started


def wait() -> None:
    """For all that the GPU was asked for."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def rate(run: Callable[[int], None], steps: int, rounds: int = 3) -> float:
    """Examples per second of a run; the median of several rounds."""
    run(5)
    short = steps // 4
    found = [seconds(run, steps) - seconds(run, short) for _ in range(rounds)]
    return BATCH * (steps - short) / statistics.median(found)


def operations(model: Any, width: dict[str, int], layers: int) -> float:
    """Multiplications and additions of one pass over one row, forwards."""
    weights = sum(p.numel() for name, p in model.named_parameters() if "embeddings" not in name)
    return 2 * LENGTH * weights + 4 * layers * LENGTH**2 * width["hidden_size"]


def busy(student: Any, steps: int) -> float:
    """The share of the time in which the GPU computed."""
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        taken = seconds(partial(ours, student), steps)
    return sum(event.self_device_time_total for event in seen.key_averages()) / 1e6 / taken


def optimizer_seconds(student: Any, **how: bool) -> float:
    """What one step of AdamW takes."""
    for parameter in student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-9, **how)
    for _ in range(3):
        optimizer.step()
    wait()
    started = time.perf_counter()
    for _ in range(20):
        optimizer.step()
    wait()
    return (time.perf_counter() - started) / 20


def one_of_several(width: dict[str, int], layers: int, steps: int, together: Any) -> float:
    """The rate of one training beside others, all of which measure at the same time."""
    torch.set_num_threads(1)  # as trainings do
    run = partial(ours, model_of(width, layers))
    run(5)
    taken = []
    for count in (steps, steps // 4):
        together.wait()
        taken.append(seconds(run, count))
    return BATCH * (steps - steps // 4) / (taken[0] - taken[1])


def at_once(count: int, width: dict[str, int], layers: int, steps: int) -> float:
    """Examples per second of several trainings on one GPU, all together."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(count) as pool:
        together = manager.Barrier(count)
        tasks = [(width, layers, steps, together)] * count
        return sum(pool.starmap(one_of_several, tasks, chunksize=1))


def main() -> None:
    """Measure, print, and print all of it once more as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 6, 12])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--at-once", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--peak", type=float, default=989e12)
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try this script")
    given = parser.parse_args()
    if DEVICE.type == "cpu" and not given.tiny:
        parser.error("there is no GPU")
    transformers.logging.set_verbosity_error()
    wide, narrow, depth = (TINY, TINY, 2) if given.tiny else (LARGE, BASE, 24)
    gpu = torch.cuda.get_device_name() if DEVICE.type == "cuda" else platform.machine()
    print(f"{gpu}, torch {torch.__version__}, transformers {version('transformers')}", flush=True)
    teacher = model_of(wide, depth)
    passed = operations(teacher, wide, depth)
    found: dict[str, Any] = {"gpu": gpu}
    for layers in given.layers:
        student = model_of(narrow, layers)
        own = operations(student, narrow, layers)
        a = rate(partial(ours, student), given.steps)
        b = rate(partial(trainer, student, teacher=teacher), given.steps)
        share = a * 3 * own / given.peak
        found[f"{layers} layers"] = {"kdsearch": a, "trainer": b, "share_of_peak": share}
        print(
            f"{layers:2d} layers: kdsearch {a:7.0f} examples/s ({share:.0%} of the peak), "
            f"Trainer with its teacher {b:6.0f}: {a / b:.2f} times as many; "
            f"by the sizes alone {(3 * own + passed) / (3 * own):.2f}",
            flush=True,
        )
        if DEVICE.type == "cuda":
            found[f"{layers} layers"]["busy"] = busy(student, given.steps)
            print(f"    busy {found[f'{layers} layers']['busy']:.0%} of the time", flush=True)
            ways = {"foreach": {"foreach": True}, "fused": {"fused": True}}
            for name, how in ways.items():
                taken = found[f"{layers} layers"][name] = optimizer_seconds(student, **how)
                print(f"    AdamW {name}: {taken * 1000:.2f} ms a step", flush=True)
    for count in given.at_once:
        together = at_once(count, narrow, given.layers[0], given.steps)
        found[f"{count} at once"] = together
        alone = found[f"{given.at_once[0]} at once"]
        print(
            f"{count} at once, {given.layers[0]} layers: {together:.0f} examples/s, "
            f"{together / alone:.2f} times as many as {given.at_once[0]}",
            flush=True,
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
