from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from fakes import a_study
from test_analysis import blocked_study, failing_teacher, searched

from kdsearch.cli.app import main
from kdsearch.engine.bf16 import lacks_bf16_here
from kdsearch.ledger import Ledger, driver_lock

COMMANDS = (
    *("new", "validate", "check", "plan", "fetch", "launch", "status", "explain", "report"),
    *("replay", "gc", "verify"),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | str | None
    out: str
    err: str


def kdsearch(*arguments: str | Path) -> Ended:
    """Run a command in this process; an exception that a person would see passes through."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["kdsearch", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code: int | str | None = 0
        except SystemExit as ended:
            code = ended.code or 0
    return Ended(code, out.getvalue(), err.getvalue())


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    """The real command, as a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "kdsearch", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> Ended:
    out, err = process.communicate(timeout=120)
    return Ended(process.returncode, out, err)


def refused(result: Ended, *words: str) -> None:
    """Assert that a command ended as one does whose input is bad, with `words` in its message."""
    assert result.code == 2, result
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


def tiny(**sections: Any) -> dict[str, Any]:
    """A study of 12 students, each trained in a moment."""
    bert = {
        "model_type": "bert",
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 32,
    }
    return {
        "datasets": {"g": {"grammar": {"train": 48, "validation": 24, "test": 24}}},
        "models": {
            "big": {"config": {**bert, "num_hidden_layers": 2}},
            "small": {"config": {**bert, "num_hidden_layers": 1}},
        },
        "teachers": {"big": {"model": "big", "fine_tune": {"learning_rate": [1e-3]}}},
        "students": {"small": {"model": "small"}},
        "search": {
            "distance": ["ce"],
            "teacher": ["t_hs"],
            "student_temperature": ["tied"],
            "alpha": [1, 0.5],
            "temperature": {"broad": [1, 4]},
            "learning_rate": [1e-3],
        },
        "training": {"epochs": 1, "batch_size": 24, "max_length": 32, "precision": "fp32"},
        **sections,
    }


def written(path: Path, study: Any) -> Path:
    path.write_text(study if isinstance(study, str) else yaml.safe_dump(study))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Ended]:
    """A study file, the folder of its search, and how the launch ended."""
    folder = tmp_path_factory.mktemp("launched")
    study = written(folder / "tiny.yaml", tiny())
    return (
        study,
        folder / "run",
        kdsearch("launch", study, "--in-process", "--folder", folder / "run"),
    )


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A study file and the folder of its search, in which a teacher failed for good."""
    folder = tmp_path_factory.mktemp("failed")
    searched(folder / "run", failing_teacher, blocked_study())
    return written(folder / "study.yaml", blocked_study()), folder / "run"


# -- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example_of_it(command: str) -> None:
    result = kdsearch(command, "--help")
    assert result.code == 0
    assert re.search(rf"Example:\s+kdsearch {command} ", result.out)


def test_the_help_lists_every_command_and_what_the_exit_codes_mean() -> None:
    text = kdsearch("--help").out
    for command in COMMANDS:
        assert re.search(rf"^│ {command} ", text, re.MULTILINE)
    assert "130 interrupted" in text


def test_the_version_is_printed() -> None:
    assert re.fullmatch(r"kdsearch \d+\.\d+\.\d+\n", kdsearch("--version").out)


def test_an_unknown_command_is_bad_input() -> None:
    refused(ended(started("lunch")), "lunch")


def test_commands_that_read_files_import_neither_torch_nor_ray(
    launched: tuple[Path, Path, Ended],
) -> None:
    study, folder, _ = launched
    commands = [
        ["validate", str(study)],
        ["plan", str(study)],
        ["plan", str(folder)],
        ["status", str(folder)],
        ["explain", str(folder)],
        ["report", str(folder)],
        ["gc", str(folder)],
        ["verify", str(folder)],
    ]
    script = f"""
import sys
from kdsearch.cli import main
for command in {commands!r}:
    sys.argv = ["kdsearch", *command]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, command
assert not {{"torch", "ray", "transformers"}} & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_ctrl_c_during_the_imports_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import time; print('here', flush=True); time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-m", "kdsearch", "--version"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (-signal.SIGINT, "")


# -- new and validate -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "name", "source"),
    [
        (["mrpc"], "mrpc", "mrpc"),
        (["mine"], "mine", "quickstart"),
        (["mine.yaml", "--from", "mrpc"], "mine", "mrpc"),
    ],
)
def test_new_copies_a_shipped_study_that_validates(
    here: Path, arguments: list[str], name: str, source: str
) -> None:
    result = kdsearch("new", *arguments)
    assert result.code == 0
    assert f"wrote {name}.yaml, a copy of {source}" in result.out
    shipped = Path(__file__).parent.parent / "search_spaces" / f"{source}.yaml"
    assert (here / f"{name}.yaml").read_text() == shipped.read_text()
    assert json.loads(kdsearch("validate", f"{name}.yaml", "--json").out)["name"] == name


def test_new_refuses_a_study_that_is_not_shipped(here: Path) -> None:
    shipped = "mrpc, paper-small, paper, quickstart"
    refused(kdsearch("new", "mine", "--from", "mprc"), "mprc is not a shipped study", shipped)
    assert not list(here.iterdir())


