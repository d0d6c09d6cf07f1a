from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import a_study, paper_space, resolved_of
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.agenda.graph import Graph
from kdsearch.errors import InputError
from kdsearch.search import Checkpoint
from kdsearch.study import (
    Study,
    TestCase,
    TrainingSettings,
    differences,
    load_study,
    parse_study,
    resolve,
    space_of,
    test_cases,
)
from kdsearch.study.grammar import LABELS
from kdsearch.study.schema import PATTERNS

cases_of = test_cases
del test_cases  # or pytest takes it for a test

WRITTEN = """
datasets:
  sentences: {grammar: {train: 20, validation: 10, test: 10}}
models:
  big: {config: {model_type: bert}}
  small: {config: {model_type: bert}}
teachers:
  big: {model: big}
students:
  small: {model: small}
"""


def load(folder: Path, text: str, name: str = "x.yaml") -> Study:
    path = folder / name
    path.write_text(text)
    return load_study(path)


def problems(raw: dict[str, Any], place: str = "x.yaml") -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_study(raw, place=place)
    return [str(problem) for problem in caught.value.problems]


def the_problem(raw: dict[str, Any]) -> str:
    [one] = problems(raw)
    return one


def files_of(task: str | None, **fields: Any) -> dict[str, Any]:
    files = {"train": "a.csv", "validation": "b.csv", "test": "c.csv"}
    columns = {"text": ["q", "c"] if task == "qa" else "t", "label": "l"}
    return {**({"task": task} if task else {}), "files": files, **columns, **fields}


def searching(**search: Any) -> dict[str, Any]:
    return a_study(search=search)


# -- YAML --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-5", 1e-5),
        ("1E-5", 1e-5),
        ("1.0e-5", 1e-5),
        ("1.e-5", 1e-5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("+2.5e+1", 25.0),
        ("3", 3.0),
    ],
)
def test_numbers_are_read_as_people_write_them(tmp_path: Path, written: str, value: float) -> None:
    study = load(tmp_path, WRITTEN + f"search: {{learning_rate: [{written}]}}\n")
    assert study.search.learning_rate == (value,)


def test_what_only_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    study = load(
        tmp_path, WRITTEN.replace("sentences", "e5").replace("{model: big}", "{model: big}")
    )
    assert list(study.datasets) == ["e5"]
    assert load(tmp_path, "name: 1e5x\n" + WRITTEN).name == "1e5x"


def test_null_is_the_absence_of_a_value(tmp_path: Path) -> None:
    study = load(tmp_path, WRITTEN + "training: {clip: null}\nresources: {gpus: ~}\n")
    assert study.training.clip is None
    assert study.resources.gpus is None


OWN = """
datasets:
  mine:
    files: {train: a.csv}
    text: t
    label: l
    labels: LABELS
"""


def labels_of(folder: Path, text: str) -> object:
    models = WRITTEN[WRITTEN.index("models:") :]
    return load(folder, OWN.replace("LABELS", text) + models).datasets["mine"].labels


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("[no, yes]", ("no", "yes")),
        ("[false, true]", ("false", "true")),
        ("[Off, ON]", ("Off", "ON")),
        ("[1, 2, 3]", ("1", "2", "3")),
        ("[1.0, 2.50, 1e3]", ("1.0", "2.50", "1e3")),
        ("[010, 0x1f, 1_000, -0]", ("010", "0x1f", "1_000", "-0")),
        ("[null, ~, None, none]", ("null", "~", "None", "none")),
        ("[2024-01-01, =, 1:30]", ("2024-01-01", "=", "1:30")),
        ("['no', \"1.0\", '']", ("no", "1.0", "")),
        ("[a b, Ä]", ("a b", "Ä")),
        ("\n    - no\n    - 'yes'", ("no", "yes")),
        ("&names [no, yes]", ("no", "yes")),
    ],
)
def test_labels_are_names_as_they_are_written(
    tmp_path: Path, text: str, labels: tuple[str, ...]
) -> None:
    assert labels_of(tmp_path, text) == labels


@pytest.mark.parametrize("text", ["", "null", "~"])
def test_labels_that_are_not_said_are_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="files of classification need labels"):
        labels_of(tmp_path, text)


@pytest.mark.parametrize("text", ["[a, [b]]", "[a, {b: c}]"])
def test_a_label_that_is_no_name_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"datasets\.mine\.labels\[1\]: must be text"):
        labels_of(tmp_path, text)


def test_languages_and_a_teachers_labels_are_names_as_they_are_written(tmp_path: Path) -> None:
    text = """
datasets:
  a: {task: translation, files: {train: a.csv}, text: t, label: l, languages: [no, en]}
  b: {files: {train: a.csv}, text: t, label: l, labels: &l [yes, 1]}
  c: {<<: {files: {train: a.csv}, text: t, label: l, labels: [no, 2]}}
models: {m: ./m, s: {config: {model_type: bert, seed: &one 1, labels: [*one]}}}
teachers: {t: {checkpoint: m, labels: *l}}
students: {s: {model: s}}
seed: *one
"""
    study = load(tmp_path, text)
    assert study.datasets["a"].languages == ("no", "en")
    assert study.datasets["b"].labels == study.teachers["t"].labels == ("yes", "1")
    assert study.datasets["c"].labels == ("no", "2")
    assert study.seed == 1


