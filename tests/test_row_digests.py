"""Digests of rows as they were before more kinds of file were read: existing folders have them."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kdsearch.study.rows import digest_rows, read_dataset
from kdsearch.study.schema import Dataset

TEXTS = ("plain", 'quo"ted, with; a comma', "NA", "null", "zwölf\tBoxkämpfer", "two\nlines", "0")


def rows_of(task: str, count: int) -> list[dict[str, Any]]:
    match task:
        case "classification":
            return [
                {"a": f"{TEXTS[i % 7]} {i}", "b": TEXTS[i % 5], "y": (None, "no", "yes")[i % 3]}
                if i % 3 or i > 6
                else {"a": str(i), "b": "", "y": "yes"}
                for i in range(count)
            ]
        case "ner":
            return [
                {"w": ["in", TEXTS[i % 4], str(i)], "t": ["O", "B-LOC", ("O", "I-LOC")[i % 2]]}
                for i in range(count)
            ]
        case "qa":
            return [
                {
                    "question": f"who {i}?",
                    "context": f"Änn did {i // 3}",
                    "answers": {"text": ["did", "Änn"], "answer_start": [4, 0]},
                }
                for i in range(count)
            ]
        case _:
            return [{"de": f"eins {TEXTS[i % 7]} {i}", "en": f"one {i}"} for i in range(count)]


SAYS: dict[str, dict[str, Any]] = {
    "classification": {"text": ["a", "b"], "label": "y", "labels": ["no", "yes"]},
    "ner": {"text": "w", "label": "t"},
    "qa": {},
    "translation": {"text": "de", "label": "en"},
}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    match path.name.partition(".")[2]:
        case "jsonl":
            path.write_bytes(lines)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines))
        case "parquet":
            pd.DataFrame(rows).to_parquet(path)
        case "csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                for row in rows:
                    writer.writerow(
                        {
                            n: json.dumps(v) if isinstance(v, list | dict) else v
                            for n, v in row.items()
                        }
                    )
    return str(path)


def digests(dataset: Dataset, name: str = "mine", data_dir: Path | None = None) -> str:
    found = read_dataset(name, dataset, data_dir=data_dir, seed=3)
    return " ".join(digest_rows(rows)[:8] for rows in found.splits.values())


KNOWN = {
    "classification": "0cd3e90a b6e00352 80053906",
    "ner": "4fc19df9 52109aa4 9f164186",
    "qa": "04eee5c8 0b10af57 ea614610",
    "translation": "eb06e849 838a8f62 dac88d83",
}
LIMITED = {
    "classification": "60b35c09 eaca33a5 80053906",
    "ner": "990830dd d4e97ede 9f164186",
    "qa": "e9220a20 22513378 ea614610",
    "translation": "c218dd57 2e31569b dac88d83",
}


def given(folder: Path, task: str, kind: str, **fields: Any) -> Dataset:
    sizes = {"train": 60, "validation": 40, "test": 20}
    files = {}
    for split, size in sizes.items():
        rows = rows_of(task, size)
        if split != "train":
            rows = [row for row in rows if None not in row.values()]
        files[split] = write(folder / f"{split}.{kind}", rows)
    values = {"task": task, "files": files, **SAYS[task], **fields}
    return Dataset.model_validate_json(json.dumps(values))


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "parquet"])
@pytest.mark.parametrize("task", [*SAYS])
def test_rows_of_given_files_are_as_they_were(tmp_path: Path, task: str, kind: str) -> None:
    assert digests(given(tmp_path, task, kind)) == KNOWN[task]


@pytest.mark.parametrize("task", [*SAYS])
def test_the_rows_that_a_limit_keeps_are_as_they_were(tmp_path: Path, task: str) -> None:
    limit = {"train": 30, "validation": 7}
    assert digests(given(tmp_path, task, "jsonl", limit=limit)) == LIMITED[task]


def test_the_rows_that_are_cut_off_a_data_set_of_the_catalogue_are_as_they_were(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "mrpc"
    folder.mkdir()
    rows = [
        {"sentence1": f"It is {i}.", "sentence2": "It was.", "label": None if i % 9 == 8 else i % 2}
        for i in range(100)
    ]
    write(folder / "train.jsonl", rows)
    assert digests(Dataset(), "mrpc", tmp_path) == "cff0990c 4fd23c77 48ee6839"
    limited = Dataset.model_validate_json('{"limit": {"train": 50, "test": 4}}')
    assert digests(limited, "mrpc", tmp_path) == "6013ac24 4fd23c77 8c76b3c5"


def test_the_published_size_of_a_cut_and_bad_rows_left_out_are_as_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "sst2"
    folder.mkdir()
    rows = [{"sentence": f"It is {i}." if i % 200 else " ", "label": i % 2} for i in range(8000)]
    write(folder / "train.jsonl.gz", rows)
    write(folder / "validation.csv", rows[1:50])
    assert digests(Dataset(), "sst2", tmp_path) == "6d4cc45b da6452c7 6e3f1b40"


def test_parquet_columns_of_pandas_are_read_as_they_were(tmp_path: Path) -> None:
    labels = pd.array([0, 1, None, 1, 0, 1] * 5, dtype="Int64")
    frame = pd.DataFrame({"a": [f"a {i}" for i in range(30)], "b": "x", "y": labels})
    frame["kind"] = pd.Categorical(["p", "q"] * 15)
    frame.index = pd.Index(range(100, 130), name="number")
    frame.to_parquet(tmp_path / "train.parquet")
    frame.dropna().to_parquet(tmp_path / "validation.parquet")
    frame.dropna().astype({"y": "float32"}).to_parquet(tmp_path / "test.parquet")
    files = {s: str(tmp_path / f"{s}.parquet") for s in ("train", "validation", "test")}
    values = {"files": files, **SAYS["classification"]}
    assert digests(Dataset.model_validate_json(json.dumps(values))) == "0e721e7b 8b6c3902 8b6c3902"
