"""`launch`: run a search, or go on with it."""

from __future__ import annotations

import errno
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from kdsearch.agenda import Agenda
from kdsearch.cli.options import (
    Models,
    StudyFile,
    console,
    count,
    example,
    parse_models,
    print_answer,
)
from kdsearch.distill import check_models, run_training
from kdsearch.driver import Watch, duration, open_study, run_search
from kdsearch.engine import InProcessEngine, Worker
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, driver_lock, storage_error
from kdsearch.report import write_report
from kdsearch.study import Resolved, Study, load_study

if TYPE_CHECKING:
    from kdsearch.mirror import Mirror

INCOMPLETE = 1
_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@\s]*@|([?&]password)=[^&\s]*")
"""In a database's URL: behind the user's name, or among the options."""
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=example("kdsearch launch search_spaces/mrpc.yaml --data-dir data --address auto")
    )(launch)


def launch(
    study_file: StudyFile,
    folder: Annotated[
        Path | None,
        typer.Option(help="The study's folder, on storage that every node sees. [runs/NAME]"),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Holds NAME/{train,validation,test}.jsonl[.gz], .csv or .parquet for data sets, "
            "and models/NAME/ for models."
        ),
    ] = None,
    model: Models = None,
    address: Annotated[
        str | None,
        typer.Option(help="A running Ray: auto, or HOST:PORT. Default: a local one is started."),
    ] = None,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Without Ray, one training at a time: to debug.")
    ] = False,
    optuna: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Keep an Optuna storage in step, for optuna-dashboard: sqlite:///FILE, …",
        ),
    ] = None,
) -> None:
    """Run a search. The same command goes on with it: nothing finished is trained again."""
    if in_process and address:
        raise InputError.one("--in-process", "does not go with --address", "give one of them")
    storage = _storage(optuna) if optuna else None
    study = load_study(study_file, models=_fetched(study_file, data_dir) | parse_models(model))
    ledger = Ledger((folder or Path("runs") / study.name).resolve())
    out = console()
    _check_folder(ledger)
    ledger.prepare()
    started = time.monotonic()
    with _disk_in_words(ledger.folder), driver_lock(ledger.folder), _stopped_politely(out):
        agenda = open_study(
            ledger, study, data_dir=data_dir, place=str(study_file), check=check_models
        )
        cases = count(len(agenda.cases), "test case")
        out.print(f"study {study.name}: {cases}, in {ledger.folder}")
        _say_of_data(agenda.resolved, out)
        known = sum(result is not None for result in agenda.results.values())
        if known:
            out.print(f"going on: {count(known, 'training')} done already")
        with _mirrored(storage, agenda, ledger, out) as watches:
            if agenda.complete:
                out.print("nothing is left to run")
            else:
                _run(
                    agenda,
                    ledger,
                    study,
                    address=address,
                    in_process=in_process,
                    out=out,
                    watches=watches,
                )
        report = write_report(ledger, agenda)
    out.print(f"\nsearch ended after {duration(time.monotonic() - started)}")
    print_answer(agenda)
    out.print(f"report: {report}")
    _exit_if_incomplete(agenda, ledger)


def _storage(url: str) -> Mirror:
    """The Optuna storage at `url`. Raises `InputError`."""
    # Optuna takes a second to import, which most launches do not need.
    from kdsearch.mirror import Mirror

    return Mirror(url)


@contextmanager
def _mirrored(
    storage: Mirror | None, agenda: Agenda, ledger: Ledger, out: Console
) -> Iterator[tuple[Watch, ...]]:
    """What keeps `storage` in step with the search, if there is one; up to date before and after.

    Raises `InputError` where it holds another study of this name.
    """
    if storage is None:
        yield ()
        return
    from kdsearch.mirror import MirrorWatch

    storage.update(agenda, ledger)
    watch = MirrorWatch(storage, agenda, ledger, out.print)
    try:
        yield (watch,)
    finally:
        watch.close()


def _say_of_data(resolved: Resolved, out: Console) -> None:
    """What became of a data set's rows that its reader may not expect."""
    for name, data in resolved.datasets.items():
        for split, rows in data.cut.items():
            out.print(f"{name}: no {split} split; cut off train: {count(rows, 'row')}")
        for split, rows in data.left_out.items():
            out.print(f"{name}: left out of {split}, since unusable: {count(rows, 'row')}")
        train = data.splits["train"]
        if train.unlabelled:
            out.print(f"{name}: {train.unlabelled} of {train.rows} rows of train have no label")


