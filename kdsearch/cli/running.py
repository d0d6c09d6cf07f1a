"""Running what is left of a search: in this process, or on Ray."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from kdsearch.agenda import Agenda
from kdsearch.cli.address import Address
from kdsearch.cli.automatic import INCOMPLETE
from kdsearch.cli.code import own_code, with_meant_code
from kdsearch.cli.options import count
from kdsearch.cli.reporting import reporting
from kdsearch.cli.stop import give_up, resume_hint
from kdsearch.cli.submission import job_metadata
from kdsearch.distill import (
    forward_preflight,
    fused_at_most,
    limit_gpu,
    run_together,
    run_training,
    run_trusting,
    tight,
)
from kdsearch.driver import (
    Deadline,
    Pays,
    Watch,
    estimate,
    fused_words,
    measure,
    note_launch,
    present,
    run_search,
    unmeasured,
)
from kdsearch.engine import Engine, EngineError, InProcessEngine, LocalRay, Worker
from kdsearch.engine.bf16 import bf16_places, lacks_bf16_here, slow_bf16
from kdsearch.ledger import Ledger
from kdsearch.study import ROLES, Preflight, Resolved, Role, Study

if TYPE_CHECKING:
    from kdsearch.engine.ray_tune import Cluster


@dataclass(frozen=True, kw_only=True)
class Run:
    """A search that is not complete, and what follows it."""

    agenda: Agenda
    ledger: Ledger
    study: Study
    place: str
    """Of the study file."""
    out: Console
    watches: Sequence[Watch]
    deadline: Deadline | None
    local: LocalRay
    """The Ray on this machine, where the search runs on that."""

    def to_the_end(self, where: Address | None, max_slots: int | None) -> None:
        """In this process, or on the Ray at an address, on at most `max_slots`.

        Raises `typer.Exit` where Ray ends before the search does.
        """
        if self.agenda.complete:
            self.out.print("nothing left to run")
        elif where is None:
            self._in_process()
        else:
            self._on_ray(where, max_slots)

    def _in_process(self) -> None:
        """Without Ray, one training at a time."""
        import torch  # as every training does, and no command that only reads files

        if not torch.cuda.is_available():
            self._doubt_bf16(ROLES)
        self._run_models("in this process", partial(run_trusting, self._code, forward_preflight))
        self._fuse("in this process", self._fused_here)
        self._search(InProcessEngine(worker=self._worker))

    def _on_ray(self, where: Address, max_slots: int | None) -> None:
        """On as many slots as there is room for."""
        # Ray takes a second to import, which commands that only read files do not need.
        from kdsearch.engine.ray_tune import (
            Metrics,
            RayTuneEngine,
            kinds,
            room,
            run_on_worker,
            slot_check,
        )

        before = self.ledger.preflight()
        ran = before is None or before.forward
        if where.kind == "local" and ran and unmeasured(present(self.agenda.resolved)):
            import torch  # as the measuring does, and no command that only reads files

            if not torch.cuda.is_available():  # a Ray of our own starts meanwhile
                self._fuse("in this process", partial(self._fused_here, device="cpu"))
        with self._cluster(where) as cluster:
            # A local Ray does not grow. Of several kinds of slots one or the other has room there.
            fixed = where.kind == "local" and len(kinds(cluster.needed)) == 1
            engine = RayTuneEngine(
                worker=self._worker,
                cluster=cluster,
                seconds=self.study.resources.hours * 3600,
                max_slots=max_slots or (cluster.slots if fixed else None),
                check=slot_check(cluster),
                title=f"kdsearch[{self.study.name}]",
            )

            def seconds_left() -> tuple[float, float] | None:
                return estimate(self.agenda, max(1, len(engine.fleet.slots))).seconds

            try:
                run = partial(run_on_worker, cluster, run_trusting, self._code, forward_preflight)
                self._run_models("on a worker", run)
                if where.kind == "local" and not cluster.needed["student"].gpus:
                    self._fuse("in this process", partial(self._fused_here, device="cpu"))
                elif room(cluster.needed["student"], cluster.left_out):
                    run = partial(run_on_worker, cluster, role="student")
                    self._fuse("on a worker", lambda *given: run(self._fused_here, *given))
                self._search(engine, Metrics(self.agenda, lambda: engine.fleet, seconds_left))
            except EngineError as error:
                self.out.print(f"kdsearch: {error}")
                resume_hint(self.out)
                raise typer.Exit(INCOMPLETE) from None

    @cached_property
    def _code(self) -> frozenset[str]:
        """The models whose own code may run."""
        return frozenset(own_code(self.study))

    @cached_property
    def _resolved(self) -> Resolved:
        return with_meant_code(present(self.agenda.resolved), self.place)

    @property
    def _worker(self) -> Worker:
        run = partial(run_trusting, self._code, run_training)
        return Worker(
            folder=self.ledger.folder,
            run_training=run,
            run_together=partial(run_trusting, self._code, run_together),
            limit=limit_gpu,
        )

    def _search(self, engine: Engine, *more: Watch) -> None:
        every = (*self.watches, *more)
        with reporting(self.ledger, self.out.print):
            run_search(
                self.agenda,
                self.ledger,
                engine,
                console=self.out,
                watches=every,
                deadline=self.deadline,
            )

    def _say(self, line: str) -> None:
        self.out.print(line)
        note_launch(self.ledger, line)

    def _doubt_bf16(self, roles: Collection[Role]) -> None:
        """Say where trainings of these roles, on this machine's CPUs, are slow for bf16."""
        places = bf16_places(self.study, roles)
        if places and lacks_bf16_here():
            self._say(f"doubtful: this machine {slow_bf16(places)}")

    def _run_models(self, where: str, run: Callable[..., Preflight]) -> None:
        """Run the models where there is room for them, if there was none before."""
        before = self.ledger.preflight()
        if before is None or before.forward:
            return
        self._say(f"running each model on two rows, {where}")
        found = run(before, self._resolved, self.ledger, self.place)
        self.ledger.write_preflight(found)
        for doubt in found.doubts[len(before.doubts) :]:
            self.out.print(f"doubtful: {doubt}")

    @property
    def _fused_here(self) -> Callable[..., Sequence[int]]:
        """Picklable."""
        return partial(run_trusting, self._code, fused_at_most, folder=self.ledger.folder)

    def _fuse(self, where: str, pays: Pays) -> None:
        """Find out of which students several are trained in one pass, and fix it, once."""
        probes = unmeasured(present(self.agenda.resolved))
        if not probes:
            return
        self._say(f"measuring whether several students are faster in one pass, {where}")
        measure(self.agenda, probes, self.ledger, pays)
        if words := fused_words(self.agenda.resolved):
            self.out.print(f"students in one pass: {words}")

    @contextmanager
    def _cluster(self, where: Address) -> Iterator[Cluster]:
        """Ray, connected to and watched."""
        from kdsearch.engine.ray_tune import (
            connect,
            watch_health,
            watch_nodes,
        )

        note_launch(self.ledger, "connecting to Ray")
        # Ray ends this process without a word if it dies while we connect.
        self.out.print(f"Ray: {where}; if it dies, run the same command again")
        connection = connect(
            None if where.kind == "local" else where.value,
            resources=self.study.resources,
            threads=self.study.training.cpu_threads,
            source=where.source,
            say=self._say,
            metadata=job_metadata(self.study.name, len(self.agenda.cases), str(self.ledger.folder)),
            local=self.local,
        )
        with ExitStack() as stack:
            cluster = stack.enter_context(connection)
            stack.enter_context(watch_health(lambda what: give_up(self.ledger, self.out, what)))
            if where.kind == "cluster":
                note_launch(self.ledger, "checking the nodes")
                watching = watch_nodes(cluster, self._resolved, self.ledger, self.out.print)
                cluster = stack.enter_context(watching)
            else:
                self.ledger.forget_nodes()
                self._doubt_bf16([role for role, n in cluster.needed.items() if not n.gpus])
            self._tell_what_there_is(cluster)
            yield cluster

    def _tell_what_there_is(self, cluster: Cluster) -> None:
        """Say where the search can be watched, for how many trainings there is room, on what."""
        from kdsearch.engine.ray_tune import gpu_memory, kinds, room, words

        if cluster.dashboard:
            self.out.print(f"Ray dashboard: {cluster.dashboard}")
            if cluster.token:
                self.out.print(f"  it asks for a token: {cluster.token}")
        for roles in kinds(cluster.needed).values():
            needs = cluster.needed[roles[0]]
            slots = count(room(needs, cluster.left_out), "training")
            of = "" if len(roles) == len(cluster.needed) else f" of {words(roles)}"
            self.out.print(f"{slots}{of} at once, each on {needs}")
        self.out.print(f"to watch: kdsearch status {shlex.quote(str(self.ledger.folder))} --watch")
        taken = {role: needs.gpus for role, needs in cluster.needed.items()}
        found = tight(present(self.agenda.resolved), self.place, taken, gpu_memory(cluster))
        for line in found:
            self.out.print(f"doubtful: {line}")