def test_new_writes_over_nothing(here: Path) -> None:
    written(here / "mine.yaml", "my work")
    refused(kdsearch("new", "mine"), "mine.yaml: already exists")
    assert (here / "mine.yaml").read_text() == "my work"


@pytest.mark.parametrize("name", ["", "my study", ".hidden", "no/such/folder/mine"])
def test_new_refuses_a_name_that_a_study_cannot_have(here: Path, name: str) -> None:
    refused(kdsearch("new", name))
    assert not list(here.iterdir())


def test_a_fine_study_is_called_fine_with_its_test_cases(here: Path) -> None:
    result = kdsearch("validate", written(here / "tiny.yaml", tiny()))
    assert result.code == 0
    assert "fine; 1 test case:\n  g/big/small\n" in result.out


def test_validate_prints_json(here: Path) -> None:
    result = kdsearch("validate", written(here / "tiny.yaml", tiny()), "--json")
    assert json.loads(result.out) == {"name": "tiny", "cases": ["g/big/small"]}


@pytest.mark.parametrize("command", ["validate", "plan", "launch"])
@pytest.mark.parametrize(
    ("study", "words"),
    [
        (None, ["study.yaml: no such study file", "kdsearch new NAME"]),
        ("a: [1\nb: 2", ["study.yaml:2:", "not YAML"]),
        ("- a\n- b\n", ["study.yaml: is not a mapping"]),
        ("", ["study.yaml: is not a mapping"]),
        (tiny(serach={}), ["study.yaml: serach: serach is not a key here", "search"]),
        (
            tiny(search={"alhpa": [1], "distance": ["kl"]}, students={"small": {"model": "smal"}}),
            ["study.yaml: search.alhpa", "did you mean alpha?", "study.yaml: search.distance[0]"],
        ),
        (
            tiny(students={"small": {"model": "smal"}}, test_cases=[{"teacher": "bg"}]),
            ["students.small.model", "did you mean small?", "test_cases[0].teacher"],
        ),
    ],
)
def test_a_bad_study_is_refused_with_every_problem_and_its_place(
    here: Path, command: str, study: Any, words: list[str]
) -> None:
    if study is not None:
        written(here / "study.yaml", study)
    refused(kdsearch(command, "study.yaml"), *words)


def test_bad_input_ends_a_process_with_words_and_no_traceback(here: Path) -> None:
    study = written(here / "study.yaml", tiny(serach={}, sead=1))
    result = ended(started("validate", study))
    refused(result, "serach", "sead")
    assert [line.startswith("kdsearch: ") for line in result.err.splitlines()] == [True, True]


@pytest.mark.parametrize("command", ["validate", "plan", "launch"])
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("bgi=/models/big", ["--model: bgi is not a model of this study", "did you mean big?"]),
        ("big", ["--model: 'big' is not NAME=PATH"]),
        ("big=", ["--model: 'big=' is not NAME=PATH"]),
        ("=/models/big", ["--model: '=/models/big' is not NAME=PATH"]),
    ],
)
def test_a_model_that_the_study_does_not_have_is_refused(
    here: Path, command: str, model: str, words: list[str]
) -> None:
    study = written(here / "tiny.yaml", tiny())
    refused(kdsearch(command, study, "--model", model), *words)


# -- plan -----------------------------------------------------------------------------------------


def test_plan_counts_the_trainings_of_each_test_case(here: Path) -> None:
    result = kdsearch("plan", written(here / "tiny.yaml", tiny()))
    assert result.code == 0
    assert re.search(r"g/big/small +12\n", result.out)
    assert "students in all: 12; whole grids have 12\n" in result.out
    assert "teachers to fine-tune: 1" in result.out
    assert "time: give --speed" in result.out


def test_plan_tells_students_that_teach_apart_by_the_cases_that_they_are_of(here: Path) -> None:
    search = {"strategy": "exhaustive", "objective": "mse", "learning_rate": [1e-5]}
    study = a_study(searches={"one": search, "two": search}, erm=False)
    del study["search"]
    study["teachers"]["again"] = {"student_of": "big"}
    path = written(here / "s.yaml", study)
    rows = json.loads(kdsearch("plan", path, "--json").out)["caches"]
    names = {(row["teacher"], row["student"], row["search"]) for row in rows}
    again = {("again", "small", "one"), ("again", "small", "two")}
    assert names == {("big", None, None)} | again
    _, teachers = kdsearch("plan", path).out.split("Teachers")
    assert all(f"sentences/again/small/{search} " in teachers for search in ("one", "two"))


def test_plan_counts_what_is_chosen_under_winner_seeds_too(here: Path) -> None:
    result = kdsearch("plan", written(here / "tiny.yaml", {**tiny(), "winner_seeds": [0, 1, 2]}))
    assert "students in all: 14; whole grids have 12\n" in result.out
    assert "(a greedy walk trains 12 students, in a grid of 12)" in result.out
    assert "(including what each test case chose, under 2 further seeds)" in result.out


