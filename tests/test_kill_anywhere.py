"""Searches whose processes are killed before and after each step on their disk, again and again."""

from __future__ import annotations

import hashlib
import io
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import ALL, portion
from fakes import CrashingDisk, Killed, MemoryDisk, World, model_folder, random_study, uniform
from rich.console import Console

from kdsearch.agenda import (
    Agenda,
    Attempt,
    Outcome,
    OutputsTraining,
    Request,
    StudentTraining,
    TeacherTraining,
    Training,
    used,
)
from kdsearch.driver import open_study, run_search
from kdsearch.engine import TabulatedEngine
from kdsearch.errors import InputError
from kdsearch.ledger import Disk, Ledger, discard, driver_lock, files_in, is_half, layout, verify
from kdsearch.report import write_report
from kdsearch.study import Study, digest_rows, parse_study

EACH_STEP = portion(10_000, 120)
MOST_TRAININGS = portion(40, 20)

AT_RANDOM = portion(1_000, 40)
CRASHES = 30
MOST_AT_RANDOM = portion(120, 60)

Step = tuple[str, str, str]
"""On a disk: before or after it, what it is, and on which file."""


@dataclass(kw_only=True)
class Search:
    """A study that one driver after the other searches, as `kdsearch launch` does."""

    study: Study
    world: World
    ledger: Ledger
    slots: int
    order: int = 0
    in_hand: dict[str, Training] = field(default_factory=dict)
    """What the workers of the driver have in hand."""

    def launch(self) -> Agenda:
        """Search to the end, and write the report. Locks and logs are in a real folder."""
        self.in_hand.clear()
        agenda = open_study(self.ledger, self.study, data_dir=None, place="study.yaml")
        engine = TabulatedEngine(
            look_up=self.train,
            seconds=lambda training: uniform(self.order, training.key),
            slots=self.slots,
        )
        out = Console(file=io.StringIO())
        run_search(agenda, self.ledger, engine, console=out, watches=(self,))
        write_report(self.ledger, agenda)
        return agenda

    def train(self, training: Training) -> None:
        """What a worker does."""
        work(self.ledger, self.world, training)

    def started(self, request: Request) -> None:
        self.in_hand[request.training.key] = request.training

    def finished(self, request: Request, outcome: Outcome) -> None:
        del self.in_hand[request.training.key]

    def failed(self, request: Request, attempt: Attempt, *, for_good: bool) -> None:
        del self.in_hand[request.training.key]

    def tick(self) -> None: ...


def work(ledger: Ledger, world: World, training: Training) -> None:
    """Train as `run_training` does, as far as it touches the disk; commit what became of it."""
    saved = [progress for progress in ledger.progress(training.key) if ledger.is_whole(progress)]
    for steps in range(1 + max((progress.steps for progress in saved), default=0), 3):
        save_progress(ledger, training.key, steps)
    if isinstance(training, StudentTraining) and training.teaching is not None:
        taught = ledger.outcome(training.teaching.outputs)
        assert taught is None or ledger.intact(taught, layout.OUTPUTS), "lost by a power cut"
    world.commit(ledger, training, keep=lambda outcome: keep_files(ledger, outcome))
    if ledger.outcome(training.key) is not None:
        ledger.remove_progress(training.key)


def save_progress(ledger: Ledger, key: str, steps: int) -> None:
    """Save where a training is, and remove what was saved before."""
    folder, content = ledger.path(layout.progress(key)), f"{key} after {steps}".encode()
    older = ledger.progress(key)
    ledger.make_folder(folder)
    temporary = folder / layout.half_file()
    ledger.disk.write(temporary, content)
    final = ledger.path(layout.saved(key, steps, hashlib.sha256(content).hexdigest()))
    ledger.put(temporary, final)
    for progress in older:
        assert ledger.is_whole(progress), "damaged by a power cut"
        ledger.remove(str(progress.path.relative_to(ledger.folder)))


