"""Data sets of images: from folders, tables, the Hub and the grammar to pixels beside the rows."""

from __future__ import annotations

import hashlib
import io
import json
import tracemalloc
import unicodedata
from base64 import b64encode
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from fakes import FakeHub, a_study, listening
from PIL import Image
from test_cli import kdsearch

from kdsearch.driver import garbage, open_study
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, verify
from kdsearch.study import hub as study_hub
from kdsearch.study import parse_study, resolve, survey
from kdsearch.study.catalogue import CATALOGUE
from kdsearch.study.grammar import generate
from kdsearch.study.grammar_images import SHAPES
from kdsearch.study.rows import DataRows, digest_rows, read_dataset, source_paths
from kdsearch.study.schema import Dataset
from kdsearch.study.travel import travelling_files

SPLITS = ("train", "validation", "test")


def picture(seed: int, side: int = 8, kind: str = "PNG") -> bytes:
    """A file with an image of its own."""
    array = np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def array_of(seed: int, side: int = 8) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(picture(seed, side))))


def class_folders(
    folder: Path, count: int = 3, classes: tuple[str, ...] = ("cat", "dog"), first: int = 0
) -> Path:
    """A folder with so many images for each class."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for at in range(count):
            path = folder / name / f"{at}.png"
            path.write_bytes(picture(first + number * count + at))
    return folder


def every_split(tmp_path: Path, **options: Any) -> dict[str, str]:
    return {
        split: str(class_folders(tmp_path / split, first=100 * at, **options))
        for at, split in enumerate(SPLITS)
    }


def own(files: Any, **fields: Any) -> Dataset:
    return Dataset.model_validate_json(
        json.dumps({"task": "image_classification", "files": files, **fields})
    )


def read(files: Any, scratch: Path | None = None, **fields: Any) -> DataRows:
    dataset = own(files, **fields)
    return read_dataset("mine", dataset, data_dir=None, seed=0, scratch=scratch)


def problems(files: Any, **fields: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        read(files, **fields)
    return [str(problem) for problem in caught.value.problems]


def launched(folder: Path, data: dict[str, Any], **fields: Any) -> Ledger:
    """The folder of a study whose data set is this."""
    ledger = Ledger(folder)
    dataset = {"task": "image_classification", **data, **fields}
    study = parse_study(a_study(datasets={"mine": dataset}), place="study.yaml")
    open_study(ledger, study, data_dir=None, place="study.yaml")
    return ledger


# -- folders -----------------------------------------------------------------------------------


def test_a_folder_with_a_folder_for_each_class_is_read_in_the_order_of_its_names(
    tmp_path: Path,
) -> None:
    files = every_split(tmp_path)
    (tmp_path / "train" / ".DS_Store").write_text("x")
    (tmp_path / "train" / "cat" / "Thumbs.db").write_text("x")
    data = read(files)
    assert data.labels == ("cat", "dog")
    assert [row["label"] for row in data.splits["train"]] == [0, 0, 0, 1, 1, 1]
    assert data.image_size == 8
    assert (data.cut, data.left_out) == ({}, {})


def test_classes_that_the_study_names_keep_its_order_and_linked_folders_are_followed(
    tmp_path: Path,
) -> None:
    class_folders(tmp_path / "there", classes=("dog",))
    class_folders(tmp_path / "train", classes=("cat",), first=50)
    (tmp_path / "train" / "dog").symlink_to(tmp_path / "there" / "dog")
    files = dict.fromkeys(SPLITS, str(tmp_path / "train"))
    data = read(files, labels=["dog", "cat"])
    assert [row["label"] for row in data.splits["train"]] == [1, 1, 1, 0, 0, 0]


def test_of_one_folder_splits_are_drawn_that_part_no_equal_images_and_no_class_is_rare_in_any(
    tmp_path: Path,
) -> None:
    class_folders(tmp_path / "all", count=30)
    for at in range(10):
        copy = tmp_path / "all" / "cat" / f"copy-{at}.png"
        copy.write_bytes((tmp_path / "all" / "cat" / f"{at}.png").read_bytes())
    data = read({"train": str(tmp_path / "all")})
    images = [{row["pixels"] for row in data.splits[split]} for split in SPLITS]
    assert sum(map(len, images)) == len(set.union(*images)) == 60
    assert data.drawn == "stratified by label, grouped by image"
    for split in SPLITS[1:]:
        assert set(Counter(row["label"] for row in data.splits[split])) == {0, 1}
    assert data.shared == {}


def test_everything_that_is_wrong_with_a_folder_is_said_at_once(tmp_path: Path) -> None:
    files = every_split(tmp_path)
    train = tmp_path / "train"
    (train / "bird").mkdir()
    class_folders(train, classes=("Cat",), first=70)
    (train / "loose.png").write_bytes(picture(0))
    (train / "dog" / "again").symlink_to(train)
    (train / "dog" / "notes.txt").write_text("not an image")
    whole = picture(1, 60, "JPEG")
    (tmp_path / "test" / "dog" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    said = problems(files)
    assert f"{train}/dog/again: is a link to a folder that it lies in (remove the link)" in said
    expected = (
        f"{train}: has files outside of its class folders: loose.png",
        f"{train}/bird: has no images",
        "datasets.mine: has the classes Cat and cat, which are spelt alike",
        f"{train}: row 10: {train}/dog/notes.txt is no JPEG",
        f"{tmp_path}/test: row 7: {tmp_path}/test/dog/cut.jpg is broken or cut off",
    )
    for text in expected:
        assert any(line.startswith(text) for line in said), text
    assert len(said) == len(expected) + 1


def test_a_class_in_two_encodings_of_its_accent_is_told_unless_the_study_names_it(
    tmp_path: Path,
) -> None:
    composed, split_up = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    class_folders(tmp_path / "train", classes=(composed, "tea"))
    class_folders(tmp_path / "test", classes=(split_up, "tea"), first=50)
    files = {split: str(tmp_path / split) for split in ("train", "test")}
    files["validation"] = files["test"]
    [said] = problems(files)
    assert r"has the classes 'caf\xe9' and 'cafe\u0301', which are spelt alike" in said
    data = read(files, labels=[composed, "tea"])
    assert [row["label"] for row in data.splits["test"]] == [0, 0, 0, 1, 1, 1]


def test_a_folder_of_splits_is_not_taken_for_one_of_classes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        class_folders(tmp_path / "all" / split)
    said = problems({"train": str(tmp_path / "all")})
    assert any("has train and val, which are splits and no classes" in line for line in said)


def test_a_folder_that_is_empty_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert problems(dict.fromkeys(SPLITS, str(tmp_path / "empty"))) == [
        f"{tmp_path}/empty: has no class folders (give each class a folder with its images: "
        "cat/1.jpg, dog/2.jpg)"
    ]
    assert problems(dict.fromkeys(SPLITS, str(tmp_path / "no"))) == [
        f"{tmp_path}/no: no such file or folder"
    ]


def test_whoever_names_images_themselves_is_told_of_class_folders(tmp_path: Path) -> None:
    class_folders(tmp_path / "all")
    [said] = problems({"train": str(tmp_path / "all" / "cat" / "*.png")})
    assert "cat/0.png: unknown kind of file" in said
    assert "name a folder with a folder of images for each class: cat/1.jpg, dog/2.jpg" in said


def test_a_folder_of_images_without_a_task_is_told_of_it(tmp_path: Path) -> None:
    raw = a_study(datasets={"mine": {"files": {"train": str(class_folders(tmp_path / "all"))}}})
    with pytest.raises(InputError, match="need text, label, labels; of images, set task: image_cl"):
        parse_study(raw, place="study.yaml")


# -- tables ------------------------------------------------------------------------------------


def test_the_same_images_are_the_same_rows_whatever_form_they_come_in(tmp_path: Path) -> None:
    class_folders(tmp_path / "folder")
    paths = sorted((tmp_path / "folder").rglob("*.png"))
    rows = [{"image": str(p.relative_to(tmp_path)), "label": p.parent.name} for p in paths]
    pd.DataFrame(rows).to_csv(tmp_path / "paths.csv", index=False)
    held = [{"image": p.read_bytes(), "label": p.parent.name} for p in paths]
    pd.DataFrame(held).to_parquet(tmp_path / "bytes.parquet")
    texts = [{**row, "image": {"bytes": b64encode(row["image"]).decode()}} for row in held]
    (tmp_path / "base64.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"])
    )
    saved = datasets.Dataset.from_list(
        [{"image": {"bytes": row["image"], "path": None}, "label": row["label"]} for row in held],
        features=features,
    )
    saved.save_to_disk(tmp_path / "saved")
    saved.to_parquet(tmp_path / "saved.parquet")
    digests = {}
    for name in ("folder", "paths.csv", "bytes.parquet", "base64.jsonl", "saved", "saved.parquet"):
        named = {"labels": ["cat", "dog"]} if name.startswith("saved") else {}
        data = read(dict.fromkeys(SPLITS, str(tmp_path / name)), **named)
        digests[name] = digest_rows(data.splits["test"])
    assert len(set(digests.values())) == 1, digests


def test_numbers_are_classes_by_their_value_where_none_are_named(tmp_path: Path) -> None:
    rows = [{"image": picture(at), "label": label} for at, label in enumerate((10, 2, 2, 10))]
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    data = read(dict.fromkeys(SPLITS, str(tmp_path / "a.parquet")))
    assert data.labels == ("2", "10")
    assert [row["label"] for row in data.splits["test"]] == [1, 0, 0, 1]


def test_rows_without_a_label_may_train_and_not_test(tmp_path: Path) -> None:
    rows = [{"image": picture(at), "label": label} for at, label in enumerate(("a", None, "b"))]
    path = tmp_path / "a.jsonl"
    for row in rows:
        row["image"] = b64encode(row["image"]).decode()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    labelled = tmp_path / "b.jsonl"
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows[::2]))
    files = {"train": str(path), "validation": str(labelled), "test": str(labelled)}
    assert [row["label"] for row in read(files).splits["train"]] == [0, None, 1]
    assert problems({**files, "test": str(path)}) == [f"{path}: row 2: its label is missing"]


def test_a_path_that_is_not_there_and_a_column_that_is_not_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,label\nno.png,a\nneither.png,b\n")
    source = dict.fromkeys(SPLITS, str(tmp_path / "a.csv"))
    assert f"{tmp_path}/a.csv: row 2: {tmp_path}/neither.png is not there" in problems(source)
    said = problems(source, text="photo")
    assert any("has no column photo" in line for line in said)


# -- what is kept ------------------------------------------------------------------------------


def test_images_of_one_size_keep_it_and_others_are_made_as_large_as_the_study_says_or_224(
    tmp_path: Path,
) -> None:
    files = every_split(tmp_path)
    assert read(files).image_size == 8
    assert read(files, image_size=12).image_size == 12
    (tmp_path / "test" / "cat" / "9.png").write_bytes(picture(9, 300))
    data = read(files)
    assert data.image_size == 224
    assert data.enlarged == {"train": 6, "validation": 6, "test": 6}
    large = dict.fromkeys(SPLITS, str(tmp_path / "large.parquet"))
    rows = [{"image": picture(at, 256), "label": at} for at in range(2)]
    pd.DataFrame(rows).to_parquet(tmp_path / "large.parquet")
    assert read(large).image_size == 224


def test_the_pixels_of_a_split_lie_in_one_file_in_the_order_of_its_rows(tmp_path: Path) -> None:
    files = every_split(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    data = read(files, scratch, limit={"train": 4})
    kept = np.load(data.pixels["test"], mmap_mode="r")
    assert kept.dtype == np.uint8
    assert np.array_equal(kept, np.stack([array_of(seed) for seed in range(200, 206)]))
    assert (
        np.load(data.pixels["train"]).shape == (len(data.splits["train"]), 8, 8, 3) == (4, 8, 8, 3)
    )
    assert sorted(scratch.iterdir()) == sorted(data.pixels.values())


def test_images_are_held_a_few_at_a_time(tmp_path: Path) -> None:
    rows = [{"image": picture(at, 64), "label": at % 2} for at in range(200)]
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet", row_group_size=10)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    files = dict.fromkeys(SPLITS, str(tmp_path / "a.parquet"))
    read(files)  # so that what is imported on the way does not count
    tracemalloc.start()
    data = read(files, scratch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.25 * sum(path.stat().st_size for path in data.pixels.values())


def test_of_images_that_are_refused_no_file_is_left(tmp_path: Path) -> None:
    files = every_split(tmp_path)
    whole = picture(1, 60)
    (tmp_path / "test" / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(InputError, match=r"cut\.png is broken or cut off"):
        read(files, scratch)
    assert list(scratch.iterdir()) == []


def test_a_study_s_folder_has_the_pixels_and_gives_them_with_the_rows(tmp_path: Path) -> None:
    ledger = launched(tmp_path / "run", {"files": every_split(tmp_path)})
    data = ledger.resolved().datasets["mine"]
    digest = data.splits["validation"].digest
    rows = ledger.rows(digest)
    assert [row["label"] for row in rows] == [0, 0, 0, 1, 1, 1]
    for seed, row in enumerate(rows, start=100):
        assert np.array_equal(row["pixels"], array_of(seed))
    assert len(ledger.rows(digest, 2)) == 2
    assert data.image_size == 8
    names = sorted(path.name for path in (tmp_path / "run" / "data").iterdir())
    digests = sorted(split.digest for split in data.splits.values())
    assert names == [f"{each}.{kind}" for each in digests for kind in ("jsonl", "npy")]


@pytest.mark.parametrize("damage", ["flipped", "shorter", "other", "gone"])
def test_pixels_that_are_not_those_of_the_rows_are_not_read(tmp_path: Path, damage: str) -> None:
    ledger = launched(tmp_path / "run", {"files": every_split(tmp_path)})
    digest = ledger.resolved().datasets["mine"].splits["test"].digest
    ledger.rows(digest)
    path = tmp_path / "run" / "data" / f"{digest}.npy"
    content = path.read_bytes()
    match damage:
        case "flipped":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            what = "holds another image in the place of row 6"
        case "shorter":
            path.write_bytes(content[:-1])
            what = "holds no images: it is no whole array of uint8"
        case "other":
            np.save(path, np.zeros((5, 8, 8, 3), dtype=np.uint8))
            what = "holds 5 images for 6 rows"
        case _:
            path.unlink()
            what = "is not there, with the pixels of its images"
    with pytest.raises(InputError, match=f"{path}: {what}"):
        ledger.rows(digest)
    assert any(what in str(problem) for problem in verify(ledger).problems)


def test_pixels_that_a_study_no_longer_needs_are_garbage_and_the_others_stay(
    tmp_path: Path,
) -> None:
    files = every_split(tmp_path)
    ledger = launched(tmp_path / "run", {"files": files}, image_size=8)
    before = ledger.resolved().datasets["mine"].digests
    study = parse_study(
        a_study(
            datasets={"mine": {"task": "image_classification", "files": files, "image_size": 16}}
        ),
        place="study.yaml",
    )
    (tmp_path / "run" / "outcomes" / "x").write_text("")  # so that the study has begun
    agenda = open_study(ledger, study, data_dir=None, place="study.yaml", accept=lambda: True)
    (tmp_path / "run" / "outcomes" / "x").unlink()
    found = {each.name for each in garbage(ledger, agenda)[0]}
    kept = {f"data/{digest}.npy" for digest in ledger.resolved().datasets["mine"].digests}
    assert {f"data/{digest}.{kind}" for digest in before for kind in ("npy", "jsonl")} <= found
    assert not kept & found
    assert verify(ledger).problems == []


def test_what_a_kill_leaves_of_pixels_is_swept_at_the_next_start(tmp_path: Path) -> None:
    ledger = launched(tmp_path / "run", {"files": every_split(tmp_path)})
    half = ledger.scratch / f".{'0' * 32}.tmp"
    half.write_bytes(b"x")
    ledger.sweep()
    assert not half.exists()


# -- files that change or travel ---------------------------------------------------------------


def test_an_image_that_changes_is_noticed_and_one_that_is_the_same_is_not(tmp_path: Path) -> None:
    files = every_split(tmp_path)
    assert source_paths("mine", own(files), None) == tuple(
        sorted(tmp_path / split for split in SPLITS)
    )
    ledger = launched(tmp_path / "run", {"files": files})
    digests = ledger.resolved().datasets["mine"].digests
    assert (
        launched(tmp_path / "run", {"files": files}).resolved().datasets["mine"].digests == digests
    )
    (tmp_path / "train" / "cat" / "0.png").write_bytes(picture(77))
    again = launched(tmp_path / "run", {"files": files}).resolved().datasets["mine"]
    assert again.splits["train"].digest not in digests
    assert again.splits["test"].digest in digests


def test_an_image_that_a_table_names_is_compared_with_it(tmp_path: Path) -> None:
    class_folders(tmp_path / "there")
    paths = sorted((tmp_path / "there").rglob("*.png"))
    rows = [{"image": str(p), "label": p.parent.name} for p in paths]
    pd.DataFrame(rows).to_csv(tmp_path / "a.csv", index=False)
    data = {"files": dict.fromkeys(SPLITS, str(tmp_path / "a.csv"))}
    before = launched(tmp_path / "run", data).resolved().datasets["mine"]
    assert sorted(before.files or ()) == [
        f"{tmp_path}/a.csv",
        f"{tmp_path}/a.csv (with its images)",
    ]
    paths[0].write_bytes(picture(77))
    assert launched(tmp_path / "run", data).resolved().datasets["mine"].digests != before.digests


def test_images_travel_with_a_study_that_names_them_by_paths_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "train", count=1)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "a.csv").write_text(
        "image,label\n../train/cat/0.png,cat\n/x/b.png,dog\n"
    )
    study = parse_study(
        a_study(
            datasets={
                "mine": {
                    "task": "image_classification",
                    "files": {"train": "train", "test": "tables/a.csv"},
                }
            }
        ),
        place="study.yaml",
    )
    assert set(map(str, travelling_files(study, "study.yaml"))) == {
        "train/cat/0.png",
        "train/dog/0.png",
        "tables/a.csv",
    }


# -- what is doubtful --------------------------------------------------------------------------


def test_images_in_two_splits_and_images_that_are_made_larger_are_doubtful(tmp_path: Path) -> None:
    files = every_split(tmp_path)
    (tmp_path / "test" / "cat" / "0.png").write_bytes(picture(0))
    kept: dict[str, Any] = {}
    dataset = {"task": "image_classification", "files": files, "image_size": 32}
    study = parse_study(a_study(datasets={"mine": dataset}), place="x")
    resolved = resolve(study, data_dir=None, store=kept.__setitem__, place="x")
    facts, doubts, wrong = survey(resolved, kept.__getitem__, "x")
    said = [doubt.what for doubt in doubts]
    assert not wrong
    assert facts["mine"].splits["train"].labels == {"cat": 3, "dog": 3}
    assert "1 of 6 test rows is in train too" in said
    assert (
        "less than half as large as the 32 pixels that are kept of each: 6 of 6 train images, "
        "6 of 6 validation images, 6 of 6 test images" in said
    )


# -- the study file, the catalogue and the grammar ---------------------------------------------


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"task": "classification", "image_size": 32}, "classification reads no images"),
        ({"task": "image_classification", "max_length": 32}, "max_length counts tokens"),
        ({"task": "image_classification", "labels": ["a"]}, "needs at least 2 labels"),
        ({"task": "image_classification", "text": ["a", "b"]}, "names 1 column"),
        ({"task": "image_classification", "image_size": 4}, "image_size"),
    ],
)
def test_what_a_study_cannot_say_of_images_is_refused(fields: dict[str, Any], what: str) -> None:
    dataset = {"files": {"train": "a"}, **fields}
    with pytest.raises(InputError, match=what):
        parse_study(a_study(datasets={"mine": dataset}), place="x")


def test_generated_images_follow_from_the_seed_and_tell_their_shape(tmp_path: Path) -> None:
    first, again, other = (
        generate(60, seed, task="image_classification") for seed in ("0", "0", "1")
    )
    assert first == again
    assert first != other
    noisy = generate(60, "0", 1.0, task="image_classification")
    assert [row["image"] for row in noisy] == [row["image"] for row in first]
    grammar = {"grammar": {"train": 60, "validation": 12, "test": 12}}
    dataset = Dataset.model_validate({"task": "image_classification", **grammar})
    data = read_dataset("shapes", dataset, data_dir=None, seed=0)
    assert data.labels == SHAPES
    assert data.image_size == 16
    assert {row["label"] for row in data.splits["train"]} == set(range(len(SHAPES)))


def test_images_of_the_hub_come_as_bytes_with_the_names_of_their_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["coupe", "van"])
    )
    parts = {}
    for split, part in CATALOGUE["cars"].parts.items():
        rows = [
            {"image": {"bytes": picture(at + 50 * len(split)), "path": None}, "label": at % 2}
            for at in range(20)
        ]
        files = f"hf://datasets/{part[0].hub}@{part[0].revision}/{part[0].data_files}"
        parts[files] = datasets.Dataset.from_list(rows, features=features)
    monkeypatch.setattr(datasets, "load_dataset", FakeHub(parts))
    with listening() as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        study_hub.reachable.cache_clear()
        try:
            data = read_dataset("cars", Dataset(), data_dir=None, seed=0)
            (tmp_path / "cars.yaml").write_text(json.dumps(a_study(datasets={"cars": {}})))
            fetched = kdsearch("fetch", tmp_path / "cars.yaml", "--data-dir", tmp_path / "data")
            assert fetched.code == 0
        finally:
            study_hub.reachable.cache_clear()
    assert data.labels == ("coupe", "van")
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        "train": 18,
        "validation": 2,
        "test": 20,
    }
    brought = read_dataset("cars", Dataset(), data_dir=tmp_path / "data", seed=0)
    assert brought.splits == data.splits
    shown = kdsearch("data", "check", "cars", "--data-dir", tmp_path / "data")
    assert "8 × 8 pixels are kept of each image" in shown.out


def test_images_lie_in_a_folder_of_data_by_split_and_class(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 90)):
        class_folders(tmp_path / "cifar10" / split, 10, ("cat", "dog"), first)
    data = read_dataset("cifar10", Dataset(), data_dir=tmp_path, seed=0)
    assert {row["label"] for row in data.splits["test"]} == {3, 5}
    assert data.cut == {"validation": 2}


def test_plan_tells_what_images_take(tmp_path: Path) -> None:
    study = {
        "cifar10": {},
        "pets": {"image_size": 64, "limit": {"train": 100}},
        "mine": {"task": "image_classification", "files": {"train": "somewhere"}},
    }
    path = tmp_path / "s.yaml"
    path.write_text(json.dumps(a_study(datasets=study)))
    facts = json.loads(kdsearch("plan", path, "--json").out)
    images = {each["dataset"]: each for each in facts["images"]}
    assert images["cifar10"]["bytes"] == 60_000 * 32 * 32 * 3
    assert images["pets"]["bytes"] == (100 + 368 + 3_669) * 64 * 64 * 3
    assert images["mine"]["bytes"] is None
    assert "60,000 of 32 × 32 pixels, 184 MB" in kdsearch("plan", path).out


def test_generated_images_stay_those_that_earlier_studies_were_trained_on() -> None:
    rows = generate(50, "0/train", noise=0.3, task="image_classification")
    content = b"".join(row["image"] + bytes([row["label"]]) for row in rows)
    assert hashlib.sha256(content).hexdigest()[:16] == "935bd08ba5af2ec1"