def test_a_data_set_may_be_called_labels(tmp_path: Path) -> None:
    text = WRITTEN.replace("sentences: {", "labels: {max_length: 16, ")
    assert load(tmp_path, text).datasets["labels"].max_length == 16


@pytest.mark.parametrize(
    ("section", "single", "several"),
    [
        ("search", "{learning_rate: 1e-3}", "{learning_rate: [1e-3]}"),
        ("search", "{alpha: 1, distance: ce}", "{alpha: [1], distance: [ce]}"),
        ("search", "{student_temperature: tied}", "{student_temperature: [tied]}"),
        ("search", "{student_temperature: 2}", "{student_temperature: [2]}"),
        ("seeds", "4", "[4]"),
        ("test_cases", "{student: small}", "[{student: [small]}]"),
        ("training", "{epochs: 1.0, batch_size: 8.0}", "{epochs: 1, batch_size: 8}"),
        ("seeds", "[1.0, 2]", "[1, 2]"),
        ("seed", "3.0", "3"),
    ],
)
def test_one_value_is_a_list_of_one_and_1_0_a_whole_number(
    tmp_path: Path, section: str, single: str, several: str
) -> None:
    first = load(tmp_path, f"{WRITTEN}{section}: {single}\n")
    assert first == load(tmp_path, f"{WRITTEN}{section}: {several}\n")
    assert differences(first, first.model_copy()) == []


def test_one_value_in_a_section_of_a_teacher_is_a_list_of_one(tmp_path: Path) -> None:
    text = WRITTEN.replace(
        "big: {model: big}", "big: {model: big, fine_tune: {learning_rate: 1e-4}}"
    )
    assert load(tmp_path, text).teachers["big"].fine_tune.learning_rate == (1e-4,)


@pytest.mark.parametrize(
    ("sections", "place"),
    [
        ({"search": {"learning_rate": "fast"}}, "search.learning_rate: "),
        ({"search": {"learning_rate": ["fast"]}}, "search.learning_rate[0]: "),
        ({"search": {"alpha": 0}}, "search.alpha: "),
        ({"search": {"alpha": {"a": 1}}}, "search.alpha: "),
        ({"search": {"student_temperature": "free"}}, "search.student_temperature: "),
        ({"test_cases": {"student": 3}}, "test_cases.student: "),
        ({"test_cases": [{"student": [3]}]}, "test_cases[0].student[0]: "),
        ({"test_cases": {"zzz": 3}}, "test_cases.zzz: zzz is not a key here"),
        ({"training": {"adam": {"betas": 0.9}}}, "training.adam.betas: "),
        ({"training": {"adam": {"betas": [0.9]}}}, "training.adam.betas[1]: "),
        ({"training": {"epochs": 1.5}}, "training.epochs: "),
    ],
)
def test_a_problem_of_one_value_has_the_place_where_it_is_written(
    sections: dict[str, Any], place: str
) -> None:
    assert the_problem(a_study(**sections)).startswith(f"x.yaml: {place}")


def test_a_list_where_a_section_is_wanted_is_refused_with_the_keys() -> None:
    assert the_problem(a_study(resources=[1, 8])).startswith(
        "x.yaml: resources: must be a section of keys and values (its keys: cpus, gpus, "
    )


def test_a_date_is_text(tmp_path: Path) -> None:
    assert load(tmp_path, "name: 2024-01-12\n" + WRITTEN).name == "2024-01-12"


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.yaml:4:1: .*'seed' appears twice"):
        load(tmp_path, "name: a\nseed: 1\ntries: 2\nseed: 2\n")


def test_a_key_that_is_no_text_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.yaml:2:7: .*1 is not text; put it in quotes"):
        load(tmp_path, "datasets:\n  a: {1: b}\n")


def test_broken_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.yaml:3:\d+: not YAML"):
        load(tmp_path, "name: a\nmodels: [\nseed: 1}\n")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text\n", "42\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"x\.yaml: is not a mapping of keys"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("file", "name"),
    [("étude.yaml", "etude"), (".dot é.yaml", "dot-e"), ("my study (2).yaml", "my-study-2")],
)
def test_a_study_without_a_name_has_its_files(tmp_path: Path, file: str, name: str) -> None:
    study = {key: value for key, value in a_study().items() if key != "name"}
    (tmp_path / file).write_text(yaml.safe_dump(study))
    assert load_study(tmp_path / file).name == name


def test_a_study_whose_file_lends_it_no_name_needs_one(tmp_path: Path) -> None:
    study = {key: value for key, value in a_study().items() if key != "name"}
    (tmp_path / "日本.yaml").write_text(yaml.safe_dump(study))
    with pytest.raises(InputError, match=r"日本\.yaml: name: this key is missing"):
        load_study(tmp_path / "日本.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.yaml: no such study file"):
        load_study(tmp_path / "gone.yaml")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as text"):
        load_study(tmp_path)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\xff\xfe", b"name: \x00\x01", b"\xff" * 9])
def test_a_binary_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.yaml"):
        load_study(path)


def test_an_alias_that_holds_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.yaml"):
        load(tmp_path, WRITTEN + "search: &me {alpha: *me}\n")


@pytest.mark.parametrize("text", ["seed: !!python/object:os.system x\n", "seed: !mine 1\n"])
def test_a_tag_of_another_program_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="not YAML"):
        load(tmp_path, text)


