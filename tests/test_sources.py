"""Data and model files that change between two launches."""

from __future__ import annotations

import csv
import json
import os
import pty
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import RecordedTraining, a_study, resolved_of
from test_cli import kdsearch, refused, tiny, written

from kdsearch.agenda import Agenda
from kdsearch.driver import Dispatcher, open_study
from kdsearch.engine import InProcessEngine, Worker
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.study import FORMAT, changed_sources, digest_rows, parse_study, read_dataset

ROWS = [{"text": f"word more {i}", "label": i % 2} for i in range(40)]
FLIPPED = [{**row, "label": 1 - row["label"]} for row in ROWS]
GROWN = [*ROWS, *({"text": f"further{i}", "label": i % 2} for i in range(40))]
OWN = {"text": ["text"], "label": "label", "labels": ["no", "yes"]}
CHANGED = "data/train.jsonl has changed since this folder was launched"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the rows of a data set and the files of a model."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    write(ROWS)
    folder = Path("models/base")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert", "num_hidden_layers": 2}')
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    return tmp_path


def write(rows: list[dict[str, Any]], path: str = "data/train.jsonl") -> Path:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path(path)


def study_of(path: str = "data/train.jsonl", **sections: Any) -> dict[str, Any]:
    models = {**a_study()["models"], "base": {"path": "./models/base"}}
    datasets = {"own": {**OWN, "files": {"train": path}}}
    students = {"base": {"model": "base"}}
    return a_study(**{"datasets": datasets, "models": models, "students": students, **sections})


class Launched:
    """A study that was launched in runs/, and what was said and run."""

    def __init__(
        self,
        study: dict[str, Any] | None = None,
        *,
        accept: bool = False,
        run: bool = True,
        data_dir: str | None = None,
    ) -> None:
        self.said: list[str] = []
        self.ledger = Ledger(Path("runs").resolve())
        self.agenda: Agenda = open_study(
            self.ledger,
            parse_study(study or study_of(), place="study.yaml"),
            data_dir=Path(data_dir) if data_dir else None,
            place="study.yaml",
            say=self.said.append,
            accept=lambda: accept,
        )
        work = RecordedTraining(log=Path(f"{uuid.uuid4().hex}.log").resolve())
        if run:
            worker = Worker(folder=self.ledger.folder, run_training=work)
            InProcessEngine(worker=worker).run(Dispatcher(self.agenda, self.ledger))
        self.runs = work.runs()

    @property
    def rows(self) -> dict[str, int]:
        splits = self.ledger.resolved().datasets["own"].splits
        return {name: split.rows for name, split in splits.items()}

    @property
    def train(self) -> str:
        return self.ledger.resolved().datasets["own"].splits["train"].digest


def fresh(study: dict[str, Any] | None = None) -> Launched:
    """The same study as it is read into a folder of its own."""
    kept = Path("runs").rename("kept")
    try:
        return Launched(study, run=False)
    finally:
        shutil.rmtree("runs")
        kept.rename("runs")


def outcomes() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("runs/outcomes").iterdir()}


# -- a data file that has changed -----------------------------------------------------------------


def test_corrected_labels_are_trained_with_once_that_is_accepted() -> None:
    first = Launched()
    before = outcomes()
    write(FLIPPED)
    again = Launched(accept=True)
    assert again.said[0] == CHANGED
    assert again.said[1].startswith("kept 0, new ")
    assert f"no longer needed {len(first.runs)}; nothing is deleted" in again.said[1]
    assert again.runs
    assert set(again.runs).isdisjoint(first.runs)
    assert before.items() <= outcomes().items()
    assert Launched().said == []


def test_a_changed_file_stops_a_launch_that_nobody_accepts_and_nothing_changes() -> None:
    Launched()
    before, kept = Path("runs/resolved.json").read_bytes(), outcomes()
    write(FLIPPED)
    with pytest.raises(InputError) as stopped:
        Launched()
    [problem] = stopped.value.problems
    assert (problem.place, problem.what) == tuple(CHANGED.split(" ", 1))
    assert "--accept-changes" in problem.remedy
    assert Path("runs/resolved.json").read_bytes() == before
    assert outcomes() == kept
    write(ROWS)
    assert Launched().said == []


