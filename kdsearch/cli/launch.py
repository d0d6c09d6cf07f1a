"""`launch`: run a search, or resume it."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from kdsearch.agenda import Agenda, used
from kdsearch.cli.address import Address, find_address
from kdsearch.cli.automatic import exit_code, in_job, launched_by_person
from kdsearch.cli.code import name_own_code, preflight_trusting
from kdsearch.cli.job import launch_there
from kdsearch.cli.options import (
    DataDir,
    Models,
    StudyFile,
    check_folder,
    console,
    count,
    example,
    home,
    print_answer,
    print_doubts,
    say_of_data,
    study_models,
)
from kdsearch.cli.reporting import last_report
from kdsearch.cli.running import Run
from kdsearch.cli.stop import parse_deadline, stoppable
from kdsearch.cli.submission import cluster_path, options_there
from kdsearch.driver import (
    Deadline,
    Look,
    Watch,
    duration,
    open_study,
    version_changes,
)
from kdsearch.engine import LocalRay
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, driver_lock, layout, storage_error
from kdsearch.study import Preflight, Resolved, Study, installed_versions, load_study

if TYPE_CHECKING:
    from kdsearch.mirror import Mirror

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command(
        epilog=example("kdsearch launch search_spaces/mrpc.yaml --data-dir data --address auto")
    )(launch)


Folder = Annotated[
    Path | None,
    typer.Option(
        callback=home,
        help="The study's folder, on storage that every node sees. Default: runs/NAME.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="A running Ray: auto, or HOST:PORT; http://HEAD:8265 submits a job to it; local "
        "starts one. Default: RAY_ADDRESS, else local."
    ),
]
InProcess = Annotated[
    bool, typer.Option("--in-process", help="Run without Ray, one training at a time: to debug.")
]
MaxSlots = Annotated[
    int | None,
    typer.Option(
        "--max-slots",
        min=1,
        metavar="N",
        help="At most this many trainings at once, to leave room for others. Default: as many as "
        "the cluster has room for and the search can use; an autoscaler sees the rest.",
    ),
]
OptunaStorage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Keep an Optuna storage up to date, for optuna-dashboard: sqlite:///FILE, …; @FILE "
        "reads the URL from a file. Default: KDSEARCH_OPTUNA.",
    ),
]
Ends = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Start nothing that would not finish by then: 90m, 11.5h, 2d or 2026-12-24T08:00.",
    ),
]
AcceptChanges = Annotated[
    bool,
    typer.Option(
        "--accept-changes",
        help="Continue without asking if data or model files have changed.",
    ),
]
Detach = Annotated[bool, typer.Option("--detach", help="Submit the job without watching it.")]


def launch(
    study_file: StudyFile,
    folder: Folder = None,
    data_dir: DataDir = None,
    model: Models = None,
    address: RayAddress = None,
    in_process: InProcess = False,
    max_slots: MaxSlots = None,
    optuna: OptunaStorage = None,
    deadline: Ends = None,
    accept_changes: AcceptChanges = False,
    detach: Detach = False,
) -> None:
    """Run a search. The same command resumes it: nothing finished is trained again."""
    if in_process and address:
        raise InputError.one("--in-process", "does not go with --address", "give only one of them")
    where = None if in_process else find_address(address, os.environ)
    ends = parse_deadline(deadline) if deadline else None
    if where and where.kind == "jobs":
        options = options_there(
            data_dir=data_dir,
            models=model or [],
            max_slots=max_slots,
            optuna=optuna,
            deadline=deadline,
            accept_changes=accept_changes,
        )
        study = load_study(study_file, models=dict(each.split("=", 1) for each in model or []))
        there = cluster_path(folder, "--folder")
        launch_there(where, study_file, study, there, options, detach=detach, out=console())
        return
    if detach:
        remedy = "give --address http://HEAD:8265"
        raise InputError.one("--detach", "only applies to a launch submitted as a job", remedy)
    storage = _storage(optuna) if optuna or "KDSEARCH_OPTUNA" in os.environ else None
    study = load_study(study_file, models=study_models(study_file, data_dir, model))
    ledger = Ledger((folder or Path("runs") / study.name).resolve())
    _search(
        ledger,
        study,
        place=str(study_file),
        data_dir=data_dir,
        accept=lambda: accept_changes or _asked(),
        storage=storage,
        where=where,
        max_slots=max_slots,
        deadline=ends,
    )


def _search(
    ledger: Ledger,
    study: Study,
    *,
    place: str,
    data_dir: Path | None,
    accept: Callable[[], bool],
    storage: Mirror | None,
    where: Address | None,
    max_slots: int | None,
    deadline: Deadline | None,
) -> None:
    """Run the search in the ledger's folder to its end, from here or in its Ray."""
    out = console()
    check_folder(ledger)
    ledger.prepare()
    started = time.monotonic()
    with (
        _disk_in_words(ledger.folder),
        driver_lock(ledger.folder, taken_over=_taken_over),
        stoppable(ledger, out, deadline),
        closing(LocalRay()) as local,
    ):
        if ledger.stopped_by_person() and not launched_by_person(os.environ):
            print(_stays_stopped(ledger), file=sys.stderr)
            return
        ledger.forget_stop()
        name_own_code(study, place, out.print)
        look = preflight_trusting(study)
        if where is not None and where.kind == "local":
            look = _meanwhile(local, look, out)
        agenda = open_study(
            ledger, study, data_dir=data_dir, place=place, look=look, say=out.print, accept=accept
        )
        _tell_what_is_known(agenda, ledger, out)
        with _mirrored(storage, agenda, ledger, out) as watches:
            run = Run(
                agenda=agenda,
                ledger=ledger,
                study=study,
                place=place,
                out=out,
                watches=watches,
                deadline=deadline,
                local=local,
            )
            run.to_the_end(where, max_slots)
        report = last_report(ledger, agenda)
    out.print(f"\nsearch ended after {duration(time.monotonic() - started)}")
    if report:
        print_answer(agenda, ledger)
        out.print(f"report: {report}")
    _exit(agenda, ledger, deadline)