@pytest.mark.parametrize(
    ("speculate", "alpha", "says"),
    [(True, [1, 0.5], True), (False, [1, 0.5], False), (True, [1], False)],
)
def test_plan_says_that_idle_slots_train_more_of_the_grid_unless_they_do_not(
    here: Path, speculate: bool, alpha: list[float], says: bool
) -> None:
    search = {**tiny()["search"], "distance": ["ce", "mse"], "alpha": alpha}
    study = tiny(search=search, resources={"speculate": speculate})
    words = " ".join(kdsearch("plan", written(here / "tiny.yaml", study)).out.split())
    line = "(beside these, slots that would be idle train what decisions may ask for"
    assert (line in words) == says


def test_plan_tells_the_time_of_so_many_students_on_so_many_slots(here: Path) -> None:
    study = written(here / "tiny.yaml", tiny())
    shown = kdsearch("plan", study, "--seconds", "120", "--slots", "2").out
    # The teacher has twice the layers; each of three passes is a third of a step's weights.
    assert "15 min on 2 slots if none is ever idle; 24 slot minutes for students, 6.7 for" in shown
    assert "(--seconds is that of the student of g/big/small; the others" in shown


def test_plan_tells_the_time_from_a_students_examples_per_second(here: Path) -> None:
    study = tiny()
    study["datasets"]["g"]["grammar"]["train"] = 1000
    study["training"] = {**study["training"], "epochs": 3}
    facts = json.loads(
        kdsearch("plan", written(here / "s.yaml", study), "--speed", "50", "--json").out
    )
    assert facts["student_seconds"] == pytest.approx({"fewest": 12 * 60.0, "most": 12 * 60.0})


def folder_of(here: Path, name: str, **config: Any) -> str:
    """A model's folder that has nothing but its configuration."""
    (here / name).mkdir()
    (here / name / "config.json").write_text(json.dumps(config))
    return f"./{name}"


def test_plan_has_the_hours_of_each_student_and_teacher_follow_from_its_size(here: Path) -> None:
    study = tiny(
        models={
            "large": folder_of(here, "large", num_hidden_layers=8, hidden_size=64),
            "half": folder_of(here, "half", num_hidden_layers=4, hidden_size=64),
            "narrow": {"config": {"model_type": "bert", "n_layers": 4, "dim": 32}},
        },
        teachers={"big": {"model": "large", "fine_tune": {"learning_rate": [1e-3], "epochs": 6}}},
        students={"cut": {"model": "half", "layers": 2}, "half": {"model": "half"}},
    )
    study["students"]["narrow"] = {"model": "narrow"}
    study["datasets"]["g"]["grammar"] = {"train": 900, "validation": 90, "test": 210}
    study["training"]["epochs"] = 3
    facts = json.loads(
        kdsearch("plan", written(here / "s.yaml", study), "--speed", "27", "--json").out
    )
    cut, half, narrow = (case["seconds_each"] for case in facts["cases"])
    assert (cut, half, narrow) == pytest.approx((100, 200, 50))
    [teacher] = facts["caches"]
    # Four times the layers of the first student for twice its epochs. And three passes over its
    # rows and 300 others, each of which is a third of a step.
    expected = 4 * 100 * 2 + 4 * 100 / 3 * (900 + 300) / 900 / 3
    assert teacher["seconds"]["most"] == pytest.approx(expected)
    every = 12 * (cut + half + narrow) + expected
    assert facts["slot_seconds"]["most"] == pytest.approx(every)


def test_plan_has_students_take_as_long_as_the_epochs_that_they_are_trained_for(
    here: Path,
) -> None:
    rates = {
        "strategy": "exhaustive",
        "objective": "ce",
        "temperature": [1],
        "learning_rate": [1e-3],
    }
    study = tiny(training={"schedule": "cosine", "epochs": 9})
    study["searches"] = {"one": rates | {"epochs": [2]}, "three": rates | {"epochs": [1, 2, 6]}}
    del study["search"]
    path = written(here / "s.yaml", study)
    facts = json.loads(kdsearch("plan", path, "--seconds", "10", "--json").out)
    assert [case["seconds_each"] for case in facts["cases"]] == pytest.approx([10, 15])
    # What both want at two epochs is one training, which the simulation knows to take ten seconds.
    assert facts["student_seconds"]["most"] == pytest.approx(10 + 45)
    teacher = facts["teacher_seconds"]["most"]
    assert facts["simulated"]["slot_seconds"] == pytest.approx(10 + 5 + 10 + 30 + teacher)


