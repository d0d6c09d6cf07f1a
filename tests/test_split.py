"""Validation and test rows that are drawn off one's own training rows: no group on two sides."""

from __future__ import annotations

import json
import random
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.errors import InputError
from kdsearch.study import SPECS
from kdsearch.study.load import parse_study
from kdsearch.study.resolve import resolve
from kdsearch.study.resolved import Resolved, ResolvedDataset
from kdsearch.study.rows import DataRows, read_dataset
from kdsearch.study.schema import Dataset

SPLITS = ("train", "validation", "test")
SAYS: dict[str, dict[str, Any]] = {
    "classification": {"text": "text", "label": "y", "labels": ["a", "b", "c"]},
    "ner": {"text": "words", "label": "tags", "labels": ["O", "B-X", "B-Y"]},
    "qa": {},
    "translation": {"text": "de", "label": "en"},
    "lm": {"text": "de", "label": "en"},
}


LABEL = {"classification": "y", "ner": "tags", "qa": "answers"}


def draw(
    folder: Path,
    task: str,
    rows: list[dict[str, Any]],
    seed: int = 0,
    *,
    fair: bool = True,
    **fields: Any,
) -> DataRows:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"task": task, "files": {"train": str(path)}, **SAYS[task], **fields}
    dataset = Dataset.model_validate_json(json.dumps(values))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_dataset("mine", dataset, data_dir=None, seed=seed, fair=fair)


def sides(found: DataRows, group: Any) -> Mapping[Any, set[str]]:
    """On which sides of the cut each group has rows."""
    there: dict[Any, set[str]] = {}
    for split, rows in found.splits.items():
        for row in rows:
            there.setdefault(group(row), set()).add(split)
    return there


def made(task: str, group: int, number: int, label: int) -> dict[str, Any]:
    match task:
        case "classification":
            return {"text": f"text {group}", "y": "abc"[label]}
        case "ner":
            return {"words": ["w", str(group)], "tags": [("O", "B-X", "B-Y")[label], "B-X"]}
        case "qa":
            answers = {"text": ["context"], "answer_start": [0]}
            return {"question": f"{number}?", "context": f"context {group}", "answers": answers}
        case _:
            return {"de": f"source {group}", "en": f"target {number}"}


GROUP = {
    "classification": lambda row: row["texts"][0],
    "ner": lambda row: row["words"][1],
    "qa": lambda row: row["context"],
    "translation": lambda row: row["source"],
    "lm": lambda row: row["prompt"],
}


