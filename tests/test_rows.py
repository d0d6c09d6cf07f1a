from __future__ import annotations

import csv
import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.errors import InputError
from kdsearch.study import grammar, hub
from kdsearch.study.catalogue import CATALOGUE
from kdsearch.study.rows import DataRows, digest_rows, read_dataset
from kdsearch.study.schema import Dataset, Files
from kdsearch.study.tasks import Row

SPLITS = ("train", "validation", "test")
TEXTS = ["plain", 'quo"ted, with a comma', "NA", "", "zwölf Boxkämpfer", "line\u2028separator", "0"]
ROWS = [
    {"first": text, "second": f"{text[::-1]}!", "class": number % 2}
    for number, text in enumerate(TEXTS)
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


def read(dataset: Dataset, data_dir: Path | None = None, seed: int = 0) -> Mapping[str, list[Row]]:
    return read_all(dataset, data_dir, seed).splits


def read_all(dataset: Dataset, data_dir: Path | None = None, seed: int = 0) -> DataRows:
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
        {"texts": [text, f"{text[::-1]}!"], "label": number % 2}
        for number, text in enumerate(TEXTS)
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
    assert len(found) == 6
    assert "has no column third (available: first, second, class)" in found[0]
    klass = "has no column klass (available: first, second, class; did you mean class?)"
    assert all(any(f"{split}.jsonl: {klass}" in text for text in found) for split in SPLITS)


@pytest.mark.parametrize("label", [2, -1, "maybe", 7.0, True, "Yes"])
def test_an_unknown_label_is_named_with_its_row(tmp_path: Path, label: object) -> None:
    dataset = write_all(tmp_path)
    write(tmp_path, "test", "jsonl", [ROWS[0], {**ROWS[1], "class": label}])
    [problem] = problems(dataset)
    assert problem == (
        f"{tmp_path}/test.jsonl: row 2: unknown label {label!r} (available: 0 no, 1 yes)"
    )


@pytest.mark.parametrize("text", [None, 5, ["a"], "half a \ud83d"])
def test_a_text_that_is_none_is_named_with_its_row(tmp_path: Path, text: object) -> None:
    dataset = write_all(tmp_path)
    write(tmp_path, "test", "jsonl", [{**ROWS[0], "second": text}])
    [problem] = problems(dataset)
    what = "holds half a surrogate pair" if isinstance(text, str) else "is missing or not text"
    assert problem == f"{tmp_path}/test.jsonl: row 1: its second {what}"


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
    assert "unknown kind of file (use one of .jsonl, .json, .csv, .tsv, " in found[0]
    assert "each also as .gz, .bz2 or .xz; " in found[0]
    assert "or a text file per column: {first: FILE, second: FILE, class: FILE}" in found[0]


def test_the_problems_of_all_splits_are_reported_at_once(tmp_path: Path) -> None:
    dataset = write_all(tmp_path)
    (tmp_path / "train.jsonl").write_text("{\n")
    write(tmp_path, "validation", "jsonl", [])
    (tmp_path / "test.jsonl").unlink()
    found = problems(dataset)
    assert len(found) == 3
    for words in ("train.jsonl:1: not JSON", "validation.jsonl: has no rows", "no such file"):
        assert any(words in text for text in found)


# -- where rows come from ----------------------------------------------------------------------


def test_the_data_folder_comes_before_the_files_of_the_study(tmp_path: Path) -> None:
    dataset = write_all(tmp_path / "own")
    for split in SPLITS:
        write(tmp_path / "data" / "mine", split, "csv", ROWS[:2])
    assert len(read(dataset)["train"]) == len(ROWS)
    assert len(read(dataset, tmp_path / "data")["train"]) == 2


def test_a_data_folder_without_a_training_split_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "mine", "test", "jsonl", ROWS)
    [problem] = problems(dataset_of(tmp_path), tmp_path)
    assert problem.startswith(
        f"{tmp_path}/mine: has no train split (put train.jsonl or train.csv there, "
    )


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
    [problem] = caught.value.problems
    assert problem.place == "datasets.mrpc"
    assert "the Hugging Face Hub cannot be reached" in problem.what
    assert "--data-dir" in problem.remedy


