"""What is said of a study's rows before anything is trained."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import a_study

from kdsearch.agenda import DataSpec
from kdsearch.errors import Problem
from kdsearch.study import (
    DatasetFacts,
    Doubt,
    ResolvedDataset,
    Row,
    parse_study,
    resolve,
    survey,
)
from kdsearch.study.survey import _kinds
from kdsearch.tasks.classification import Classification

CLASSES = ["good", "bad", "neutral"]
FILES = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}


class Surveyed:
    """The survey of a data set of one's own, called `mine`."""

    def __init__(
        self, folder: Path, splits: dict[str, list[dict[str, Any]]], dataset: Any, **sections: Any
    ) -> None:
        for split, rows in splits.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text(lines)
        files = {split: str(folder / f"{split}.jsonl") for split in splits}
        usual = {"search": {**a_study()["search"], "alpha": [1]}}
        raw = a_study(datasets={"mine": {"files": files, **dataset}}, **{**usual, **sections})
        self.kept: dict[str, list[Row]] = {}
        self.resolved = resolve(
            parse_study(raw, place="x"), data_dir=None, store=self.kept.__setitem__, place="x"
        )
        self.look()

    def look(self) -> None:
        facts: Any
        doubts: Sequence[Doubt]
        problems: Sequence[Problem]
        facts, doubts, problems = survey(self.resolved, self._rows, "study.yaml")
        self.facts: DatasetFacts | None = facts.get("mine")
        self.doubts, self.problems = doubts, problems
        self.said = [each.what for each in doubts]

    def _rows(self, digest: str) -> list[Row]:
        if digest not in self.kept:
            raise FileNotFoundError(digest)
        return self.kept[digest]


def sentences(split: str, **counts: int) -> list[dict[str, Any]]:
    """So many rows of each label; no text stands in two splits."""
    return [
        {"text": f"{split} {label} {number}", "label": label}
        for label, times in counts.items()
        for number in range(times)
    ]


def classes(
    folder: Path,
    train: list[dict[str, Any]],
    validation: list[dict[str, Any]],
    test: list[dict[str, Any]],
    *,
    labels: Sequence[str] = CLASSES,
    metric: str = "f1",
    **sections: Any,
) -> Surveyed:
    dataset = {"text": "text", "label": "label", "labels": list(labels), "metric": metric}
    splits = {"train": train, "validation": validation, "test": test}
    return Surveyed(folder, splits, dataset, **sections)


# -- labels ----------------------------------------------------------------------------------------


def test_labels_are_counted_in_each_split(tmp_path: Path) -> None:
    found = classes(
        tmp_path,
        sentences("train", good=3, bad=2, neutral=1),
        sentences("validation", good=1, bad=1, neutral=4),
        sentences("test", good=2, bad=2, neutral=2),
    )
    assert found.facts is not None
    assert found.facts.splits["train"].labels == {"good": 3, "bad": 2, "neutral": 1}
    assert found.facts.splits["validation"].labels == {"good": 1, "bad": 1, "neutral": 4}
    assert [found.facts.splits[split].rows for split in FILES] == [6, 6, 6]
    assert found.said == []


def test_a_label_that_a_split_lacks_is_named_with_what_it_costs_in_macro_f1(
    tmp_path: Path,
) -> None:
    found = classes(
        tmp_path,
        sentences("train", good=3, bad=2, neutral=1),
        sentences("validation", good=1, bad=1),
        sentences("test", good=2, bad=2, neutral=2),
    )
    assert found.said == [
        "validation has no row of neutral: its F1 is 0 there, so the macro F1 is at most 0.667"
    ]
    assert found.doubts[0].place == "study.yaml: datasets.mine"


@pytest.mark.parametrize("lacking", [1, 2])
def test_the_most_that_macro_f1_can_be_is_the_score_of_right_predictions(
    tmp_path: Path, lacking: int
) -> None:
    labels = ["a", "b", "c", "d"]
    there = dict.fromkeys(labels[lacking:], 2)
    found = classes(
        tmp_path,
        sentences("train", **dict.fromkeys(labels, 2)),
        sentences("validation", **there),
        sentences("test", **dict.fromkeys(labels, 2)),
        labels=labels,
    )
    gold = [labels.index(label) for label in there for _ in range(2)]
    data = DataSpec(
        task="classification", metric="f1", labels=tuple(labels), train="", validation="", test=""
    )
    best = Classification().score(gold, gold, data)
    assert found.said[0].endswith(f"the macro F1 is at most {best:.3f}")


