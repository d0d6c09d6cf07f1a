from __future__ import annotations

import csv
import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.errors import InputError
from kdsearch.study import grammar, hub
from kdsearch.study.rows import Row, digest_rows, read_dataset
from kdsearch.study.schema import Dataset

SPLITS = ("train", "validation", "test")
TEXTS = ["plain", 'quo"ted, with a comma', "NA", "", "zwölf Boxkämpfer", "line\u2028separator", "0"]
ROWS = [
    {"first": text, "second": text[::-1], "class": number % 2} for number, text in enumerate(TEXTS)
]


def write(folder: Path, split: str, kind: str, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{split}.{kind}"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    match kind:
        case "jsonl":
            path.write_text(lines)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines.encode()))
        case "csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        case "parquet":
            pd.DataFrame(rows).to_parquet(path)
    return path


def dataset_of(folder: Path, kind: str = "jsonl", **fields: Any) -> Dataset:
    values = {
        "files": {split: str(folder / f"{split}.{kind}") for split in SPLITS},
        "text": ["first", "second"],
        "label": "class",
        "labels": ["no", "yes"],
        **fields,
    }
    return Dataset.model_validate_json(json.dumps(values))


def write_all(folder: Path, kind: str = "jsonl", rows: list[dict[str, Any]] = ROWS) -> Dataset:
    for split in SPLITS:
        write(folder, split, kind, rows)
    return dataset_of(folder, kind)


def read(dataset: Dataset, data_dir: Path | None = None, seed: int = 0) -> dict[str, list[Row]]:
    return read_dataset("mine", dataset, data_dir=data_dir, seed=seed)


def problems(dataset: Dataset, data_dir: Path | None = None) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(dataset, data_dir)
    return [str(problem) for problem in caught.value.problems]


# -- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_every_kind_of_file_gives_the_same_rows_and_digest(tmp_path: Path, kind: str) -> None:
    found = read(write_all(tmp_path, kind))
    expected = [
        {"texts": [text, text[::-1]], "label": number % 2} for number, text in enumerate(TEXTS)
    ]
    assert found == dict.fromkeys(SPLITS, expected)
    assert {digest_rows(rows) for rows in found.values()} == {digest_rows(expected)}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_labels_are_read_by_name_and_by_number(tmp_path: Path, kind: str) -> None:
    by_number = read(write_all(tmp_path / "numbers", kind))
    named = [{**row, "class": ("no", "yes")[row["class"]]} for row in ROWS]
    assert read(write_all(tmp_path / "names", kind, named)) == by_number


def test_a_digest_changes_with_any_text_label_or_order() -> None:
    rows: list[Row] = [{"texts": ["a"], "label": 0}, {"texts": ["b"], "label": 1}]
    others: list[list[Row]] = [
        rows[::-1],
        rows[:1],
        [{"texts": ["a"], "label": 1}, rows[1]],
        [{"texts": ["a "], "label": 0}, rows[1]],
    ]
    assert len({digest_rows(some) for some in [rows, *others]}) == 5


def test_empty_lines_of_a_file_are_no_rows(tmp_path: Path) -> None:
    dataset = write_all(tmp_path)
    path = tmp_path / "train.jsonl"
    path.write_text("\n" + path.read_text().replace("\n", "\n\n"))
    assert read(dataset)["train"] == read(dataset)["test"]


def test_a_missing_column_is_named_beside_those_that_are_there(tmp_path: Path) -> None:
    write_all(tmp_path)
    found = problems(dataset_of(tmp_path, text=["first", "third"], label="klass"))
    assert len(found) == 6  # two columns of three splits
    assert "has no column third (there are: first, second, class)" in found[0]


@pytest.mark.parametrize("label", [2, -1, "maybe", None, 0.5, True])
def test_an_unknown_label_is_named_with_its_row(tmp_path: Path, label: object) -> None:
    dataset = write_all(tmp_path)
    write(tmp_path, "test", "jsonl", [ROWS[0], {**ROWS[1], "class": label}])
    [problem] = problems(dataset)
    assert problem == (
        f"{tmp_path}/test.jsonl: row 2: unknown label {label!r} (there are: 0 no, 1 yes)"
    )


