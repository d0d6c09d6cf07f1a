"""`status` and `report`: reading a study's folder, without Ray or torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from kdsearch.agenda import (
    COMPARES,
    Agenda,
    Attempt,
    CaseView,
    best_so_far,
    remaining,
    used,
)
from kdsearch.analysis import at_floor, edges, teacher_edges, unconverged
from kdsearch.analysis.kept import every_kept
from kdsearch.api import open_folder
from kdsearch.cli.job import Dashboard, bring_report, run_there
from kdsearch.cli.options import (
    Json,
    StudyFolder,
    console,
    example,
    print_answer,
)
from kdsearch.cli.reporting import report_so_far
from kdsearch.cli.watching import Facts, Reader, follow, print_block, print_view, stages_of
from kdsearch.driver import estimate, fused_words
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger, driver_of, layout, read_object
from kdsearch.report import hints
from kdsearch.search import Candidate, Value

_NO_FLEET: dict[str, Any] = {"slots": [], "waiting": 0, "left_out": {}}
_NOTHING_RUNS: dict[str, Any] = {"slots": 1, "running": {}, "fleet": _NO_FLEET, "launching": None}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(epilog=example("kdsearch status runs/quickstart"))(status)
    app.command(epilog=example("kdsearch report runs/quickstart"))(report)


def status(
    folder: StudyFolder,
    as_json: Json = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Keep showing it while the search runs; in a pipe, what has changed."
        ),
    ] = False,
    address: Dashboard = None,
) -> None:
    """Show how far a search has got, from its files alone, while it runs or afterwards."""
    if address is not None:
        run_there(address, "status", folder, *["--json"] * as_json, *["--watch"] * watch)
        return
    reader = Reader(folder)
    out = console(soft_wrap=not watch)

    def tell(facts: Facts) -> None:
        if as_json:
            typer.echo(json.dumps(facts, indent=None if watch else 1))
        elif watch:
            print_block(facts, out)
        else:
            print_view(facts, out)

    if watch:
        follow(lambda: _status(*reader.read()), out, tell, live=out.is_terminal and not as_json)
    else:
        tell(_status(*reader.read()))


def report(
    folder: StudyFolder,
    as_json: Json = False,
    address: Dashboard = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="With --address: where to download the report to. Default: NAME-report.",
        ),
    ] = None,
) -> None:
    """Write the report of a study, complete or not, and print where it is."""
    if address is not None and as_json:
        run_there(address, "report", folder, "--json")
        return
    if address is not None:
        typer.echo(f"downloaded: {bring_report(address, folder, to)}")
        return
    if to is not None:
        remedy = "copy the folder that this command prints, or give --address"
        raise InputError.one("--to", "is for a report that is downloaded from a cluster", remedy)
    ledger, agenda = open_folder(folder)
    path, agenda = report_so_far(ledger, agenda)
    if as_json:
        content = ledger.path(layout.report("json")).read_text(encoding="utf-8")
        typer.echo(json.dumps(json.loads(content), indent=1))  # escaped: it suits every terminal
        return
    print_answer(agenda, ledger)
    typer.echo(f"report: {path}")


def _status(ledger: Ledger, agenda: Agenda) -> dict[str, Any]:
    driver = driver_of(ledger.folder)
    note = _running(ledger) if driver else _NOTHING_RUNS
    running = note["running"]
    known = estimate(agenda, note["slots"])
    attempts = ledger.attempts()
    results = used(agenda)
    nodes = _nodes(ledger) if driver else []
    preflight = ledger.preflight()
    facts = preflight.datasets if preflight else {}
    failed = [key for key, result in results.items() if result is None]
    if agenda.complete:
        blocked = any(view.blocked for view in agenda.views())
        state = "complete, with failures" if failed or blocked else "complete"
    else:
        state = "running" if driver else "stopped; launch it again to go on"
    return {
        "name": agenda.resolved.study.name,
        "state": state,
        "students": {
            "done": known.done,
            "left": {"fewest": known.left.fewest, "most": known.left.most},
        },
        "left": known.in_words(),
        "fused": fused_words(agenda.resolved),
        "driver": driver,
        "launching": note["launching"],
        "cases": [
            {
                "case": str(view.case),
                "stage": stage_of(view),
                "stages": stages_of(agenda, view, running),
                "students": agenda.trained(view.case),
                "left": asdict(remaining(agenda, view)),
                "best": best_so_far(agenda, view.case),
                "decided": _decided(view),
            }
            for view in agenda.views()
        ],
        "running": list(running.values()),
        "slots": _slots(note["fleet"]["slots"], running),
        "slots_waiting": note["fleet"]["waiting"],
        "nodes": nodes,
        "left_out": note["fleet"]["left_out"]
        | {node["name"]: f"it {', and '.join(node['lacks'])}" for node in nodes if node["lacks"]},
        "diverged": sum(
            result is not None and result.state == "diverged" for result in results.values()
        ),
        "wrote_nothing": [
            f"{result.training}: {why}"
            for result in results.values()
            if result is not None and (why := result.wrote_nothing)
        ],
        "doubts": len(preflight.doubts) if preflight else 0,
        "hints": [
            *(str(found) for view in agenda.views() if (found := at_floor(agenda, view, facts))),
            *hints(edges(agenda), unconverged(agenda), teacher_edges(agenda)),
        ],
        "kept": {name: str(kept) for name, kept in every_kept(agenda).items()},
        "failed": [_failed(attempts[key]) for key in failed],
    }


def _slots(slots: list[dict[str, Any]], running: dict[str, Any]) -> list[dict[str, Any]]:
    """Each slot with what it runs."""
    found = [{"node": s["node"], "name": s["name"], **_run_of(s["keys"], running)} for s in slots]
    idle = [slot for slot in found if slot["run"] is None]
    told = {key for slot in slots for key in slot["keys"]}
    if len(idle) == 1:  # the driver writes as it gives them out
        idle[0] |= _run_of([key for key in running if key not in told], running)
    return found


def _run_of(keys: Sequence[str], running: dict[str, Any]) -> dict[str, Any]:
    """What a slot runs, and how many more trainings in the same pass."""
    runs = [running[key] for key in keys if key in running]
    return {"run": runs[0] if runs else None, "more": runs[1:]}


def _failed(attempts: list[Attempt]) -> dict[str, Any]:
    last = attempts[-1]
    return {
        "key": last.key,
        "tries": len(attempts),
        "class": last.failure,
        "node": last.host,
        "what": last.what,
        "message": last.message,
        "file": layout.file_of(last),
    }


def _running(ledger: Ledger) -> dict[str, Any]:
    note = read_object(ledger.path(layout.RUNNING))  # none yet, or a damaged one
    slots, running, launching = (note.get(name) for name in ("slots", "running", "launching"))
    if isinstance(launching, str):
        return _NOTHING_RUNS | {"launching": launching}
    if not (isinstance(slots, int) and 0 < slots < 2**31 and isinstance(running, dict)):
        return _NOTHING_RUNS
    return _NOTHING_RUNS | {
        "slots": slots,
        "running": {key: run for key, run in running.items() if _is_run(run)},
        "fleet": _fleet(note.get("fleet")),
    }


def _fleet(note: object) -> dict[str, Any]:
    """The slots as far as the note holds any: its writer may be an older kdsearch, or anyone."""
    if not isinstance(note, dict):
        return _NO_FLEET
    slots, waiting, left_out = (note.get(name) for name in ("slots", "waiting", "left_out"))
    return {
        "slots": [s for s in slots if _is_slot(s)] if isinstance(slots, list) else [],
        "waiting": waiting if isinstance(waiting, int) and 0 <= waiting < 2**31 else 0,
        "left_out": {k: v for k, v in left_out.items() if isinstance(v, str)}
        if isinstance(left_out, dict)
        else {},
    }


def _is_slot(slot: object) -> bool:
    return (
        isinstance(slot, dict)
        and all(isinstance(slot.get(name), str) for name in ("name", "node"))
        and isinstance(slot.get("keys"), list)
        and all(isinstance(key, str) for key in slot["keys"])
    )


def _nodes(ledger: Ledger) -> list[dict[str, Any]]:
    """What the launch found on the nodes of its cluster: see `watch_nodes`."""
    found = read_object(ledger.path(layout.NODES)).get("nodes")
    return [node for node in found if _is_node(node)] if isinstance(found, list) else []


def _is_node(node: object) -> bool:
    if not isinstance(node, dict) or not isinstance(node.get("name"), str):
        return False
    lacks = node.get("lacks")
    return isinstance(lacks, list) and all(isinstance(each, str) for each in lacks)


def _is_run(run: object) -> bool:
    texts = ("case", "stage", "training")
    return (
        isinstance(run, dict)
        and all(isinstance(run.get(name), str) for name in texts)
        and isinstance(run.get("since"), int | float)
    )


def stage_of(view: CaseView) -> str:
    """What a test case is at, in words."""
    if view.blocked:
        return f"blocked: {view.blocked}"
    if view.wanted:
        return view.wanted[0].stage
    if view.waits_for is not None:
        return f"waits for {view.waits_for}, whose choice is its teacher"
    return "done" if view.finished else "waits for the other cases"


def _decided(view: CaseView) -> dict[str, str]:
    decisions = view.progress.decisions
    return {d.axis or COMPARES: str(value_of(d.winner)) for d in decisions}


def value_of(candidate: Candidate) -> Value:
    """What the candidate stands for: a value of an axis, or a whole choice in words."""
    return str(candidate.choice) if candidate.value is None else candidate.value
