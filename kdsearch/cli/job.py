"""Commands that run on a cluster far away: `launch`, and what looks at a study, as Ray jobs."""

from __future__ import annotations

import codecs
import os
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from kdsearch.api import open_folder
from kdsearch.cli.address import Address, find_address
from kdsearch.cli.automatic import INCOMPLETE, INTERRUPTED, versions
from kdsearch.cli.deliver import Delivery, deliver, delivery, received
from kdsearch.cli.failing import FAILED, fail
from kdsearch.cli.options import StudyFolder, count, example
from kdsearch.cli.submission import (
    Package,
    cluster_path,
    is_search,
    job_metadata,
    job_names,
    next_job,
    package,
)
from kdsearch.errors import InputError, Problem, last_line, shown
from kdsearch.ledger import UnreadableError, driver_of, layout, open_plain
from kdsearch.study import Study, readable_size, test_cases

if TYPE_CHECKING:
    from kdsearch.engine.ray_tune.jobs import Job, Jobs

Dashboard = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="Run this as a job on the cluster with this dashboard, http://HEAD:8265; FOLDER is "
        "then a path on the cluster.",
    ),
]
_SECRET = "KDSEARCH_OPTUNA"
_SECONDS_BETWEEN_LOOKS = 1.0
_MOST_SHORT_JOBS = 10
_NO_SUCH_COMMAND = 127
_BEGINS = "Running entrypoint for job "
"""The last line that Ray writes into a job's log before its command does."""
_LINES_AGAIN = 20
"""Of what a search has said before, for one who comes back to it."""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog=example("kdsearch logs /shared/runs/mrpc --address http://HEAD:8265"))(logs)
    app.command(hidden=True)(deliver)


def logs(
    folder: StudyFolder,
    address: Dashboard = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing until the search ends or Ctrl-C.")
    ] = False,
) -> None:
    """Print a search's log: a line for each training that began, ended or failed.

    With --address: everything that the folder's newest job has printed.
    """
    if address is not None:
        _job_log(address, folder, follow=follow)
        return
    ledger, _ = open_folder(folder)
    log = ledger.path(layout.LOG)
    try:
        opened = open_plain(log)
    except (FileNotFoundError, UnreadableError):
        raise InputError.one(
            log, "does not exist, or is not a file", "has a search started?"
        ) from None
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with opened as file:
        while True:
            driven = follow and driver_of(ledger.folder)
            sys.stdout.write(shown(decoder.decode(file.read(), final=not driven)))
            sys.stdout.flush()
            if not driven:
                return
            time.sleep(_SECONDS_BETWEEN_LOOKS)


# -- launching -------------------------------------------------------------------------------------


def launch_there(
    where: Address,
    study_file: Path,
    study: Study,
    folder: str,
    options: Sequence[str],
    *,
    detach: bool,
    out: Console,
) -> None:
    """Submit a launch to the cluster at `where`, or join the one that runs; show what it says.

    Exits as the launch does. Raises `InputError` where it cannot be submitted.
    """
    files = package(study_file, study)
    command = shlex.join(["kdsearch", "launch", study_file.name, "--folder", folder, *options])
    metadata = {
        **job_metadata(study.name, len(test_cases(study)), folder),
        "kdsearch_files": files.digest,
    }
    if _SECRET in os.environ:
        out.print(f"{_SECRET} is not sent along, as it may hold a password; give --optuna @FILE")
    stop = f"kdsearch stop {shlex.quote(folder)} --address {where.value}"
    jobs = _jobs(where)
    start = job_names(folder)
    known = ""
    while True:
        there = {job.name: job for job in jobs.named(start)}
        following = next_job(start, {job.name: job.ended for job in there.values()})
        if following.joins:
            known = _join(jobs, there[following.name], command, files, out)
            break
        # Not so if somebody else submits it in this moment.
        if _submit(jobs, where, following.name, command, metadata, files, out):
            break
    if detach:
        out.print(f"it runs on its own; the same command watches it; to stop it: {stop}")
        return
    try:
        job = _followed(jobs, following.name, _Output(begun=bool(known)), len(known))
    except KeyboardInterrupt:
        out.print("\nleft; it keeps running, and the same command watches it again")
        out.print(f"to stop it: {stop}")
        raise typer.Exit(INTERRUPTED) from None
    except InputError as error:  # not of what was given: the cluster has gone
        fail(error.problems, INCOMPLETE)
    _exit_as(job)