def keep_files(ledger: Ledger, outcome: Outcome) -> dict[str, str]:
    """Keep what a training keeps; the digests of its files."""
    training = outcome.training
    match training:
        case TeacherTraining():
            final = layout.checkpoints(training.key)
            epochs = {outcome.best_epoch, outcome.lowest_loss_epoch}
            files = [f"epoch-{epoch}/model.safetensors" for epoch in epochs]
        case OutputsTraining(split="train"):
            final, files = layout.outputs(training.key), [""]
        case StudentTraining(teaching=taught) if taught is not None:
            final, files = layout.student(training.key), ["config.json", "model.safetensors"]
        case _:
            return {}
    path = ledger.path(final)
    hidden = layout.half_file() if files == [""] else layout.aside(training.key)
    written = path.with_name(hidden)
    digests = {}
    for file in files:
        content = f"{training.key} {file}".encode()
        ledger.make_folder((written / file).parent)
        ledger.disk.write(written / file, content)
        digests[str(Path(final) / file)] = hashlib.sha256(content).hexdigest()
    before = ledger.outcome(training.key)
    if before is not None and ledger.intact(before, final.split("/")[0]):
        discard(written, ledger.disk)
    else:
        ledger.put(written, path)
    return digests


class KilledSearch(Search):
    """A search whose processes are killed; each time, the next driver goes on.

    Four things happen: everything dies; the power is cut too; the driver dies, and its workers
    commit later what they have in hand; a worker dies, and the driver goes on.
    """

    def __init__(
        self,
        *,
        study: Study,
        world: World,
        folder: Path,
        draw: random.Random,
        dies: Callable[[CrashingDisk, str, str, Path], bool],
    ) -> None:
        self.disk = CrashingDisk(folder, lambda *step: dies(self.disk, *step))
        super().__init__(
            study=study,
            world=world,
            ledger=Ledger(folder, self.disk),
            slots=draw.randint(1, 4),
            order=draw.randrange(2**32),
        )
        self.draw = draw
        self.crashes: Counter[str] = Counter()
        self.orphans: dict[str, Training] = {}
        self.committed_by_orphans: set[str] = set()
        self.workers_lost: set[str] = set()
        self.committed: set[str] = set()

    def to_the_end(self) -> Agenda:
        while True:
            try:
                with self.lock():
                    return self.launch()
            except Killed:
                self.crash()

    def crash(self) -> None:
        """The driver has died: what else has, and what becomes of the disk?"""
        how = self.draw.choice(["all", "power", "driver"])
        self.crashes[how] += 1
        self.disk.start_again()
        self.committed_by_orphans.clear()
        self.orphans |= self.in_hand
        if how != "driver":
            self.orphans.clear()
        if how == "power":
            self.disk.cut_power(self.draw)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The real lock, in a real folder; one who is killed does not let go of it in order."""
        folder = self.ledger.folder
        note, half = folder / "driver.json", folder / "driver.tmp"
        content = b""
        try:
            with ExitStack() as stack:
                with self.disk.step("lock", folder / "driver.lock"):
                    stack.enter_context(driver_lock(folder))
                    content = note.read_bytes()
                yield
        except Killed:
            for path in (note, half):
                path.write_bytes(self.draw.choice([content, content[:20], b""]))
            raise

    def train(self, training: Training) -> None:
        """As a worker does that may die, while others may outlive a driver that did."""
        key = training.key
        if self.ledger.outcome(key) is not None:
            assert key in self.committed_by_orphans, f"{key} was started again"
            return
        assert key not in self.committed, f"{key} was committed, and its outcome is lost"
        for orphan in list(self.orphans.values()):
            if self.draw.random() < 0.5:
                del self.orphans[orphan.key]
                work(self.ledger, self.world, orphan)
                self.committed_by_orphans.add(orphan.key)
        try:
            super().train(training)
            if self.ledger.outcome(key) is not None:
                self.committed.add(key)
            with self.disk.step("report", self.ledger.folder / "outcomes" / key):
                pass
        except Killed:
            if key in self.workers_lost or self.draw.random() < 0.5:
                raise
            self.workers_lost.add(key)
            self.crashes["worker"] += 1
            self.disk.start_again()


def a_world(draw: random.Random) -> World:
    return World(
        seed=draw.randrange(2**32),
        levels=draw.choice([2, 5, 10_000]),
        failing=draw.choice([0, 0, 0.05]),
        diverging=draw.choice([0, 0.05, 0.3]),
        coinciding=draw.choice([0, 0.5, 1]),
    )


def studies(folder: Path, draw: random.Random, *, ahead: float) -> Iterator[Study]:
    """Random studies that a launch takes, such a share of which run ahead of decisions."""
    models = {name: model_folder(folder / name) for name in ("tuned", "other")}
    while True:
        raw = random_study(draw)
        raw["models"] |= {name: {"path": str(path)} for name, path in models.items()}
        raw["resources"] = {"speculate": draw.random() < ahead}
        for dataset in raw["datasets"].values():
            dataset["grammar"] |= {"train": 20, "validation": 10, "test": 10}
        study = parse_study(raw, place="study.yaml")
        ledger = Ledger(folder, MemoryDisk())
        try:
            open_study(ledger, study, data_dir=None, place="study.yaml")
        except InputError:
            continue  # two of its test cases are one
        yield study


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """What a search comes to in which nothing dies."""

    agenda: Agenda
    report: dict[str, bytes]
    kept: dict[str, str]
    problems: set[str]
    steps: set[Step]


def undisturbed(study: Study, world: World, folder: Path) -> Undisturbed:
    steps: set[Step] = set()

    def note(side: str, what: str, path: Path) -> bool:
        steps.add((side, what, named(path, folder)))
        return False

    folder.mkdir()
    disk = CrashingDisk(folder, note)
    ledger = Ledger(folder, disk)
    agenda = Search(study=study, world=world, ledger=ledger, slots=1).launch()
    return Undisturbed(
        agenda=agenda,
        report=report_of(disk, folder),
        kept=kept_of(ledger),
        problems=problems_of(ledger),
        steps=steps,
    )


def named(path: Path, folder: Path) -> str:
    """A file's name in the study's folder, without what is drawn of a temporary one.

    All tables of a report have one, but in `make test-all`.
    """
    inside = path.relative_to(folder) if path.is_relative_to(folder) else path
    drawn = r"-[0-9a-f]{8,}(?=\.|$)|\.([0-9a-f]{8}|[0-9a-f]{32})(?=\.tmp)"
    name = re.sub(drawn, "", str(inside))
    return name if ALL else re.sub(r"(report/tables/\.?)[a-z_]+", r"\1table", name)


def report_of(disk: Disk, folder: Path) -> dict[str, bytes]:
    """The report's files; the page also tells of tries whose worker died."""
    found: dict[str, bytes] = {}
    for part in (folder / "report", folder / "report" / "tables"):
        names = [name for name in disk.names(part) if not name.startswith(".")]
        files = [name for name in names if name not in ("tables", "report.html")]
        found |= {name: disk.read(part / name) for name in files}
    return found