@pytest.mark.usefixtures("no_hub")
def test_a_model_that_is_not_in_the_cache_is_said_with_what_to_do(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=r"models\.big .*cannot be reached .*--data-dir DIR"):
        hub.hub_model("nobody/nothing-of-this-name", None, "x.yaml: models.big")
    assert time.monotonic() - start < 10


def test_two_files_of_one_split_are_refused(tmp_path: Path) -> None:
    for kind in ("jsonl", "csv"):
        write(tmp_path / "mine", "train", kind, ROWS)
    write(tmp_path / "mine", "test", "jsonl", ROWS)
    assert problems(dataset_of(tmp_path), tmp_path) == [
        f"{tmp_path}/mine: has train.csv and train.jsonl, which name the same split "
        "(keep one of them)"
    ]


def test_a_few_bad_rows_of_a_published_data_set_are_left_out_and_counted(tmp_path: Path) -> None:
    good = [{"sentence": f"It is {i} .", "label": i % 2} for i in range(200)]
    bad = [{"sentence": " ", "label": 0}, {"sentence": "fine", "label": 7}]
    for split, rows in {"train": good, "validation": good[:10], "test": good[:10]}.items():
        write(tmp_path / "sst2", split, "jsonl", rows)
    write(tmp_path / "sst2", "train", "jsonl", [bad[0], *good, bad[1]])
    found = read_dataset("sst2", Dataset(), data_dir=tmp_path, seed=0)
    assert found.left_out == {"train": 2}
    assert [row["texts"] for row in found.splits["train"]] == [[row["sentence"]] for row in good]


def test_bad_rows_of_what_one_brings_oneself_are_refused(tmp_path: Path) -> None:
    good = [{"tokens": ["Ada", "wrote"], "ner_tags": ["B-PER", "O"]} for _ in range(400)]
    for split in SPLITS:
        write(tmp_path / "klue3", split, "jsonl", good)
    assert read_dataset("klue3", Dataset(), data_dir=tmp_path, seed=0).left_out == {}
    bad = {"tokens": ["Ada"], "ner_tags": ["B-PER", "O"]}
    write(tmp_path / "klue3", "train", "jsonl", [*good, bad])
    with pytest.raises(InputError, match="row 401: has 1 words in tokens and 2 tags"):
        read_dataset("klue3", Dataset(), data_dir=tmp_path, seed=0)


@pytest.mark.usefixtures("no_hub")
def test_the_data_folder_comes_before_the_hub(tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "label": 1, "idx": 0}]
    for split in SPLITS:
        write(tmp_path / "mrpc", split, "jsonl.gz", rows)
    found = read_dataset("mrpc", Dataset(), data_dir=tmp_path, seed=0)
    assert found.splits["test"] == [{"texts": ["a", "b"], "label": 1}]
    renamed = read_dataset("pairs", Dataset(catalogue="mrpc"), data_dir=tmp_path, seed=0)
    assert renamed == found


# -- splits cut off the training split ---------------------------------------------------------


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"first": str(i), "second": "", "class": i % 2} for i in range(count)]


def sentences(count: int) -> list[dict[str, Any]]:
    return [{"first": str(i), "second": "x"} for i in range(count)]


SENTENCES = sentences(7)
TRANSLATED: dict[str, Any] = {
    "task": "translation",
    "text": "first",
    "label": "second",
    "labels": None,
}
"""Of a data set whose splits may be cut in any way: it has no labels."""


def only(folder: Path, *splits: str, **fields: Any) -> Dataset:
    """A data set whose study names the files of these splits alone."""
    files = {split: str(folder / f"{split}.jsonl") for split in splits}
    return dataset_of(folder, files=files, **fields)


