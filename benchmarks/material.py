"""What the training benchmarks work on: rows, models, a study's folder, and a look into its loop.

Sentence pairs from a folder with train, validation and test (`.jsonl` or `.jsonl.gz`, with
sentence1, sentence2 and label, as MRPC has them), or made-up ones of MRPC's size: a sentence of
kdsearch's grammar in either, among words drawn by Zipf's law. An encoder from a folder, or one of
MiniLM's shape with random weights: what a step takes does not depend on the weights.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from others import OBJECTIVE, Seen
from pairs import Taken
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from kdsearch.agenda import Agenda, StudentTraining
from kdsearch.distill.models import word_tokenizer
from kdsearch.distill.run import run
from kdsearch.distill.training import TrainingState
from kdsearch.driver import Dispatcher, open_study
from kdsearch.engine import InProcessEngine, Worker
from kdsearch.ledger import Ledger
from kdsearch.study import parse_study
from kdsearch.study.grammar import generate

Row = dict[str, Any]
SPLITS = ("train", "validation", "test")
SIZES = {"train": 3668, "validation": 408, "test": 1725}
"""MRPC's."""
LABELS = ["different", "equivalent"]
MINILM = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30_522,
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where data and model come from."""
    parser.add_argument("--data", type=Path, help="a folder with rows like MRPC's")
    parser.add_argument("--model", type=Path, help="a folder with a pretrained BERT encoder")


def rows_of(folder: Path | None) -> dict[str, list[Row]]:
    """The rows of each split, from a folder or made up."""
    if folder is None:
        return {split: _made_up(count, split) for split, count in SIZES.items()}
    found = {}
    for split in SPLITS:
        [path] = [p for end in ("jsonl", "jsonl.gz") if (p := folder / f"{split}.{end}").exists()]
        plain = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found[split] = [json.loads(each) for each in plain.decode().split("\n") if each]
    return found


def _made_up(count: int, split: str) -> list[Row]:
    draw = random.Random(split)
    ranks = range(1, 17_001)
    words = draw.choices(ranks, [1 / rank for rank in ranks], k=60 * count)

    def side(row: Row) -> str:
        length = max(3, round(draw.gauss(15, 5)))
        return " ".join([row["sentence"], *(f"word{words.pop()}" for _ in range(length))])

    pairs = zip(generate(count, f"{split}/1"), generate(count, f"{split}/2"), strict=True)
    return [
        {"sentence1": side(a), "sentence2": side(b), "label": int(a["label"] == b["label"])}
        for a, b in pairs
    ]


def encoder_in(folder: Path) -> Path:
    """A random encoder of MiniLM's shape, with a tokenizer of the made-up words."""
    grammar = [row["sentence"] for row in generate(500, "words")]
    tokenizer = word_tokenizer([*grammar, *(f"word{rank}" for rank in range(1, 17_001))])
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model("bert", **MINILM)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def teacher_in(folder: Path, encoder: Path) -> Path:
    """The encoder with a head for the labels; what it says does not matter here."""
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {n: i for i, n in enumerate(LABELS)}}
    torch.manual_seed(1)
    teacher = AutoModelForSequenceClassification.from_pretrained(encoder, **names)
    teacher.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return folder


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A study whose teacher's outputs are at hand, and a student to train in it."""

    folder: Path
    training: StudentTraining

    def run(self, *, keep: bool = False) -> Any:
        """The training's outcome, which is not kept."""
        return run(self.training, self.folder, keep=keep)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the time being; with transformers silent and one thread, as trainings have."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="kdsearch-bench-") as name:
        yield Path(name)


def prepare(
    folder: Path,
    rows: dict[str, list[Row]],
    encoder: Path,
    teacher: Path,
    *,
    learning_rate: float = 1e-4,
    **training: Any,
) -> Prepared:
    """A study of a two-layer student, with what `training` says of its settings."""
    folder.mkdir()
    files = {}
    for split, some in rows.items():
        path = folder / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in some))
        files[split] = str(path)
    dataset = {
        "files": files,
        "text": ["sentence1", "sentence2"],
        "label": "label",
        "labels": LABELS,
    }
    study = {
        "name": "bench",
        "datasets": {"pairs": dataset},
        "models": {"encoder": str(encoder), "teacher": str(teacher)},
        "teachers": {"teacher": {"checkpoint": "teacher"}},
        "students": {"student": {"model": "encoder", "layers": 2}},
        "search": {"learning_rate": [learning_rate]},
        "training": {"batch_size": 32, "max_length": 128, **training},
    }
    ledger, agenda = begin(folder / "run", study)
    student = first_student(ledger, agenda)
    return Prepared(
        folder=ledger.folder, training=student.model_copy(update={"objective": OBJECTIVE})
    )