def test_a_study_without_a_name_has_that_of_its_file(tmp_path: Path) -> None:
    assert load(tmp_path, WRITTEN, "mine.yaml").name == "mine"


# -- what is wrong, and where ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (
            searching(learning_rates=[1e-5]),
            "x.yaml: search.learning_rates: learning_rates is not a key here "
            "(did you mean learning_rate?)",
        ),
        (
            searching(temperature={"brod": [1, 2]}),
            "x.yaml: search.temperature.brod: brod is not a key here (did you mean broad?)",
        ),
        (
            a_study(trainning={"epochs": 1}),
            "x.yaml: trainning: trainning is not a key here (did you mean training?)",
        ),
        (
            a_study(training={"adam": {"epsilonn": 1}}),
            "x.yaml: training.adam.epsilonn: epsilonn is not a key here (did you mean epsilon?)",
        ),
        (
            a_study(
                datasets={"a": {"grammar": {"train": 1, "validation": 1, "test": 1, "sed": 1}}}
            ),
            "x.yaml: datasets.a.grammar.sed: sed is not a key here (did you mean seed?)",
        ),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(
    raw: dict[str, Any], problem: str
) -> None:
    assert the_problem(raw) == problem


def test_an_unknown_key_like_no_other_comes_with_all_the_known_ones() -> None:
    assert the_problem(a_study(test_cases=[{"qqq": "a"}])) == (
        "x.yaml: test_cases[0].qqq: qqq is not a key here "
        "(available: part, dataset, teacher, student, search)"
    )


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (searching(temperature={"broad": [1, 2, 4, "eight"]}), "search.temperature.broad[3]"),
        (searching(temperature={"broad": [1, True]}), "search.temperature.broad[1]"),
        (searching(temperature={"broad": [-1, 2]}), "search.temperature.broad[0]"),
        (searching(temperature={"broad": [1, math.inf]}), "search.temperature.broad[1]"),
        (searching(learning_rate=[math.nan]), "search.learning_rate[0]"),
        (searching(learning_rate=["1e-5"]), "search.learning_rate[0]"),
        (searching(alpha=[0]), "search.alpha[0]"),
        (searching(alpha=[1, 1.5]), "search.alpha[1]"),
        (searching(distance=["ce", "kl"]), "search.distance[1]"),
        (searching(student_temperature=["tied", "free"]), "search.student_temperature[1]"),
        (searching(student_temperature=[True]), "search.student_temperature[0]"),
        (searching(student_temperature=[math.nan]), "search.student_temperature[0]"),
        (a_study(seed="7"), "seed"),
        (a_study(seed=1.5), "seed"),
        (a_study(seed=True), "seed"),
        (a_study(name=7), "name"),
        (a_study(name="a/b"), "name"),
        (a_study(tries=0), "tries"),
        (a_study(training={"epochs": 0}), "training.epochs"),
        (a_study(training={"precision": "fp8"}), "training.precision"),
        (a_study(training={"hidden_dtype": "fp16"}), "training.hidden_dtype"),
        (a_study(training={"stride": 0}), "training.stride"),
        (a_study(training={"adam": {"betas": [0.9, 1]}}), "training.adam.betas[1]"),
        (a_study(resources={"gpus": -1}), "resources.gpus"),
        (a_study(students={"s": {"model": 5}}), "students.s.model"),
        (a_study(students={"s": {}}), "students.s.model"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(raw: dict[str, Any], where: str) -> None:
    assert the_problem(raw).startswith(f"x.yaml: {where}: ")


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (
            a_study(name="a b"),
            'name: "a b" is not a name for a study '
            "(use letters, digits and . _ -, beginning with a letter or a digit)",
        ),
        (
            a_study(datasets={"a/b": {"grammar": {"train": 2, "validation": 1, "test": 1}}}),
            'datasets.a/b: "a/b" is not a valid name '
            "(use no / or \\, and not only dots and spaces)",
        ),
        (
            a_study(students={"s": {"model": "big"}, "..": {"model": "big"}}),
            'students...: ".." is not a valid name (use no / or \\, and not only dots and spaces)',
        ),
        (
            a_study(resources={"labels": {"rack": ["a b"]}}),
            'resources.labels.rack[0]: "a b" is not a label value '
            "(use up to 63 letters, digits and . _ -, with a letter or a digit at both ends)",
        ),
    ],
)
def test_a_name_that_cannot_be_is_told_what_it_may_have(raw: dict[str, Any], problem: str) -> None:
    assert the_problem(raw) == f"x.yaml: {problem}"


def patterns_in(schema: object) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(patterns_in, schema))
    if not isinstance(schema, dict):
        return set()
    here = {*schema.get("patternProperties", ()), *filter(None, [schema.get("pattern")])}
    return here.union(*map(patterns_in, schema.values()))