def test_plan_sums_up_what_each_part_of_a_study_adds(here: Path) -> None:
    study = tiny(erm=True)
    big = study["teachers"]["big"]
    study["teachers"]["other"] = {**big, "fine_tune": {"learning_rate": [1e-3, 1e-2]}}
    study["test_cases"] = [
        {"part": "baseline", "teacher": "big"},
        {"part": "origin", "teacher": "other"},
    ]
    path = written(here / "s.yaml", study)
    facts = json.loads(kdsearch("plan", path, "--seconds", "10", "--json").out)
    baseline, origin = facts["parts"]
    # The student on the labels alone is one, of the first part.
    assert (baseline["part"], baseline["cases"], baseline["teachers"]) == ("baseline", 2, 1)
    assert (origin["part"], origin["cases"], origin["teachers"]) == ("origin", 1, 2)
    for end in ("fewest", "most"):
        assert baseline["students"][end] + origin["students"][end] == facts["students"][end]
        both = baseline["seconds"][end] + origin["seconds"][end]
        assert both == pytest.approx(facts["slot_seconds"][end])
    assert baseline["bytes"] + origin["bytes"] == sum(row["bytes"] for row in facts["caches"])
    assert "origin" in kdsearch("plan", path).out


def test_plan_of_a_translation_counts_an_output_layer_that_no_layers_are_cut_from(
    here: Path,
) -> None:
    config = {"encoder_layers": 6, "decoder_layers": 6, "d_model": 64, "vocab_size": 12 * 12 * 64}
    study = tiny(
        datasets={"g": {"task": "translation", "grammar": tiny()["datasets"]["g"]["grammar"]}},
        models={"big": folder_of(here, "big", **config)},
        teachers={"big": {"model": "big", "fine_tune": {"learning_rate": [1e-3]}}},
        students={"cut": {"model": "big", "layers": 4}, "whole": {"model": "big"}},
    )
    facts = json.loads(
        kdsearch("plan", written(here / "s.yaml", study), "--seconds", "90", "--json").out
    )
    # The output layer has as many weights as all twelve, and takes 4/3 steps' worth of them.
    cut, whole = (case["seconds_each"] for case in facts["cases"])
    assert whole / cut == pytest.approx((1 + 4 / 3) / (4 / 12 + 4 / 3))


def test_plan_names_the_models_whose_size_it_has_to_assume(here: Path) -> None:
    models = {"large": {"hub": "nobody/knows"}, "base": {"hub": "FacebookAI/roberta-base"}}
    study = tiny(
        models=models,
        teachers={"big": {"model": "large", "fine_tune": {"learning_rate": [1e-3]}}},
        students={"small": {"model": "base"}},
    )
    shown = kdsearch("plan", written(here / "s.yaml", study), "--seconds", "9").out
    assert "(of unknown size, taken to have 12 layers that are 768 wide: large)" in shown