def test_a_change_of_the_same_size_at_the_same_time_is_noticed() -> None:
    Launched()
    path = Path("data/train.jsonl")
    before = path.stat()
    write([{**row, "label": ROWS[-1 - i]["label"]} for i, row in enumerate(ROWS)])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(InputError, match=r"data/train\.jsonl: has changed"):
        Launched()


def test_the_new_rows_are_read_where_the_study_was_edited_too() -> None:
    Launched()
    write(GROWN)
    edited = study_of(training={"epochs": 3})
    again = Launched(edited, accept=True)
    assert again.said[:2] == [CHANGED, "study.yaml has changed since this folder was launched:"]
    assert again.rows == {"train": 64, "validation": 8, "test": 8}
    assert again.train == fresh(edited).train


def test_a_change_of_the_data_sets_own_section_accepts_no_change_of_its_file() -> None:
    Launched()
    write(FLIPPED)
    datasets = {"own": {**study_of()["datasets"]["own"], "limit": {"train": 20}}}
    with pytest.raises(InputError, match=r"data/train\.jsonl: has changed"):
        Launched(study_of(datasets=datasets))
    assert Launched(study_of(datasets=datasets), accept=True).rows["train"] == 20


def test_only_the_data_set_that_changed_is_read_anew() -> None:
    write([*GROWN, *FLIPPED], "data/other.jsonl")
    other = {**OWN, "files": {"train": "data/other.jsonl"}, "text": ["text"]}
    study = study_of(datasets={**study_of()["datasets"], "other": other})
    Launched(study)
    Path("data/other.jsonl").unlink()
    write(FLIPPED)
    again = Launched(study, accept=True)
    assert again.said[:2] == [
        "other: data/other.jsonl can no longer be read; its rows stay as they were",
        CHANGED,
    ]
    assert not again.said[2].startswith("kept 0")


def test_before_anything_was_trained_changed_rows_are_simply_read() -> None:
    Launched(run=False)
    write(GROWN)
    again = Launched(run=False)
    assert again.said == []
    assert again.rows["train"] == 64


def test_a_changed_file_that_cannot_be_used_is_said_and_nothing_is_lost() -> None:
    Launched()
    before, kept = Path("runs/resolved.json").read_bytes(), outcomes()
    write([*ROWS, {"text": "odd", "label": 7}])
    with pytest.raises(InputError, match=r"data/train\.jsonl: row 41: .*7"):
        Launched(accept=True)
    assert (Path("runs/resolved.json").read_bytes(), outcomes()) == (before, kept)


# -- what is no change ----------------------------------------------------------------------------


def test_a_file_that_was_only_touched_has_not_changed() -> None:
    Launched()
    os.utime("data/train.jsonl", (1, 1))
    again = Launched()
    assert (again.said, again.runs) == ([], [])


def test_a_folder_of_data_that_was_moved_has_not_changed() -> None:
    study = study_of(path="nowhere.jsonl")
    write(ROWS, str(folder("one/own") / "train.jsonl"))
    Launched(study, data_dir="one")
    Path("one").rename("two")
    again = Launched(study, data_dir="two")
    assert (again.said, again.runs) == ([], [])
    write(FLIPPED, "two/own/train.jsonl")
    with pytest.raises(InputError, match=r"two/own/train\.jsonl: has changed"):
        Launched(study, data_dir="two")


def test_the_same_rows_in_another_form_are_nothing_new() -> None:
    study = study_of(path="nowhere.jsonl")
    path = write(ROWS, str(folder("dir/own") / "train.jsonl"))
    Launched(study, data_dir="dir")
    path.unlink()
    with path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(ROWS)
    again = Launched(study, data_dir="dir")
    assert again.said == [
        "dir/own/train.csv is new since this folder was launched",
        "its content is the same: nothing is new",
    ]
    assert again.runs == []
    assert Launched(study, data_dir="dir").said == []
    assert not list(Path("runs").glob("resolved-*.json"))


def test_a_further_split_in_the_folder_of_data_is_a_change() -> None:
    study = study_of(path="nowhere.jsonl")
    write(ROWS, str(folder("dir/own") / "train.jsonl"))
    Launched(study, data_dir="dir")
    write(GROWN[40:60], "dir/own/validation.jsonl")
    with pytest.raises(InputError, match=r"dir/own/validation\.jsonl: is new since"):
        Launched(study, data_dir="dir")
    assert Launched(study, data_dir="dir", accept=True).rows["validation"] == 20