def test_splits_that_lack_the_same_label_are_named_together(tmp_path: Path) -> None:
    found = classes(
        tmp_path,
        sentences("train", good=3, bad=2, neutral=1),
        sentences("validation", good=1, bad=1),
        sentences("test", good=2, bad=2),
    )
    assert found.said[0].startswith("validation and test have no row of neutral: its F1 is 0")


def test_a_missing_label_costs_no_accuracy(tmp_path: Path) -> None:
    found = classes(
        tmp_path,
        sentences("train", good=3, bad=2, neutral=1),
        sentences("validation", good=1, bad=1),
        sentences("test", good=2, bad=2, neutral=2),
        metric="accuracy",
    )
    assert found.said == ["validation has no row of neutral"]


def test_a_label_that_training_lacks_is_named_with_how_often_the_others_have_it(
    tmp_path: Path,
) -> None:
    found = classes(
        tmp_path,
        sentences("train", good=3, bad=2),
        sentences("validation", good=1, bad=1, neutral=2),
        sentences("test", good=2, bad=2, neutral=3),
    )
    assert found.said == ["train has no row of neutral, of which validation has 2 and test has 3"]


def test_a_label_that_only_test_has_is_named(tmp_path: Path) -> None:
    found = classes(
        tmp_path,
        sentences("train", good=3, bad=2),
        sentences("validation", good=1, bad=1),
        sentences("test", good=2, bad=2, neutral=3),
        metric="accuracy",
    )
    assert found.said[0].startswith("only test has neutral (3 rows): neither training nor")


def test_labels_that_no_row_has_are_to_be_left_out_of_the_study(tmp_path: Path) -> None:
    counts = {"good": 2, "bad": 2}
    found = classes(
        tmp_path,
        *(sentences(split, **counts) for split in FILES),
        labels=["good", "bad", *(f"x{number}" for number in range(7))],
    )
    assert found.said[0] == "no split has any row of x0, x1, x2, x3, x4 and 2 more"
    assert found.doubts[0].remedy == "leave them out of datasets.mine.labels"


# -- rows without a label --------------------------------------------------------------------------