def _submit(
    jobs: Jobs,
    where: Address,
    name: str,
    command: str,
    metadata: Mapping[str, str],
    files: Package,
    out: Console,
) -> bool:
    out.print(f"submitting {name} to {where.value}, with {count(len(files.files), 'file')}:")
    for file, path in files.files.items():
        out.print(f"  {file}  {readable_size(path.stat().st_size)}")
    out.print(f"it runs: {command}")
    with tempfile.TemporaryDirectory() as scratch:
        packed = Path(scratch) / "package.zip"
        files.write(packed)
        return jobs.submit(command, name, metadata, packed)


def _join(jobs: Jobs, job: Job, command: str, files: Package, out: Console) -> str:
    """Say which job is joined, and how its log ends; that log, once its command has begun."""
    out.print(f"joining {job.name}, which is already running: {job.entrypoint}")
    if job.entrypoint != command or job.metadata.get("kdsearch_files") != files.digest:
        out.print(
            "  its study, data or options differ from those given now; to use these, stop it first"
        )
    known = jobs.log(job.name)
    _, begins, said = known.partition(_BEGINS)
    lines = said.splitlines(keepends=True)[1:]
    sys.stdout.write(shown("".join(lines[-_LINES_AGAIN:])))
    return known if begins else ""


# -- other commands --------------------------------------------------------------------------------


def run_there(address: str, command: str, folder: Path, *options: str) -> None:
    """Run a command about a study's folder on the cluster; print what it prints, exit as it does.

    Raises `InputError`.
    """
    jobs, there = _jobs(_dashboard(address)), cluster_path(folder, "FOLDER")
    words = shlex.join(["kdsearch", command, there, *options])
    with _short_job(jobs, words, command, there) as name:
        job = _followed(jobs, name, _Output())
    _exit_as(job)


def bring_report(address: str, folder: Path, to: Path | None) -> Path:
    """Have the report of a study written on the cluster, and bring it here; where it is then.

    Raises `InputError`.
    """
    there = cluster_path(folder, "FOLDER")
    to = to or Path(f"{Path(there).name}-report")
    if to.exists() and not to.is_dir():
        raise InputError.one(f"--to {to}", "is a file", "give a folder")
    report = shlex.join(["kdsearch", "report", there])
    bring = shlex.join(["kdsearch", "deliver", f"{there}/report"])
    _bring(address, "report", there, f"{report} && {bring}", to)
    return to / "report.html"


def bring_student(address: str, folder: Path, case: str, to: Path, options: Sequence[str]) -> None:
    """Have a student exported on the cluster, and bring it here. Raises `InputError`.

    One whose weights were not kept is not: the job has no GPU, and the head none to lend.
    """
    there = cluster_path(folder, "FOLDER")
    export = shlex.join(["kdsearch", "export", there, case, "--kept", *options])
    made = """new=$(mktemp -d) && trap 'rm -rf "$new"' EXIT TERM"""
    words = f'{made} && {export} --to "$new" && kdsearch deliver "$new"'
    _bring(address, "export", there, words, to)


def _bring(address: str, command: str, there: str, words: str, to: Path) -> None:
    jobs, output = _jobs(_dashboard(address)), _Output()
    with _short_job(jobs, words, command, there) as name:
        job = _followed(jobs, name, output)
        if output.delivery:
            received(output.delivery, lambda file, part: jobs.fetch(job, file, part), to)
    if output.delivery:
        with suppress(InputError):
            jobs.follow(name, lambda text: True)  # to its end
        return
    _exit_as(job)
    raise InputError.one(name, "returned nothing", "try again")


