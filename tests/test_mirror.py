from __future__ import annotations

import json
import os
import pwd
import random
import shutil
import sqlite3
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import optuna
import pytest
from fakes import (
    World,
    a_study,
    listening,
    outcome_of,
    random_study,
    resolved_of,
    search_through,
    uniform,
)
from models import tiny_study
from test_cli import kdsearch, refused
from typer.testing import CliRunner

from kdsearch.agenda import Agenda, Cost, Epoch, Request
from kdsearch.cli.app import app
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.mirror import WARNING, Mirror, MirrorWatch
from kdsearch.mirror.trial import students_of, trial_of
from kdsearch.search import ValidationScore

SERVER = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def study_in(folder: Path, world: World | None = None, **sections: object) -> tuple[Ledger, Agenda]:
    """A finished study whose outcomes are files."""
    resolved = resolved_of(a_study(**sections))
    ledger = Ledger(folder)
    ledger.prepare()
    ledger.write_resolved(resolved)
    return ledger, search_through(resolved, ledger, world or World(seed=1))


def two_students() -> dict[str, object]:
    config = {"model_type": "bert", "num_hidden_layers": 1}
    return {
        "models": {
            "big": {"config": {"model_type": "bert", "num_hidden_layers": 4}},
            "small": {"config": config},
            "twin": {"config": {**config, "hidden_size": 8}},
        },
        "students": {"small": {"model": "small"}, "twin": {"model": "twin"}},
    }


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mirror.db"


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of the test's own. It refuses to run as root, so there it is another user's."""
    if SERVER is None:
        pytest.skip("PostgreSQL's server is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    # Not below pytest's folder, which other users may not enter.
    folder = Path("/tmp") / f"kdsearch-postgresql-{os.getpid()}"
    folder.mkdir(mode=0o755)
    as_user: list[str] = []
    if os.getuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def run(program: str, *arguments: str) -> None:
        # Its output may be kept open by the server, so it goes to a file and not to a pipe.
        with (folder.parent / f"{folder.name}.log").open("ab") as log:
            command = [*as_user, str(SERVER / program), *arguments]
            subprocess.run(command, check=True, stdout=log, stderr=log, cwd="/", timeout=60)

    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "tester", "--auth=trust")
    # By a socket in its folder alone: a free port could be taken before the server has it.
    options = f"-k {folder} -c listen_addresses= -c fsync=off"
    run("pg_ctl", "-D", data, "-w", "-o", options, "start")
    yield f"postgresql+psycopg://tester@/postgres?host={folder}"
    run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)
    (folder.parent / f"{folder.name}.log").unlink()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


def test_every_test_case_is_a_study_and_every_training_of_it_a_trial(
    tmp_path: Path, url: str
) -> None:
    ledger, agenda = study_in(tmp_path / "study", **two_students())
    added = Mirror(url).update(agenda, ledger)
    total = 0
    for case in agenda.cases:
        study = optuna.load_study(study_name=f"small/{case}", storage=url)
        total += len(study.trials)
        assert len(study.trials) == agenda.trained(case)
        for trial in study.trials:
            outcome = agenda.results[trial.user_attrs["key"]]
            assert outcome is not None
            assert trial.value == outcome.validation
            assert trial.user_attrs["test"] == outcome.test
            assert trial.params["learning_rate"] == outcome.training.learning_rate
    assert added == total > 0


def test_a_second_update_adds_nothing(tmp_path: Path, url: str) -> None:
    ledger, agenda = study_in(tmp_path / "study", name="again")
    assert Mirror(url).update(agenda, ledger) > 0
    assert Mirror(url).update(agenda, ledger) == 0


def test_the_best_trial_is_the_winner_of_the_traversal(tmp_path: Path, sqlite: str) -> None:
    ledger, agenda = study_in(tmp_path / "study")
    Mirror(sqlite).update(agenda, ledger)
    [view] = agenda.views()
    best = optuna.load_study(study_name=f"small/{view.case}", storage=sqlite).best_trial
    assert view.progress is not None
    scores = [c.score for c in view.progress.candidates()]
    second = view.phase2
    assert second is not None
    scores += [c.score for c in (second.stable_tuned, second.lazy_tuned) if c]
    assert best.value == max(score for score in scores if score is not None)


def test_a_training_that_diverged_is_a_failed_trial(tmp_path: Path, sqlite: str) -> None:
    ledger, agenda = study_in(tmp_path / "study", World(seed=4, diverging=0.3))
    Mirror(sqlite).update(agenda, ledger)
    diverged = {k for k, o in agenda.results.items() if o and o.state == "diverged"}
    [case] = agenda.cases
    trials = optuna.load_study(study_name=f"small/{case}", storage=sqlite).trials
    failed = {t.user_attrs["key"] for t in trials if t.state == optuna.trial.TrialState.FAIL}
    assert failed
    assert failed <= diverged


def test_a_training_that_failed_for_good_is_a_failed_trial_with_the_reason(
    tmp_path: Path, sqlite: str
) -> None:
    ledger, agenda = study_in(tmp_path / "study", World(seed=4, failing=0.3), tries=1)
    Mirror(sqlite).update(agenda, ledger)
    [case] = agenda.cases
    trials = optuna.load_study(study_name=f"small/{case}", storage=sqlite).trials
    failed = [t for t in trials if t.state == optuna.trial.TrialState.FAIL]
    assert failed
    assert {agenda.results[t.user_attrs["key"]] for t in failed} == {None}
    assert {t.user_attrs["message"] for t in failed} == {"out of memory"}


def test_an_outcome_of_a_training_that_had_failed_is_added(tmp_path: Path, sqlite: str) -> None:
    ledger, agenda = study_in(tmp_path / "study", World(seed=4, failing=0.3), tries=1)
    Mirror(sqlite).update(agenda, ledger)
    [view] = agenda.views()
    training = next(
        training
        for trainings in agenda.students(view.case).values()
        for training in trainings
        if agenda.results.get(training.key, training) is None
    )
    ledger.write_outcome(outcome_of(training, 0.25))
    Mirror(sqlite).update(Agenda(agenda.resolved, ledger.results()), ledger)
    trials = optuna.load_study(study_name=f"small/{view.case}", storage=sqlite).trials
    values = [t.value for t in trials if t.user_attrs["key"] == training.key]
    assert values == [None, 0.25]


@pytest.mark.parametrize("seed", range(8))
def test_any_study_is_mirrored_whole_whatever_its_cases_share(
    tmp_path: Path, sqlite: str, seed: int
) -> None:
    # Among these: given teachers of one model, whose students one case calls `given`, another t_hs.
    resolved = resolved_of(random_study(random.Random(20 + seed)))
    ledger = Ledger(tmp_path / "study")
    ledger.prepare()
    ledger.write_resolved(resolved)
    agenda = search_through(resolved, ledger, World(seed=seed, failing=0.05, diverging=0.05))
    Mirror(sqlite).update(agenda, ledger)
    for view in agenda.views():
        study = optuna.load_study(study_name=f"random/{view.case}", storage=sqlite)
        assert len(study.trials) == agenda.trained(view.case)
        for trial in study.trials if view.case.teacher else ():
            assert trial.params["teacher"] in view.space.values("teacher")
            assert trial.params["alpha"] in view.space.values("alpha")


def test_a_trial_names_the_stage_that_asked_for_it_first(tmp_path: Path, sqlite: str) -> None:
    ledger, agenda = study_in(tmp_path / "study")
    Mirror(sqlite).update(agenda, ledger)
    [view] = agenda.views()
    trials = optuna.load_study(study_name=f"small/{view.case}", storage=sqlite).trials
    assert view.progress is not None
    alpha = {t.params["alpha"] for t in trials if t.user_attrs["stage"] == "alpha"}
    assert alpha == {0.5}  # the other value was held before
    first = view.progress.decisions[0].axis
    assert first in {t.user_attrs["stage"] for t in trials}


def test_another_study_of_the_same_name_is_refused(tmp_path: Path, sqlite: str) -> None:
    ledger, agenda = study_in(tmp_path / "study")
    added = Mirror(sqlite).update(agenda, ledger)
    other, other_agenda = study_in(tmp_path / "other", seed=8)
    with pytest.raises(InputError, match="holds a different study"):
        Mirror(sqlite).update(other_agenda, other)
    [summary] = optuna.get_all_study_summaries(sqlite)
    assert summary.n_trials == added


def test_each_seed_is_a_trial_of_its_own(tmp_path: Path, sqlite: str) -> None:
    ledger, agenda = study_in(tmp_path / "study", seeds=[0, 1])
    Mirror(sqlite).update(agenda, ledger)
    [case] = agenda.cases
    trials = optuna.load_study(study_name=f"small/{case}", storage=sqlite).trials
    seeds = [trial.user_attrs["seed"] for trial in trials]
    assert seeds.count(0) == seeds.count(1) == len(seeds) / 2


def test_what_a_case_chose_is_a_trial_under_each_winner_seed(tmp_path: Path, sqlite: str) -> None:
    ledger, agenda = study_in(tmp_path / "study", winner_seeds=[0, 4, 5])
    Mirror(sqlite).update(agenda, ledger)
    [case] = agenda.cases
    trials = optuna.load_study(study_name=f"small/{case}", storage=sqlite).trials
    further = [trial for trial in trials if trial.user_attrs["stage"] == "winner"]
    assert [trial.user_attrs["seed"] for trial in further] == [4, 5]
    [first] = [t for t in trials if t.user_attrs["key"] == agenda.winners(case)[0].key]
    assert all(trial.params == first.params for trial in further)
    assert len(trials) == agenda.trained(case)


def test_students_without_a_teacher_are_trials_of_a_study_of_their_own(
    tmp_path: Path, sqlite: str
) -> None:
    ledger, agenda = study_in(tmp_path / "study", erm=True)
    Mirror(sqlite).update(agenda, ledger)
    taught, erm = (
        optuna.load_study(study_name=f"small/{case}", storage=sqlite).trials
        for case in agenda.cases
    )
    assert {trial.params["distance"] for trial in erm} == {"labels"}
    assert {trial.params["distance"] for trial in taught} == {"ce", "mse"}


def test_importance_is_available_with_the_warning(tmp_path: Path, sqlite: str) -> None:
    ledger, agenda = study_in(tmp_path / "study")
    Mirror(sqlite).update(agenda, ledger)
    [case] = agenda.cases
    study = optuna.load_study(study_name=f"small/{case}", storage=sqlite)
    found = optuna.importance.get_param_importances(study)
    assert {"distance", "learning_rate"} <= set(found)
    assert study.user_attrs["warning"] == WARNING


def test_the_dashboard_shows_the_warning_as_the_studys_note(tmp_path: Path, sqlite: str) -> None:
    dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    ledger, agenda = study_in(tmp_path / "study")
    Mirror(sqlite).update(agenda, ledger)
    [case] = agenda.cases
    study = optuna.load_study(study_name=f"small/{case}", storage=sqlite)
    with warnings.catch_warnings(action="ignore"):
        assert dashboard.get_note(study) == WARNING


def follow(watch: MirrorWatch, agenda: Agenda) -> None:
    """Tell a watch what a search did."""
    for view in agenda.views():
        for outcome in agenda.results.values():
            if outcome is not None:
                request = Request(training=outcome.training, case=view.case, stage="")
                watch.finished(request, outcome)


def test_a_search_is_followed_from_its_results_alone(tmp_path: Path, url: str) -> None:
    ledger, agenda = study_in(tmp_path / "study", name="followed")
    said: list[str] = []
    watch = MirrorWatch(Mirror(url), Agenda(agenda.resolved), ledger, said.append)
    follow(watch, agenda)
    watch.close()
    [case] = agenda.cases
    study = optuna.load_study(study_name=f"followed/{case}", storage=url)
    assert len(study.trials) == agenda.trained(case)
    assert said == []


def test_a_mirror_that_is_lost_does_not_stop_the_search_and_is_told_once(tmp_path: Path) -> None:
    ledger, agenda = study_in(tmp_path / "study")
    database = tmp_path / "mirror.db"
    said: list[str] = []
    mirror = Mirror(f"sqlite:///{database}")
    content = database.read_bytes()
    database.write_bytes(b"not a database" * 1000)
    watch = MirrorWatch(mirror, Agenda(agenda.resolved), ledger, said.append)
    follow(watch, agenda)
    watch.close()
    assert ["the search continues" in line for line in said] == [True, False]
    assert "catches up" in said[1]
    database.write_bytes(content)
    assert Mirror(f"sqlite:///{database}").update(agenda, ledger) == agenda.trained(agenda.cases[0])


@pytest.mark.undisturbed
def test_a_database_that_hangs_holds_no_search_up(tmp_path: Path, sqlite: str) -> None:
    ledger, agenda = study_in(tmp_path / "study")
    said: list[str] = []
    mirror = Mirror(sqlite)
    with closing(sqlite3.connect(sqlite.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN EXCLUSIVE")  # and SQLite waits for it
        watch = MirrorWatch(mirror, Agenda(agenda.resolved), ledger, said.append)
        started = time.monotonic()
        follow(watch, agenda)
        watch.close(seconds=0.5)
        assert time.monotonic() - started < 3
    assert "is behind" in said[-1]


def test_a_server_that_says_nothing_is_refused_after_a_while() -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with listening() as server, pytest.raises(InputError, match="cannot be opened"):
        Mirror(server.replace("http://", "postgresql+psycopg://me:secret@") + "/x")


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("nonsense", "is not a database URL"),
        ("sqlite:////no/such/folder/mirror.db", "cannot be opened"),
        ("postgresql+psycopg://me:secret@127.0.0.1:1/x", "cannot be opened"),
        ("mysql://me:secret@127.0.0.1:1/x", "needs a driver"),
        ("postgresql://me:secret@host:port/x", "is not a database URL"),
        ("postgres://me:secret@host/x", "is not a database URL"),
        ("sqlite://", "names no file"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_refused_without_its_password(
    url: str, what: str
) -> None:
    with pytest.raises(InputError, match=what) as caught:
        Mirror(url)
    assert "secret" not in str(caught.value)


def test_the_command_says_how_many_trials_it_added(tmp_path: Path, sqlite: str) -> None:
    _, agenda = study_in(tmp_path / "study")
    found = CliRunner().invoke(app, ["mirror", str(tmp_path / "study"), sqlite])
    assert found.exit_code == 0, found.output
    [case] = agenda.cases
    assert f"{agenda.trained(case)} trials added" in found.output
    assert f"optuna-dashboard {sqlite}\n" in found.output


def test_scores_of_epochs_are_intermediate_values(tmp_path: Path, sqlite: str) -> None:
    ledger, agenda = study_in(tmp_path / "study")
    [view] = agenda.views()
    student = next(students_of(agenda, view))
    outcome = ledger.outcome(student.training.key)
    assert outcome is not None
    epochs = tuple(
        Epoch(
            epoch=number,
            train_loss=None,
            validation=ValidationScore(uniform(number)),
            validation_loss=None,
        )
        for number in (1, 2)
    )
    changed = outcome.model_copy(update={"epochs": epochs})
    trial = trial_of(student, changed, datetime.fromtimestamp(0))
    assert trial.intermediate_values == {1: uniform(1), 2: uniform(2)}


def test_a_trial_has_the_times_of_its_training_whenever_its_file_was_written(
    tmp_path: Path,
) -> None:
    ledger, agenda = study_in(tmp_path / "study")
    [view] = agenda.views()
    student = next(students_of(agenda, view))
    outcome = ledger.outcome(student.training.key)
    assert outcome is not None
    started = datetime(2024, 2, 29, 23, 30, tzinfo=timezone(timedelta(hours=-7)))
    times = {"started": started, "ended": started + timedelta(minutes=45)}
    cost = Cost.model_validate({**outcome.cost.model_dump(), **times})
    told = outcome.model_copy(update={"cost": cost})
    trial = trial_of(student, told, datetime.fromtimestamp(0))
    assert trial.datetime_start == datetime.fromtimestamp(1_709_274_600)  # `date -d`, of that
    assert trial.duration == timedelta(minutes=45)
    untold = trial_of(student, outcome, datetime.fromtimestamp(10**9))
    assert untold.datetime_complete == datetime.fromtimestamp(10**9)
    assert untold.duration == timedelta(seconds=outcome.cost.seconds)


def test_a_training_that_failed_did_so_when_it_failed_in_a_copy_too(
    tmp_path: Path, sqlite: str
) -> None:
    ledger, _ = study_in(tmp_path / "study", World(seed=4, failing=0.3), tries=1)
    failed = {key: tries[-1].ended for key, tries in ledger.attempts().items()}
    copied = Ledger(shutil.copytree(ledger.folder, tmp_path / "copy"))
    for path in copied.folder.glob("attempts/*/*.json"):
        os.utime(path, (10**9, 10**9))
    agenda = Agenda(copied.resolved(), copied.results())
    Mirror(sqlite).update(agenda, copied)
    trials = optuna.load_study(study_name=f"small/{agenda.cases[0]}", storage=sqlite).trials
    ended = {t.user_attrs["key"]: t.datetime_complete for t in trials if t.value is None}
    assert ended
    for key, time_ in ended.items():
        told = failed[key]
        assert time_ is not None
        assert told is not None
        assert time_.astimezone() == told


def test_launch_keeps_a_mirror_in_step(tmp_path: Path, sqlite: str) -> None:
    study = tmp_path / "tiny.yaml"
    search = {**tiny_study()["search"], "distance": ["mse"], "teacher": ["t_hs"]}
    study.write_text(json.dumps(tiny_study(search=search)))
    folder = tmp_path / "run"
    found = kdsearch("launch", study, "--in-process", "--folder", folder, "--optuna", sqlite)
    assert found.code == 0, found
    ledger = Ledger(folder)
    [case] = Agenda(ledger.resolved(), ledger.results()).cases
    trials = optuna.load_study(study_name=f"tiny/{case}", storage=sqlite).trials
    students = [o for o in ledger.outcomes() if o.training.kind == "student"]
    began = min(o.cost.started for o in students if o.cost.started)
    assert min(t.datetime_start for t in trials if t.datetime_start).astimezone(UTC) == began
    assert {t.user_attrs["key"] for t in trials} == {o.key for o in students}


def test_a_launch_whose_mirror_cannot_be_opened_trains_nothing(tmp_path: Path) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(json.dumps(tiny_study()))
    folder = tmp_path / "run"
    url = "sqlite:////no/such/folder/mirror.db"
    refused(
        kdsearch("launch", study, "--in-process", "--folder", folder, "--optuna", url),
        "cannot be opened",
    )
    assert not folder.exists()