def test_plan_breaks_no_name_in_a_terminal_of_80_columns(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny(
        datasets={"natural_questions": tiny()["datasets"]["g"]},
        teachers={"roberta-large": tiny()["teachers"]["big"]},
        students={"roberta-base": {"model": "small"}},
        seeds=list(range(100)),
    )
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    shown = kdsearch("plan", written(here / "s.yaml", study), "--seconds", "86400").out
    for name in ("natural_questions/roberta-large/roberta-base", "natural_questions/roberta-large"):
        assert re.search(rf"^{name} +\S", shown, re.MULTILINE)


def test_plan_takes_one_of_speed_and_seconds(here: Path) -> None:
    study = written(here / "tiny.yaml", tiny())
    refused(kdsearch("plan", study, "--speed", "5", "--seconds", "5"), "--seconds", "--speed")


def test_plan_prints_json(here: Path) -> None:
    study = written(here / "tiny.yaml", tiny())
    facts = json.loads(kdsearch("plan", study, "--seconds", "2", "--slots", "4", "--json").out)
    assert facts["cases"][0]["case"] == "g/big/small"
    assert facts["students"] == {"fewest": 12, "most": 12}
    assert facts["student_seconds"] == {"fewest": 24.0, "most": 24.0}
    assert facts["slot_seconds"]["most"] == 24.0 + facts["teacher_seconds"]["most"] > 24.0
    assert facts["grid"] == facts["cases"][0]["grid"] == 12
    assert (facts["teachers"], facts["outputs"]) == (1, {"fewest": 3, "most": 3})


def test_plan_simulates_the_study_on_its_slots(here: Path) -> None:
    study = written(here / "tiny.yaml", tiny())

    def plan(slots: int) -> dict[str, Any]:
        shown = kdsearch("plan", study, "--seconds", "60", "--slots", str(slots), "--json").out
        return json.loads(shown)["simulated"]

    one, two, many = plan(1), plan(2), plan(1000)
    assert one["seconds"] == pytest.approx(one["slot_seconds"])
    assert one["utilisation"] == pytest.approx(1)
    assert one["seconds"] > two["seconds"] > many["seconds"]
    assert many["seconds"] == many["longest_path_seconds"] == one["longest_path_seconds"]
    assert two["utilisation"] == pytest.approx(two["slot_seconds"] / 2 / two["seconds"])
    words = kdsearch("plan", study, "--seconds", "60", "--slots", "2").out
    assert f"on 2 slots, which are busy {two['utilisation']:.0%} of that time" in words


def test_plan_simulates_nothing_while_no_time_is_known(here: Path) -> None:
    study = written(here / "tiny.yaml", tiny())
    assert json.loads(kdsearch("plan", study, "--json").out)["simulated"] is None
    assert "simulated" not in kdsearch("plan", study).out


def test_plan_needs_no_data(here: Path) -> None:
    absent = {split: f"no/such/{split}.jsonl" for split in ("train", "validation", "test")}
    data = {"files": absent, "text": "t", "label": "l", "labels": ["no", "yes"]}
    study = written(here / "tiny.yaml", tiny(datasets={"mine": data}))
    result = kdsearch("plan", study)
    assert result.code == 0
    assert "outputs not known until the data is read" in result.out


def test_plan_of_a_folder_knows_what_a_student_takes(launched: tuple[Path, Path, Ended]) -> None:
    facts = json.loads(kdsearch("plan", launched[1], "--json").out)
    outcomes = list(Ledger(launched[1]).outcomes())
    students = [o.cost.seconds for o in outcomes if o.training.kind == "student"]
    assert facts["cases"][0]["seconds_each"] == pytest.approx(sum(students) / len(students))
    others = sum(o.cost.seconds for o in outcomes) - sum(students)
    assert facts["teacher_seconds"]["most"] == pytest.approx(others)
    assert facts["simulated"]["seconds"] > 0
    assert facts["caches"][0]["bytes"] > 0
    assert facts["checkpoint_bytes"] > 0


@pytest.mark.parametrize("option", [("--slots", "0"), ("--seconds", "0"), ("--seconds", "x")])
def test_plan_refuses_numbers_that_make_no_sense(here: Path, option: tuple[str, str]) -> None:
    refused(kdsearch("plan", written(here / "tiny.yaml", tiny()), *option), option[0])


# -- launch ---------------------------------------------------------------------------------------


def test_a_search_ends_with_the_stable_configuration_and_the_reports_path(
    launched: tuple[Path, Path, Ended],
) -> None:
    _, folder, result = launched
    assert result.code == 0
    assert "1 test case, in" in result.out
    assert "(CE t_hs τ_s=τ_t α=" in " ".join(result.out.split())
    assert result.out.rstrip().endswith(f"report: {folder}/report/report.html")
    assert "The study is complete" in (folder / "report" / "report.md").read_text()
    assert len(list((folder / "outcomes").iterdir())) == 1 + 3 + 12
    assert result.err == ""


def test_a_search_is_in_runs_under_its_name_unless_told_otherwise(here: Path) -> None:
    written(here / "tiny.yaml", tiny(datasets={"g": {"catalogue": "mrpc"}}))
    refused(kdsearch("launch", "tiny.yaml", "--in-process", "--data-dir", "absent"))
    assert (here / "runs" / "tiny").is_dir()


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = sorted((folder / "outcomes").glob("[!.]*"))  # what is half written may go meanwhile
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_complete_search_is_launched_again_without_its_cluster(
    launched: tuple[Path, Path, Ended],
) -> None:
    study, folder, _ = launched
    result = kdsearch("launch", study, "--address", "127.0.0.1:1", "--folder", folder)
    assert result.code == 0
    assert "nothing left to run" in result.out


def test_launched_again_a_complete_search_trains_nothing(
    launched: tuple[Path, Path, Ended],
) -> None:
    study, folder, _ = launched
    before = contents(folder)
    result = kdsearch("launch", study, "--in-process", "--folder", folder)
    assert result.code == 0
    assert "resuming: 16 trainings already done" in result.out
    assert "nothing left to run" in result.out
    assert "For another data set: the stable configuration is" in result.out
    assert contents(folder) == before


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_cpu_that_computes_bf16_in_software_is_said_to_be_slow(
    here: Path, precision: str
) -> None:
    training = {"epochs": 1, "batch_size": 8, "max_length": 32, "precision": precision}
    study = written(here / "tiny.yaml", tiny(training=training))
    result = kdsearch("launch", study, "--in-process", "--folder", here / "run")
    slow = precision == "bf16" and lacks_bf16_here() and not torch.cuda.is_available()
    assert ("say fp32 in training.precision" in result.out) is slow


def test_a_search_that_ended_with_failures_exits_with_1_and_names_them(
    failed: tuple[Path, Path],
) -> None:
    study, folder = failed
    written(study, {**blocked_study(), "name": "by-hand"})
    result = kdsearch("launch", study, "--in-process", "--folder", folder)
    assert result.code == 1
    assert "g/u/small could not be searched: no training of its teacher succeeded" in result.err
    assert "1 training failed for good" in result.err
    assert f"{folder}/attempts/" in result.err


def test_the_folder_of_another_study_is_refused_with_the_difference(
    launched: tuple[Path, Path, Ended], here: Path
) -> None:
    _, folder, _ = launched
    before = contents(folder)
    other = written(here / "other.yaml", tiny(seed=7))
    result = kdsearch("launch", other, "--in-process", "--folder", folder)
    refused(result, f"{folder}: holds a different study", "name: tiny → other", "seed: 0 → 7")
    assert contents(folder) == before


def test_a_changed_study_keeps_what_it_can_and_says_what_the_change_means(
    launched: tuple[Path, Path, Ended], here: Path
) -> None:
    _, folder, _ = launched
    shutil.copytree(folder, here / "run")
    before = contents(here / "run")
    search = {**tiny()["search"], "alpha": [1, 0.5, 0.2]}
    changed = written(here / "tiny.yaml", tiny(search=search))
    result = kdsearch("launch", changed, "--in-process", "--folder", here / "run")
    assert result.code == 0, result
    assert "search.alpha[2]: absent → 0.2\nkept 16, new 6, no longer needed 0\n" in result.out
    after = contents(here / "run")
    assert before.items() <= after.items()
    assert len(after) == 16 + 6


def test_a_second_driver_is_refused(launched: tuple[Path, Path, Ended]) -> None:
    study, folder, _ = launched
    with driver_lock(folder):
        result = ended(started("launch", study, "--in-process", "--folder", folder))
    refused(result, "is being driven by process", str(os.getpid()), "kdsearch status")


def test_in_process_and_an_address_exclude_each_other(here: Path) -> None:
    study = written(here / "tiny.yaml", tiny())
    result = kdsearch("launch", study, "--in-process", "--address", "auto")
    refused(result, "--in-process: does not go with --address")
    assert not (here / "runs").exists()


ROWS = [{"t": "a word", "l": "no"}, {"t": "another", "l": "yes"}]


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ([{"text": "a word", "l": "no"}], ["has no column t", "available: text, l"]),
        ([*ROWS, {"t": "a", "l": "maybe"}], ["row 3: unknown label 'maybe'", "0 no, 1 yes"]),
        ([], ["train.jsonl: has no rows"]),
        (None, ["has no train split", "train.csv"]),
    ],
)
def test_bad_data_is_refused_with_its_place(here: Path, train: Any, words: list[str]) -> None:
    folder = here / "data" / "mine"
    folder.mkdir(parents=True)
    for split, rows in {"train": train, "validation": ROWS, "test": ROWS}.items():
        if rows is not None:
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text(lines)
    absent = dict.fromkeys(("train", "validation", "test"), "absent.csv")
    data = {"files": absent, "text": "t", "label": "l", "labels": ["no", "yes"]}
    study = written(here / "tiny.yaml", tiny(datasets={"mine": data}))
    result = kdsearch("launch", study, "--in-process", "--data-dir", "data")
    refused(result, str(Path("data/mine")), *words)