def _fetched(study_file: Path, data_dir: Path | None) -> dict[str, str]:
    """The models that `fetch` brought to DIR/models/, by their names in the study."""
    if data_dir is None or not (data_dir / "models").is_dir():
        return {}
    known = load_study(study_file).models
    folders = {path.name: path for path in (data_dir / "models").iterdir() if path.is_dir()}
    return {
        name: str(folders[name].resolve())
        for name, source in known.items()
        if name in folders and source.hub is not None
    }


def _run(
    agenda: Agenda,
    ledger: Ledger,
    study: Study,
    *,
    address: str | None,
    in_process: bool,
    out: Console,
    watches: Sequence[Watch],
) -> None:
    worker = Worker(folder=ledger.folder, run_training=run_training)
    if in_process:
        run_search(
            agenda, ledger, InProcessEngine(worker=worker), slots=1, console=out, watches=watches
        )
        return
    # Ray takes a second to import, which commands that only read files do not need.
    from kdsearch.engine.ray_tune import EngineError, RayTuneEngine, connect, words

    resources = study.resources
    connection = connect(
        address,
        cpus=resources.cpus,
        gpus=resources.gpus,
        threads=study.training.cpu_threads,
        say=out.print,
    )
    with connection as cluster:
        _raise_on_termination()
        if cluster.dashboard:
            out.print(f"Ray dashboard: {cluster.dashboard}")
            if cluster.token:
                out.print(f"  it asks for a token: {cluster.token}")
        slots = count(cluster.slots, "training")
        out.print(
            f"{slots} at once, each on {words(cluster.resources)}; "
            f"`kdsearch status {ledger.folder}` watches"
        )
        engine = RayTuneEngine(worker=worker, cluster=cluster)
        try:
            run_search(agenda, ledger, engine, slots=cluster.slots, console=out, watches=watches)
        except EngineError as error:
            out.print(f"kdsearch: {error}")
            _resume_hint(out)
            raise typer.Exit(INCOMPLETE) from None


@contextmanager
def _stopped_politely(out: Console) -> Iterator[None]:
    """On Ctrl-C or SIGTERM say how to go on."""
    before = signal.getsignal(signal.SIGTERM)
    _raise_on_termination()
    try:
        yield
    except KeyboardInterrupt:
        out.print("\nstopped; what was finished is kept")
        _resume_hint(out)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _disk_in_words(folder: Path) -> Iterator[None]:
    """A full disk shows wherever something is written, not only where an outcome is."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise storage_error(folder, error) from None


def _raise_on_termination() -> None:
    """Have SIGTERM stop a search as Ctrl-C does; Ray installs a handler of its own at its start."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _resume_hint(out: Console) -> None:
    command = _PASSWORD.sub(_hidden, shlex.join(sys.argv[1:]))
    out.print(f"go on with the same command: kdsearch {command}")


def _hidden(password: re.Match[str]) -> str:
    return f"{password[1]}:***@" if password[1] else f"{password[2]}=***"


def _check_folder(ledger: Ledger) -> None:
    """Refuse a folder in which a study would mix with other files."""
    if ledger.folder.exists() and not ledger.folder.is_dir():
        raise InputError.one(f"--folder {ledger.folder}", "is a file", "give a folder")
    strangers = ledger.strangers() if ledger.folder.is_dir() and not ledger.exists else []
    if strangers:
        what = f"holds other files, such as {strangers[0]}"
        raise InputError.one(f"--folder {ledger.folder}", what, "give an empty or a new folder")


def _exit_if_incomplete(agenda: Agenda, ledger: Ledger) -> None:
    """Say what is missing of a search that ended, and exit with 1."""
    failed = [key for key, result in agenda.results.items() if result is None]
    blocked = [view for view in agenda.views() if view.blocked]
    for view in blocked:
        print(f"kdsearch: {view.case} could not be searched: {view.blocked}", file=sys.stderr)
    if failed:
        trainings = count(len(failed), "training")
        print(
            f"kdsearch: {trainings} failed for good; why: {ledger.folder}/attempts/\n"
            "  to try one again, remove its folder there and launch again",
            file=sys.stderr,
        )
    unscored = [v for v in agenda.views() if v.traversed and not v.best_has_score]
    for view in unscored:
        print(f"kdsearch: {view.case}: no training of it has a score", file=sys.stderr)
    if failed or blocked or unscored:
        raise typer.Exit(INCOMPLETE)
