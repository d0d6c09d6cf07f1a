"""From outcomes to Optuna's trials: an Optuna study per test case."""

from __future__ import annotations

import warnings
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from kdsearch.agenda import Agenda, CaseView, Outcome, StudentTraining
from kdsearch.analysis import students_of
from kdsearch.errors import InputError, first_line
from kdsearch.search import TIED, Space

WARNING = (
    "A greedy walk is not a uniform sample of the grid: it tries many values of the parameters it "
    "comes to late, and only near what it held. Importances are biased accordingly."
)
_NOTE_VERSION, _NOTE = "dashboard:note_ver", "dashboard:note_str:0"
"""Where optuna-dashboard keeps the note of a study."""


class Mirror:
    """An Optuna storage that follows a study.

    One Optuna study per test case, called STUDY/DATASET/TEACHER/STUDENT; one trial per student's
    training, under each seed, with the validation score as its value. Students without a teacher
    are no points of the grid, and are left out.
    """

    def __init__(self, url: str) -> None:
        """Open the storage at `url`, such as sqlite:///mirror.db. Raises `InputError`."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            self.url = make_url(url).render_as_string(hide_password=True)
            self._storage = optuna.storages.RDBStorage(url)
        except ArgumentError:
            mend = "give one such as sqlite:///mirror.db or postgresql+psycopg://USER@HOST/NAME"
            raise InputError.one("the Optuna storage", "is no database URL", mend) from None
        except ImportError as error:
            mend = "for PostgreSQL: pip install 'psycopg[binary]', and write postgresql+psycopg://"
            raise InputError.one(self.url, f"needs a driver: {first_line(error)}", mend) from None
        except Exception as error:  # each database driver has errors of its own
            mend = "check that the database runs, and the name and password"
            raise InputError.one(self.url, f"cannot be opened: {_reason(error)}", mend) from None

    def update(self, agenda: Agenda, folder: Path) -> int:
        """Add what the storage lacks of the study in `folder`; how many trials were added.

        Raises `sqlalchemy.exc.SQLAlchemyError` or `optuna.exceptions.OptunaError`.
        """
        students = students_of(agenda)
        return sum(
            self._update_case(agenda, view, students[view.case], folder) for view in agenda.views()
        )

    def _update_case(self, agenda: Agenda, view: CaseView, keys: list[str], folder: Path) -> int:
        study = optuna.create_study(
            storage=self._storage,
            study_name=f"{agenda.resolved.study.name}/{view.case}",
            direction="maximize",
            load_if_exists=True,
        )
        if "warning" not in study.user_attrs:
            study.set_user_attr("warning", WARNING)
            with warnings.catch_warnings(action="ignore"):  # that it is experimental
                metric = agenda.resolved.datasets[view.case.dataset].metric
                study.set_metric_names([f"validation {metric}"])
            number = self._storage.get_study_id_from_name(study.study_name)
            self._storage.set_study_system_attr(number, _NOTE_VERSION, 1)
            self._storage.set_study_system_attr(number, _NOTE, WARNING)
        known = {trial.user_attrs.get("key") for trial in study.get_trials(deepcopy=False)}
        new = [o for key in keys if key not in known and (o := agenda.results.get(key)) is not None]
        trials = [trial_of(outcome, view.space, folder) for outcome in new]
        study.add_trials(sorted(trials, key=lambda trial: trial.datetime_complete or datetime.max))
        return len(trials)


def trial_of(outcome: Outcome, space: Space, folder: Path) -> FrozenTrial:
    """The trial of a student's outcome. One that diverged is a failed trial."""
    training = outcome.training
    assert isinstance(training, StudentTraining)
    scored = outcome.validation is not None
    found = optuna.trial.create_trial(
        state=TrialState.COMPLETE if scored else TrialState.FAIL,
        value=outcome.validation,
        params=(params := _params(training)),
        distributions={name: _distributions(space)[name] for name in params},
        intermediate_values={
            epoch.epoch: epoch.validation
            for epoch in outcome.epochs
            if epoch.validation is not None
        },
        user_attrs={
            "key": outcome.key,
            "configuration": str(training),
            "seed": training.seed,
            "test": outcome.test,
            "best_epoch": outcome.best_epoch,
            "host": outcome.cost.host,
            "device": outcome.cost.device,
            "seconds": outcome.cost.seconds,
        },
    )
    written = (folder / "outcomes" / f"{outcome.key}.json").stat().st_mtime
    found.datetime_complete = datetime.fromtimestamp(written)
    found.datetime_start = found.datetime_complete - timedelta(seconds=outcome.cost.seconds)
    return found


def _params(training: StudentTraining) -> dict[str, Any]:
    params: dict[str, Any] = {
        "distance": str(training.distance),
        "teacher": str(training.checkpoint_name),
        "alpha": training.alpha,
        "learning_rate": training.learning_rate,
    }
    if training.temperature is not None:
        tied = training.student_temperature == training.temperature
        params["temperature"] = training.temperature
        params["student_temperature"] = TIED if tied else f"{training.student_temperature:g}"
    return params


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    """What each parameter may be in a test case; τ_t may leave the broad values upwards."""
    broad, rates, alphas = space.broad, space.learning_rates, space.alphas
    students = [s if isinstance(s, str) else f"{s:g}" for s in space.student_temperatures]
    # Of a trial at τ_t = τ_s, tied is what is said, whichever value led there.
    return {
        "distance": CategoricalDistribution(list(map(str, space.distances))),
        "teacher": CategoricalDistribution(list(map(str, space.teachers))),
        "alpha": FloatDistribution(min(alphas), max(alphas)),
        "learning_rate": FloatDistribution(min(rates), max(rates), log=True),
        # The lazy baseline is at τ_t = 1, wherever the broad values lie.
        "temperature": FloatDistribution(
            min(1.0, broad[0]), max(1.0, broad[-1] * broad[-1] / broad[-2] * 1.00001), log=True
        ),
        "student_temperature": CategoricalDistribution(list(dict.fromkeys([TIED, *students]))),
    }


def _reason(error: Exception) -> str:
    cause = error.orig if isinstance(error, SQLAlchemyError) and hasattr(error, "orig") else error
    return first_line(cause)