def test_two_files_that_change_places_have_changed() -> None:
    files = {"train": "data/train.jsonl", "validation": "data/a.jsonl", "test": "data/b.jsonl"}
    write(GROWN[40:60], "data/a.jsonl")
    write(GROWN[60:], "data/b.jsonl")
    study = study_of(datasets={"own": {**OWN, "files": files}})
    Launched(study)
    write(GROWN[60:], "data/a.jsonl")
    write(GROWN[40:60], "data/b.jsonl")
    with pytest.raises(InputError) as stopped:
        Launched(study)
    assert [problem.place for problem in stopped.value.problems] == ["data/a.jsonl", "data/b.jsonl"]


def test_the_rows_of_the_first_launch_serve_on_where_the_file_is_gone() -> None:
    first = Launched(run=False)
    train = first.train
    Launched()
    Path("data/train.jsonl").unlink()
    again = Launched()
    assert again.said == ["own: data/train.jsonl can no longer be read; its rows stay as they were"]
    assert (again.train, again.runs) == (train, [])
    write(ROWS)
    assert Launched().said == []


def test_made_up_data_has_no_files_to_change(tmp_path: Path) -> None:
    resolved = resolved_of(a_study())
    changes = changed_sources(resolved, resolved.study, data_dir=tmp_path)
    assert (changes.changed, changes.said) == ({}, ())


# -- an older folder ------------------------------------------------------------------------------


def as_the_first_format() -> None:
    """Rewrite the folder as a kdsearch wrote it that recorded no files."""
    path = Path("runs/resolved.json")
    content = json.loads(path.read_text())
    for part in (*content["datasets"].values(), *content["models"].values()):
        del part["files"]
    path.write_text(json.dumps({**content, "format": 1}))


def test_an_older_folder_goes_on_and_notices_changes_from_then_on() -> None:
    Launched()
    as_the_first_format()
    again = Launched()
    assert again.said == [
        "from this launch on, changes to data/train.jsonl are noticed; "
        "this folder does not record what was read before"
    ]
    assert again.runs == []
    assert json.loads(Path("runs/resolved.json").read_text())["format"] == FORMAT
    assert Launched().said == []
    write(FLIPPED)
    with pytest.raises(InputError, match=r"data/train\.jsonl: has changed"):
        Launched()


def test_an_older_folder_keeps_the_rows_it_drew_where_its_file_has_the_same_rows() -> None:
    first = Launched(run=False)
    path = Path("runs/resolved.json")
    content = json.loads(path.read_text())
    dataset = first.agenda.resolved.study.datasets["own"]
    drawn = read_dataset("own", dataset, data_dir=None, seed=0, fair=False)
    own = content["datasets"]["own"]
    for split, rows in drawn.splits.items():
        own["splits"][split] |= {"digest": digest_rows(rows), "rows": len(rows)}
        first.ledger.write_rows(digest_rows(rows), rows)
    for later in ("drawn", "shared", "converted", "unanswerable"):
        del own[later]
    path.write_text(json.dumps(content))
    as_the_first_format()
    assert Launched().runs  # and learns the file's digest
    with write(ROWS).open("a") as file:
        file.write("\n\n")
    again = Launched()
    assert again.said == [CHANGED, "its content is the same: nothing is new"]
    assert again.runs == []


def test_an_older_folder_knows_when_a_model_has_changed() -> None:
    Launched()
    as_the_first_format()
    Path("models/base/model.safetensors").write_bytes(b"other weights")
    with pytest.raises(InputError, match=r"\./models/base: has changed"):
        Launched()


def test_an_older_folder_whose_data_are_gone_says_so_and_learns_nothing() -> None:
    Launched()
    as_the_first_format()
    path = Path("data/train.jsonl").rename("elsewhere")
    said = ["own: data/train.jsonl can no longer be read; its rows stay as they were"]
    assert Launched().said == said
    path.rename("data/train.jsonl")
    assert Launched().said[0].startswith("from this launch on, changes to data/train.jsonl are")


