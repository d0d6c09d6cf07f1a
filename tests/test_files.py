"""Data files as people have them: every form gives the same rows, or words that say what to do."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdsearch.errors import InputError
from kdsearch.study import formats
from kdsearch.study.rows import DataRows, digest_rows, read_dataset, source_paths
from kdsearch.study.schema import Dataset

Rows = list[dict[str, Any]]
SAYS: dict[str, dict[str, Any]] = {
    "classification": {"text": ["first", "second"], "label": "y", "labels": ["no", "None"]},
    "ner": {"text": "words", "label": "tags", "labels": ["O", "B-X", "I-X"]},
    "qa": {},
    "translation": {"text": "de", "label": "en"},
    "lm": {"text": "de", "label": "en"},
}
SPLITS = ("train", "validation", "test")


def own(task: str, files: Any, **fields: Any) -> Dataset:
    values = {"task": task, "files": files, **SAYS[task], **fields}
    return Dataset.model_validate_json(json.dumps(values))


def read(task: str, source: Any, data_dir: Path | None = None, **fields: Any) -> DataRows:
    """A data set all of whose splits are of one source."""
    dataset = own(task, dict.fromkeys(SPLITS, source), **fields)
    return read_dataset("mine", dataset, data_dir=data_dir, seed=0)


def digest(task: str, source: Any) -> str:
    return digest_rows(read(task, source).splits["test"])


def problems(task: str, source: Any, **fields: Any) -> list[str]:
    """What is wrong with a data set whose test rows are of this source."""
    with pytest.raises(InputError) as caught:
        read_dataset("mine", own(task, {"train": source}, **fields), data_dir=None, seed=0)
    return [str(problem) for problem in caught.value.problems]


# -- every form, the same rows -------------------------------------------------------------------


def lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows: Rows, separator: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        cells = (row[name] for name in rows[0])
        writer.writerow([cell if isinstance(cell, str) else json.dumps(cell) for cell in cells])
    return text.getvalue().encode()


def to_parquet(rows: Rows) -> bytes:
    content = io.BytesIO()
    pd.DataFrame(rows).to_parquet(content)
    return content.getvalue()


FORMS: dict[str, Callable[[Rows], bytes]] = {
    "jsonl": lines,
    "json": lambda rows: json.dumps(rows, indent=1).encode(),
    "csv": lambda rows: table(rows, ","),
    "tsv": lambda rows: table(rows, "\t"),
    "parquet": to_parquet,
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
# Not a line break of any kind, which lines of text and .tsv cannot hold, nor blanks around it.
WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=6
)
TEXT = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)
ODD = st.sampled_from(['say "so", he; said', "null", "None", "NA", "1.0", "#", "'"])


@st.composite
def some_rows(draw: st.DrawFn, task: str) -> Rows:
    text = TEXT | ODD
    match task:
        case "classification":
            cells = {
                "first": text,
                "second": text | st.just(""),
                "y": st.sampled_from(["no", "None"]),
            }
        case "ner":
            pairs = draw(
                st.lists(
                    st.lists(st.tuples(WORDS, st.sampled_from(["O", "B-X", "I-X"])), min_size=1),
                    max_size=5,
                )
            )
            pairs = [[("a", "B-X"), ("b", "O")], *pairs]
            return [{"words": [w for w, _ in p], "tags": [t for _, t in p]} for p in pairs]
        case "qa":
            contexts = draw(st.lists(text, min_size=1, max_size=5))
            return [
                {
                    "question": "who?",
                    "context": c,
                    "answers": {"text": [c[-1]], "answer_start": [len(c) - 1]},
                }
                for c in contexts
            ]
        case _:
            cells = {"de": text, "en": text}
    rows = draw(st.lists(st.fixed_dictionaries(cells), min_size=1, max_size=6))
    if task == "classification":
        rows = [{"first": "a", "second": "b", "y": y} for y in ("no", "None")] + rows
    return rows


@pytest.mark.parametrize("task", [*SAYS])
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_same_rows_have_one_digest_whichever_form_they_came_in(
    tmp_path: Path, task: str, data: st.DataObject
) -> None:
    rows = data.draw(some_rows(task))
    found = {}
    for form, write in FORMS.items():
        packed = data.draw(st.sampled_from([*PACKED]))
        path = tmp_path / f"train.{form}{packed}"
        path.write_bytes(PACKED[packed](write(rows)))
        found[form] = digest(task, str(path))
    assert set(found.values()) == {found["jsonl"]}, found


@pytest.mark.parametrize("packed", [*PACKED])
@pytest.mark.parametrize("form", [*FORMS])
def test_every_kind_of_file_may_be_compressed(tmp_path: Path, form: str, packed: str) -> None:
    rows = [{"de": f"eins {i}", "en": f"one {i}"} for i in range(3)]
    path = tmp_path / f"train.{form}{packed}"
    path.write_bytes(PACKED[packed](FORMS[form](rows)))
    expected = [{"source": f"eins {i}", "target": f"one {i}"} for i in range(3)]
    assert read("translation", str(path)).splits["train"] == expected


NER = [
    {"words": ["Ada", "#", "\u00a0x", "wrote"], "tags": ["B-X", "I-X", "O", "O"]},
    {"words": ["#", "yes"], "tags": ["O", "B-X"]},
]


@pytest.mark.parametrize("separator", [" ", "\t", "   "])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("kind", ["conll", "bio", "iob", "iob2", "conll.gz"])
def test_a_file_of_conll_has_words_first_and_tags_last(
    tmp_path: Path, separator: str, ending: str, kind: str
) -> None:
    text = ["-DOCSTART- -X- -X- O", "", "# id 12", "# another comment of five"]
    for row in NER:
        for word, tag in zip(row["words"], row["tags"], strict=True):
            text.append(separator.join([word, "NN", "I-NP", tag]))
        text += ["", ""]
    content = ending.join(text).encode()
    path = tmp_path / f"train.{kind}"
    path.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)
    (tmp_path / "train.jsonl").write_bytes(lines(NER))
    assert digest("ner", str(path)) == digest("ner", str(tmp_path / "train.jsonl"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a O\nb NN O\n", ":2: has 3 columns, where the others have 2"),
        ("a\nb\n", ":1: has 1 column ("),
        ("1 a O\n2 b O\n3 c O\n\n", ": has word numbers in its first column"),
        ("#begin document (bc/x); part 000\nbc/x 0 0 a O\n", ":1: is in the format of CoNLL-2012"),
    ],
)
def test_a_file_of_conll_with_other_columns_is_refused(
    tmp_path: Path, text: str, what: str
) -> None:
    path = tmp_path / "train.conll"
    path.write_text(text)
    [problem] = problems("ner", str(path))
    assert problem.startswith(f"{path}{what}")


SQUAD_ROWS = [
    {
        "question": f"who {i}{j}?",
        "context": f"Ada wrote book {i}.",
        "answers": {"text": ["Ada"], "answer_start": [0]},
    }
    for i in range(2)
    for j in range(2)
]


@pytest.mark.parametrize("version", ["1.1", "v2.0"])
@pytest.mark.parametrize("indent", [None, 2])
def test_squads_own_json_is_read(tmp_path: Path, version: str, indent: int | None) -> None:
    two = version == "v2.0"
    paragraphs = [
        {
            "context": SQUAD_ROWS[2 * i]["context"],
            "qas": [
                {
                    "id": f"{i}{j}",
                    "question": f"who {i}{j}?",
                    "answers": [{"text": "Ada", "answer_start": 0}],
                    **({"is_impossible": False} if two else {}),
                }
                for j in range(2)
            ],
        }
        for i in range(2)
    ]
    whole = {"version": version, "data": [{"title": "t", "paragraphs": paragraphs}]}
    path = tmp_path / "train.json"
    path.write_text(json.dumps(whole, indent=indent))
    (tmp_path / "train.jsonl").write_bytes(lines(SQUAD_ROWS))
    assert digest("qa", str(path)) == digest("qa", str(tmp_path / "train.jsonl"))
    paragraphs[1]["qas"] = None
    path.write_text(json.dumps(whole))
    assert problems("qa", str(path))[0].startswith(f"{path}: data[0]: is not in SQuAD's form")


PAIRS = [{"de": f"eins {i}", "en": f"one {i}"} for i in range(40)]


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    """The digest of PAIRS, read from lines of JSON."""
    (tmp_path / "pairs.jsonl").write_bytes(lines(PAIRS))
    return digest("translation", str(tmp_path / "pairs.jsonl"))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(PAIRS),
        "\n" + json.dumps(PAIRS, indent=2),
        lines(PAIRS).decode(),
        "\n\n" + "\n".join(json.dumps(row) + "\n" for row in PAIRS),
        json.dumps({"data": PAIRS}),
    ],
)
def test_a_json_file_has_an_array_or_lines(tmp_path: Path, pairs: str, text: str) -> None:
    path = tmp_path / "train.json"
    path.write_text(text)
    assert digest("translation", str(path)) == pairs


def test_one_row_of_json_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text('{"pair": {"de": "eins", "en": "one"}}')
    fields = {"text": "pair.de", "label": "pair.en"}
    assert read("translation", str(path), **fields).splits["test"] == [
        {"source": "eins", "target": "one"}
    ]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.json", pd.DataFrame(PAIRS).to_json(), 'orient="records", lines=True'),
        ("x.json", '[{"de": "a"}, 3]', "[1]: not a JSON object"),
        ("x.json", '[{"de": "a",}]', "x.json:1: not JSON"),
        ("x.json", "[" * 100_000, "not JSON"),
        ("x.json", "3", "is not an array of JSON objects"),
        ("x.jsonl", json.dumps(PAIRS[0], indent=1), ":1: not JSON line by line"),
        ("x.jsonl", json.dumps(PAIRS[0], indent=1), "jq -c . x.jsonl > lines.jsonl"),
        ("x.jsonl", json.dumps(PAIRS, indent=1), "jq -c '.[]' x.jsonl > lines.jsonl"),
        (
            "x.jsonl",
            json.dumps(PAIRS),
            "not a JSON object (rename it to .json if it is an array of objects)",
        ),
    ],
)
def test_json_of_another_form_is_refused_with_the_cure(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text)
    [problem] = problems("translation", str(tmp_path / name))
    assert words in problem


@pytest.mark.parametrize("packed", ["", ".xz"])
def test_a_json_array_that_is_too_large_is_refused_with_the_line_that_converts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: str
) -> None:
    monkeypatch.setattr(formats, "MOST_JSON", 1_000)
    path = tmp_path / f"x.json{packed}"
    path.write_bytes(PACKED[packed](json.dumps(PAIRS).encode()))
    [problem] = problems("translation", str(path))
    assert "must be split into lines" in problem
    assert "jq -c '.[]'" in problem
    path.write_bytes(PACKED[packed](lines(PAIRS)))
    assert len(read("translation", str(path)).splits["train"]) == len(PAIRS)


@pytest.mark.parametrize("form", ["jsonl", "csv", "conll"])
def test_a_small_compressed_file_with_a_line_that_would_fill_the_memory_is_refused(
    tmp_path: Path, form: str
) -> None:
    path = tmp_path / f"x.{form}.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(500):
            file.write(b"x" * 10**6)
    tracemalloc.start()
    [problem] = problems("ner", str(path))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert problem.startswith(f"{path}:1: is a line of more than 20 million characters")
    assert most < 200 * 10**6


# -- several files, folders ------------------------------------------------------------------------


def test_parallel_files_of_text_are_read_line_by_line(tmp_path: Path, pairs: str) -> None:
    for column in ("de", "en"):
        text = "".join(row[column] + "\n" for row in PAIRS)
        (tmp_path / f"train.{column}").write_text(text)
        (tmp_path / f"train.{column}.gz").write_bytes(gzip.compress(text.rstrip().encode()))
    for packed in ("", ".gz"):
        files = {column: str(tmp_path / f"train.{column}{packed}") for column in ("en", "de")}
        assert digest("translation", files) == pairs


def test_parallel_files_of_unequal_length_are_refused_with_both_counts(tmp_path: Path) -> None:
    (tmp_path / "x.de").write_text("eins\nzwei\ndrei\n")
    (tmp_path / "x.en").write_text("one\ntwo")
    found = problems("translation", {"de": str(tmp_path / "x.de"), "en": str(tmp_path / "x.en")})
    assert found == [
        f"{tmp_path}/x.de: does not match line by line: "
        f"{tmp_path}/x.de has 3 lines, {tmp_path}/x.en has 2 lines"
    ]


def test_a_line_of_text_ends_at_a_line_feed_alone(tmp_path: Path) -> None:
    (tmp_path / "x.de").write_text("a\u2028b\x0bc\n")
    (tmp_path / "x.en").write_bytes(b"one\r\n")
    files = {"de": str(tmp_path / "x.de"), "en": str(tmp_path / "x.en")}
    found = read("translation", files).splits["train"]
    assert found == [{"source": "a\u2028b\x0bc", "target": "one"}]


def shards(folder: Path, form: str = "parquet") -> list[str]:
    folder.mkdir(exist_ok=True)
    names = []
    for number in range(4):
        path = folder / f"train-{number:05}-of-00004.{form}"
        path.write_bytes(FORMS[form](PAIRS[number * 10 : number * 10 + 10]))
        names.append(str(path))
    return names


@pytest.mark.parametrize("form", [*FORMS])
def test_shards_are_read_by_a_pattern_and_by_a_list(tmp_path: Path, pairs: str, form: str) -> None:
    names = shards(tmp_path / "data", form)
    assert digest("translation", str(tmp_path / "data" / "train-*")) == pairs
    assert digest("translation", names) == pairs
    assert digest("translation", names[::-1]) != pairs


def test_a_pattern_that_no_file_has_is_refused(tmp_path: Path) -> None:
    assert problems("translation", str(tmp_path / "x-*.csv")) == [
        f"{tmp_path}/x-*.csv: no file matches this pattern"
    ]


def test_a_file_that_stands_twice_in_a_list_is_refused(tmp_path: Path) -> None:
    name = shards(tmp_path / "data")[2]
    [problem] = problems("translation", [str(tmp_path / "data" / "train-*"), name])
    assert problem.startswith(f"{name}: appears twice among the files of a split")


def test_the_problems_of_every_split_are_said_at_once(tmp_path: Path) -> None:
    files = {split: str(tmp_path / f"{split}-*.csv") for split in SPLITS}
    with pytest.raises(InputError) as caught:
        read_dataset("mine", own("translation", files), data_dir=None, seed=0)
    assert len(caught.value.problems) == 3


def test_a_name_with_brackets_is_a_file_if_there_is_one(tmp_path: Path, pairs: str) -> None:
    (tmp_path / "x[1].jsonl").write_bytes(lines(PAIRS))
    assert digest("translation", str(tmp_path / "x[1].jsonl")) == pairs


def test_a_folder_that_datasets_saved_is_read(tmp_path: Path, pairs: str) -> None:
    data = datasets.Dataset.from_list(PAIRS)
    data.save_to_disk(str(tmp_path / "one"), num_shards=2)
    both = datasets.DatasetDict({"train": data, "dev": data, "test": data})
    both.save_to_disk(str(tmp_path / "mine"))
    assert digest("translation", str(tmp_path / "one")) == pairs
    dataset = own("translation", dict.fromkeys(SPLITS, str(tmp_path / "mine")))
    for found in (
        read_dataset("mine", dataset, data_dir=None, seed=0),
        read_dataset("mine", dataset, data_dir=tmp_path, seed=0),
    ):
        assert {digest_rows(rows) for rows in found.splits.values()} == {pairs}
        assert found.cut == {}


def test_a_saved_folder_without_the_split_names_it(tmp_path: Path) -> None:
    data = datasets.DatasetDict({"training": datasets.Dataset.from_list(PAIRS)})
    data.save_to_disk(str(tmp_path / "x"))
    [problem] = problems("translation", str(tmp_path / "x"))
    assert problem.startswith(f"{tmp_path}/x: has no train split (name the folder of one")


def test_a_folder_that_nothing_saved_is_refused(tmp_path: Path) -> None:
    [problem] = problems("translation", str(tmp_path))
    assert problem.startswith(f"{tmp_path}: is a folder that save_to_disk")


def test_questions_that_datasets_saved_are_read(tmp_path: Path) -> None:
    datasets.Dataset.from_list(SQUAD_ROWS).save_to_disk(str(tmp_path / "x"))
    (tmp_path / "train.jsonl").write_bytes(lines(SQUAD_ROWS))
    assert digest("qa", str(tmp_path / "x")) == digest("qa", str(tmp_path / "train.jsonl"))


def test_a_tilde_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shards(tmp_path / "data")
    for source in ("~/pairs.jsonl", ["~/pairs.jsonl"], "~/data/train-*"):
        assert digest("translation", source) == pairs
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.jsonl").write_bytes(lines(PAIRS[:30]))
    dataset = own("translation", {"train": "elsewhere.jsonl"})
    found = read_dataset("mine", dataset, data_dir=Path("~"), seed=0)
    assert sum(map(len, found.splits.values())) == 30


# -- --data-dir --------------------------------------------------------------------------------


def in_folder(folder: Path, *names: str) -> DataRows:
    (folder / "mine").mkdir()
    for name in names:
        (folder / "mine" / name).write_bytes(lines(PAIRS))
    dataset = own("translation", {"train": "elsewhere.jsonl"})
    return read_dataset("mine", dataset, data_dir=folder, seed=0)


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev", "eval"])
def test_a_validation_file_may_have_any_of_its_usual_names(tmp_path: Path, name: str) -> None:
    found = in_folder(tmp_path, "train.jsonl", f"{name}.jsonl", "test.jsonl", "README.md", ".x.csv")
    assert found.cut == {}
    assert found.splits["validation"] == found.splits["train"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["train.jsonl", "dev.jsonl", "val.jsonl"],
            "has dev.jsonl and val.jsonl, which name the same",
        ),
        (["train.jsonl", "devel.jsonl"], "has devel.jsonl, which is not a split (rename it to "),
        (["train.jsonl", "dev.xlsx"], "dev.xlsx is an unknown kind of file (use one of .jsonl"),
        (["train-00000-of-00002.jsonl"], "1 of 2 shards are missing, 00001 among them"),
        (["test.jsonl"], "has no train split"),
        (["train.jsonl", "train-00000-of-00001.jsonl"], "which name the same split"),
    ],
)
def test_a_folder_whose_files_are_not_clear_is_refused(
    tmp_path: Path, names: list[str], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        in_folder(tmp_path, *names)
    assert words in str(caught.value)


def test_what_lies_beside_whole_splits_in_a_data_folder_is_left_alone(tmp_path: Path) -> None:
    splits = [f"{split}.jsonl" for split in ("train", "validation", "test")]
    beside = ["labels.json", "test_matched.jsonl", "train.jsonl.sha256", "train.jsonl.lock"]
    found = in_folder(tmp_path, *splits, *beside)
    assert {len(rows) for rows in found.splits.values()} == {len(PAIRS)}


def test_shards_as_the_hub_names_them_are_one_split(tmp_path: Path) -> None:
    names = [f"train-0000{n}-of-00002-a09b74b3ef9c3b5{n}.jsonl" for n in range(2)]
    found = in_folder(tmp_path, *names, "dev.jsonl", "test.jsonl")
    assert len(found.splits["train"]) == 2 * len(PAIRS)


def test_a_shard_that_a_pattern_does_not_find_is_missed(tmp_path: Path) -> None:
    for number in (0, 2):
        (tmp_path / f"train-0000{number}-of-00003.jsonl").write_bytes(lines(PAIRS))
    [problem] = problems("translation", str(tmp_path / "train-*.jsonl"))
    assert "1 of 3 shards are missing, 00001 among them" in problem


def test_shards_in_a_data_folder_are_one_split(tmp_path: Path, pairs: str) -> None:
    shards(tmp_path / "mine")
    dataset = own("translation", {"train": "elsewhere.jsonl"})
    found = read_dataset("mine", dataset, data_dir=tmp_path, seed=0)
    assert sum(map(len, found.splits.values())) == len(PAIRS)


# -- .csv and .tsv -----------------------------------------------------------------------------


REVIEWS = [("the game; was, bad", "no"), ('a "fine" day', "None"), ("null", "no"), ("NA", "None")]
FIELDS = {"text": "first", "label": "y"}


def reviews(path: Path) -> list[tuple[str, str]]:
    rows = read("classification", str(path), **FIELDS).splits["train"]
    return [(row["texts"][0], ("no", "None")[row["label"]]) for row in rows]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_the_header_says_what_separates_columns(
    tmp_path: Path, separator: str, kind: str, encoding: str, ending: str
) -> None:
    path = tmp_path / f"train.{kind}"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator=ending)
        writer.writerows([("first", "y"), *REVIEWS])
    assert reviews(path) == REVIEWS


def test_semicolons_separate_cells_without_quotes(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("first;y\nsad, and bad;no\nfine;None\n")
    assert reviews(path) == [("sad, and bad", "no"), ("fine", "None")]


def test_a_separator_in_a_name_does_not_separate(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("a;b,first,y\n1;2,bad,no\n1;2,good,None\n")
    assert reviews(path) == [("bad", "no"), ("good", "None")]


def test_a_misspelt_header_with_semicolons_is_shown_by_its_names(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("First;Label\nbad;no\n")
    found = problems("classification", str(path), **FIELDS)
    assert found[0] == (
        f"{path}: has no column first (available: First, Label; did you mean First?)"
    )


def test_a_csv_of_one_column_is_read_as_such(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('first\nbad\n"good, or not"\n')
    [problem] = problems("classification", str(path), **FIELDS)
    assert problem.startswith(f"{path}: has no column y (available: first; ")


def test_columns_without_name_and_cells_are_none(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text("first,y,,\nbad,no,,\ngood,None,,\n")
    assert reviews(path) == [("bad", "no"), ("good", "None")]
    path.write_text("y,first,,\nno,bad,,\nNone,good, not bad,\n")
    assert problems("classification", str(path), **FIELDS) == [
        f"{path}:3: has ' not bad' in a column without a name "
        "(name it, or quote the cell that holds a separator)"
    ]


def test_the_index_that_pandas_writes_is_no_column(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    pd.DataFrame(REVIEWS, columns=["first", "y"]).to_csv(path)
    assert reviews(path) == REVIEWS


def test_a_name_with_a_blank_is_shown_with_it(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('first, y\n"bad", no\n')
    assert problems("classification", str(path), **FIELDS) == [
        f"{path}: has no column y (available: first, ' y'; did you mean ' y'?)"
    ]


@pytest.mark.parametrize(
    "line", [r'"she said \"so\" twice, loudly",no', r'"she said \"so\"",no', '"a "b" c",no']
)
def test_quotes_that_are_not_doubled_are_refused_with_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(f'first,y\n"bad\nor not",no\n{line}\n"good",None\n')
    [problem] = problems("classification", str(path), **FIELDS)
    assert problem.startswith(f"{path}:4: has a quoted cell that does not end at its closing quote")
    assert 'double the quotes within a cell: ""' in problem
    assert ('not \\"' in problem) == ("\\" in line)


def test_a_quote_that_is_never_closed_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('first,y\nbad,no\n"good,None\nfine,None\nnot,no\n')
    [problem] = problems("classification", str(path), **FIELDS)
    assert problem.startswith(f"{path}:3: has a quoted cell that does not end")


def test_quotes_of_a_tsv_never_join_rows(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text('first\ty\n"bad\tno\nand good"\tNone\n')
    [problem] = problems("classification", str(path), **FIELDS)
    assert problem.startswith(f"{path}:2: has a quoted cell")


# -- what is no data -------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "conll"])
def test_a_file_that_is_not_utf8_is_refused_with_the_line_and_the_cure(
    tmp_path: Path, encoding: str, kind: str
) -> None:
    text = {"csv": "words,tags\na,O\ntrès,B-X\n", "jsonl": '{"a": 1}\n\n{"words": "très"}\n'}
    content = text.get(kind.removesuffix(".gz"), "a O\n\ntrès O\n").encode(encoding)
    path = tmp_path / f"train.{kind}"
    path.write_bytes(gzip.compress(content) if kind.endswith("gz") else content)
    assert problems("ner", str(path)) == [
        f"{path}: is not UTF-8: it has the byte 0xe8 in line 3 (if it is from Windows: "
        f"iconv -f cp1252 -t utf-8 train.{kind} > utf8-train.{kind})"
    ]


@pytest.mark.parametrize("encoding", ["utf-16le", "utf-16be"])
def test_utf16_without_its_mark_is_refused_with_the_cure(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text("first,y\nbad,no\n", encoding=encoding)
    [problem] = problems("classification", str(path), **FIELDS)
    assert f"is UTF-16 without a byte-order mark (iconv -f {encoding} -t utf-8 train.csv" in problem


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet", "conll", "csv.gz"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER.encode(), "is a Git LFS pointer (git lfs pull brings the file itself)"),
        (b"\n<!DOCTYPE html>\n<html lang=en>", "is a web page (fetch the file itself"),
        (b"\x00\xff\x93 neither text nor a table", ""),
        (b"", ""),
    ],
)
def test_what_is_no_data_is_named(tmp_path: Path, kind: str, content: bytes, words: str) -> None:
    path = tmp_path / f"train.{kind}"
    path.write_bytes(content)
    [problem] = problems("ner", str(path))
    assert problem.startswith(f"{path}: {words}")


def test_a_folder_with_the_name_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").mkdir()
    [problem] = problems("ner", str(tmp_path / "train.csv"))
    assert problem.startswith(f"{tmp_path}/train.csv: is a folder that save_to_disk")


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_compressed_file_that_is_cut_off_says_so(tmp_path: Path, packed: str, form: str) -> None:
    path = tmp_path / f"train.{form}{packed}"
    whole = PACKED[packed](FORMS[form](PAIRS))
    path.write_bytes(whole[: len(whole) * 2 // 3])
    [problem] = problems("translation", str(path))
    assert problem == f"{path}: is cut off: its compressed content is incomplete (fetch it again)"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", gzip.compress(b"de,en\n"), "holds gzip, unlike its name"),
        ("x.jsonl", bz2.compress(b"{}"), "holds bzip2, unlike its name"),
        ("x.json", lzma.compress(b"{}"), "holds xz, unlike its name"),
        ("x.csv", b"PK\x03\x04\x14\x00", "holds zip, unlike its name"),
        ("x.csv", to_parquet(PAIRS), "holds parquet, unlike its name"),
        ("x.parquet", lines(PAIRS), "cannot be read as parquet"),
        ("x.parquet", to_parquet(PAIRS)[:-9], "cannot be read as parquet"),
        ("x.csv.gz", b"de,en\n", "is not compressed the way its name says"),
    ],
)
def test_a_file_that_holds_something_else_than_its_name_says_is_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    [problem] = problems("translation", str(tmp_path / name))
    assert problem.startswith(f"{tmp_path}/{name}: {words}")


def test_columns_within_columns_of_a_parquet_file_are_read(tmp_path: Path) -> None:
    rows = [{"pair": {"de": ["a"], "en": f"one {i}", "in": {"de": f"eins {i}"}}} for i in range(3)]
    (tmp_path / "x.parquet").write_bytes(to_parquet(rows))
    fields = {"text": "pair.in.de", "label": "pair.en"}
    found = read("translation", str(tmp_path / "x.parquet"), **fields).splits["test"]
    assert found == [{"source": f"eins {i}", "target": f"one {i}"} for i in range(3)]


# -- a study's words for files ---------------------------------------------------------------------


@pytest.mark.parametrize("source", ["a.csv", ["a.csv", "b.csv"], {"de": "a", "en": "b"}])
def test_what_a_study_says_of_files_survives_its_json(source: Any) -> None:
    dataset = own("translation", {"train": source})
    again = Dataset.model_validate_json(dataset.model_dump_json())
    assert again == dataset
    assert json.loads(dataset.model_dump_json())["files"]["train"] == source


@pytest.mark.parametrize("source", [[], {}, 3, [3], {"de": 3}, None, [["a"]]])
def test_files_of_another_form_are_refused(source: Any) -> None:
    with pytest.raises(ValueError, match="expected a path, a list of paths, or text files"):
        own("translation", {"train": source})


def test_the_files_of_a_data_set_are_known_without_reading_them(tmp_path: Path) -> None:
    names = shards(tmp_path / "data")
    datasets.Dataset.from_list(PAIRS).save_to_disk(str(tmp_path / "saved"), num_shards=2)
    texts = {"de": str(tmp_path / "x.de"), "en": str(tmp_path / "x.en")}
    files = {
        "train": str(tmp_path / "data/*"),
        "validation": str(tmp_path / "saved"),
        "test": texts,
    }
    saved = sorted(map(str, (tmp_path / "saved").glob("*.arrow")))
    found = source_paths("mine", own("translation", files), None)
    assert [*map(str, found)] == sorted([*names, *saved, *texts.values()])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/train.csv").touch()
    in_dir = source_paths("mine", own("translation", files), tmp_path)
    assert in_dir == (tmp_path / "mine/train.csv",)
    sizes = {"train": 5, "validation": 5, "test": 5}
    grammar = Dataset.model_validate_json(json.dumps({"grammar": sizes}))
    assert source_paths("mine", grammar, None) == source_paths("mrpc", Dataset(), None) == ()


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["jsonl", "csv", "tsv", "parquet", "json", "conll", "text"])
def test_only_the_rows_that_a_limit_keeps_are_held(tmp_path: Path, form: str) -> None:
    task = "ner" if form == "conll" else "translation"
    text = "wort " * 100
    count = 6_000
    path = tmp_path / f"train.{form}"
    source: Any = str(path)
    if form == "conll":
        path.write_text(("wort NN B-X\n" * 20 + "\n") * (count // 4))
    elif form == "text":
        source = {column: str(tmp_path / column) for column in ("de", "en")}
        for name in source.values():
            Path(name).write_text(f"{text}\n" * count)
    else:
        rows = [{"de": f"{text} {i}", "en": f"{i}"} for i in range(count)]
        content = lines(rows) if form == "json" else FORMS[form](rows)
        path.write_bytes(content)
        del rows, content
    limit = dict.fromkeys(SPLITS, 50)
    tracemalloc.start()
    try:
        found = read(task, source, limit=limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [len(rows) for rows in found.splits.values()] == [50] * 3
    assert peak < 2_500_000  # of 3 MB of text, which are 7 MB as rows
