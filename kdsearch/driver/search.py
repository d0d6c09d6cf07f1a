"""One search from its study to the end: resolve once, then agenda, engine and ledger."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from kdsearch.agenda import Agenda
from kdsearch.driver.dispatcher import Dispatcher
from kdsearch.driver.watch import Display, Log, Note
from kdsearch.engine import Engine
from kdsearch.errors import InputError, Problem
from kdsearch.ledger import Ledger
from kdsearch.study import Resolved, Study, differences, resolve


def open_study(
    ledger: Ledger,
    study: Study,
    *,
    data_dir: Path | None,
    place: str,
    check: Callable[[Resolved, str], None] | None = None,
) -> Agenda:
    """The agenda of `study`, read from the file `place`, in the ledger's folder.

    An empty folder is begun, once `check` found nothing wrong with the resolved study. One that
    holds another study is refused with the difference: `InputError`.
    """
    if ledger.exists:
        resolved = ledger.resolved()
        changed = differences(resolved.study, study)
        if changed:
            mend = "launch it with another --folder or name, or undo the change"
            where = f"{ledger.folder}: holds another study than {place}"
            raise InputError(Problem(place=where, what=line, mend=mend) for line in changed)
    else:
        ledger.prepare()
        resolved = resolve(study, data_dir=data_dir, store=ledger.write_rows, place=place)
        if check is not None:
            check(resolved, place)
        ledger.write_resolved(resolved)
    ledger.prepare()
    return Agenda(resolved, ledger.results())


def run_search(
    agenda: Agenda, ledger: Ledger, engine: Engine, *, slots: int, console: Console
) -> None:
    """Run all that is left of a search, with progress on `console`."""
    with ExitStack() as stack:
        log = Log(ledger.folder)
        stack.callback(log.close)
        display = stack.enter_context(Display(agenda, slots, console))
        engine.run(Dispatcher(agenda, ledger, (log, Note(ledger, slots), display)))