def test_a_data_folder_that_is_absent_is_refused(here: Path) -> None:
    study = written(here / "tiny.yaml", tiny(datasets={"mrpc": {}}))
    result = kdsearch("launch", study, "--in-process", "--data-dir", "absent")
    refused(result, "absent: no such folder", "--data-dir")


def test_models_that_cannot_be_used_are_refused_together(here: Path) -> None:
    donor = here / "donor"
    donor.mkdir()
    (donor / "config.json").write_text(json.dumps({"num_hidden_layers": 2}))
    (donor / "model.safetensors").write_bytes(b"")
    models = {"big": "/no/such/model", "donor": str(donor)}
    students = {"small": {"model": "donor", "layers": 3}}
    study = written(here / "tiny.yaml", tiny(models=models, students=students))
    refused(
        kdsearch("launch", study, "--in-process"),
        "models.big: /no/such/model is not a folder (give --model NAME=PATH)",
        "students.small.layers: asks for 3 layers of donor, which has 2",
    )


# -- disks that cannot be written -----------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root and the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def on_a_bad_disk(result: Ended, *words: str) -> None:
    assert result.code == 3, result
    assert "Traceback" not in result.err
    assert result.err.startswith("kdsearch: ")
    for word in words:
        assert word in result.err


def fill(disk: Path) -> None:
    """Fill a disk that another process may be writing to."""
    with (disk / "filling").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_is_said_in_words(here: Path) -> None:
    study = written(here / "tiny.yaml", tiny())
    with small_disk(here / "disk", "size=64k") as disk:
        fill(disk)
        result = ended(started("launch", study, "--in-process", "--folder", disk / "run"))
    on_a_bad_disk(result, "the disk is full", "launch again")


def test_a_disk_that_fills_up_while_a_search_runs_is_said_in_words(
    launched: tuple[Path, Path, Ended], here: Path
) -> None:
    study, _, _ = launched
    with small_disk(here / "disk", "size=16m") as disk:
        command = ("launch", study, "--in-process", "--folder", disk / "run")
        process = started(*command)
        while process.poll() is None and not list((disk / "run").glob("outcomes/*.json")):
            time.sleep(0.005)
        fill(disk)
        on_a_bad_disk(ended(process), "the disk is full")
        (disk / "filling").unlink()
        before = contents(disk / "run")
        result = kdsearch(*command)
        assert result.code == 0
        assert "The study is complete" in result.out
        assert before.items() <= contents(disk / "run").items()


def test_a_read_only_disk_is_said_in_words(here: Path) -> None:
    study = written(here / "tiny.yaml", tiny())
    with small_disk(here / "disk", "size=64k,ro") as disk:
        result = ended(started("launch", study, "--in-process", "--folder", disk / "run"))
    on_a_bad_disk(result, "the disk is read-only", "--folder DIR")


def test_a_folder_that_is_a_file_is_said_in_words(here: Path) -> None:
    study = written(here / "tiny.yaml", tiny())
    result = kdsearch("launch", study, "--in-process", "--folder", study)
    refused(result, "tiny.yaml: is a file")