def begin(folder: Path, study: dict[str, Any]) -> tuple[Ledger, Agenda]:
    """A study in a folder, as `launch` begins it."""
    ledger = Ledger(folder)
    place = "study.yaml"
    return ledger, open_study(ledger, parse_study(study, place=place), data_dir=None, place=place)


class _Reached(Exception):  # noqa: N818  (no error)
    """A training that is not to be run."""


def first_student(ledger: Ledger, agenda: Agenda) -> StudentTraining:
    """The first student with a teacher, once all that it needs has been run."""
    found: list[StudentTraining] = []

    def until(training: Any, folder: Path) -> Any:
        if isinstance(training, StudentTraining):
            found.append(training)
            raise _Reached
        return run(training, folder)

    engine = InProcessEngine(worker=Worker(folder=ledger.folder, run_training=until))
    while not found or found[-1].teaching is None:
        try:
            engine.run(Dispatcher(agenda, ledger))
        except _Reached:
            continue
    return found[-1]


def cut(rows: dict[str, list[Row]], tokenizer: Any, train: int) -> dict[str, list[Row]]:
    """So many training rows, and in validation, in few rows, what else train and it have of tokens.

    For what a training costs depends on how much of a vocabulary its data set uses.
    """
    some, few = rows["train"][:train], rows["test"][:32]
    texts = [row[side] for split in SPLITS[:2] for row in rows[split] for side in _SIDES]
    seen = {number for row in some for number in tokenizer(*map(row.get, _SIDES))["input_ids"]}
    words: list[str] = []
    for word in sorted({word for text in texts for word in text.split()}):
        numbers = tokenizer(word, add_special_tokens=False)["input_ids"]
        if not seen.issuperset(numbers):
            seen.update(numbers)
            words.append(word)
    packed = [" ".join(words[start : start + 40]) for start in range(0, len(words), 40)]
    other = texts[0].split()[0]
    validation = [
        {"sentence1": t, "sentence2": other, "label": n % 2} for n, t in enumerate(packed)
    ]
    return {"train": some, "validation": validation, "test": few}


_SIDES = ("sentence1", "sentence2")


class Enough(Exception):  # noqa: N818  (no error)
    """The steps of a training are taken; its last evaluations are not wanted."""


@dataclass
class Loop:
    """What the steps of a training took: from each epoch's begin to its end."""

    seconds: float = 0.0
    cpu: float = 0.0
    optimizer: float = 0.0
    seen: Seen = field(default_factory=Seen)

    @property
    def taken(self) -> Taken:
        """As a side of a comparison."""
        return Taken(
            seconds=self.seconds,
            cpu=self.cpu,
            more={"optimizer": self.optimizer, **self.seen.numbers},
        )


@contextmanager
def looked_into(epochs: int | None = None) -> Iterator[Loop]:
    """A look at kdsearch's own loop; after so many epochs the training ends, unscored."""
    loop, started, ended = Loop(), [0.0, 0.0], 0
    begin, end = TrainingState.begin, TrainingState.end

    def begun(state: TrainingState, epoch: int) -> None:
        if not loop.seen.first:
            loop.seen.watch(state.model)
            loop.seen.first = time.perf_counter()
        if epochs == 0:
            raise Enough
        started[:] = time.perf_counter(), time.process_time()
        begin(state, epoch)

    def finished(state: TrainingState) -> float:
        nonlocal ended
        mean = end(state)
        loop.seconds += time.perf_counter() - started[0]
        loop.cpu += time.process_time() - started[1]
        ended += 1
        if ended == epochs:
            raise Enough
        return mean

    moments: list[float] = []
    hooks = (
        register_optimizer_step_pre_hook(lambda *_: moments.append(time.perf_counter())),
        register_optimizer_step_post_hook(lambda *_: moments.append(time.perf_counter())),
    )
    TrainingState.begin, TrainingState.end = begun, finished  # type: ignore[method-assign]
    try:
        yield loop
    except Enough:
        pass
    finally:
        TrainingState.begin, TrainingState.end = begin, end  # type: ignore[method-assign]
        for hook in hooks:
            hook.remove()
        pairs = zip(moments[::2], moments[1::2], strict=False)
        loop.optimizer = sum(after - before for before, after in pairs)


def features(tokenizer: Any, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as the other libraries' data loaders take them, padded batch by batch."""
    texts = ([row[side] for row in rows] for side in _SIDES)
    given = tokenizer(*texts, truncation=True, max_length=128)
    return [
        {**{name: given[name][n] for name in given}, "labels": row["label"]}
        for n, row in enumerate(rows)
    ]