@contextmanager
def _short_job(jobs: Jobs, words: str, command: str, folder: str) -> Iterator[str]:
    """Submit a job that nobody joins, and see that it has ended when this is left."""
    _forget_old(jobs, job_names(folder))
    name = f"{job_names(folder)}{command}-{secrets.token_hex(4)}"
    jobs.submit(
        words,
        name,
        {"job_name": f"kdsearch {command}", "kdsearch_folder": folder, **versions()},
    )
    try:
        yield name
    finally:
        with suppress(InputError):
            if not jobs.job(name).ended:
                jobs.stop(name)


def _forget_old(jobs: Jobs, start: str) -> None:
    """Leave of the jobs that looked at a folder the newest: somebody may look every minute."""
    looked = [job for job in jobs.named(start) if not is_search(job.name)]
    looked.sort(key=lambda job: job.since)
    for job in looked[:-_MOST_SHORT_JOBS]:
        with suppress(InputError):  # somebody else has
            if job.ended:
                jobs.forget(job.name)


def _job_log(address: str, folder: Path, *, follow: bool) -> None:
    """Print the log of a folder's newest search there; with `follow`, until it ends."""
    where, there = _dashboard(address), cluster_path(folder, "FOLDER")
    jobs, start = _jobs(where), job_names(there)
    searches = [job.name for job in jobs.named(start) if is_search(job.name)]
    if not searches:
        what = f"no job of {where.value} has run a search there"
        raise InputError.one(
            there, what, "if one was launched on the cluster itself, run kdsearch logs there"
        )
    newest = max(searches, key=lambda name: int(name.removeprefix(start)))
    if not follow:
        output = _Output()
        output(jobs.log(newest))
        output.close()
        return
    with suppress(KeyboardInterrupt):
        _followed(jobs, newest, _Output())


# -- how it is shown -------------------------------------------------------------------------------


class _Output:
    """Prints a job's log, but for what Ray says before the command begins, and for deliveries.

    A log is one stream: what the command said is wrong goes to standard error here as it did there.
    """

    def __init__(self, *, begun: bool = False) -> None:
        self.delivery: Delivery | None = None
        self._begun = begun
        self._rest = ""

    def __call__(self, text: str) -> bool:
        """Take more of the log; False once it tells of a delivery."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if not self._begun:
                self._begun = line.startswith(_BEGINS)
            elif (found := delivery(line)) is not None:
                self.delivery = found
            else:
                print(shown(line), file=sys.stderr if line.startswith(FAILED) else sys.stdout)
        sys.stdout.flush()
        return self.delivery is None

    def close(self) -> None:
        """Print a last line without an end."""
        if self._rest and self._begun:
            print(shown(self._rest))


def _followed(jobs: Jobs, name: str, output: _Output, skip: int = 0) -> Job:
    job = jobs.follow(name, output, skip=skip)
    output.close()
    return job


def _exit_as(job: Job) -> None:
    """Exit as a job's command did, with words where it did not come so far."""
    if job.state == "STOPPED":
        fail([Problem(place=job.name, what="was stopped")], INTERRUPTED)
    if job.code == _NO_SUCH_COMMAND:
        raise InputError.one(
            job.name,
            "found no kdsearch on the head of the cluster",
            "install it there, and put its folder on the PATH of `ray start`",
        )
    if job.state == "FAILED" and job.code is None:
        what = "ended without an exit code" if job.node else "did not run"
        fail([Problem(place=job.name, what=f"{what}: {last_line(job.message)}")], INCOMPLETE)
    if job.code:
        raise typer.Exit(job.code if job.code > 0 else 128 - job.code)  # as a shell says of signals


def _dashboard(address: str) -> Address:
    if "://" in address or "@" in address:
        where = find_address(address, {})
        if where.kind == "jobs":
            return where
    remedy = "give http://HEAD:8265; on a machine that sees the folder, leave it out"
    raise InputError.one(f"--address {address}", "is not a dashboard's address", remedy)


def _jobs(where: Address) -> Jobs:
    # Ray takes a second to import.
    from kdsearch.engine.ray_tune.jobs import Jobs

    return Jobs(where.value, where.source)