@pytest.mark.parametrize("text", [None, 5, ["a"], "half a \ud83d"])
def test_a_text_that_is_none_is_named_with_its_row(tmp_path: Path, text: object) -> None:
    dataset = write_all(tmp_path)
    write(tmp_path, "test", "jsonl", [{**ROWS[0], "second": text}])
    [problem] = problems(dataset)
    assert problem.startswith(f"{tmp_path}/test.jsonl: row 1: its text is missing or not text")


def test_many_bad_rows_are_counted_not_listed(tmp_path: Path) -> None:
    dataset = write_all(tmp_path)
    write(tmp_path, "test", "jsonl", [{**ROWS[0], "class": 9}] * 100)
    found = problems(dataset)
    assert len(found) == 6
    assert "95 more rows like these" in found[-1]


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    dataset = write_all(tmp_path)
    write(tmp_path, "validation", "jsonl", [])
    [problem] = problems(dataset)
    assert problem.startswith(f"{tmp_path}/validation.jsonl: has no rows")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    dataset = write_all(tmp_path)
    (tmp_path / "test.jsonl").unlink()
    assert problems(dataset) == [f"{tmp_path}/test.jsonl: no such file"]


@pytest.mark.parametrize("line", ["{", '{"first": "a"', "[1]", "text"])
def test_a_broken_line_of_json_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    dataset = write_all(tmp_path)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(line + "\n")
    [problem] = problems(dataset)
    assert problem.startswith(f"{tmp_path}/train.jsonl:{len(ROWS) + 1}: not ")


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, kind: str) -> None:
    dataset = write_all(tmp_path, kind)
    (tmp_path / f"test.{kind}").write_bytes(b"\x00\xff\x93 neither text nor a table")
    [problem] = problems(dataset)
    assert problem.startswith(f"{tmp_path}/test.{kind}")


def test_an_unknown_kind_of_file_is_refused(tmp_path: Path) -> None:
    found = problems(dataset_of(tmp_path, "xlsx"))
    assert len(found) == 3
    assert ".jsonl.gz, .jsonl, .csv, .parquet" in found[0]


def test_the_problems_of_all_splits_are_reported_at_once(tmp_path: Path) -> None:
    dataset = write_all(tmp_path)
    (tmp_path / "train.jsonl").write_text("{\n")
    write(tmp_path, "validation", "jsonl", [])
    (tmp_path / "test.jsonl").unlink()
    words = ["not JSON", "has no rows", "no such file"]
    assert all(word in text for word, text in zip(words, problems(dataset), strict=True))


# -- where rows come from ----------------------------------------------------------------------


def test_the_data_folder_comes_before_the_files_of_the_study(tmp_path: Path) -> None:
    dataset = write_all(tmp_path / "own")
    for split in SPLITS:
        write(tmp_path / "data" / "mine", split, "csv", ROWS[:2])
    assert len(read(dataset)["train"]) == len(ROWS)
    assert len(read(dataset, tmp_path / "data")["train"]) == 2


def test_a_data_folder_without_a_split_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "mine", "train", "jsonl", ROWS)
    found = problems(dataset_of(tmp_path), tmp_path)
    assert [text.split(": ")[1][:27] for text in found] == [
        "has no validation split (pu",
        "has no test split (put one ",
    ]


def test_labels_that_are_named_by_numbers_are_taken_by_name_alone(tmp_path: Path) -> None:
    rows = [{"first": "a", "second": "b", "class": stars} for stars in (1, 3, 2)]
    write_all(tmp_path, rows=rows)
    found = read(dataset_of(tmp_path, labels=["1", "2", "3"]))
    assert [row["label"] for row in found["train"]] == [0, 2, 1]
    write_all(tmp_path, rows=[{"first": "a", "second": "b", "class": 0}])
    assert "unknown label 0" in problems(dataset_of(tmp_path, labels=["1", "2", "3"]))[0]


def test_a_label_that_pandas_wrote_as_a_float_is_its_number(tmp_path: Path) -> None:
    write_all(tmp_path, "parquet", [{"first": "a", "second": "b", "class": 1.0}])
    assert read(dataset_of(tmp_path, "parquet"))["train"][0]["label"] == 1


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub that cannot be reached: nothing listens on this port."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    hub.reachable.cache_clear()
    yield
    hub.reachable.cache_clear()