@settings(max_examples=30)
@given(
    count=st.integers(20, 200),
    seed=st.integers(0, 5),
    there=st.sampled_from([("train",), ("train", "test"), ("train", "validation")]),
)
def test_missing_splits_are_about_a_tenth_each_of_the_training_rows_and_share_none(
    tmp_path_factory: pytest.TempPathFactory, count: int, seed: int, there: tuple[str, ...]
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    for split in there:
        write(folder, split, "jsonl", sentences(count) if split == "train" else SENTENCES)
    found = read_all(only(folder, *there, **TRANSLATED), seed=seed)
    missing = [split for split in SPLITS if split not in there]
    assert found.cut.keys() == {*missing}
    assert all(0 <= size - count // 10 <= 1 for size in found.cut.values())
    together: list[str] = []
    for split in ("train", *missing):
        numbers = [row["source"] for row in found.splits[split]]
        assert numbers == sorted(numbers, key=int)  # in the order of the file
        together += numbers
    assert sorted(together, key=int) == [str(i) for i in range(count)]
    assert read_all(only(folder, *there, **TRANSLATED), seed=seed) == found


def test_another_seed_cuts_other_rows(tmp_path: Path) -> None:
    write(tmp_path, "train", "jsonl", numbered(100))
    first, other = (read(only(tmp_path, "train"), seed=seed)["test"] for seed in (0, 1))
    assert first != other


def test_a_split_that_is_there_is_read_and_not_cut(tmp_path: Path) -> None:
    found = read_all(write_all(tmp_path))
    assert found.cut == {}
    assert found.labels == ("no", "yes")


def test_a_data_folder_without_the_other_splits_has_them_cut(tmp_path: Path) -> None:
    write(tmp_path / "mine", "train", "csv", numbered(200))
    found = read_all(dataset_of(tmp_path), tmp_path)
    assert found.cut == {"validation": 20, "test": 20}
    assert [len(found.splits[split]) for split in SPLITS] == [160, 20, 20]


def test_only_rows_with_a_label_are_cut_off(tmp_path: Path) -> None:
    rows = [{**row, "class": None if i % 2 else i // 2 % 2} for i, row in enumerate(numbered(100))]
    write(tmp_path, "train", "jsonl", rows)
    found = read(only(tmp_path, "train"))
    assert len(found["validation"]) == len(found["test"]) == 10
    assert all(row["label"] is not None for row in found["validation"] + found["test"])
    assert sum(row["label"] is None for row in found["train"]) == 50


def test_too_few_labelled_rows_to_cut_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "train", "jsonl", numbered(2))
    assert problems(only(tmp_path, "train")) == [
        "datasets.mine: 2 labelled rows with 2 values of first are too few "
        "to draw validation and test from (give a validation split)"
    ]


@pytest.mark.usefixtures("no_hub")
def test_the_catalogue_says_how_many_rows_its_missing_splits_have(tmp_path: Path) -> None:
    [(split, size)] = CATALOGUE["sst2"].cut.items()
    assert split == "test"
    rows = [{"sentence": f"number {i}", "label": i % 2} for i in range(size + 50)]
    write(tmp_path / "sst2", "train", "parquet", rows)
    write(tmp_path / "sst2", "validation", "parquet", rows[:10])
    found = read_dataset("sst2", Dataset(), data_dir=tmp_path, seed=0)
    assert found.cut == {"test": size}
    assert [len(found.splits[split]) for split in SPLITS] == [50, 10, size]


def test_a_limit_holds_for_what_is_left_after_the_cut(tmp_path: Path) -> None:
    write(tmp_path, "train", "jsonl", numbered(100))
    found = read(only(tmp_path, "train", limit={"train": 30, "validation": 4}))
    assert [len(found[split]) for split in SPLITS] == [30, 4, 10]
    numbers = [row["texts"][0] for rows in found.values() for row in rows]
    assert len(set(numbers)) == 44


# -- splits of one answer ----------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_whose_rows_all_have_one_label_is_refused(tmp_path: Path, split: str) -> None:
    dataset = write_all(tmp_path)
    write(tmp_path, split, "jsonl", [{**row, "class": 1} for row in ROWS])
    assert problems(dataset) == [
        f"{tmp_path}/{split}.jsonl: every row has the label yes "
        "(give more rows, or a file for this split)"
    ]


def test_a_bad_label_is_not_also_taken_for_a_lack_of_labels(tmp_path: Path) -> None:
    dataset = write_all(tmp_path)
    write(tmp_path, "test", "jsonl", [ROWS[0], ROWS[0], {**ROWS[0], "class": "maybe"}])
    [problem] = problems(dataset)
    assert "row 3: unknown label 'maybe'" in problem


def test_a_split_that_the_cut_leaves_with_one_label_is_refused(tmp_path: Path) -> None:
    rows = [{"first": str(i), "second": "", "class": int(i == 0)} for i in range(40)]
    write(tmp_path, "train", "jsonl", rows)
    found = problems(only(tmp_path, "train"))  # one yes in three splits
    what = "every row has the label no (give more rows, or a file for this split)"
    places = [f"{tmp_path}/train.jsonl", "datasets.mine: validation", "datasets.mine: test"]
    assert len(found) == 2
    assert set(found) < {f"{place}: {what}" for place in places}


def test_a_split_that_a_limit_leaves_with_one_label_is_refused(tmp_path: Path) -> None:
    rows = [{"first": str(i), "second": "", "class": int(i == 0)} for i in range(200)]
    dataset = write_all(tmp_path, rows=rows)
    assert len(read(dataset)["train"]) == 200
    limited = dataset_of(tmp_path, limit={"train": 2})
    [problem] = problems(limited)
    assert problem.startswith(f"{tmp_path}/train.jsonl: every row has the label no")


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_without_any_entity_is_refused(tmp_path: Path, split: str) -> None:
    dataset = write_task(tmp_path, "jsonl", NER_ROWS, **NER_FIELDS)
    write(tmp_path, split, "jsonl", [{"words": ["a", "b"], "tags": ["O", "O"]}] * 2)
    assert problems(dataset) == [
        f"{tmp_path}/{split}.jsonl: every word has the tag O "
        "(give more rows, or a file for this split)"
    ]


# -- other tasks -------------------------------------------------------------------------------


NER_ROWS = [
    {"words": ["Ada", "Byron", "wrote"], "tags": ["B-PER", "I-PER", "O"]},
    {"words": ["in", "London"], "tags": ["O", "B-LOC"]},
]
NER_NUMBERS = [[3, 4, 0], [0, 1]]  # by the name of the kind: O, B-LOC, B-PER, I-PER


def write_task(folder: Path, kind: str, rows: list[dict[str, Any]], **fields: Any) -> Dataset:
    for split in SPLITS:
        write(folder, split, kind, rows)
    return dataset_of(folder, kind, **{"labels": None, **fields})


NER_FIELDS: dict[str, Any] = {"task": "ner", "text": "words", "label": "tags"}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_tags_that_the_study_does_not_name_are_those_of_all_splits(
    tmp_path: Path, kind: str
) -> None:
    rows: list[dict[str, Any]] = NER_ROWS
    if kind == "csv":
        rows = [{name: " ".join(items) for name, items in row.items()} for row in rows]
    dataset = write_task(tmp_path, kind, rows, **NER_FIELDS)
    write(tmp_path, "test", kind, [rows[0]])
    write(tmp_path, "validation", kind, [rows[1]])
    found = read_all(dataset)
    assert found.labels == ("O", "B-LOC", "B-PER", "I-PER")
    expected = [
        {"words": row["words"], "tags": tags}
        for row, tags in zip(NER_ROWS, ([2, 3, 0], [0, 1]), strict=True)
    ]
    assert found.splits == {
        "train": expected,
        "validation": expected[1:],
        "test": expected[:1],
    }


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_tags_are_read_by_name_and_by_number(tmp_path: Path, kind: str) -> None:
    labels = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    numbers = [{**row, "tags": tags} for row, tags in zip(NER_ROWS, NER_NUMBERS, strict=True)]
    found = []
    for folder, rows in (("names", NER_ROWS), ("numbers", numbers)):
        cells = [{n: " ".join(map(str, items)) for n, items in row.items()} for row in rows]
        dataset = write_task(
            tmp_path / folder, kind, cells if kind == "csv" else rows, **NER_FIELDS, labels=labels
        )
        found.append(read(dataset)["train"])
    assert found[0] == found[1]
    assert [row["tags"] for row in found[0]] == NER_NUMBERS


def test_kinds_of_entity_stand_for_their_tags(tmp_path: Path) -> None:
    found = read_all(write_task(tmp_path, "jsonl", NER_ROWS, **NER_FIELDS, labels=["PER", "LOC"]))
    assert found.labels == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    assert [row["tags"] for row in found.splits["test"]] == [[1, 2, 0], [0, 3]]


def test_one_kind_of_entity_is_enough(tmp_path: Path) -> None:
    rows = NER_ROWS[:1]
    found = read_all(write_task(tmp_path, "jsonl", rows, **NER_FIELDS, labels=["PER"]))
    assert found.labels == ("O", "B-PER", "I-PER")
    assert [row["tags"] for row in found.splits["test"]] == [[1, 2, 0]]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_numbers_of_tags_without_names_are_refused(tmp_path: Path, kind: str) -> None:
    rows: list[dict[str, Any]] = [{"words": ["a", "b"], "tags": [0, 1]}]
    if kind == "csv":
        rows = [{"words": "a b", "tags": "0 1"}]
    found = problems(write_task(tmp_path, kind, rows, **NER_FIELDS))
    assert len(found) == 1
    assert found[0].startswith("datasets.mine: ")
    assert "name them in order: labels: [O, B-PER, ...]" in found[0]


def test_tags_of_another_scheme_are_read_as_iob2_and_that_is_said(tmp_path: Path) -> None:
    rows = [{"words": ["Ada", "Byron", "wrote"], "tags": ["B-PER", "E-PER", "O"]}]
    rows += [{"words": ["in", "London"], "tags": ["O", "S-LOC"]}]
    found = read_all(write_task(tmp_path / "a", "jsonl", rows, **NER_FIELDS))
    same = read_all(write_task(tmp_path / "b", "jsonl", NER_ROWS, **NER_FIELDS))
    assert (found.splits, found.labels) == (same.splits, same.labels)
    assert (found.converted, same.converted) == ("BIOES", None)


def test_tags_of_no_scheme_are_refused(tmp_path: Path) -> None:
    rows = [{"words": ["a", "b"], "tags": ["X-PER", "O"]}, {"words": ["a"], "tags": ["B-PER"]}]
    dataset = write_task(tmp_path, "jsonl", rows, **NER_FIELDS)
    assert problems(dataset) == [
        "datasets.mine: the F1 of entities needs tags in IOB2, and these are not: X-PER "
        "(write O, B-X and I-X, or set metric: accuracy)"
    ]
    accurate = write_task(tmp_path, "jsonl", rows, **NER_FIELDS, metric="accuracy")
    assert read_all(accurate).labels == ("O", "B-PER", "X-PER")


def test_lists_that_pandas_wrote_into_a_csv_give_the_rows_of_a_jsonl(tmp_path: Path) -> None:
    cells = [{name: str(items) for name, items in row.items()} for row in NER_ROWS]
    arrays = [{n: str(np.array(items)) for n, items in row.items()} for row in NER_ROWS]
    expected = read(write_task(tmp_path / "a", "jsonl", NER_ROWS, **NER_FIELDS))
    for folder, rows in (("b", cells), ("c", arrays)):
        assert read(write_task(tmp_path / folder, "csv", rows, **NER_FIELDS)) == expected


def test_a_tag_column_of_unreadable_lists_is_refused_with_its_rows(tmp_path: Path) -> None:
    rows = [{"words": "Ada wrote", "tags": "['B-PER', None]"}]
    found = problems(write_task(tmp_path, "csv", rows, **NER_FIELDS))
    assert "train.csv: row 1: its tags is in brackets, but neither JSON" in found[0]


def test_a_label_that_pandas_wrote_as_a_float_into_a_csv_is_its_number(tmp_path: Path) -> None:
    rows = [{"first": "a", "second": "b", "class": value} for value in (1.0, None, 0.0)]
    dataset = write_all(tmp_path / "csv", "csv")
    pd.DataFrame(rows).to_csv(tmp_path / "csv" / "train.csv", index=False)
    assert [row["label"] for row in read(dataset)["train"]] == [1, None, 0]


def test_tags_without_that_of_no_entity_are_refused(tmp_path: Path) -> None:
    fields = {**NER_FIELDS, "labels": ["B-PER", "I-PER", "B-LOC"]}
    [problem] = problems(write_task(tmp_path, "jsonl", NER_ROWS, **fields))
    assert problem.startswith("datasets.mine: its labels lack the tag O (name every tag")


def test_a_missing_column_of_tags_without_names_is_named(tmp_path: Path) -> None:
    dataset = write_task(tmp_path, "jsonl", NER_ROWS, **{**NER_FIELDS, "label": "ner"})
    found = problems(dataset)
    assert len(found) == 3
    assert found[0] == (
        f"{tmp_path}/train.jsonl: has no column ner "
        "(available: words, tags; leave it empty in rows without a label)"
    )


QA_CONTEXT = "Ada wrote it, and Ada kept it."
QA_ROW = {"question": "Who?", "context": QA_CONTEXT}
QA_PARSED = [{**QA_ROW, "answers": [{"text": "Ada", "start": 18}, {"text": "it", "start": 10}]}]
SQUAD_FORM = {"text": ["Ada", "it"], "answer_start": [18, 10]}
LIST_FORM = [{"text": "Ada", "answer_start": 18}, {"text": "it", "answer_start": 10}]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("answers", [SQUAD_FORM, LIST_FORM])
def test_answers_of_either_form_are_read_from_every_kind_of_file(
    tmp_path: Path, kind: str, answers: Any
) -> None:
    given_answers = json.dumps(answers) if kind == "csv" else answers
    rows = [{**QA_ROW, "answers": given_answers}]
    dataset = write_task(tmp_path, kind, rows, task="qa", text=None, label=None)
    assert read(dataset) == dict.fromkeys(SPLITS, QA_PARSED)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_within_a_column_is_read(tmp_path: Path, kind: str) -> None:
    rows = [{"translation": {"de": "Er sagte es .", "en": "He said so ."}}]
    fields = {"task": "translation", "text": "translation.de", "label": "translation.en"}
    found = read(write_task(tmp_path, kind, rows, **fields))
    assert found["test"] == [{"source": "Er sagte es .", "target": "He said so ."}]


def test_a_missing_column_within_a_column_is_named(tmp_path: Path) -> None:
    rows = [{"translation": {"fr": "Il le dit .", "en": "He said so ."}}]
    fields = {"task": "translation", "text": "translation.de", "label": "translation.en"}
    found = problems(write_task(tmp_path, "jsonl", rows, **fields))
    assert len(found) == 3
    assert "train.jsonl: has no column translation.de" in found[0]


def test_a_training_split_may_lack_labels_and_no_other(tmp_path: Path) -> None:
    unlabelled = [{"first": row["first"], "second": row["second"]} for row in ROWS]
    dataset = write_all(tmp_path)
    write(tmp_path, "train", "jsonl", [{**row, "class": None} for row in unlabelled])
    assert {row["label"] for row in read(dataset)["train"]} == {None}
    write(tmp_path, "validation", "jsonl", unlabelled)
    write(tmp_path, "test", "jsonl", [ROWS[0], {**ROWS[1], "class": None}, ROWS[2]])
    assert problems(dataset) == [
        f"{tmp_path}/validation.jsonl: has no column class (available: first, second)",
        f"{tmp_path}/test.jsonl: row 2: its class is missing",
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_empty_cell_is_a_missing_label(tmp_path: Path, kind: str) -> None:
    dataset = write_all(tmp_path, kind)
    write(tmp_path, "train", kind, [ROWS[0], {**ROWS[1], "class": None}, ROWS[5]])
    assert [row["label"] for row in read(dataset)["train"]] == [0, None, 1]


@pytest.mark.parametrize("task", ["classification", "ner", "qa", "translation", "lm"])
def test_every_grammar_gives_rows_that_its_task_accepts(task: str) -> None:
    sizes = {"train": 30, "validation": 20, "test": 10}
    dataset = Dataset.model_validate_json(json.dumps({"grammar": sizes, "task": task}))
    found = read_all(dataset)
    assert {split: len(rows) for split, rows in found.splits.items()} == sizes


# -- limits ------------------------------------------------------------------------------------


def test_a_limit_keeps_the_same_rows_in_their_order_for_the_same_seed(tmp_path: Path) -> None:
    many = [{"first": str(i), "second": "", "class": i % 2} for i in range(500)]
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


# -- .csv ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["only", "a,b,c,d"])
def test_a_line_of_a_csv_with_more_or_fewer_fields_is_refused_with_its_number(
    tmp_path: Path, line: str
) -> None:
    file = tmp_path / "train.csv"
    file.write_text(f"first,second,class\na,b,0\nc,d,1\n{line}\n")
    dataset = Dataset(
        files=Files(train=str(file)), text=("first", "second"), label="class", labels=("no", "yes")
    )
    with pytest.raises(InputError, match=r"train\.csv:4: does not have the 3 fields"):
        read_dataset("mine", dataset, data_dir=None, seed=0)


def test_a_csv_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text("body,body,class\na,b,0\n")
    dataset = Dataset(
        files=Files(train=str(file)), text=("body",), label="class", labels=("n", "y")
    )
    with pytest.raises(InputError, match="has the column body twice"):
        read_dataset("mine", dataset, data_dir=None, seed=0)


def test_lists_of_words_and_tags_may_stand_as_json_in_a_csv(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    cells = [f'"[""Ada"", ""wrote{i}""]","[""B-PER"", ""O""]"' for i in range(30)]
    file.write_text("\n".join(["tokens,tags", *cells]) + "\n")
    dataset = Dataset(task="ner", files=Files(train=str(file)), text=("tokens",), label="tags")
    found = read_dataset("mine", dataset, data_dir=None, seed=0)
    assert found.labels == ("O", "B-PER")
    assert found.splits["train"][0] == {"words": ["Ada", "wrote0"], "tags": [1, 0]}


def test_numbers_among_tags_that_no_study_names_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text("tokens,tags\n" + "Ada wrote,B-PER O\nBen wrote,1 O\n" * 9)
    dataset = Dataset(task="ner", files=Files(train=str(file)), text=("tokens",), label="tags")
    with pytest.raises(InputError, match="row 2: unknown tag '1'"):
        read_dataset("mine", dataset, data_dir=None, seed=0)


@pytest.mark.usefixtures("no_hub")
def test_a_folder_that_was_taken_for_an_id_of_the_hub_is_hinted_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "my-bert").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"models\.big .*\(did you mean \./models/my-bert\?\)$"):
        hub.hub_model("models/my-bert", None, "x.yaml: models.big")