def test_there_are_words_for_every_pattern_of_a_study() -> None:
    assert patterns_in(Study.model_json_schema()) == set(PATTERNS)


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (a_study(datasets={}), "datasets"),
        (a_study(students={}), "students"),
        (a_study(test_cases=[]), "test_cases"),
        (a_study(test_cases=[{"student": []}]), "test_cases[0].student"),
        (searching(alpha=[]), "search.alpha"),
        (searching(distance=[]), "search.distance"),
        (searching(learning_rate=[]), "search.learning_rate"),
        (searching(temperature={"broad": [1]}), "search.temperature.broad"),
        (
            a_study(teachers={"t": {"model": "big", "fine_tune": {"learning_rate": []}}}),
            "teachers.t.fine_tune.learning_rate",
        ),
    ],
)
def test_a_list_with_too_little_in_it_is_refused(raw: dict[str, Any], where: str) -> None:
    assert the_problem(raw).startswith(f"x.yaml: {where}: ")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (searching(alpha=[1, 0.5, 1.0]), "alpha[2]: 1.0 appears twice"),
        (searching(student_temperature=[1, 1.0]), "student_temperature[1]: 1.0 appears twice"),
        (searching(order=["teacher", "teacher", "distance"]), "once each"),
        (searching(temperature={"broad": [2, 1]}), "must ascend"),
        (searching(temperature={"broad": [1, 1.00000001]}), "must ascend"),
        (
            a_study(
                datasets={
                    "a": {
                        "catalogue": "mrpc",
                        "grammar": None,
                        "files": {"train": "a.csv", "validation": "b.csv", "test": "c.csv"},
                    }
                }
            ),
            "exclude each other",
        ),
        (
            a_study(
                datasets={
                    "a": {"files": {"train": "a.csv", "validation": "b.csv", "test": "c.csv"}}
                }
            ),
            "text, label, labels",
        ),
        (a_study(datasets={"mrpc": {"labels": ["a", "a"]}}), "same name"),
        (
            a_study(datasets={"a": files_of("classification", labels=["a"])}),
            "needs at least 2 labels",
        ),
        (a_study(datasets={"a": files_of(None, labels=["a"])}), "needs at least 2 labels"),
        (a_study(datasets={"a": files_of("qa", labels=["a"])}), "qa has no labels"),
        (a_study(models={"big": {"path": "/a", "hub": "b"}, "small": "/s"}), "exactly one of path"),
        (a_study(models={"big": {"config": {}}, "small": "/s"}), "model_type"),
        (a_study(teachers={"t": {}}), "exactly one of model"),
        (a_study(teachers={"t": {"model": "big", "checkpoint": "big"}}), "exactly one of model"),
        (a_study(teachers={"t": {"t_hs": "big"}}), "go together"),
        (
            a_study(
                models={"big": "/big", "small": "/small"},
                teachers={"t": {"checkpoint": "big", "fine_tune": {"epochs": 3}}},
            ),
            "remove fine_tune",
        ),
    ],
)
def test_values_that_do_not_go_together_are_refused(raw: dict[str, Any], words: str) -> None:
    assert words in the_problem(raw)


def test_every_problem_is_reported_at_once() -> None:
    raw = a_study(
        seed="one",
        tries=-1,
        search={"temperature": {"broad": [1, 2, 4, "x"]}, "alpah": [1]},
        training={"epochs": 1.5},
    )
    assert {problem.split(": ")[1] for problem in problems(raw)} == {
        "seed",
        "tries",
        "search.temperature.broad[3]",
        "search.alpah",
        "training.epochs",
    }


def test_a_wrong_item_does_not_also_make_its_list_too_short() -> None:
    assert len(problems(a_study(test_cases=[{"student": 5}]))) == 1


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (
            a_study(students={"s": {"model": "smal"}}),
            "x.yaml: students.s.model: smal is not a model of this study (did you mean small?)",
        ),
        (
            a_study(teachers={"t": {"model": "bigg"}}),
            "x.yaml: teachers.t.model: bigg is not a model (did you mean big?)",
        ),
        (
            a_study(test_cases=[{"dataset": ["sentence"]}]),
            "x.yaml: test_cases[0].dataset: sentence is not a dataset of this study "
            "(did you mean sentences?)",
        ),
        (
            a_study(datasets={"mprc": {}}),
            "x.yaml: datasets.mprc: mprc is not in the catalogue and has no files "
            "(did you mean mrpc?)",
        ),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(raw: dict[str, Any], problem: str) -> None:
    assert the_problem(raw) == problem


def test_a_test_case_that_stands_twice_is_refused() -> None:
    raw = a_study(test_cases=[{}, {"student": "small"}])
    assert "test_cases[1]: sentences/big/small appears twice" in the_problem(raw)


def test_a_given_teacher_at_random_is_refused() -> None:
    assert "cannot be fine-tuned already" in the_problem(
        a_study(teachers={"t": {"checkpoint": "big"}})
    )


def test_layers_of_a_model_at_random_are_refused() -> None:
    raw = a_study(students={"s": {"model": "small", "layers": 1}})
    assert the_problem(raw).startswith("x.yaml: students.s.layers: ")


def test_a_tokenizer_must_be_that_of_a_pretrained_model() -> None:
    small = {"config": {"model_type": "bert"}, "tokenizer": "big"}
    raw = a_study(models={"big": {"config": {"model_type": "bert"}}, "small": small})
    assert "a randomly initialised model has no tokenizer" in the_problem(raw)
    assert parse_study(a_study(models={"big": "/b", "small": small}), place="x.yaml")


# -- what is right -----------------------------------------------------------------------------


def test_one_kind_of_entity_may_be_all_that_a_data_set_has() -> None:
    raw = a_study(datasets={"a": files_of("ner", labels=["PER"])})
    assert parse_study(raw, place="x.yaml").datasets["a"].labels == ("PER",)


