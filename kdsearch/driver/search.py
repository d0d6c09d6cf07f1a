"""One search from its study to the end: resolve once, then agenda, engine and ledger."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from kdsearch.agenda import Agenda, cached_bytes, checkpoint_bytes
from kdsearch.driver.deadline import Deadline
from kdsearch.driver.dispatcher import Dispatcher
from kdsearch.driver.keep import Keep
from kdsearch.driver.watch import Display, Log, Note, Watch
from kdsearch.engine import Engine
from kdsearch.errors import InputError, Problem
from kdsearch.ledger import Ledger
from kdsearch.study import Resolved, Study, differences, readable_size, resolve, test_cases

_MOST_DIFFERENCES = 6


def open_study(
    ledger: Ledger,
    study: Study,
    *,
    data_dir: Path | None,
    place: str,
    check: Callable[[Resolved, str], None] | None = None,
) -> Agenda:
    """The agenda of `study`, read from the file `place`, in the ledger's folder.

    An empty folder is begun, once `check` found nothing wrong with the resolved study; so is one
    whose study has no training that ended. One that holds another study is refused with the
    difference: `InputError`.
    """
    ledger.prepare()
    ledger.sweep()
    changed = differences(ledger.resolved().study, study) if ledger.exists else []
    if changed and not ledger.begun:
        ledger.forget()
    elif changed:
        raise _another_study(ledger.folder, place, changed)
    if ledger.exists:
        resolved = ledger.resolved()
        if resolved.study != study:  # in what may change
            resolved = resolved.model_copy(update={"study": study})
            ledger.write("resolved.json", resolved.model_dump_json(indent=1))
    else:
        resolved = resolve(study, data_dir=data_dir, store=ledger.write_rows, place=place)
        if check is not None:
            check(resolved, place)
        _check_disk(resolved, ledger.folder)
        ledger.write_resolved(resolved)
    return Agenda(resolved, ledger.results())


def _check_disk(resolved: Resolved, folder: Path) -> None:
    """Refuse a study whose kept files the disk cannot hold, before anything is trained."""
    groups = {(case.dataset, case.teacher): case for case in test_cases(resolved.study)}
    outputs = sum(cached_bytes(resolved, case) for case in groups.values())
    checkpoints = checkpoint_bytes(resolved)
    needed = outputs + checkpoints
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError.one(
            folder,
            f"the teachers' outputs need about {readable_size(outputs)} and their checkpoints "
            f"{readable_size(checkpoints)}, and {readable_size(free)} are free",
            "give a --folder with more room, limit the training rows, or drop data sets",
        )


def _another_study(folder: Path, place: str, changed: list[str]) -> InputError:
    shown = [Problem(place=str(folder), what=line) for line in changed[:_MOST_DIFFERENCES]]
    rest = len(changed) - len(shown)
    what = f"holds another study than {place}" + (f"; {rest} more differences" if rest else "")
    mend = "launch with another --folder or name, or undo the change"
    return InputError([*shown, Problem(place=str(folder), what=what, mend=mend)])


def run_search(
    agenda: Agenda,
    ledger: Ledger,
    engine: Engine,
    *,
    slots: int,
    console: Console,
    watches: Sequence[Watch] = (),
    deadline: Deadline | None = None,
) -> None:
    """Run all that is left of a search, or that ends by the `deadline`.

    Progress is shown on `console`; `watches` follow it too.
    """
    with ExitStack() as stack:
        log = Log(ledger.folder)
        stack.callback(log.close)
        display = stack.enter_context(Display(agenda, slots, console))
        keep = Keep(ledger, agenda)
        every: tuple[Watch, ...] = (log, Note(ledger, slots), display, keep, *watches)
        engine.run(Dispatcher(agenda, ledger, every, deadline))
        keep.remove()