# -- a model that has changed ---------------------------------------------------------------------


def test_changed_weights_are_a_new_model() -> None:
    first = Launched()
    before = first.ledger.resolved().models["base"].digest
    Path("models/base/model.safetensors").write_bytes(b"other weights")
    with pytest.raises(InputError) as stopped:
        Launched()
    assert [problem.place for problem in stopped.value.problems] == [
        "models/base/model.safetensors"
    ]
    again = Launched(accept=True)
    assert again.said[0] == (
        "models/base/model.safetensors has changed since this folder was launched"
    )
    assert "kept 0" not in again.said[1]  # its teacher is another model
    assert set(again.runs).isdisjoint(first.runs)
    assert again.runs
    assert again.ledger.resolved().models["base"].digest != before


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [("tokenizer.json", None, "is gone"), ("vocab.txt", "a\nb\n", "is new")],
)
def test_a_file_of_a_model_that_came_or_went_is_a_change(
    name: str, content: str | None, what: str
) -> None:
    Launched()
    path = Path("models/base") / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=f"models/base/{name}: {what} since"):
        Launched()


def test_a_file_that_is_nothing_of_a_model_is_no_change() -> None:
    Launched()
    Path("models/base/README.md").write_text("what it is")
    Path("models/base/training_args.bin").write_bytes(b"x")
    assert Launched().said == []


def test_a_model_that_is_gone_is_said_and_nothing_that_is_done_needs_it() -> None:
    Launched()
    Path("models/base").rename("base")
    again = Launched()
    assert again.said == ["base: ./models/base is gone; nothing that needs it can be trained"]
    assert again.runs == []


def test_a_model_that_is_found_from_elsewhere_with_the_same_content_has_not_changed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Launched()
    shutil.copytree("models", folder("elsewhere") / "models")
    write(ROWS, str(folder("elsewhere/data") / "train.jsonl"))
    shutil.copytree("runs", "elsewhere/runs")
    shutil.rmtree("models")
    monkeypatch.chdir("elsewhere")
    again = Launched()
    assert again.said == []
    assert again.ledger.resolved().models["base"].path == str(here / "elsewhere/models/base")


def folder(path: str) -> Path:
    Path(path).mkdir(parents=True)
    return Path(path)


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def launched() -> Path:
    """A search of a few seconds that has ended, and its study."""
    own = {**OWN, "text": "text", "files": {"train": "data/train.jsonl"}}
    search = {**tiny()["search"], "distance": ["mse"], "alpha": [1]}
    study = written(Path("study.yaml"), tiny(datasets={"own": own}, search=search))
    assert kdsearch("launch", study, "--in-process").code == 0
    return study


def test_the_command_stops_where_there_is_no_terminal_and_goes_on_when_told(
    launched: Path,
) -> None:
    write(FLIPPED)
    stopped = kdsearch("launch", launched, "--in-process")
    refused(stopped, "data/train.jsonl: has changed since this folder was launched")
    refused(stopped, "--accept-changes")
    for command in ("status", "explain", "report", "verify", "gc"):
        assert kdsearch(command, "runs/study").code == 0
    again = kdsearch("launch", launched, "--in-process", "--accept-changes")
    assert (again.code, CHANGED in again.out) == (0, True)
    for command in ("status", "explain", "report", "verify", "gc"):
        assert kdsearch(command, "runs/study").code == 0


def test_a_person_at_a_terminal_is_asked(launched: Path) -> None:
    write(FLIPPED)
    for answer, code in (("n", 2), ("y", 0)):
        ended, shown = at_a_terminal(["launch", str(launched), "--in-process"], f"{answer}\n")
        assert "continue with these changes? [y/N]" in shown
        assert ended == code
        assert "Traceback" not in shown


def at_a_terminal(arguments: Sequence[str], typed: str) -> tuple[int, str]:
    """Run the real command with a terminal of its own; its exit code and what was shown there."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "kdsearch", *arguments], stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    os.write(master, typed.encode())
    shown = b""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            shown += (part := os.read(master, 4096))
        except OSError:  # the command has closed its side
            break
        if not part:
            break
    os.close(master)
    return process.wait(timeout=120), shown.decode(errors="replace")