@given(length=st.integers(1, 600))
def test_windows_share_128_tokens_and_at_most_half_of_them(length: int) -> None:
    settings = TrainingSettings(max_length=length).for_task("qa")
    assert settings.max_length == length
    assert settings.stride == min(128, length // 2)
    said = TrainingSettings(max_length=length, stride=7).for_task("qa")
    assert said.stride == 7  # whatever the length: it is refused before a search
    assert TrainingSettings(stride=7).for_task("ner").stride is None


def test_a_study_that_says_little_is_searched_on_the_papers_grid(tmp_path: Path) -> None:
    study = load(tmp_path, WRITTEN)
    [case] = cases_of(study)
    space, paper = space_of(study, case), paper_space()
    assert [axis.name for axis in space.compared] == [axis.name for axis in paper.compared]
    for name in ("distance", "teacher", "student_temperature", "temperature"):
        assert space.values(name) == paper.values(name)
    assert (space.inner, space.refined) == (paper.inner, paper.refined)
    alphas = [1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert space.values("alpha") == pytest.approx(alphas)
    assert space.values("learning_rate") == pytest.approx([i * 1e-5 for i in range(1, 8)])
    assert (study.training.epochs, study.training.batch_size) == (10, 32)
    assert study.training.schedule == "constant"
    assert study.training.warmup == 0
    assert study.training.clip is None
    assert study.search.gradient_scale == "none"


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ("/models/a", "path", "/models/a"),
        ("./a", "path", "./a"),
        ("../a", "path", "../a"),
        ("~/a", "path", "~/a"),
        ("roberta-base", "hub", "roberta-base"),
        ("FacebookAI/roberta-base", "hub", "FacebookAI/roberta-base"),
        ("models/mine/roberta", "path", "models/mine/roberta"),
    ],
)
def test_a_model_may_be_a_line_of_text(written: str, field: str, value: str) -> None:
    study = parse_study(a_study(models={**a_study()["models"], "more": written}), place="x.yaml")
    model = study.models["more"]
    assert getattr(model, field) == value
    assert [model.path, model.hub, model.config].count(None) == 2


def test_a_model_can_be_taken_from_elsewhere_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(WRITTEN)
    assert load_study(path, models={"big": "/elsewhere"}).models["big"].path == "/elsewhere"
    with pytest.raises(InputError, match=r"--model: bigg is not .*did you mean big\?"):
        load_study(path, models={"bigg": "/elsewhere"})


@pytest.mark.parametrize("written", ["small", ["small"], None])
def test_test_cases_name_one_or_several_or_all(written: object) -> None:
    study = parse_study(a_study(test_cases=[{"student": written}]), place="x.yaml")
    assert cases_of(study) == (TestCase(dataset="sentences", teacher="big", student="small"),)


def test_a_teacher_of_one_checkpoint_has_a_grid_of_one_teacher() -> None:
    raw = a_study(models={"big": "/b", "small": "/s"}, teachers={"t": {"checkpoint": "big"}})
    study = parse_study(raw, place="x.yaml")
    [case] = cases_of(study)
    assert space_of(study, case).values("teacher") == (Checkpoint.GIVEN,)


@pytest.mark.parametrize(
    "teacher",
    [
        {"model": "big"},
        {"checkpoint": "big"},
        {"t_hs": "big", "t_ll": "small", "labels": ["a", "b"]},
    ],
)
def test_a_study_survives_the_way_through_json(teacher: dict[str, Any]) -> None:
    raw = a_study(models={"big": "/b", "small": "/s"}, teachers={"t": teacher})
    study = parse_study(raw, place="x.yaml")
    assert Study.model_validate_json(study.model_dump_json()) == study
    assert parse_study(study.model_dump(mode="json"), place="x.yaml") == study
    resolved = resolved_of(study)
    assert type(resolved).model_validate_json(resolved.model_dump_json()) == resolved


def test_differences_are_named_by_their_path() -> None:
    old = parse_study(a_study(), place="x.yaml")
    new = parse_study(
        a_study(seed=3, search={**a_study()["search"], "temperature": {"broad": [1, 8, 9]}}),
        place="x.yaml",
    )
    assert differences(old, old) == []
    assert differences(old, new) == [
        "seed: 0 → 3",
        "search.temperature.broad[1]: 4.0 → 8.0",
        "search.temperature.broad[2]: absent → 9.0",
    ]


# -- mutations of a valid study ------------------------------------------------------------------

ODD = [
    *(None, True, -1, 0, 1, 10**30, 0.5, -0.0, math.nan, math.inf, "", "x", "tied", "1e-5", "ce"),
    *(
        [],
        [[]],
        [None],
        ["x", "x"],
        [1, 1],
        {},
        {"x": {}},
        {"model": "big"},
        [{}],
        "\ud800",
        "\x00",
    ),
    *({"": 1}, {"hub": "a", "path": "b"}, "big", ["small"], [1, "a", None], "é" * 50),
]


def mutated(draw: random.Random) -> Any:
    raw = copy.deepcopy(parse_study(a_study(), place="x.yaml").model_dump(mode="json"))
    if draw.random() < 0.5:
        raw = copy.deepcopy(a_study())
    for _ in range(draw.randint(1, 3)):
        at: Any = raw
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw.choice(keys)
            if isinstance(at[key], dict | list) and at[key] and draw.random() < 0.7:
                at = at[key]
                continue
            kind = draw.random()
            if kind < 0.2:
                del at[key]
            elif kind < 0.4 and isinstance(at, dict):
                at[f"{key}s"] = at.pop(key)
            else:
                at[key] = copy.deepcopy(draw.choice(ODD))
            break
    return raw