def _tell_what_is_known(agenda: Agenda, ledger: Ledger, out: Console) -> None:
    """Say which study it is, what is doubtful about it, and what of it is done."""
    cases = count(len(agenda.cases), "test case")
    out.print(f"study {agenda.resolved.study.name}: {cases}, in {ledger.folder}")
    say_of_data(agenda.resolved, out)
    if found := ledger.preflight():
        print_doubts(out, found.doubts)
    results = used(agenda).values()
    known = sum(result is not None for result in results)
    if not agenda.complete:
        was = agenda.resolved.versions
        for line in version_changes(installed_versions(), results, was):
            out.print(f"warning: {line}")
    if known:
        out.print(f"resuming: {count(known, 'training')} already done")


def _meanwhile(local: LocalRay, look: Look, out: Console) -> Look:
    """`look`, while a Ray starts; what it looks at for seconds has been read and is well-formed."""

    def looking(resolved: Resolved, ledger: Ledger, place: str, digest: str) -> Preflight:
        local.start(out.print)
        return look(resolved, ledger, place, digest)

    return looking


def _asked() -> bool:
    """Whether the person at the terminal, if there is one, goes on with files that have changed."""
    there = sys.stdin is not None and sys.stdin.isatty()
    return there and typer.confirm("continue with these changes?", err=True)


def _storage(given: str | None) -> Mirror | None:
    """The Optuna storage of the option or of the environment. Raises `InputError`."""
    # Optuna takes a second to import, which most launches do not need.
    from kdsearch.mirror import Mirror, storage_url

    url = storage_url(given)
    return Mirror(url) if url else None


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


def _stays_stopped(ledger: Ledger) -> str:
    return (
        f"kdsearch: {ledger.folder} was asked to stop, and nobody has launched it since: doing "
        "nothing\n  to resume: launch it outside a job or with --address http://HEAD:8265, or "
        f"remove {ledger.path(layout.STOP)}"
    )


def _taken_over() -> None:
    print("kdsearch: another host has taken over this search; stopping", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _disk_in_words(folder: Path) -> Iterator[None]:
    """A full disk shows wherever something is written, not only where an outcome is."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise storage_error(folder, error) from None


def _exit(agenda: Agenda, ledger: Ledger, deadline: Deadline | None) -> NoReturn:
    """Say what is missing of a search that ended, and exit with what that means."""
    failed = [key for key, result in used(agenda).items() if result is None]
    blocked = [view for view in agenda.views() if view.blocked]
    for view in blocked:
        print(f"kdsearch: {view.case} could not be searched: {view.blocked}", file=sys.stderr)
    if failed:
        attempts = ledger.attempts()
        kinds = Counter(attempts[key][-1].failure for key in failed)
        classes = ", ".join(f"{number} with {kind}" for kind, number in sorted(kinds.items()))
        print(
            f"kdsearch: {count(len(failed), 'training')} failed for good ({classes}); "
            f"why: {ledger.folder / layout.ATTEMPTS}/\n"
            f"  to try them again: kdsearch retry {ledger.folder}, then launch again",
            file=sys.stderr,
        )
    if not agenda.complete:
        if deadline is None or ledger.stopped_by_person():
            how = "it was asked to stop; run the same command again to resume"
        else:
            how = "what is left would not finish before the deadline; give a later one to continue"
        print(f"kdsearch: {how}", file=sys.stderr)
    unscored = [v for v in agenda.views() if v.traversed and not v.best_has_score]
    for view in unscored:
        print(f"kdsearch: {view.case}: none of its trainings has a score", file=sys.stderr)
    raise typer.Exit(
        exit_code(
            complete=agenda.complete,
            flawless=not (failed or blocked or unscored),
            stopped=ledger.stopped_by_person(),
            job=in_job(os.environ),
        )
    )
