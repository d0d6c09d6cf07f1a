"""A study's rows and models are looked at once, and again when something has changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import a_study, made_up_training, model_folder, outcome_of

from kdsearch.agenda import Agenda
from kdsearch.driver import Dispatcher, garbage, open_study, present
from kdsearch.engine import InProcessEngine, Worker
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, verify
from kdsearch.study import Doubt, Preflight, Resolved, parse_study, preflight_digest

DOUBT = Doubt(place="study.yaml: datasets.sentences", what="hardly any rows")


class Looks:
    """A preflight that finds one doubt, and remembers what it was shown."""

    def __init__(self, *wrong: str) -> None:
        self.seen: list[Resolved] = []
        self.wrong = wrong
        self.said: list[str] = []

    def __call__(self, resolved: Resolved, ledger: Ledger, place: str, digest: str) -> Preflight:
        self.seen.append(resolved)
        for what in self.wrong:
            raise InputError.one(place, what)
        return Preflight(digest=digest, doubts=(DOUBT,), forward=True)

    def open(self, folder: Path, **sections: Any) -> Agenda:
        study = parse_study(a_study(**sections), place="x")
        return open_study(
            Ledger(folder),
            study,
            data_dir=None,
            place="study.yaml",
            look=self,
            say=self.said.append,
        )


def train(folder: Path, agenda: Agenda, *, trainings: int | None = None) -> None:
    """Run the search to its end, or so many trainings of it."""
    ledger = Ledger(folder)
    if trainings is None:
        worker = Worker(folder=folder, run_training=made_up_training)
        InProcessEngine(worker=worker).run(Dispatcher(agenda, ledger))
        return
    for request in agenda.requests()[:trainings]:
        ledger.write_outcome(outcome_of(request.training))


def given_models(folder: Path) -> dict[str, Any]:
    """Sections of a study whose one teacher and student are models in folders."""
    tuned, base = (str(model_folder(folder / name)) for name in ("tuned", "base"))
    return {
        "models": {"tuned": {"path": tuned}, "base": {"path": base}},
        "teachers": {"given": {"checkpoint": "tuned"}},
        "students": {"small": {"model": "base"}},
    }


def test_what_is_found_is_kept_and_not_looked_for_again(tmp_path: Path) -> None:
    looks = Looks()
    looks.open(tmp_path)
    looks.open(tmp_path)
    assert len(looks.seen) == 1
    kept = Ledger(tmp_path).preflight()
    assert kept is not None
    assert kept.doubts == (DOUBT,)
    assert looks.said == ["checking the data and the models…"]


@pytest.mark.parametrize(
    "sections",
    [
        {"seed": 1},
        {"erm": True},
        {"training": {"max_length": 20}},
        {"search": {**a_study()["search"], "alpha": [1]}},
        {"search": {**a_study()["search"], "dropout": [0.1]}},
        {"search": {**a_study()["search"], "temperature_unit": "logit_scale"}},
        {"datasets": {"sentences": {"grammar": {"train": 21, "validation": 10, "test": 10}}}},
    ],
    ids=lambda sections: next(iter(sections)),
)
def test_what_it_depends_on_is_looked_at_again_when_it_changes(
    tmp_path: Path, sections: dict[str, Any]
) -> None:
    looks = Looks()
    looks.open(tmp_path)
    looks.open(tmp_path, **sections)
    assert len(looks.seen) == 2


@pytest.mark.parametrize(
    "sections",
    [
        {"tries": 5},
        {"keep_students": "all"},
        {"resources": {"hours": 1}},
        {"search": {**a_study()["search"], "learning_rate": [1e-5]}},
        {"search": {**a_study()["search"], "gradient_scale": "tau_squared"}},
    ],
    ids=lambda sections: next(iter(sections)),
)
def test_what_it_does_not_depend_on_may_change(tmp_path: Path, sections: dict[str, Any]) -> None:
    looks = Looks()
    looks.open(tmp_path)
    looks.open(tmp_path, **sections)
    assert len(looks.seen) == 1


def test_other_content_of_a_model_gives_another_digest_and_another_place_does_not(
    tmp_path: Path,
) -> None:
    before = Looks().open(tmp_path / "runs", **given_models(tmp_path)).resolved
    model = before.models["base"]

    def with_model(**changes: Any) -> Resolved:
        changed = model.model_copy(update=changes)
        return before.model_copy(update={"models": {**before.models, "base": changed}})

    assert preflight_digest(with_model(digest="other")) != preflight_digest(before)
    assert preflight_digest(with_model(path="/elsewhere")) == preflight_digest(before)


def test_a_study_in_which_something_is_wrong_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tokenizer"):
        Looks("no tokenizer").open(tmp_path)
    assert not Ledger(tmp_path).exists
    assert Ledger(tmp_path).preflight() is None


def test_a_search_that_goes_on_without_a_kept_result_is_looked_at(tmp_path: Path) -> None:
    looks = Looks()
    train(tmp_path, looks.open(tmp_path), trainings=1)
    (tmp_path / "preflight.json").unlink()
    agenda = looks.open(tmp_path)
    assert len(looks.seen) == 2
    assert sum(result is not None for result in agenda.results.values()) == 1


def test_a_search_with_nothing_left_to_run_is_not_looked_at(tmp_path: Path) -> None:
    looks = Looks()
    train(tmp_path, looks.open(tmp_path))
    (tmp_path / "preflight.json").unlink()
    assert looks.open(tmp_path).complete
    assert len(looks.seen) == 1


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    looks = Looks()
    looks.open(tmp_path)
    path = tmp_path / "preflight.json"
    path.write_text(path.read_text()[:-20])
    assert [problem.place for problem in verify(Ledger(tmp_path)).problems] == [str(path)]
    looks.open(tmp_path)
    assert len(looks.seen) == 2
    assert verify(Ledger(tmp_path)).problems == []


def test_a_kept_result_is_a_studys_own_and_no_garbage(tmp_path: Path) -> None:
    agenda = Looks().open(tmp_path)
    assert Ledger(tmp_path).strangers() == []
    assert garbage(Ledger(tmp_path), agenda) == ([], [])


# -- models that are gone --------------------------------------------------------------------------


def test_a_model_that_is_gone_is_left_out_of_a_search_that_goes_on_and_said(
    tmp_path: Path,
) -> None:
    looks, folder, models = Looks(), tmp_path / "runs", given_models(tmp_path)
    train(folder, looks.open(folder, **models), trainings=1)
    (folder / "preflight.json").unlink()
    shutil.rmtree(tmp_path / "tuned")
    looks.open(folder, **models)
    shown = looks.seen[-1]
    assert list(shown.models) == ["base"]
    assert (shown.study.teachers, shown.study.test_cases) == ({}, ())
    assert list(shown.study.students) == ["small"]
    kept = Ledger(folder).preflight()
    assert kept is not None
    [gone, rest] = kept.doubts
    assert gone.place == "study.yaml: models.tuned"
    assert "is gone" in gone.what
    assert rest == DOUBT
    looks.open(folder, **models)
    assert len(looks.seen) == 2


def test_what_is_run_on_a_worker_is_what_was_looked_at_here(tmp_path: Path) -> None:
    looks = Looks()
    sections = given_models(tmp_path)
    sections["teachers"]["base"] = {"model": "base"}
    agenda = looks.open(tmp_path / "run", **sections)
    shutil.rmtree(agenda.resolved.models["tuned"].path or "")
    there = present(agenda.resolved)
    assert there.models.keys() == there.study.models.keys() == {"base"}
    assert there.study.teachers.keys() == {"base"}
    assert present(there) == there


def test_a_change_that_is_refused_leaves_what_was_found_before(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    rows = [{"text": f"so it is {n}", "label": n % 2} for n in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"files": {"train": str(file)}, "text": "text", "label": "label", "labels": ["no", "yes"]}
    looks = Looks()
    agenda = looks.open(tmp_path / "run", datasets={"own": own})
    train(tmp_path / "run", agenda, trainings=1)
    kept = Ledger(tmp_path / "run").preflight()
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:30]))
    with pytest.raises(InputError, match="has changed since this folder was launched"):
        looks.open(tmp_path / "run", datasets={"own": own})
    assert Ledger(tmp_path / "run").preflight() == kept
    assert len(looks.seen) == 1


def test_a_model_that_comes_back_is_looked_at(tmp_path: Path) -> None:
    looks, folder, models = Looks(), tmp_path / "runs", given_models(tmp_path)
    train(folder, looks.open(folder, **models), trainings=1)
    (folder / "preflight.json").unlink()
    (tmp_path / "tuned").rename(tmp_path / "away")
    looks.open(folder, **models)
    (tmp_path / "away").rename(tmp_path / "tuned")
    looks.open(folder, **models)
    assert [len(shown.models) for shown in looks.seen] == [2, 1, 2]


def test_what_was_found_while_a_model_was_there_stands_when_it_is_gone(tmp_path: Path) -> None:
    looks, folder, models = Looks(), tmp_path / "runs", given_models(tmp_path)
    train(folder, looks.open(folder, **models), trainings=1)
    shutil.rmtree(tmp_path / "tuned")
    looks.open(folder, **models)
    assert len(looks.seen) == 1


# -- what it costs ---------------------------------------------------------------------------------


def test_a_kept_result_is_read_without_torch(tmp_path: Path) -> None:
    """The real preflight, in a process of its own: the second time it has nothing to import."""
    (tmp_path / "study.json").write_text(json.dumps(a_study()))
    program = """
import json, sys
from pathlib import Path
from kdsearch.distill import preflight
from kdsearch.driver import open_study
from kdsearch.ledger import Ledger
from kdsearch.study import parse_study

study = parse_study(json.loads(Path("study.json").read_text()), place="x")
open_study(Ledger(Path("runs")), study, data_dir=None, place="x", look=preflight)
print([name for name in ("torch", "transformers", "ray") if name in sys.modules])
"""
    command = [sys.executable, "-c", program]
    first, again = (
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    )
    assert "torch" in first
    assert again == "[]\n"
