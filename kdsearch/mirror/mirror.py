"""From results to Optuna's trials: an Optuna study per test case."""

from __future__ import annotations

import hashlib
import json
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from kdsearch.agenda import Agenda, CaseView
from kdsearch.errors import InputError, first_line
from kdsearch.ledger import Ledger, layout
from kdsearch.mirror.trial import Student, failed_trial, state_of, students_of, trial_of
from kdsearch.mirror.url import hidden, parsed, without_secrets
from kdsearch.study import Resolved

WARNING = (
    "A greedy walk is not a uniform sample of the grid: it tries many values of the parameters it "
    "comes to late, and only near what it held. Importances are biased accordingly."
)
_NOTE_VERSION, _NOTE = "dashboard:note_ver", "dashboard:note_str:0"
"""Where optuna-dashboard keeps the note of a study."""
_SECONDS_TO_CONNECT = 10


class Mirror:
    """An Optuna storage that follows a study.

    One Optuna study per test case, called STUDY/DATASET/TEACHER/STUDENT (and by its search, of
    several); one trial per student's training, under each seed, with the validation score as its
    value.
    """

    def __init__(self, url: str) -> None:
        """Open the storage at `url`, such as sqlite:///mirror.db. Raises `InputError`."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._parts = parsed(url)
        self.url = hidden(self._parts)
        self._studies: dict[str, optuna.Study] = {}
        options: dict[str, Any] = {}
        if self._parts.get_backend_name() == "postgresql":
            # A server that was started again has dropped the connections that are kept.
            options = {
                "pool_pre_ping": True,
                "connect_args": {"connect_timeout": _SECONDS_TO_CONNECT},
            }
        try:
            self._storage = optuna.storages.RDBStorage(url, engine_kwargs=options)
        except ImportError as error:
            remedy = (
                "for PostgreSQL: pip install 'psycopg[binary]', and write postgresql+psycopg://"
            )
            raise InputError.one(
                self.url, f"needs a driver: {self._reason(error)}", remedy
            ) from None
        except Exception as error:  # each database driver has errors of its own
            remedy = "check that the database is running, and the name and password"
            raise InputError.one(
                self.url, f"cannot be opened: {self._reason(error)}", remedy
            ) from None

    def _reason(self, error: BaseException) -> str:
        """What the database said, of which Optuna and SQLAlchemy make errors of their own."""
        if isinstance(error, OptunaError) and error.__cause__ is not None:
            error = error.__cause__
        return without_secrets(first_line(getattr(error, "orig", None) or error), self._parts)

    def update(self, agenda: Agenda, ledger: Ledger) -> int:
        """Add what the storage lacks of the ledger's study; how many trials were added.

        Raises `InputError` where it holds another study of this name, and where it is lost.
        """
        try:
            return sum(self._update_case(agenda, view, ledger) for view in agenda.views())
        except (OptunaError, SQLAlchemyError) as error:
            remedy = "nothing of the study is lost: `kdsearch mirror` catches up"
            raise InputError.one(self.url, f"was lost: {self._reason(error)}", remedy) from None

    def _update_case(self, agenda: Agenda, view: CaseView, ledger: Ledger) -> int:
        name = f"{agenda.resolved.study.name}/{view.case}"
        if name not in self._studies:  # which know the trials that they have seen
            self._studies[name] = self._study(name, agenda.resolved, view)
        study = self._studies[name]
        # A training that had failed for good may have an outcome by now: then it has two trials.
        known = {
            (trial.user_attrs.get("key"), trial.state) for trial in study.get_trials(deepcopy=False)
        }
        trials = [
            _trial(student, agenda, ledger)
            for student in students_of(agenda, view)
            if (student.training.key, state_of(agenda.results[student.training.key])) not in known
        ]
        study.add_trials(sorted(trials, key=lambda trial: trial.datetime_complete or datetime.max))
        return len(trials)

    def _study(self, name: str, resolved: Resolved, view: CaseView) -> optuna.Study:
        """The Optuna study of a test case, made if there is none."""
        identity = _identity(resolved)
        study = optuna.create_study(
            storage=self._storage, study_name=name, direction="maximize", load_if_exists=True
        )
        attributes = study.user_attrs
        if attributes.get("study", identity) != identity:
            what = f"holds a different study with a test case {name}"
            raise InputError.one(self.url, what, "give another URL, or rename one of the studies")
        if "warning" not in attributes:
            study.set_user_attr("study", identity)
            with warnings.catch_warnings(action="ignore"):  # that it is experimental
                study.set_metric_names(
                    [f"validation {resolved.datasets[view.case.dataset].metric}"]
                )
            number = self._storage.get_study_id_from_name(name)
            self._storage.set_study_system_attr(number, _NOTE_VERSION, 1)
            warning = WARNING if view.search.flips else ""
            self._storage.set_study_system_attr(number, _NOTE, warning)
            study.set_user_attr("warning", warning)  # the last: all of this has been said
        return study


def _trial(student: Student, agenda: Agenda, ledger: Ledger) -> FrozenTrial:
    key = student.training.key
    outcome = agenda.results[key]
    if outcome is not None:
        return trial_of(student, outcome, _written(ledger.path(layout.outcome(key))))
    attempt = ledger.attempts_of(key)[-1]
    path = ledger.path(layout.attempt(key, attempt.number))
    return failed_trial(student, attempt, _written(path))


def _identity(resolved: Resolved) -> str:
    """A digest of a study and its rows, less what may change (see `study.differences`)."""
    study = resolved.study.model_dump(mode="json", exclude={"resources", "keep_students"})
    rows = {
        name: [split.digest for split in dataset.splits.values()]
        for name, dataset in resolved.datasets.items()
    }
    return hashlib.sha256(json.dumps([study, rows], sort_keys=True).encode()).hexdigest()[:24]


def _written(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime)