@pytest.mark.parametrize("task", [*SAYS])
@settings(max_examples=15)
@given(sizes=st.lists(st.integers(1, 6), min_size=12, max_size=60), seed=st.integers(0, 3))
def test_no_group_is_on_two_sides_and_every_row_on_one(
    tmp_path_factory: pytest.TempPathFactory, task: str, sizes: list[int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    order = random.Random(seed)
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    order.shuffle(groups)
    rows = [made(task, group, number, number % 3) for number, group in enumerate(groups)]
    found = draw(folder, task, rows, seed)
    assert {len(there) for there in sides(found, GROUP[task]).values()} == {1}
    assert sum(len(rows) for rows in found.splits.values()) == len(groups)
    assert found.shared == {}
    largest = max(sizes)
    for split in ("validation", "test"):
        assert 0 < len(found.splits[split]) <= len(groups) / 10 + 2 * largest
    assert draw(folder, task, rows, seed) == found


def test_labels_have_about_the_shares_that_they_have_in_all_rows(tmp_path: Path) -> None:
    shares = {0: 0.7, 1: 0.25, 2: 0.05}
    labels = random.Random(1).choices([*shares], [*shares.values()], k=600)
    rows = [made("classification", i, i, label) for i, label in enumerate(labels)]
    found = draw(tmp_path, "classification", rows)
    for split in ("validation", "test"):
        counts = Counter(row["label"] for row in found.splits[split])
        for label, count in Counter(labels).items():
            assert abs(counts[label] - count / 10) <= 1
    assert found.drawn == "stratified by y, grouped by text"


def test_entities_of_a_rare_kind_come_to_every_side(tmp_path: Path) -> None:
    rows = [made("ner", i, i, 2 if i % 40 == 7 else i % 2) for i in range(400)]
    found = draw(tmp_path, "ner", rows)
    rare = {s: sum(2 in row["tags"] for row in rows) for s, rows in found.splits.items()}
    assert rare == {"train": 8, "validation": 1, "test": 1}


def test_a_label_with_few_rows_is_in_train_before_all(tmp_path: Path) -> None:
    for few in (1, 2, 3):
        rows = [made("classification", i, i, 2 if i < few else i % 2) for i in range(100)]
        for seed in range(4):
            found = draw(tmp_path, "classification", rows, seed)
            assert 2 in {row["label"] for row in found.splits["train"]}


def test_questions_about_one_context_stay_together_and_that_is_said(tmp_path: Path) -> None:
    rows = [made("qa", i // 4, i, 0) for i in range(200)]
    found = draw(tmp_path, "qa", rows)
    assert found.drawn == "grouped by context"
    assert {len(there) for there in sides(found, GROUP["qa"]).values()} == {1}
    assert [len(found.splits[split]) for split in SPLITS] == [160, 20, 20]


def test_pairs_of_one_premise_stay_together(tmp_path: Path) -> None:
    rows = [{"p": f"p {i // 3}", "h": f"h {i}", "y": "abc"[i % 3]} for i in range(300)]
    found = draw(tmp_path, "classification", rows, text=["p", "h"])
    assert {len(there) for there in sides(found, GROUP["classification"]).values()} == {1}
    assert found.drawn == "stratified by y, grouped by p"


def test_pairs_without_a_premise_are_no_group(tmp_path: Path) -> None:
    rows = [{"p": "", "h": f"h {i}", "y": "abc"[i % 3]} for i in range(60)]
    found = draw(tmp_path, "classification", rows, text=["p", "h"])
    assert [len(found.splits[split]) for split in SPLITS] == [48, 6, 6]


def test_a_study_may_name_the_column_of_groups(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "y": "abc"[i % 3], "who": i // 10} for i in range(300)]
    found = draw(tmp_path, "classification", rows, group="who")
    writers = sides(found, lambda row: int(row["texts"][0].split()[1]) // 10)
    assert {len(there) for there in writers.values()} == {1}
    assert found.drawn == "stratified by y, grouped by text and who"
    apart = draw(tmp_path, "classification", rows)
    assert (
        max(
            len(there)
            for there in sides(apart, lambda row: int(row["texts"][0].split()[1]) // 10).values()
        )
        > 1
    )
    with pytest.raises(InputError, match=r"has no column whom .*did you mean who\?"):
        draw(tmp_path, "classification", rows, group="whom")


def test_a_group_goes_with_files_alone() -> None:
    with pytest.raises(ValueError, match="remove it"):
        Dataset(group="who")


def test_equal_texts_stay_together_whatever_group_they_are_named_to_be_in(tmp_path: Path) -> None:
    rows = [{"text": f"t {i % 60}", "y": "abc"[i % 3], "who": i // 2} for i in range(240)]
    found = draw(tmp_path, "classification", rows, group="who")
    assert {len(there) for there in sides(found, lambda row: row["texts"][0]).values()} == {1}
    whos = sides(found, lambda row: int(row["texts"][0].split()[1]) // 2)
    assert {len(there) for there in whos.values()} == {1}


def given_test(folder: Path, test: list[dict[str, Any]], **fields: Any) -> DataRows:
    """A data set whose test rows have a file of their own."""
    rows = [{"text": f"t {i}", "y": "abc"[i % 3], "who": i} for i in range(60)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in test))
    files = {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl")}
    return draw(folder, "classification", rows, files=files, **fields)


def partition(numbers: Iterable[object]) -> set[tuple[int, ...]]:
    """The places that have the same number."""
    found: dict[object, list[int]] = {}
    for place, number in enumerate(numbers):
        found.setdefault(number, []).append(place)
    return {tuple(places) for places in found.values()}


def test_the_groups_of_test_rows_are_those_of_the_column_and_of_equal_texts(tmp_path: Path) -> None:
    texts, whos = "abcdeb", ["x", "x", "y", None, None, "z"]
    test = [
        {"text": text, "y": "abc"[i % 3], "who": who}
        for i, (text, who) in enumerate(zip(texts, whos, strict=True))
    ]
    found = given_test(tmp_path, test, group="who")
    assert found.test_groups is not None
    assert partition(found.test_groups) == {(0, 1, 5), (2,), (3,), (4,)}
    assert given_test(tmp_path, test).test_groups is None
    without = [{k: v for k, v in row.items() if k != "who"} for row in test]
    assert given_test(tmp_path, without, group="who").test_groups is None


@pytest.mark.parametrize("limit", [None, 15])
def test_test_rows_that_are_drawn_or_limited_have_their_own_groups(
    tmp_path: Path, limit: int | None
) -> None:
    rows = [{"text": f"t {i}", "y": "abc"[i % 3], "who": i // 5} for i in range(300)]
    for found in (
        draw(tmp_path, "classification", rows, group="who", limit={"test": limit}),
        given_test(tmp_path, rows, group="who", limit={"test": limit}),
    ):
        assert found.test_groups is not None
        whos = (int(row["texts"][0].split()[1]) // 5 for row in found.splits["test"])
        assert partition(found.test_groups) == partition(whos)
        assert len(partition(found.test_groups)) < len(found.splits["test"])


@pytest.mark.parametrize("task", ["classification", "ner", "qa"])
def test_a_group_with_a_row_without_label_stays_in_train(tmp_path: Path, task: str) -> None:
    rows = [made(task, i // 2, i, i % 3) for i in range(200)]
    for row in rows[:80:2]:
        row[LABEL[task]] = None
    found = draw(tmp_path, task, rows)
    assert {len(there) for there in sides(found, GROUP[task]).values()} == {1}
    assert [len(found.splits[split]) for split in SPLITS] == [160, 20, 20]
    assert sum(row[SPECS[task].gold] is None for row in found.splits["train"]) == 40


@pytest.mark.parametrize("task", ["classification", "ner", "qa"])
def test_a_draw_as_it_once_was_takes_rows_with_a_label_too(tmp_path: Path, task: str) -> None:
    rows = [made(task, i, i, i % 3) for i in range(100)]
    for row in rows[::2]:
        row[LABEL[task]] = None
    found = draw(tmp_path, task, rows, fair=False)
    assert [len(found.splits[split]) for split in SPLITS] == [80, 10, 10]
    assert all(row[SPECS[task].gold] is not None for s in SPLITS[1:] for row in found.splits[s])
    assert found.drawn is None


@pytest.mark.parametrize("groups", [1, 2])
def test_rows_of_too_few_groups_are_refused(tmp_path: Path, groups: int) -> None:
    rows = [made("qa", i % groups, i, 0) for i in range(60)]
    with pytest.raises(InputError) as caught:
        draw(tmp_path, "qa", rows)
    assert str(caught.value) == (
        f"datasets.mine: 60 labelled rows with {groups} value{'s' * (groups > 1)} of context are "
        "too few to draw validation and test from (give a validation split)"
    )


def test_many_groups_are_drawn_in_seconds_and_none_is_parted(tmp_path: Path) -> None:
    rows = [made("translation", i // 2, i, 0) for i in range(10_000)]
    found = draw(tmp_path, "translation", rows)
    assert {len(there) for there in sides(found, GROUP["translation"]).values()} == {1}
    for split in ("validation", "test"):
        assert abs(len(found.splits[split]) - 1000) < 50


def test_another_seed_draws_other_rows(tmp_path: Path) -> None:
    rows = [made("qa", i // 3, i, 0) for i in range(150)]
    tests = [draw(tmp_path, "qa", rows, seed).splits["test"] for seed in range(3)]
    assert tests[0] != tests[1] != tests[2]


def test_what_the_catalogue_cuts_shares_groups_and_says_how_many(tmp_path: Path) -> None:
    (tmp_path / "mrpc").mkdir()
    pairs = [{"sentence1": f"{i // 2}", "sentence2": f"{i}", "label": i % 2} for i in range(200)]
    (tmp_path / "mrpc" / "train.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    found = read_dataset("mrpc", Dataset(), data_dir=tmp_path, seed=0)
    assert found.drawn is None

    def shared(split: str) -> int:
        train = {row["texts"][0] for row in found.splits["train"]}
        return sum(row["texts"][0] in train for row in found.splits[split])

    assert found.shared == {split: shared(split) for split in ("validation", "test")}
    assert found.shared["test"] > 10


def test_a_data_set_that_was_resolved_before_has_no_rule() -> None:
    old = {"task": "qa", "metric": "f1", "labels": [], "splits": {}, "cut": {"test": 3}}
    found = ResolvedDataset.model_validate_json(json.dumps(old))
    assert found.drawn is None
    assert found.shared == {}


def test_a_folder_that_was_resolved_before_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    rows = [made("classification", i, i, i % 3) for i in range(90)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = parse_study(
        {
            "name": "s",
            "datasets": {"mine": {"files": {"train": str(path)}, **SAYS["classification"]}},
            "models": {"m": {"config": {"model_type": "bert"}}},
            "teachers": {"m": {"model": "m"}},
            "students": {"m": {"model": "m"}},
        },
        place="s",
    )
    stored: list[str] = []

    def resolved(known: Resolved | None) -> Resolved:
        return resolve(
            study, data_dir=None, store=lambda key, _: stored.append(key), place="s", known=known
        )

    first = resolved(None)
    assert first.datasets["mine"].drawn == "stratified by y, grouped by text"
    assert len(stored) == 3
    drawn_otherwise = {"drawn": None, "cut": {"test": 3}}  # as by an older version
    older = first.model_copy(
        update={"datasets": {"mine": first.datasets["mine"].model_copy(update=drawn_otherwise)}}
    )
    older = Resolved.model_validate_json(older.model_dump_json())
    path.unlink()
    assert resolved(older).datasets == older.datasets
    assert len(stored) == 3