@pytest.mark.usefixtures("no_hub")
def test_an_unreachable_hub_is_said_at_once_with_what_to_do() -> None:
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        read_dataset("mrpc", Dataset(), data_dir=None, seed=0)
    assert time.monotonic() - start < 10
    assert len(caught.value.problems) == 3
    for problem in caught.value.problems:
        assert "the Hugging Face Hub cannot be reached" in problem.what
        assert "--data-dir" in problem.mend


@pytest.mark.usefixtures("no_hub")
def test_a_model_that_is_not_in_the_cache_is_said_with_what_to_do(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=r"models\.big .*cannot be reached .*--model NAME=PATH"):
        hub.hub_model("nobody/nothing-of-this-name", None, "x.yaml: models.big")
    assert time.monotonic() - start < 10


@pytest.mark.usefixtures("no_hub")
def test_the_data_folder_comes_before_the_hub(tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "label": 1, "idx": 0}]
    for split in SPLITS:
        write(tmp_path / "mrpc", split, "jsonl.gz", rows)
    found = read_dataset("mrpc", Dataset(), data_dir=tmp_path, seed=0)
    assert found["test"] == [{"texts": ["a", "b"], "label": 1}]
    renamed = read_dataset("pairs", Dataset(catalogue="mrpc"), data_dir=tmp_path, seed=0)
    assert renamed == found


# -- limits ------------------------------------------------------------------------------------


def test_a_limit_keeps_the_same_rows_in_their_order_for_the_same_seed(tmp_path: Path) -> None:
    many = [{"first": str(i), "second": "", "class": 0} for i in range(500)]
    write_all(tmp_path, rows=many)
    dataset = dataset_of(tmp_path, limit={"train": 50, "test": 1000})
    first, again, other = (read(dataset, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first["train"] != other["train"]
    kept = [int(row["texts"][0]) for row in first["train"]]
    assert len(set(kept)) == 50
    assert kept == sorted(kept)
    assert max(kept) > 250  # drawn, not the first ones
    assert len(first["validation"]) == len(first["test"]) == 500


# -- the grammar -------------------------------------------------------------------------------


def meaning(sentence: str) -> int:
    """The label of a sentence, read word by word from the back: an independent parser."""
    total, clause = 0, 0
    for word in reversed(sentence.split()):
        if word in grammar.GOOD or word in grammar.BAD:
            clause = 1 if word in grammar.GOOD else -1
        elif word == "very":
            clause *= 2
        elif word == "not":
            clause = -clause
        elif word == "is":
            total += clause
        elif word == "but":
            break  # nothing before it counts
        else:
            assert word in ("the", "and", *grammar.NOUNS), word
    return ("negative", "neutral", "positive").index(
        "neutral" if total == 0 else "positive" if total > 0 else "negative"
    )


@given(st.text(max_size=5))
def test_a_sentence_means_what_its_label_says(seed: str) -> None:
    assert grammar.LABELS == ("negative", "neutral", "positive")
    for row in grammar.generate(20, seed):
        assert meaning(str(row["sentence"])) == row["label"]


def test_the_grammar_gives_the_same_sentences_for_the_same_seed() -> None:
    first, again, other = (grammar.generate(100, seed) for seed in ("0/train", "0/train", "0/test"))
    assert first == again
    assert first != other


def test_no_label_of_the_grammar_is_rare_and_its_two_sides_are_alike() -> None:
    counts = Counter(row["label"] for row in grammar.generate(6000, "counted"))
    assert abs(counts[0] - counts[2]) < 250  # about four standard deviations
    assert min(counts.values()) > 300


def test_noise_turns_its_share_of_the_labels_at_random() -> None:
    rows = grammar.generate(6000, "noisy", noise=0.3)
    wrong = sum(meaning(str(row["sentence"])) != row["label"] for row in rows) / 6000
    assert abs(wrong - 0.3 * 2 / 3) < 0.03  # a third of those drawn anew come out right


def test_a_generated_data_set_has_the_sizes_asked_for_and_splits_that_differ() -> None:
    dataset = Dataset.model_validate_json(
        '{"grammar": {"train": 30, "validation": 20, "test": 10, "seed": 4}}'
    )
    found = read(dataset)
    assert [len(found[split]) for split in SPLITS] == [30, 20, 10]
    assert found["train"][:10] != found["test"]