@settings(max_examples=300)
@given(st.integers(0, 2**32 - 1))
def test_whatever_a_study_says_it_is_a_study_or_has_problems_that_are_named(seed: int) -> None:
    raw = mutated(random.Random(seed))
    study, found = None, ()
    try:
        study = parse_study(raw, place="x.yaml")
    except InputError as error:
        found = error.problems
    assert (study is None) == bool(found)
    assert all(problem.place and problem.what for problem in found)
    assert len({*found}) == len(found)
    assert not any("nput should" in problem.what for problem in found)
    if study is not None:
        assert all(space_of(study, case).tuned for case in cases_of(study))


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_whatever_a_study_file_holds_it_is_a_study_or_has_problems_that_are_named(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    draw = random.Random(seed)
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    text = bytearray(yaml.safe_dump(json.loads(json.dumps(a_study()))).encode())
    for _ in range(draw.randint(1, 4)):
        position = draw.randrange(len(text))
        piece = draw.choice(
            [b"", b"\n", b":", b"[", b"}", b"&a ", b"*a", b"- ", b"\xff", b"<<", b"!"]
        )
        text[position : position + draw.randint(0, 2)] = piece
    path.write_bytes(bytes(text))
    study, found = None, ()
    try:
        study = load_study(path)
    except InputError as error:
        found = error.problems
    assert (study is None) == bool(found)


# -- resolving ---------------------------------------------------------------------------------


def save_model(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def resolve_here(raw: dict[str, Any]) -> Any:
    study = parse_study(raw, place="x.yaml")
    return resolve(study, data_dir=None, store=lambda digest, rows: None, place="x.yaml")


def with_models(big: Path, **more: Any) -> dict[str, Any]:
    return a_study(models={"big": str(big), "small": a_study()["models"]["small"]}, **more)


def test_a_models_digest_is_that_of_its_files_wherever_they_lie(tmp_path: Path) -> None:
    first = save_model(tmp_path / "a")
    (first / "README.md").write_text("one")
    second = save_model(tmp_path / "b")
    third = save_model(tmp_path / "c", hidden_size=3)
    digests = [resolve_here(with_models(f)).models["big"].digest for f in (first, second, third)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (list(LABELS), None),
        (list(reversed(LABELS)), None),
        (["a", "b", "c"], "its labels are a, b, c"),
        (["LABEL_0", "LABEL_1", "LABEL_2"], "does not name its outputs"),
    ],
)
def test_a_given_teachers_outputs_are_matched_to_the_labels_by_name(
    tmp_path: Path, labels: list[str], words: str | None
) -> None:
    folder = save_model(tmp_path / "m", id2label=dict(enumerate(labels)))
    raw = with_models(folder, teachers={"t": {"checkpoint": "big"}})
    if words is None:
        assert resolve_here(raw).models["big"].labels == tuple(labels)
        return
    with pytest.raises(InputError, match=words):
        resolve_here(raw)


@pytest.mark.parametrize("upper", [list(LABELS), list(reversed(LABELS))])
def test_names_in_capitals_are_the_datas_in_the_teachers_order(
    tmp_path: Path, upper: list[str]
) -> None:
    folder = save_model(tmp_path / "m", id2label=dict(enumerate(map(str.upper, upper))))
    resolved = resolve_here(with_models(folder, teachers={"t": {"checkpoint": "big"}}))
    [case] = cases_of(resolved.study)
    assert Graph(resolved).given(case, "big").labels == tuple(upper)


def test_names_that_are_one_without_case_are_not_matched(tmp_path: Path) -> None:
    names = ["negative", "NEGATIVE", "positive"]
    folder = save_model(tmp_path / "m", id2label=dict(enumerate(names)))
    with pytest.raises(InputError, match="its labels are negative, NEGATIVE, positive"):
        resolve_here(with_models(folder, teachers={"t": {"checkpoint": "big"}}))


@pytest.mark.parametrize(
    ("own", "given"),
    [
        (LABELS, LABELS[::-1]),
        ([name.upper() for name in LABELS[::-1]], LABELS),
        ([LABELS[1], LABELS[0], "mixed"], LABELS),  # two of them are in another order
    ],
)
def test_an_order_that_contradicts_the_models_own_names_is_refused(
    tmp_path: Path, own: Sequence[str], given: Sequence[str]
) -> None:
    folder = save_model(tmp_path / "m", id2label=dict(enumerate(own)))
    teacher = {"checkpoint": "big", "labels": list(given)}
    with pytest.raises(InputError) as caught:
        resolve_here(with_models(folder, teachers={"t": teacher}))
    assert [str(problem) for problem in caught.value.problems] == [
        f"x.yaml: teachers.t.labels: its config.json has them in another order: {', '.join(own)} "
        "(leave labels out; if the model's own names are wrong, correct its id2label)"
    ]


@pytest.mark.parametrize(
    "own", [LABELS, [name.upper() for name in LABELS], ["LABEL_0", "LABEL_1", "LABEL_2"], "abc"]
)
def test_an_order_that_the_models_own_names_do_not_contradict_is_taken(
    tmp_path: Path, own: Sequence[str]
) -> None:
    folder = save_model(tmp_path / "m", id2label=dict(enumerate(own)))
    teacher = {"checkpoint": "big", "labels": list(LABELS)}
    resolved = resolve_here(with_models(folder, teachers={"t": teacher}))
    [case] = cases_of(resolved.study)
    assert Graph(resolved).given(case, "big").labels == LABELS


# -- a given tagger's labels --------------------------------------------------------------------

NINE = [f"{prefix}-{kind}" for kind in ("PER", "LOC", "ORG", "MISC") for prefix in "BI"]


def tagging(folder: Path, *names: list[str], **dataset: Any) -> dict[str, Any]:
    """A study of two kinds of sentence and a given teacher for each of `names`."""
    rows = [
        row
        for number in map(str, range(10))
        for row in (
            {"w": ["Ada", "saw", "Rome", number], "t": ["B-PER", "O", "B-LOC", "O"]},
            {"w": ["in", "New", "York", number], "t": ["O", "B-LOC", "I-LOC", "O"]},
        )
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    models = {
        f"m{i}": str(save_model(folder / f"m{i}", id2label=dict(enumerate(labels)), seed=i))
        for i, labels in enumerate(names)
    }
    return a_study(
        datasets={
            "names": {
                "task": "ner",
                "files": {"train": str(folder / "train.jsonl")},
                "text": "w",
                "label": "t",
                **dataset,
            }
        },
        models={**models, "small": a_study()["models"]["small"]},
        teachers={f"t{i}": {"checkpoint": name} for i, name in enumerate(models)},
    )


def test_a_given_taggers_labels_are_taken_where_the_study_names_none(tmp_path: Path) -> None:
    resolved = resolve_here(tagging(tmp_path, ["O", *NINE]))
    assert sorted(resolved.datasets["names"].labels) == sorted(["O", *NINE])
    [case] = cases_of(resolved.study)
    assert Graph(resolved).given(case, "m0").labels == ("O", *NINE)


def test_labels_that_two_given_taggers_have_in_other_orders_are_taken(tmp_path: Path) -> None:
    resolved = resolve_here(tagging(tmp_path, ["O", *NINE], [*NINE, "O"]))
    assert len(resolved.datasets["names"].labels) == 9
    orders = [
        Graph(resolved).given(c, f"m{i}").labels for i, c in enumerate(cases_of(resolved.study))
    ]
    assert orders == [("O", *NINE), (*NINE, "O")]


def test_given_taggers_of_other_labels_than_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"name them in datasets\.names\.labels"):
        resolve_here(tagging(tmp_path, ["O", *NINE], ["O", *NINE[:4]]))


def test_labels_that_a_study_names_and_a_given_tagger_has_more_of_point_to_the_data(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match=r"teachers\.t0\.checkpoint: .*datasets\.names\.labels"):
        resolve_here(tagging(tmp_path, ["O", *NINE], labels=["PER", "LOC"]))


def test_a_given_tagger_that_lacks_a_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="take a teacher that was fine-tuned for these labels"):
        resolve_here(tagging(tmp_path, ["O", "B-PER", "I-PER"]))