def test_a_folder_of_other_files_is_refused_and_nothing_is_written_there(here: Path) -> None:
    study = written(here / "tiny.yaml", tiny())
    (here / "notes").mkdir()
    (here / "notes" / "data.csv").write_text("buy,milk")
    refused(
        kdsearch("launch", study, "--in-process", "--folder", here / "notes"),
        "holds other files, such as data.csv",
    )
    assert [path.name for path in (here / "notes").iterdir()] == ["data.csv"]


def test_a_search_in_which_everything_diverges_names_no_configuration_and_exits_with_1(
    here: Path,
) -> None:
    search = {**tiny()["search"], "learning_rate": [1e25]}
    study = written(here / "tiny.yaml", tiny(search=search))
    result = kdsearch("launch", study, "--in-process", "--folder", here / "run")
    assert result.code == 1
    assert "No training has a score" in result.out
    assert "none of its trainings has a score" in result.err
    assert "diverged, without a score" in kdsearch("status", here / "run").out


# -- stopping and going on ------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_a_stopped_search_says_how_to_go_on_and_repeats_nothing(
    here: Path, number: signal.Signals
) -> None:
    study = written(here / "my tiny.yaml", tiny(name="tiny"))
    command = ("launch", study, "--in-process", "--folder", here / "run")
    process = started(*command)
    while process.poll() is None and not list((here / "run").glob("outcomes/*.json")):
        time.sleep(0.005)
    process.send_signal(number)
    result = ended(process)
    assert result.code == 130, result
    assert "Traceback" not in result.err
    assert "stopped; what was finished is kept" in result.out
    assert f"kdsearch launch '{study}' --in-process" in result.out
    before = contents(here / "run")
    assert before

    status = json.loads(kdsearch("status", here / "run", "--json").out)
    assert status["state"] == "stopped; launch it again to go on"

    result = kdsearch(*command)
    assert result.code == 0
    assert f"resuming: {len(before)} training" in result.out
    after = contents(here / "run")
    assert before.items() <= after.items()
    assert len(after) == 1 + 3 + 12


# -- status, explain and report -------------------------------------------------------------------


def test_status_of_a_complete_search(launched: tuple[Path, Path, Ended]) -> None:
    result = kdsearch("status", launched[1])
    assert result.code == 0
    assert "tiny: complete; 12 students trained" in result.out
    facts = json.loads(kdsearch("status", launched[1], "--json").out)
    assert facts["state"] == "complete"
    assert facts["students"] == {"done": 12, "left": {"fewest": 0, "most": 0}}
    assert facts["cases"][0]["case"] == "g/big/small"
    assert (facts["driver"], facts["running"], facts["failed"]) == (None, [], [])


def test_status_while_a_search_runs(launched: tuple[Path, Path, Ended], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "resolved.json").write_text((launched[1] / "resolved.json").read_text())
    one = {
        "case": "g/big/small",
        "stage": "teacher_training",
        "training": "teacher big",
        "since": 0.0,
    }
    other = {**one, "training": "teacher large"}
    note = {"slots": 1, "running": {"key": one, "another": other}}
    (folder / "running.json").write_text(json.dumps(note))
    with driver_lock(folder):
        text = kdsearch("status", folder).out
        facts = json.loads(kdsearch("status", folder, "--json").out)
    assert "tiny: running; 0 students trained" in text
    assert "estimating the time left" in text
    assert f"driven by process {os.getpid()} on " in text
    assert re.search(r"running for .+: g/big/small · teacher · teacher big\n", text)
    assert re.search(r"running for .+: g/big/small · teacher · teacher large\n", text)
    assert facts["state"] == "running"
    assert facts["running"] == [one, other]

    # What a driver that was killed left behind is no longer true.
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    driver = {"host": socket.gethostname(), "pid": gone.pid, "since": "2000-01-01T00:00:00"}
    (folder / "driver.json").write_text(json.dumps(driver))
    facts = json.loads(kdsearch("status", folder, "--json").out)
    assert (facts["state"], facts["running"]) == ("stopped; launch it again to go on", [])


def test_status_lists_what_failed(failed: tuple[Path, Path]) -> None:
    text = kdsearch("status", failed[1]).out
    assert "complete, with failures" in text
    assert "blocked: no training" in text
    assert "\ndone\n" not in text
    assert re.search(r"failed 2×: [0-9a-f]{24}: RuntimeError: no <room> \| left", text)
    facts = json.loads(kdsearch("status", failed[1], "--json").out)
    assert [failure["tries"] for failure in facts["failed"]] == [2]


