"""One search from its study to the end: resolve once, then agenda, engine and ledger."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from kdsearch.agenda import (
    VERSION,
    Agenda,
    OutputsTraining,
    Speculation,
    TeacherTraining,
    cached_bytes,
    checkpoint_bytes,
    left,
    resolved_signal_bytes,
    resolved_view_bytes,
    unneeded,
    used,
)
from kdsearch.driver.deadline import Deadline
from kdsearch.driver.dispatcher import Dispatcher
from kdsearch.driver.fusing import kept_fused
from kdsearch.driver.keep import Keep
from kdsearch.driver.preflight import Look, preflight_once
from kdsearch.driver.watch import Display, FloorWatch, Log, Note, Watch
from kdsearch.engine import Engine
from kdsearch.errors import InputError, Problem
from kdsearch.ledger import Ledger
from kdsearch.study import (
    FORMAT,
    Resolved,
    Study,
    changed_sources,
    differences,
    one_teacher,
    readable_size,
    resolve,
    taught_cases,
)

_MOST_DIFFERENCES = 6


def open_study(
    ledger: Ledger,
    study: Study,
    *,
    data_dir: Path | None,
    place: str,
    look: Look | None = None,
    say: Callable[[str], None] = lambda line: None,
    accept: Callable[[], bool] = lambda: False,
) -> Agenda:
    """The agenda of `study`, read from the file `place`, in the ledger's folder.

    An empty folder is begun, once `look` found nothing wrong with the resolved study; so is one
    whose study has no training that ended. One that holds an earlier version of the study, or
    whose data or models have changed, keeps every outcome, and `say` is told what the change means.
    Where files have changed and `accept` says no to it, and where the folder holds a study of
    another name, nothing is changed: `InputError`.
    """
    ledger.prepare()
    before = _before(ledger)  # refused, its outcomes stay as they are
    ledger.sweep()
    edited = differences(before.study, study) if before else []
    if before and before.study.name != study.name and ledger.begun:
        raise _another_study(ledger.folder, place, edited)
    changes = changed_sources(before, study, data_dir=data_dir) if before else None
    if changes and (edited or changes.changed) and not ledger.begun:
        ledger.forget()
        before = changes = None
    if before is None or changes is None:
        return _begin(ledger, study, data_dir, place, look, say)
    lines = (f"{f} {what}" for files in changes.changed.values() for f, what in files.items())
    for line in (*changes.said, *dict.fromkeys(lines)):
        say(line)
    if not edited and not changes.changed:
        return _unchanged(changes.known, before, ledger, study, place, look, say)
    resolved = resolve(
        study,
        data_dir=data_dir,
        store=ledger.write_rows,
        images=ledger,
        place=place,
        known=changes.known,
        anew=changes.changed,
    )
    resolved = resolved.model_copy(update={"fused": kept_fused(resolved, before)})
    other = _with_other_content(changes.changed, resolved, before)
    if not edited and not other:
        say("its content is the same: nothing is new")
        return _unchanged(resolved, before, ledger, study, place, look, say)
    agenda = _agenda(resolved, ledger)
    _say_of_change(agenda, edited, place, say)
    if other and not accept():
        remedy = "restore it, or accept the change: --accept-changes"
        raise InputError(Problem(place=f, what=what, remedy=remedy) for f, what in other.items())
    if look:
        preflight_once(resolved, ledger, place=place, look=look, say=say)
    ledger.replace_resolved(agenda.resolved)
    return agenda


def check_disk(agenda: Agenda, folder: Path) -> None:
    """Raise `InputError` for a study whose kept files the disk of `folder` cannot hold."""
    resolved = agenda.resolved
    study = resolved.study
    groups = {one_teacher(study, case): case for case in taught_cases(study)}
    there = {"outputs": 0, "teacher": 0}
    for outcome in used(agenda).values():
        if outcome is None:
            continue
        training = outcome.training
        # `checkpoint_bytes` does not know the size of a teacher at random.
        if isinstance(training, TeacherTraining) and training.model.weights is not None:
            there["teacher"] += outcome.cost.bytes_written
        elif isinstance(training, OutputsTraining):
            there["outputs"] += outcome.cost.bytes_written
    signals = [resolved_signal_bytes(resolved, case) for case in groups.values()]
    compared = sum(sum(each.values()) for each in signals)
    viewed = sum(sum(resolved_view_bytes(resolved, case).values()) for case in groups.values())
    outputs = sum(cached_bytes(resolved, case) for case in groups.values()) + compared
    outputs -= there["outputs"]
    checkpoints = checkpoint_bytes(resolved) - there["teacher"]
    needed = max(outputs, 0) + max(checkpoints, 0)
    free = shutil.disk_usage(folder).free
    if needed > free:
        parts = {"what terms compare": compared, "those on views of images": viewed}
        shown = [f"{what} {readable_size(size)}" for what, size in parts.items() if size]
        of_parts = f" ({'; '.join(shown)})" if shown else ""
        fewer = "name fewer layers in layer_mapping, lower max_length, " if compared else ""
        fewer += "set fewer views (training.augmentation.views), " if viewed else ""
        raise InputError.one(
            folder,
            f"the teachers' outputs need about {readable_size(max(outputs, 0))}{of_parts} and "
            f"their checkpoints {readable_size(max(checkpoints, 0))}, but {readable_size(free)} is "
            "free",
            f"give a --folder with more room, {fewer}limit the training rows, or drop data sets",
        )


def _before(ledger: Ledger) -> Resolved | None:
    """What the folder holds; None where that is nothing, or of other code and not begun."""
    before = ledger.resolved() if ledger.exists else None
    if before is None or before.training_version == VERSION:
        return before
    if ledger.begun:
        raise _other_code(ledger.folder, before)
    ledger.forget()
    return None


def _begin(
    ledger: Ledger,
    study: Study,
    data_dir: Path | None,
    place: str,
    look: Look | None,
    say: Callable[[str], None],
) -> Agenda:
    resolved = resolve(
        study, data_dir=data_dir, store=ledger.write_rows, images=ledger, place=place
    )
    if look:
        preflight_once(resolved, ledger, place=place, look=look, say=say)
    agenda = _agenda(resolved, ledger)
    ledger.write_resolved(agenda.resolved)
    return agenda


def _with_other_content(
    changed: Mapping[str, Mapping[str, str]], resolved: Resolved, before: Resolved
) -> dict[str, str]:
    """The files, of all that `changed`, from which something else is read than `before`."""
    return {
        file: what
        for where, files in changed.items()
        if resolved.content[where] != before.content[where]
        for file, what in files.items()
    }


def _agenda(resolved: Resolved, ledger: Ledger) -> Agenda:
    """The agenda of a study that was resolved now, if the disk can hold what it keeps."""
    resolved = resolved.model_copy(update={"training_version": VERSION})
    agenda = Agenda(resolved, ledger.results(resolved.study.tries))
    check_disk(agenda, ledger.folder)
    return agenda


def _unchanged(
    resolved: Resolved,
    before: Resolved,
    ledger: Ledger,
    study: Study,
    place: str,
    look: Look | None,
    say: Callable[[str], None],
) -> Agenda:
    """The agenda of a study whose keys are those of `before`; the rest of it may have changed."""
    update = {
        "format": FORMAT,
        "study": study,
        "datasets": resolved.datasets,
        "models": resolved.models,
    }
    changed = before.model_copy(update=update)
    if changed == before:  # the order of names may be another, and who reads the folder has its own
        resolved = before
    else:
        resolved = changed
        ledger.rewrite_resolved(resolved)
    agenda = Agenda(resolved, ledger.results())
    if look and not agenda.complete:
        preflight_once(resolved, ledger, place=place, look=look, say=say)
    return agenda


def _other_code(folder: Path, before: Resolved) -> InputError:
    what = f"its outcomes are from training code {before.training_version}"
    remedy = "launch into another --folder, or use the kdsearch that wrote it; status, explain, "
    remedy += "report and the export of kept weights work here too"
    more = f"but this kdsearch has {VERSION}, which would train them all again"
    return InputError.one(folder, f"{what}, {more}", remedy)


def _another_study(folder: Path, place: str, changed: list[str]) -> InputError:
    shown = [Problem(place=str(folder), what=line) for line in _shown(changed)]
    what = f"holds a different study from {place}"
    remedy = "launch with another --folder, or change its name back"
    return InputError([*shown, Problem(place=str(folder), what=what, remedy=remedy)])


def _say_of_change(
    agenda: Agenda, changed: list[str], place: str, say: Callable[[str], None]
) -> None:
    """What becomes of the outcomes of an earlier version of the study."""
    if changed:
        say(f"{place} has changed since this folder was launched:")
    for line in _shown(changed):
        say(f"  {line}")
    outcomes = {key for key, result in agenda.results.items() if result is not None}
    dropped, kept = outcomes & unneeded(agenda), outcomes & used(agenda).keys()
    perhaps = len(outcomes) - len(kept) - len(dropped)
    new = left(agenda)
    fewest = max(len(agenda.requests()), new.fewest - perhaps)
    say(
        f"kept {len(kept)}{f' (and perhaps {perhaps} more)' if perhaps else ''}, "
        f"new {fewest if fewest == new.most else f'{fewest} to {new.most}'}, "
        f"no longer needed {len(dropped)}"
        + ("; nothing is deleted: see `kdsearch gc`" if dropped else "")
    )


def _shown(changed: list[str]) -> list[str]:
    rest = len(changed) - _MOST_DIFFERENCES
    return [*changed[:_MOST_DIFFERENCES], *([f"{rest} more differences"] if rest > 0 else [])]


def run_search(
    agenda: Agenda,
    ledger: Ledger,
    engine: Engine,
    *,
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
        display = stack.enter_context(Display(agenda, engine, console))
        note = Note(ledger, engine)
        stack.callback(note.close)
        keep = Keep(ledger, agenda)
        floors = FloorWatch(agenda, ledger.facts, (log.warn, display.warn))
        every: tuple[Watch, ...] = (log, note, display, keep, floors, *watches)
        speculates = agenda.resolved.study.resources.speculate
        ahead = Speculation(agenda) if speculates else None
        engine.run(Dispatcher(agenda, ledger, every, deadline, lambda: engine.room, ahead))
        keep.remove()