def test_a_given_tagger_of_another_scheme_is_refused_with_its_scheme(tmp_path: Path) -> None:
    bilou = ["O", *(f"{p}-{kind}" for kind in ("PER", "LOC") for p in "BILU")]
    with pytest.raises(InputError, match="its tags are BILOU: write the data's tags that way too"):
        resolve_here(tagging(tmp_path, bilou))


def test_labels_taken_from_a_tagger_change_with_it(tmp_path: Path) -> None:
    raw = tagging(tmp_path, ["O", *NINE])
    before = resolve_here(raw)
    five = save_model(tmp_path / "five", id2label=dict(enumerate(["O", *NINE[:4]])))
    study = parse_study({**raw, "models": {**raw["models"], "m0": str(five)}}, place="x.yaml")
    after = resolve(
        study, data_dir=None, store=lambda digest, rows: None, place="x.yaml", known=before
    )
    assert len(after.datasets["names"].labels) == 5
    (tmp_path / "train.jsonl").unlink()  # what stays the same is not read again
    again = resolve(
        study, data_dir=None, store=lambda digest, rows: None, place="x.yaml", known=after
    )
    assert again.datasets == after.datasets


def test_problems_of_data_and_models_are_reported_at_once(tmp_path: Path) -> None:
    raw = a_study(
        datasets={
            "a": {
                "files": {s: str(tmp_path / s) for s in ("train", "validation", "test")},
                "text": "t",
                "label": "l",
                "labels": ["x", "y"],
            }
        },
        models={"big": str(tmp_path / "none"), "small": str(tmp_path)},
    )
    with pytest.raises(InputError) as caught:
        resolve_here(raw)
    text = str(caught.value)
    assert len(caught.value.problems) == 5
    assert "none is not a folder" in text
    assert "holds no model" in text