def test_explain_shows_every_candidate_of_every_step(launched: tuple[Path, Path, Ended]) -> None:
    result = kdsearch("explain", launched[1])
    assert result.code == 0
    assert "g/big/small: done" in result.out
    assert re.search(r"α: (1.0|0.5) — ", result.out)
    assert len(re.findall(r"^ +→", result.out, re.MULTILINE)) == 1
    for model in ("teacher, t_hs", "student, as chosen", "student, stable", "student, lazy"):
        assert re.search(rf"^   {model} +\d\.\d+ +\d\.\d+ *$", result.out, re.MULTILINE)
    (case,) = json.loads(kdsearch("explain", launched[1], "--json").out)
    assert all(each["test"] is not None for each in case["scores"])
    (decision,), (step,) = case["decisions"], case["steps"]
    assert decision["parameter"] == step["parameter"] == "alpha"
    assert step["gain"]["validation"] >= 0
    scores = {c["value"]: c["validation"] for c in decision["candidates"]}
    assert set(scores) == {1.0, 0.5}
    assert scores[decision["winner"]] == max(scores.values())
    assert all((launched[1] / f"outcomes/{c['key']}.json").exists() for c in decision["candidates"])


def test_of_a_blocked_case_export_says_what_can_be_done(
    failed: tuple[Path, Path], tmp_path: Path
) -> None:
    result = kdsearch("export", failed[1], "g/u/small", "--to", tmp_path / "student")
    refused(result, "g/u/small: has no student to export yet", "kdsearch retry has what failed")
    assert "--erm" not in result.err  # the study has no such student


def test_explain_takes_a_part_of_a_cases_name(failed: tuple[Path, Path]) -> None:
    assert "g/u/small: blocked" in kdsearch("explain", failed[1]).out
    assert "g/u/small" not in kdsearch("explain", failed[1], "t/small").out
    (case,) = json.loads(kdsearch("explain", failed[1], "t/small", "--json").out)
    assert case["case"] == "g/t/small"


def test_explain_refuses_a_case_that_is_not_there(launched: tuple[Path, Path, Ended]) -> None:
    refused(kdsearch("explain", launched[1], "nope"), "no test case matches nope", "g/big/small")


def test_report_writes_the_report_and_says_where(launched: tuple[Path, Path, Ended]) -> None:
    path = launched[1] / "report" / "report.html"
    path.unlink()
    result = kdsearch("report", launched[1])
    assert result.code == 0
    assert "For another data set: the stable configuration is" in result.out
    assert result.out.rstrip().endswith(f"report: {path}")
    assert path.exists()
    assert json.loads(kdsearch("report", launched[1], "--json").out)["complete"] is True


@pytest.mark.parametrize("command", ["status", "explain", "report"])
def test_a_folder_without_a_study_is_refused(here: Path, command: str) -> None:
    (here / "empty").mkdir()
    study = written(here / "tiny.yaml", tiny())
    for folder in (here / "empty", here / "absent", study):
        refused(kdsearch(command, folder), str(folder), "kdsearch launch")
    assert not list((here / "empty").iterdir())
    assert not (here / "absent").exists()


# -- terminals ------------------------------------------------------------------------------------

ONE_AFTER_ANOTHER = """
import json, sys
from kdsearch.cli import main
for command in json.load(sys.stdin):
    sys.argv = ["kdsearch", *command]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, command
    print(end="\\0", flush=True)
"""
"""Commands in one process, since each would import torch anew; a NUL ends what each shows."""


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        pytest.param("čaj", {"PYTHONIOENCODING": "ascii"}, marks=pytest.mark.slow),
        pytest.param("čaj", {"PYTHONIOENCODING": "latin-1"}, marks=pytest.mark.slow),
        # The locale of some clusters, as which files must not be read and written either.
        ("tea", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    ],
    ids=["ascii", "latin-1", "C"],
)
def test_a_terminal_without_greek_changes_nothing_but_how_greek_is_shown(
    here: Path, name: str, encoding: dict[str, str]
) -> None:
    datasets = {name: {"grammar": {"train": 48, "validation": 24, "test": 24}}}
    study = yaml.safe_dump(tiny(datasets=datasets), allow_unicode=True)
    (here / "s.yaml").write_text(study, encoding="utf-8")
    commands = [
        ["launch", "s.yaml", "--in-process"],
        ["explain", "runs/s"],
        ["status", "runs/s"],
        ["report", "runs/s"],
        ["report", "runs/s", "--json"],
        ["export", "runs/s", f"{name}/big/small", "--to", "student"],
    ]
    result = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_ANOTHER],
        input=json.dumps(commands).encode(),
        capture_output=True,
        env=os.environ | encoding,
    )
    assert b"Traceback" not in result.stderr
    assert result.returncode == 0, result
    shown = result.stdout.decode("latin-1").split("\0")
    escaped = name.encode("ascii", "backslashreplace").decode()
    assert "search ended" in shown[0]
    assert "\\u03c4" in shown[1]
    assert f"{escaped}/big/small" in shown[2]
    assert "report: " in shown[3]
    assert json.loads(shown[4])["cases"][0]["case"]["dataset"] == name
    assert "τ" in (here / "student" / "README.md").read_text(encoding="utf-8")


def test_a_reader_that_has_seen_enough_of_a_command_sees_no_traceback(here: Path) -> None:
    written(here / "s.yaml", tiny())
    assert kdsearch("launch", "s.yaml", "--in-process").code == 0
    command = f"{sys.executable} -m kdsearch explain runs/s | head -n 1"
    found = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert found.stdout.count("\n") == 1
    assert found.stderr == ""
