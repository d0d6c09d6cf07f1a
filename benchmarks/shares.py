"""Where the time of a student's training goes: steps, evaluation, the rest; and within the steps.

    python benchmarks/shares.py [--rounds N] [--works mrpc translation profile]
                                [--data FOLDER --model FOLDER]

Whole trainings in kdsearch, the process and what it caches warm: sentence pairs at the size of
search_spaces/mrpc.yaml, and a student of the quickstart's translation. Of the steps a profile by
torch, fp32 and bf16.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from material import (
    Prepared,
    arguments,
    begin,
    cut,
    encoder_in,
    first_student,
    looked_into,
    prepare,
    rows_of,
    scratch,
    teacher_in,
)
from pairs import ROOT, Figure, busy_cores, report, report_parts
from torch.profiler import ProfilerActivity, profile
from transformers import AutoTokenizer

from kdsearch.distill import run as worker
from kdsearch.study.yaml_file import read_yaml

AT_MOST = {"mrpc": 12, "translation": 20}
WORDS = {
    "mrpc": "sentence pairs at the size of search_spaces/mrpc.yaml",
    "translation": "translation of the quickstart",
}
OPERATIONS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear"),
    "attention": ("scaled_dot_product", "flash_attention", "softmax"),
    "dropout": ("bernoulli", "dropout"),
    "optimizer": ("adam", "sgd", "sqrt", "addcdiv", "addcmul", "lerp"),
    "embeddings": ("embedding", "index"),
    "GELU, norms": ("gelu", "layer_norm"),
    "copies, fills, casts": ("copy", "fill", "zero", "_to_copy", "clone", "cat"),
}
"""By parts of torch's names; the first that fits counts."""


@contextmanager
def evaluations() -> Iterator[dict[str, float]]:
    """The seconds of the evaluations of a training: validation, and test, which alone is timed."""
    found = {"validation": 0.0, "test": 0.0}
    evaluate = worker.evaluate

    def seen(*given: Any, timed: bool = False, **named: Any) -> Any:
        started = time.perf_counter()
        scored = evaluate(*given, timed=timed, **named)
        found["test" if timed else "validation"] += time.perf_counter() - started
        return scored

    worker.evaluate = seen
    try:
        yield found
    finally:
        worker.evaluate = evaluate


def whole(name: str, prepared: Prepared, rounds: int) -> None:
    """Report what of a whole training is not its steps."""
    with looked_into(0):  # reads and encodes what all trainings of a process share
        prepared.run()
    shares: list[float] = []
    parts: dict[str, list[float]] = defaultdict(list)
    others = []
    for _ in range(rounds):
        others.append(busy_cores())
        with looked_into() as loop, evaluations() as scored:
            started = time.perf_counter()
            prepared.run()
            seconds = time.perf_counter() - started
        taken = {"steps": loop.seconds, **scored}
        taken["the rest: model, weights, files"] = seconds - sum(taken.values())
        for part, some in taken.items():
            parts[part].append(100 * some / seconds)
        shares.append(100 * (1 - loop.seconds / seconds))
    words = f"of a training what is not its steps: {WORDS[name]}"
    figure = Figure(values=shares, others=others)
    report(f"shares.{name}", words, figure, unit="%", at_most=AT_MOST[name], seconds=seconds)
    means = {part: sum(some) / rounds for part, some in parts.items()}
    report_parts(f"parts.{name}", f"a training, {WORDS[name]}", means)


def profiled(prepared: Prepared, precision: str) -> None:
    """Report what the steps of an epoch spend their time with."""
    with looked_into(1):
        prepared.run()
    with profile(activities=[ProfilerActivity.CPU]) as seen, looked_into(1):
        prepared.run()
    taken: dict[str, float] = defaultdict(float)
    for event in seen.key_averages():
        kind = event.key.lower()
        fits = (part for part, names in OPERATIONS.items() if any(n in kind for n in names))
        taken[next(fits, "all else")] += event.self_cpu_time_total
    total = sum(taken.values())
    parts = {part: 100 * t / total for part, t in sorted(taken.items(), key=lambda i: -i[1])}
    largest = sorted(seen.key_averages(), key=lambda event: -event.self_cpu_time_total)[:8]
    named = {event.key: round(100 * event.self_cpu_time_total / total, 1) for event in largest}
    words = f"the steps of an epoch in {precision}, by torch's profiler"
    report_parts(f"profile.{precision}", words, parts, largest=named)


def quickstart(folder: Path) -> Prepared:
    """The first student of the quickstart's translation, its teacher trained as there."""
    study = read_yaml(ROOT / "search_spaces/quickstart.yaml")
    study["name"] = "quickstart"
    study["datasets"] = {"language": study["datasets"]["language"]}
    study["test_cases"] = [case for case in study["test_cases"] if case["dataset"] == "language"]
    for section, wanted in (("teachers", "seq2seq"), ("students", "small-seq2seq")):
        study[section] = {wanted: study[section][wanted]}
    study["models"] = {name: m for name, m in study["models"].items() if "seq2seq" in name}
    ledger, agenda = begin(folder, study)
    return Prepared(folder=ledger.folder, training=first_student(ledger, agenda))


def main() -> None:
    """Measure, print, and append to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--rounds", type=int, default=2)
    works = ("mrpc", "translation", "profile")
    parser.add_argument("--works", nargs="+", choices=works, default=works)
    given = parser.parse_args()
    with scratch() as folder:
        if "translation" in given.works:
            whole("translation", quickstart(folder / "quickstart"), 3 * given.rounds)
        encoder = given.model or encoder_in(folder / "encoder")
        teacher = teacher_in(folder / "teacher", encoder)
        rows = rows_of(given.data)
        if "mrpc" in given.works:
            sizes = {"train": 1000, "validation": 400, "test": 600}
            some = {split: rows[split][:size] for split, size in sizes.items()}
            settings = {"epochs": 2, "max_length": 96, "precision": "fp32"}
            whole(
                "mrpc", prepare(folder / "mrpc", some, encoder, teacher, **settings), given.rounds
            )
        if "profile" in given.works:
            some = cut(rows, AutoTokenizer.from_pretrained(encoder), 256)
            for precision in ("fp32", "bf16"):
                settings = {"epochs": 1, "precision": precision}
                profiled(prepare(folder / precision, some, encoder, teacher, **settings), precision)


if __name__ == "__main__":
    main()