@pytest.mark.parametrize("kind", ["students", "teachers"])
@pytest.mark.parametrize(
    ("layers", "what"),
    [
        (3, "asks for 3 layers of big, which has 2"),
        ("first 9", "asks for the first 9 layers of big, which has 2 (use 0 to 1)"),
        ("last 3", "asks for the last 3 layers of big, which has 2 (use 0 to 1)"),
        ("0+2", "asks for the layers 0+2 of big, which has 2 (use 0 to 1)"),
    ],
)
def test_layers_that_a_model_does_not_have_cannot_be_kept(
    kind: str, layers: int | str, what: str, tmp_path: Path
) -> None:
    model = save_model(tmp_path / "m", num_hidden_layers=2)
    for wrong, refused in ((layers, True), ("0+1", False)):
        raw = with_models(model, **{kind: {"s": {"model": "big", "layers": wrong}}})
        if not refused:
            resolve_here(raw)
            continue
        with pytest.raises(InputError) as caught:
            resolve_here(raw)
        assert str(caught.value) == f"x.yaml: {kind}.s.layers: {what}"


def test_layers_that_are_named_are_of_each_side_of_an_encoder_decoder(tmp_path: Path) -> None:
    model = save_model(tmp_path / "m", is_encoder_decoder=True, encoder_layers=4, decoder_layers=2)
    raw = with_models(model, students={"s": {"model": "big", "layers": "0+2"}})
    with pytest.raises(InputError, match=r"the layers 0\+2 of big, which has 2 on each side"):
        resolve_here(raw)


def test_the_same_case_with_other_settings_is_another(tmp_path: Path) -> None:
    model = save_model(tmp_path / "m", num_hidden_layers=2)
    students: dict[str, Any] = {"s": {"model": "big"}, "t": {"model": "big"}}
    with pytest.raises(InputError, match="under another name"):
        resolve_here(with_models(model, students=students))
    for changed in ({"training": {"epochs": 3}}, {"learning_rate": [1e-3]}, {"layers": "first 1"}):
        students["t"] = {"model": "big", **changed}
        resolve_here(with_models(model, students=students))


def test_labels_of_a_teacher_that_is_fine_tuned_here_are_refused() -> None:
    teacher = {"model": "big", "labels": ["no", "yes"]}
    assert "labels name the outputs of a given teacher" in the_problem(
        a_study(teachers={"big": teacher})
    )


def test_two_test_cases_that_are_one_under_two_names_are_refused(tmp_path: Path) -> None:
    raw = a_study(students={"one": {"model": "small"}, "other": {"model": "small"}})
    study = parse_study(raw, place="x.yaml")
    with pytest.raises(InputError, match="big/other is sentences/big/one under another name"):
        resolve(study, data_dir=None, store=lambda digest, rows: None, place="x.yaml")


# -- seeds, and students without a teacher -------------------------------------------------------


def test_the_first_of_several_seeds_is_the_studys() -> None:
    study = parse_study(a_study(seeds=[7, 3]), place="x.yaml")
    assert (study.seed, study.student_seeds) == (7, (7, 3))
    assert parse_study(a_study(seed=5), place="x.yaml").student_seeds == (5,)


def test_winner_seeds_begin_with_the_first_of_the_search() -> None:
    for of_search, further in (({"seed": 7}, (3, 8)), ({"seeds": [7, 3]}, (8,))):
        study = parse_study(a_study(**of_search, winner_seeds=[7, 3, 8]), place="x.yaml")
        assert study.further_seeds == further
    assert parse_study(a_study(), place="x.yaml").further_seeds == ()


def test_a_study_with_seeds_survives_its_own_file() -> None:
    study = parse_study(a_study(seeds=[7, 3], winner_seeds=[7, 8]), place="x.yaml")
    assert type(study).model_validate_json(study.model_dump_json()) == study


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"seeds": [1, 1]}, "seeds[1]: 1 appears twice; keep one"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [0, -1]}, "seeds[1]"),
        ({"seeds": "x"}, 'x.yaml: seeds: must be a whole number, not "x"'),
        ({"seed": 1, "seeds": [0, 1]}, "seed is the first of seeds; remove it"),
        ({"winner_seeds": [1, 2]}, "the first of winner_seeds is the search's first seed, 0, so"),
        ({"seeds": [3, 0], "winner_seeds": [0, 3]}, "search's first seed, 3, so"),
        ({"winner_seeds": [0, 1, 1]}, "winner_seeds[2]: 1 appears twice; keep one"),
        (
            {"winner_seeds": 3},
            "winner_seeds: must be a list of at least two seeds, such as [0, 1, 2]",
        ),
        ({"winner_seeds": [0, -1]}, "winner_seeds[1]"),
        ({"keep_students": "some"}, "keep_students"),
        ({"erm": "yes"}, "erm"),
    ],
)
def test_seeds_and_settings_that_cannot_be_are_refused(
    sections: dict[str, Any], problem: str
) -> None:
    assert problem in the_problem(a_study(**sections))


def test_erm_needs_rows_with_labels(tmp_path: Path) -> None:
    rows = [{"text": f"sentence {i}", "label": None} for i in range(8)]
    labelled = [{"text": f"other {i}", "label": i % 2} for i in range(8)]
    for name, content in (("train", rows), ("validation", labelled), ("test", labelled)):
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "validation", "test")}
    raw = a_study(
        erm=True,
        datasets={"a": {"files": files, "text": "text", "label": "label", "labels": ["x", "y"]}},
        search={"alpha": [1]},
    )
    with pytest.raises(InputError, match="which is all that erm learns from"):
        resolve_here(raw)