def kept_of(ledger: Ledger) -> dict[str, str]:
    """What a launch would find that sweeps the folder, but for what tries leave and reports."""
    ledger.sweep()
    parts = (layout.OUTCOMES, layout.DIGESTS, layout.DATA, *layout.KEPT)
    names = [name for part in parts for name in files_in(ledger.disk, ledger.folder, part)]
    halves = [name for name in names if is_half(name)]
    assert all(name.startswith((layout.OUTCOMES, layout.DATA)) for name in halves)  # left to `gc`
    ended = [
        key for key in ledger.disk.names(ledger.folder / layout.PROGRESS) if ledger.outcome(key)
    ]
    assert ended == []
    return {name: ledger.disk.digest(ledger.folder / name) for name in names if name not in halves}


def problems_of(ledger: Ledger) -> set[str]:
    """What `kdsearch verify` finds: made-up outcomes have no epochs."""
    found = verify(ledger)
    return {str(problem) for problem in (*found.problems, *found.notes)}


def assert_as_undisturbed(search: KilledSearch, agenda: Agenda, calm: Undisturbed) -> None:
    """The same decisions, outcomes and report; each outcome was committed once.

    What ran ahead of decisions depends on what was killed, and so do the report's costs.
    """
    search.disk.spare()  # what looks at the folder takes steps of its own
    assert agenda.complete
    assert agenda.views() == calm.agenda.views()
    assert agenda.stable() == calm.agenda.stable()
    assert used(agenda) == used(calm.agenda)
    if not search.study.resources.speculate:
        assert agenda.results == calm.agenda.results
        assert report_of(search.disk, search.ledger.folder) == calm.report
        assert kept_of(search.ledger) == calm.kept
        assert problems_of(search.ledger) == calm.problems
    made = search.disk.made_durable
    finished = {path.stem: n for path, n in made.items() if path.parent.name == "outcomes"}
    assert finished.keys() <= agenda.results.keys()
    assert set(finished.values()) <= {1}  # in some studies every training fails