def unlabelled(rows: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    return [*rows, *({"text": f"nobody knows {i}"} for i in range(number))]


def test_training_rows_without_a_label_are_counted_where_a_teacher_learns_from_labels(
    tmp_path: Path,
) -> None:
    counts = {"good": 2, "bad": 2, "neutral": 2}
    found = classes(
        tmp_path,
        unlabelled(sentences("train", **counts), 3),
        sentences("validation", **counts),
        sentences("test", **counts),
        erm=True,
    )
    assert found.facts is not None
    assert found.facts.splits["train"].unlabelled == 3
    assert found.said == [
        "3 of 9 training rows have no label; a teacher is fine-tuned and erm learns only on the "
        "other 6"
    ]


def test_rows_that_were_left_out_are_counted(tmp_path: Path) -> None:
    counts = {"good": 2, "bad": 2, "neutral": 2}
    found = classes(tmp_path, *(sentences(split, **counts) for split in FILES))
    data = found.resolved.datasets["mine"].model_copy(update={"left_out": {"train": 3, "test": 1}})
    found.resolved = found.resolved.model_copy(update={"datasets": {"mine": data}})
    found.look()
    assert found.said == [
        "left out of train, since they have no answer: 3 rows",
        "left out of test, since they have no answer: 1 row",
    ]


def test_a_group_that_does_nothing_is_doubted(tmp_path: Path) -> None:
    splits = {s: [{"text": f"{s} {n}", "label": n % 3, "who": n} for n in range(6)] for s in FILES}
    dataset = {"text": "text", "label": "label", "labels": list(CLASSES), "group": "who"}
    assert Surveyed(tmp_path, splits, dataset).said == []  # the test rows' noise follows it
    for row in splits["test"]:
        del row["who"]
    unknown = "its group, who, is not known of the test rows, whose noise may come out too small"
    found = Surveyed(tmp_path, splits, dataset)
    assert found.said == [f"{unknown}, and draws no split: all are given"]


# -- texts in two splits ---------------------------------------------------------------------------


def test_test_rows_whose_texts_are_in_train_are_counted(tmp_path: Path) -> None:
    counts = {"good": 4, "bad": 4, "neutral": 4}
    train, test = sentences("train", **counts), sentences("test", **counts)
    found = classes(
        tmp_path, train, sentences("validation", **counts), [*test, *train[:2], train[0]]
    )
    assert found.facts is not None
    assert found.facts.shared == {
        "validation in train": 0,
        "test in train": 3,
        "test in validation": 0,
    }
    assert found.said == ["3 of 15 test rows are in train too"]


def test_a_text_with_another_label_is_the_same_text(tmp_path: Path) -> None:
    counts = {"good": 4, "bad": 4, "neutral": 4}
    train, test = sentences("train", **counts), sentences("test", **counts)
    other = {**train[0], "label": "bad"}
    found = classes(tmp_path, train, sentences("validation", **counts), [*test, other])
    assert found.said == ["1 of 13 test rows is in train too"]


def test_a_pair_is_shared_only_as_a_pair(tmp_path: Path) -> None:
    def pairs(split: str, premise: str) -> list[dict[str, Any]]:
        return [
            {"a": premise, "b": f"{split} {number}", "label": label}
            for number, label in enumerate(CLASSES * 2)
        ]

    splits = {split: pairs(split, "one premise of all") for split in FILES}
    splits["test"].append({**splits["validation"][0]})
    dataset = {"text": ["a", "b"], "label": "label", "labels": CLASSES}
    found = Surveyed(tmp_path, splits, dataset)
    assert found.said == ["1 of 7 test rows is in validation too"]


def test_one_file_given_as_two_splits_is_said_so(tmp_path: Path) -> None:
    rows = sentences("any", good=2, bad=2, neutral=2)
    found = classes(tmp_path, rows, sentences("validation", good=1, bad=1, neutral=1), rows)
    assert found.said == [
        "train and test are the same rows, so test scores only measure memorisation"
    ]


def test_words_are_what_is_compared_of_ner(tmp_path: Path) -> None:
    def tagged(first: str) -> list[dict[str, Any]]:
        return [{"w": [first, "met", "Bob"], "t": ["O", "O", "B-PER"]}, {"w": ["x"], "t": ["O"]}]

    splits = {split: tagged(split) for split in FILES}
    found = Surveyed(tmp_path, splits, {"task": "ner", "text": "w", "label": "t"})
    assert found.said == [
        "1 of 2 validation rows and 1 of 2 test rows are in train too",
        "1 of 2 test rows is in validation too",
    ]


def test_contexts_are_compared_beside_whole_questions(tmp_path: Path) -> None:
    def asked(question: str, context: str) -> dict[str, Any]:
        answers = {"text": [context[:3]], "answer_start": [0]}
        return {"question": question, "context": context, "answers": answers}

    splits = {
        "train": [asked("who?", "Ada wrote it."), asked("where?", "Ada wrote it.")],
        "validation": [asked("when?", "Ada wrote it."), asked("who?", "Ada wrote it.")],
        "test": [asked("who?", "Bob read it.")],
    }
    found = Surveyed(tmp_path, splits, {"task": "qa"})
    assert found.said == [
        "1 of 2 validation rows is in train too",
        "2 of 2 validation rows have their context in train too",
    ]


def test_sources_are_what_is_compared_of_translation(tmp_path: Path) -> None:
    splits = {split: [{"de": "Hallo", "en": split}] for split in FILES}
    splits["validation"] = [{"de": "Tag", "en": "day"}]
    dataset = {"task": "translation", "text": "de", "label": "en"}
    assert Surveyed(tmp_path, splits, dataset).said == ["1 of 1 test rows is in train too"]


def test_generated_sentences_repeat_themselves_without_a_doubt() -> None:
    kept: dict[str, list[Row]] = {}
    grammar = {"train": 200, "validation": 100, "test": 100}
    study = parse_study(a_study(datasets={"made": {"grammar": grammar}}), place="x")
    resolved = resolve(study, data_dir=None, store=kept.__setitem__, place="x")
    facts, doubts, _ = survey(resolved, kept.__getitem__, "x")
    assert facts["made"].shared["test in train"] > 0
    assert doubts == []


# -- entities --------------------------------------------------------------------------------------


def test_kinds_of_entity_are_counted(tmp_path: Path) -> None:
    tags = ["B-PER", "I-PER", "B-PER", "O", "I-LOC"]
    splits = {s: [{"w": [s, "b", "c", "d", "e"], "t": tags}] for s in FILES}
    splits["test"][0]["t"] = ["B-PER", "O", "O", "O", "B-ORG"]
    found = Surveyed(tmp_path, splits, {"task": "ner", "text": "w", "label": "t"})
    assert found.facts is not None
    assert found.facts.splits["train"].labels == {"LOC": 1, "ORG": 0, "PER": 2}
    assert found.said[0].startswith("only test has ORG (1 entity)")


# -- what cannot be right --------------------------------------------------------------------------


def test_rows_that_are_gone_from_the_folder_are_a_problem(tmp_path: Path) -> None:
    counts = {"good": 2, "bad": 2, "neutral": 2}
    found = classes(tmp_path, *(sentences(split, **counts) for split in FILES))
    del found.kept[found.resolved.datasets["mine"].splits["test"].digest]
    found.look()
    [problem] = found.problems
    assert problem.place == "study.yaml: datasets.mine"
    assert "the rows of test cannot be read" in problem.what


def test_what_would_move_a_cursor_is_written_out_in_a_doubt(tmp_path: Path) -> None:
    odd = "bad\x1b[31m\n[red]:smile:"
    counts = {"good": 2, odd: 2, "neutral": 2}
    found = classes(
        tmp_path,
        sentences("train", **counts),
        sentences("validation", good=2, neutral=2),
        sentences("test", **counts),
        labels=[*counts],
    )
    assert found.said[0].startswith(r"validation has no row of bad\x1b[31m\n[red]:smile:: its F1")


@pytest.mark.parametrize(
    ("labels", "tags", "counts"),
    [
        (["O", "B-PER", "I-PER", "L-PER", "U-PER"], ["B-PER", "L-PER", "U-PER"], {"PER": 2}),
        (["O", "PER", "LOC"], ["PER", "PER", "LOC", "O", "LOC"], {"PER": 1, "LOC": 2}),
        (["O", "PER-B", "PER-I"], ["PER-B", "PER-I", "PER-I"], {"PER-B": 1, "PER-I": 2}),
    ],
)
def test_kinds_are_counted_in_every_scheme(
    labels: list[str], tags: list[str], counts: dict[str, int]
) -> None:
    data = ResolvedDataset(task="ner", metric="f1", labels=tuple(labels), splits={})
    assert Counter(_kinds(tags, data)) == counts


# -- temperatures --------------------------------------------------------------------------------

SAYINGS = {
    split: [{"text": f"{split} {n}", "label": f"{n}"} for n in range(3)]
    for split in ("train", "validation", "test")
}
HOT = "are next to uniform"


@pytest.mark.parametrize(
    ("search", "place", "hot"),
    [
        ({"temperature": [1, 2, 4]}, None, ""),
        ({"temperature": [1, 5, 8]}, "temperature", "at 5, 8 a model's"),
        ({"temperature": 1, "student_temperature": ["tied", 6]}, "student_temperature", "at 6 "),
        ({"temperature": [1, 8], "temperature_unit": "logit_scale"}, None, ""),
        ({"objective": "mse"}, None, ""),
    ],
)
def test_temperatures_at_which_a_whole_vocabulary_is_next_to_uniform_are_doubtful(
    search: dict[str, Any], place: str | None, hot: str, tmp_path: Path
) -> None:
    kd = {"strategy": "exhaustive", "objective": "ce", **search}
    dataset = {"task": "lm", "text": ["text"], "label": "label"}
    found = Surveyed(tmp_path, SAYINGS, dataset, search=kd)
    doubts = [each for each in found.doubts if HOT in each.what]
    assert [each.place for each in doubts] == ([f"study.yaml: search.{place}"] if place else [])
    assert all(hot in each.what and "0.5 to 3" in each.remedy for each in doubts)


def test_hot_temperatures_are_usual_where_there_are_few_classes(tmp_path: Path) -> None:
    kd = {"strategy": "exhaustive", "objective": "ce", "temperature": [1, 64]}
    found = Surveyed(
        tmp_path,
        SAYINGS,
        {"task": "classification", "text": "text", "label": "label", "labels": ["0", "1", "2"]},
        search=kd,
    )
    assert not any(HOT in what for what in found.said)
