"""How long `kdsearch check` takes for a study of the paper's shape, and with what memory.

    python benchmarks/preflight.py [--rows N] [--encoder DIR]

Thirteen data sets in files, three students of each: 39 test cases, on saved models, small ones
at random, or an encoder of your own. Against the same command on a study of one data set and one
student, which is what starting and importing take.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoConfig, AutoModel

from kdsearch.distill.models import word_tokenizer
from kdsearch.study.grammar import LABELS, generate

TASKS = {"classification": 6, "ner": 2, "qa": 3, "translation": 2}
"""How many of the paper's thirteen data sets each task has."""
COLUMNS: dict[str, dict[str, Any]] = {
    "classification": {"text": "sentence", "label": "label", "labels": list(LABELS)},
    "ner": {"text": "tokens", "label": "ner_tags"},
    "qa": {},
    "translation": {"text": "source", "label": "target"},
}
ENCODER = {
    "model_type": "bert",
    "hidden_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "intermediate_size": 512,
}
SEQ2SEQ = {
    "model_type": "bart",
    "d_model": 128,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 512,
    "decoder_ffn_dim": 512,
}


def write_data(folder: Path, rows: int) -> dict[str, dict[str, Any]]:
    """The data sets' files, and what a study says of each."""
    datasets: dict[str, dict[str, Any]] = {}
    for task, count in TASKS.items():
        for number in range(count):
            name = f"{task}-{number}"
            files = {}
            for split, size in (("train", rows), ("validation", rows // 5), ("test", rows // 5)):
                path = folder / f"{name}-{split}.jsonl"
                generated = generate(size, f"{number}/{split}", 0.0, task)
                path.write_text("".join(json.dumps(row) + "\n" for row in generated))
                files[split] = str(path)
            datasets[name] = {"task": task, "files": files, **COLUMNS[task]}
    return datasets


def write_model(folder: Path, config: dict[str, Any], texts: list[str]) -> str:
    """A model at random as a folder, with a tokenizer of the words in `texts`."""
    tokenizer = word_tokenizer(texts)
    kind = config["model_type"]
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    rest = {name: value for name, value in config.items() if name != "model_type"}
    start = {"decoder_start_token_id": 0} if kind == "bart" else {}
    settings = AutoConfig.for_model(kind, **rest, vocab_size=len(tokenizer), **special, **start)
    AutoModel.from_config(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def study(datasets: dict[str, Any], models: dict[str, str]) -> dict[str, Any]:
    """Three students of each data set."""
    wide = [name for name, data in datasets.items() if data["task"] == "translation"]
    narrow = [name for name in datasets if name not in wide]
    layers = (1, 2, 3)
    blocks = [
        {"dataset": narrow, "teacher": "encoder", "student": [f"encoder-{n}" for n in layers]},
        {"dataset": wide, "teacher": "seq2seq", "student": [f"seq2seq-{n}" for n in layers]},
    ]
    return {
        "datasets": datasets,
        "models": models,
        "teachers": {name: {"model": name} for name in models},
        "students": {f"encoder-{n}": {"model": "encoder", "layers": n} for n in layers}
        | {f"seq2seq-{n}": {"model": "seq2seq", "layers": 2 * n} for n in layers},
        "test_cases": [block for block in blocks if block["dataset"]],
    }


def measure(path: Path) -> tuple[float, float]:
    """Seconds and megabytes of `kdsearch check`."""
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "kdsearch", "check", path.name], cwd=path.parent
    ) as run:
        _, status, used = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
    if run.returncode:
        sys.exit(f"kdsearch check ended with {run.returncode}")
    return time.monotonic() - started, used.ru_maxrss / 1024


def main() -> None:
    """Write the study, check it, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000, help="training rows of a data set")
    parser.add_argument("--encoder", help="a folder with a pretrained encoder and its tokenizer")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        datasets = write_data(folder, options.rows)
        texts = [
            " ".join(value if isinstance(value, list) else [str(value)])
            for task in TASKS
            for row in generate(2_000, "words", 0.0, task)
            for value in row.values()
            if not isinstance(value, (dict, int))
        ]
        encoder = options.encoder or write_model(folder / "encoder", ENCODER, texts)
        models = {"encoder": encoder, "seq2seq": write_model(folder / "seq2seq", SEQ2SEQ, texts)}
        whole = study(datasets, models)
        one = study({"classification-0": datasets["classification-0"]}, models)
        one["students"] = {"encoder-1": one["students"]["encoder-1"]}
        one["test_cases"][0]["student"] = "encoder-1"
        found = {}
        for name, content in (("one case", one), ("39 cases", whole)):
            path = folder / f"{name.replace(' ', '-')}.yaml"
            path.write_text(yaml.safe_dump(content))
            found[name] = measure(path)
        print(
            f"\n{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Python "
            f"{platform.python_version()}, torch {version('torch')}, "
            f"transformers {version('transformers')}; {options.rows:,} training rows each"
        )
        for name, (seconds, megabytes) in found.items():
            print(f"{name}: {seconds:.1f} s, {megabytes:.0f} MB")


if __name__ == "__main__":
    main()