@dataclass(kw_only=True)
class EachStepOnce:
    """Kills at each step of each launch once, and again when more files are there."""

    folder: Path
    spared: str
    """The files that nobody is killed at."""
    share: float = 1.0
    """Of the steps, drawn."""
    steps: set[Step] = field(default_factory=set)
    """At which somebody was killed, or might have been."""
    _when: set[tuple[Step, int]] = field(default_factory=set)

    def __call__(self, disk: CrashingDisk, side: str, what: str, path: Path) -> bool:
        step = (side, what, named(path, self.folder))
        when = (step, 0 if "report" in path.parts else len(disk.made_durable))
        if when in self._when or step[2].startswith(self.spared):
            return False
        self._when.add(when)
        self.steps.add(step)
        return uniform(when) < self.share


@dataclass
class After:
    """Kills after so many steps each time, and then no more."""

    steps: list[int]

    def __call__(self, disk: CrashingDisk, side: str, what: str, path: Path) -> bool:
        if not self.steps:
            return False
        self.steps[-1] -= 1
        if self.steps[-1]:
            return False
        self.steps.pop()
        return True


@pytest.mark.timeout(900)
def test_a_search_killed_before_and_after_every_step_decides_and_reports_the_same(
    tmp_path: Path,
) -> None:
    draw = random.Random(0)
    crashes: Counter[str] = Counter()
    for number, study in enumerate(studies(tmp_path, draw, ahead=0)):
        folder, world = tmp_path / str(number), a_world(draw)
        calm = undisturbed(study, world, folder)
        if len(calm.agenda.results) > MOST_TRAININGS:
            continue
        # Writing a report takes long, so that it is disturbed in the first study only.
        spared = "report/" if crashes else "nothing"
        every = [step for step in calm.steps if spared not in step[2]]
        share = 1.0 if ALL else EACH_STEP / 4 / len(every)
        dies = EachStepOnce(folder=folder, spared=spared, share=share)
        while not dies.steps.issuperset(every):
            # Whoever is killed right after a commit gets no further with it: once more, then.
            search = KilledSearch(study=study, world=world, folder=folder, draw=draw, dies=dies)
            assert_as_undisturbed(search, search.to_the_end(), calm)
            crashes += search.crashes
        if crashes.total() >= EACH_STEP:
            break
    assert min(crashes[how] for how in ("all", "power", "driver", "worker")) >= EACH_STEP // 20


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_a_killed_process_named_outlast_a_power_cut_after_the_next(
    seed: int, tmp_path: Path
) -> None:
    killed = iter([True])

    def dies(side: str, what: str, path: Path) -> bool:
        return (side, what, path.suffix) == ("after", "link", ".jsonl") and next(killed, False)

    disk = CrashingDisk(tmp_path, dies)
    ledger, rows = Ledger(tmp_path, disk), [{"text": "a", "label": 0}]
    ledger.prepare()
    with pytest.raises(Killed):
        ledger.write_rows(digest_rows(rows), rows)
    disk.start_again()
    ledger.write_rows(digest_rows(rows), rows)
    disk.cut_power(random.Random(seed))
    assert ledger.rows(digest_rows(rows)) == rows


def test_a_search_killed_at_random_moments_decides_and_reports_the_same(tmp_path: Path) -> None:
    draw = random.Random(1)
    crashes = 0
    for number, study in enumerate(studies(tmp_path, draw, ahead=0.5)):
        folder, world = tmp_path / str(number), a_world(draw)
        calm = undisturbed(study, world, folder)
        if len(calm.agenda.results) > MOST_AT_RANDOM:
            continue
        dies = After([draw.randint(1, len(calm.steps) // 4) for _ in range(CRASHES)])
        search = KilledSearch(study=study, world=world, folder=folder, draw=draw, dies=dies)
        assert_as_undisturbed(search, search.to_the_end(), calm)
        crashes += search.crashes.total()
        if crashes >= AT_RANDOM:
            break
