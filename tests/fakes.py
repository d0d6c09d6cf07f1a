"""Stand-ins that the tests share: a disk in memory, small studies, made-up results."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kdsearch.agenda import (
    VERSION,
    Agenda,
    Attempt,
    CheckpointSpec,
    Cost,
    Epoch,
    ModelSpec,
    Outcome,
    OutputsTraining,
    SequencesTraining,
    StudentTraining,
    TeacherTraining,
    TestScore,
    Training,
)
from kdsearch.driver import Dispatcher
from kdsearch.engine import TabulatedEngine
from kdsearch.errors import StorageError
from kdsearch.ledger import Ledger, OsDisk
from kdsearch.search import (
    DATA,
    Axis,
    Checkpoint,
    Greedy,
    Inner,
    Progress,
    Space,
    Trial,
    ValidationScore,
)
from kdsearch.study import (
    Fused,
    Resolved,
    ResolvedDataset,
    ResolvedModel,
    ResolvedSplit,
    Study,
    parse_study,
)
from kdsearch.study.grammar import LABELS as GRAMMAR_LABELS

LABELS = ("no", "yes")
KEY = "abc" * 8
"""Such as a training has."""
COST = Cost(seconds=1.0, device="none", host="here")


# -- a disk ------------------------------------------------------------------------------------


@dataclass(eq=False)
class StoredFile:
    """A file's content, and what of it is durable."""

    content: bytes
    durable: bytes | None = None


@dataclass(eq=False)
class StoredFolder:
    """The names in a folder, and those that are durable."""

    names: dict[str, StoredFile | StoredFolder] = field(default_factory=dict)
    durable: dict[str, StoredFile | StoredFolder] = field(default_factory=dict)


class MemoryDisk:
    """A `kdsearch.ledger.Disk` in memory: a tree, in which a file may have several names."""

    def __init__(self) -> None:
        self._root = StoredFolder()

    def _at(self, path: Path) -> StoredFile | StoredFolder | None:
        found: StoredFile | StoredFolder | None = self._root
        for part in path.parts[1:]:
            found = found.names.get(part) if isinstance(found, StoredFolder) else None
        return found

    def _folder(self, path: Path) -> StoredFolder:
        found = self._at(path)
        if not isinstance(found, StoredFolder):
            raise StorageError(f"{path}: is no folder")
        return found

    def write(self, path: Path, content: bytes) -> None:
        names = self._folder(path.parent).names
        assert path.name not in names
        names[path.name] = StoredFile(content)

    def note(self, path: Path, content: bytes) -> None:
        self._folder(path.parent).names[path.name] = StoredFile(content)

    def link(self, source: Path, target: Path) -> bool:
        file = self._folder(source.parent).names[source.name]
        return self._folder(target.parent).names.setdefault(target.name, file) is file

    def replace(self, source: Path, target: Path) -> bool:
        old = self._at(target)
        if isinstance(old, StoredFolder) and old.names:
            return False
        moved = self._folder(source.parent).names.pop(source.name, None)
        if moved is None:
            raise StorageError(f"{source}: is not there")
        self._folder(target.parent).names[target.name] = moved
        return True

    def remove(self, path: Path) -> None:
        if self.kind(path.parent) == "folder":
            self._folder(path.parent).names.pop(path.name, None)

    def remove_folder(self, folder: Path) -> None:
        for name in list(self.names(folder)):
            if self.kind(folder / name) == "folder":
                self.remove_folder(folder / name)
            else:
                self.remove(folder / name)
        MemoryDisk.remove(self, folder)

    def sync(self, folder: Path) -> None:
        stored = self._folder(folder)
        stored.durable = dict(stored.names)

    def make_folder(self, folder: Path, *, parents: bool = False) -> None:
        for each in reversed([folder, *folder.parents][: len(folder.parts) if parents else 1]):
            if self._at(each) is None:
                self._folder(each.parent).names[each.name] = StoredFolder()

    def read(self, path: Path) -> bytes:
        found = self._at(path)
        if not isinstance(found, StoredFile):
            raise FileNotFoundError(path)
        return found.content

    def digest(self, path: Path) -> str:
        return hashlib.sha256(self.read(path)).hexdigest()

    def names(self, folder: Path) -> Iterator[str]:
        found = self._at(folder)
        yield from list(found.names) if isinstance(found, StoredFolder) else ()

    def kind(self, path: Path) -> Literal["file", "folder"] | None:
        found = self._at(path)
        if found is None:
            return None
        return "folder" if isinstance(found, StoredFolder) else "file"

    def size(self, path: Path) -> int:
        return len(self.read(path))


class SlowDisk(OsDisk):
    """The real disk behind a slow network: every call takes `seconds`, drawn anew."""

    def __init__(self, seconds: float, seed: int = 0) -> None:
        self._seconds = seconds
        self._draw = random.Random(seed)

    def _wait(self) -> None:
        time.sleep(self._draw.random() * self._seconds)

    def write(self, path: Path, content: bytes) -> None:
        self._wait()
        super().write(path, content)

    def link(self, source: Path, target: Path) -> bool:
        self._wait()
        return super().link(source, target)

    def read(self, path: Path) -> bytes:
        self._wait()
        return super().read(path)

    def names(self, folder: Path) -> Iterator[str]:
        self._wait()
        yield from super().names(folder)


class VanishingDisk(OsDisk):
    """The real disk, of which another process removes a share of the files just before a read."""

    def __init__(self, share: float, seed: int = 0) -> None:
        self._share = share
        self._draw = random.Random(seed)
        self.vanished: list[Path] = []

    def read(self, path: Path) -> bytes:
        if path.parent.name != "study" and self._draw.random() < self._share:
            path.unlink(missing_ok=True)
            self.vanished.append(path)
        return super().read(path)

    def names(self, folder: Path) -> Iterator[str]:
        for name in list(super().names(folder)):
            if self._draw.random() < self._share and (folder / name).is_dir():
                shutil.rmtree(folder / name)
                self.vanished.append(folder / name)
            yield name


class BusyDisk(OsDisk):
    """The real disk; before each write, another process does something there."""

    def __init__(self, other: Callable[[], None]) -> None:
        self._other = other

    def write(self, path: Path, content: bytes) -> None:
        self._other()
        super().write(path, content)


class Killed(BaseException):
    """The process ends here, without unwinding: what it still does must not reach the disk."""


class CrashingDisk(MemoryDisk):
    """A disk whose processes can be killed before and after each step, and its power cut.

    A file's content is durable once it was synced, and a name once its folder was. What is not
    may be there after a power cut, or not, or a part of it.
    """

    def __init__(self, folder: Path, dies: Callable[[str, str, Path], bool]) -> None:
        """`folder` is there, and durable.

        `dies` says whether to be killed: "before" or "after" what, and on which path.
        """
        super().__init__()
        self._dies = dies
        self._dead = False
        self.made_durable: Counter[Path] = Counter()
        """How many files were made durable under each name."""
        super().make_folder(folder, parents=True)
        for there in folder.parents:
            super().sync(there)

    @contextmanager
    def step(self, what: str, path: Path) -> Iterator[None]:
        """Something that happens at once, in the sight of other processes."""
        self._live_or_die("before", what, path)
        yield
        self._live_or_die("after", what, path)

    def _live_or_die(self, side: str, what: str, path: Path) -> None:
        self._dead = self._dead or self._dies(side, what, path)
        if self._dead:
            raise Killed(f"{side} {what} {path}")

    def start_again(self) -> None:
        """Another process uses the disk from here on."""
        self._dead = False

    def spare(self) -> None:
        """Nobody is killed from here on."""
        self._dies = lambda side, what, path: False

    def write(self, path: Path, content: bytes) -> None:
        with self.step("open", path):
            super().write(path, b"")
        file = self._at(path)
        assert isinstance(file, StoredFile)
        file.durable = b""
        with self.step("content", path):
            file.content = content
        with self.step("fsync", path):
            file.durable = content

    def note(self, path: Path, content: bytes) -> None:
        with self.step("note", path):
            super().note(path, content)

    def link(self, source: Path, target: Path) -> bool:
        with self.step("link", target):
            linked = super().link(source, target)
        self.sync(target.parent)
        return linked

    def replace(self, source: Path, target: Path) -> bool:
        with self.step("replace", target):
            return super().replace(source, target)

    def remove(self, path: Path) -> None:
        with self.step("remove", path):
            super().remove(path)

    def remove_folder(self, folder: Path) -> None:
        super().remove_folder(folder)  # what is in it, step by step
        with self.step("rmdir", folder):
            pass

    def make_folder(self, folder: Path, *, parents: bool = False) -> None:
        if self._at(folder) is None:
            self.make_folder(folder.parent)
            with self.step("mkdir", folder):
                super().make_folder(folder)

    def sync(self, folder: Path) -> None:
        with self.step("sync", folder):
            self._settle(folder)

    def _settle(self, folder: Path) -> None:
        stored = self._folder(folder)
        new = [n for n, found in stored.names.items() if stored.durable.get(n) is not found]
        self.made_durable.update(folder / name for name in new if not name.startswith("."))
        stored.durable = dict(stored.names)

    def cut_power(self, draw: random.Random) -> None:
        """Lose what is not durable, or some of it."""
        self._cut(Path("/"), draw)

    def _cut(self, path: Path, draw: random.Random) -> None:
        folder = self._folder(path)
        for name in {**folder.durable, **folder.names}:
            there = draw.choice([folder.names.get(name), folder.durable.get(name)])
            if there is None:
                folder.names.pop(name, None)
            else:
                folder.names[name] = there
        self._settle(path)
        for name, found in folder.names.items():
            if isinstance(found, StoredFolder):
                self._cut(path / name, draw)
            elif found.durable is not None and found.content != found.durable:
                torn = found.content[: draw.randrange(len(found.content))]
                found.content = found.durable = draw.choice([found.durable, torn, found.content])


def memory_ledger(resolved: Resolved) -> Ledger:
    """A ledger in memory that holds the study."""
    ledger = Ledger(Path("/study"), MemoryDisk())
    ledger.prepare()
    ledger.write_resolved(resolved)
    return ledger


# -- studies -----------------------------------------------------------------------------------


def a_study(**sections: Any) -> dict[str, Any]:
    """The mapping of a small valid study; `sections` take the place of its own."""
    return {
        "name": "small",
        "datasets": {"sentences": {"grammar": {"train": 20, "validation": 10, "test": 10}}},
        "models": {
            "big": {"config": {"model_type": "bert", "num_hidden_layers": 4}},
            "small": {"config": {"model_type": "bert", "num_hidden_layers": 1}},
        },
        "teachers": {"big": {"model": "big", "fine_tune": {"learning_rate": [1e-5]}}},
        "students": {"small": {"model": "small"}},
        "search": {
            "alpha": [1, 0.5],
            "temperature": {"broad": [1, 4]},
            "learning_rate": [1e-5, 2e-5],
        },
        **sections,
    }


def resolved_of(study: Study | dict[str, Any]) -> Resolved:
    """A study resolved to made-up digests: equal sources have equal ones."""
    if isinstance(study, dict):
        study = parse_study(study, place="study.yaml")
    datasets = {
        name: ResolvedDataset(
            task="classification",
            metric="f1",
            labels=LABELS,
            splits={
                split: ResolvedSplit(digest=f"{dataset.grammar}/{split}", rows=10)
                for split in ("train", "validation", "test")
            },
        )
        for name, dataset in study.datasets.items()
    }
    models = {
        name: ResolvedModel(
            path=model.path, digest=model.path, labels=LABELS if model.path else None
        )
        for name, model in study.models.items()
    }
    return Resolved(
        training_version=VERSION, study=study, datasets=datasets, models=models, versions={}
    )


def fused_study(most: int, **sections: Any) -> Resolved:
    """A resolved study of which so many students may be trained in one pass."""
    resolved = resolved_of(a_study(**sections))
    students, datasets = resolved.study.students, resolved.study.datasets
    fused = Fused(asked="auto", most={s: dict.fromkeys(datasets, most) for s in students})
    return resolved.model_copy(update={"fused": fused})


SMALL_GRID = {
    "distance": ["ce"],
    "teacher": ["t_hs"],
    "student_temperature": ["tied"],
    "alpha": [1],
    "temperature": {"broad": [1, 4]},
    "learning_rate": [1e-5],
}
"""Of a search: one choice, and two temperatures around which the best is refined."""


def random_study(draw: random.Random) -> dict[str, Any]:
    """A study of at most four test cases with small grids of every shape."""

    def some(values: list[Any], least: int = 1) -> list[Any]:
        return draw.sample(values, draw.randint(least, len(values)))

    models: dict[str, Any] = {
        name: {"config": {"model_type": "bert", "kind": kind}}
        for name, kind in (("big", 1), ("large", 2), ("small", 3), ("tiny", 4), ("twin", 4))
    }
    models |= {name: {"path": f"/models/{name}"} for name in ("tuned", "other")}
    kinds: list[dict[str, Any]] = [
        {"model": "big", "fine_tune": {"learning_rate": some([1e-5, 2e-5, 3e-5])}},
        {"model": "big", "fine_tune": {"learning_rate": [1e-5]}},
        {"model": "large", "fine_tune": {"learning_rate": [2e-5, 1e-5], "epochs": 3}},
        {"checkpoint": "tuned"},
        {"t_hs": "tuned", "t_ll": "other"},
        {"t_hs": "tuned", "t_ll": "tuned"},
    ]
    sizes = draw.choice([*[(1, 1, 1)] * 6, (2, 1, 1), (1, 2, 1), (1, 1, 2), (1, 2, 2)])
    grammar = {"train": 4, "validation": 2, "test": 2}
    same_rows = draw.random() < 0.2
    seed = draw.randrange(100)
    apart = random.Random(seed)
    of_winner = apart.choice([None, [seed, seed + 1, seed + 2], [seed, seed + 5]])
    teachers: dict[str, Any] = {f"t{i}": draw.choice(kinds) for i in range(sizes[1])}
    if sizes == (1, 2, 1):
        teachers["t2"] = kinds[0]
    for i in range(1, len(teachers)):
        if apart.random() < 0.6:
            teachers[f"t{i}"] = {"student_of": f"t{i - 1}"}
    return {
        "name": "random",
        "seeds": draw.choice([[seed], [seed], [seed, seed + 1]]),
        "winner_seeds": of_winner,
        "erm": draw.random() < 0.3,
        "tries": draw.randint(1, 2),
        "datasets": {
            f"d{i}": {"grammar": {**grammar, "seed": 0 if same_rows else i}}
            for i in range(sizes[0])
        },
        "models": models,
        "teachers": teachers,
        "students": {
            f"s{i}": {"model": model}
            for i, model in enumerate(draw.sample(["small", "tiny", "twin"], sizes[2]))
        },
        "search": {
            "distance": some(["ce", "mse"]),
            "teacher": some(["t_hs", "t_ll"]) + apart.choice([[], [], ["epoch 2"]]),
            "student_temperature": some(["tied", 1, 2]) if draw.random() < 0.5 else ["tied", 1],
            "alpha": some([1, 0.5, 0.1]),
            "order": draw.sample(["teacher", "student_temperature", "distance"], 3),
            "temperature": {"broad": sorted(some([0.5, 1, 1.5, 2, 4, 10], least=2)[:3])},
            "learning_rate": some([1e-5, 2e-5, 3e-5])[:2],
            "inner": draw.choice(["joint", "coordinate"]),
        },
    }


def at_times_written(draw: random.Random, raw: dict[str, Any]) -> dict[str, Any]:
    """The study, at times with students that learn on what their teachers write."""
    if draw.random() < 0.6:
        return raw
    targets = draw.choice([["data", "greedy"], ["beam", "data", "sample"], ["greedy", "beam"]])
    return {**raw, "search": {**raw["search"], "targets": targets}}


def paper_space(**changes: Any) -> Space:
    """The grid of the paper (Table 2)."""
    values: dict[str, Any] = {
        "distance": ("ce", "mse"),
        "teacher": (Checkpoint.HIGHEST_SCORE, Checkpoint.LOWEST_LOSS),
        "student_temperature": ("tied", 1.0),
        "alpha": (1.0, *(i / 10 for i in range(1, 10))),
        "temperature": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
        "learning_rate": tuple(i * 1e-5 for i in range(1, 8)),
        "inner": Inner.JOINT,
        "order": ("teacher", "student_temperature", "distance"),
        **changes,
    }
    return Space(
        compared=tuple(Axis(name=n, values=values[n]) for n in (*values["order"], "alpha")),
        tuned=tuple(Axis(name=n, values=values[n]) for n in ("temperature", "learning_rate")),
        refined="temperature",
        inner=values["inner"],
    )


# -- results -----------------------------------------------------------------------------------


def uniform(*what: object) -> float:
    """A number in [0, 1) that `what` determines."""
    digest = hashlib.blake2b(repr(what).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def outcome_of(training: Training, validation: float | None = 0.5, **fields: Any) -> Outcome:
    """An outcome of `training`; without a validation score it diverged."""
    values: dict[str, Any] = {
        "state": "diverged" if validation is None else "scored",
        "validation": None if validation is None else ValidationScore(validation),
        "test": None if validation is None else TestScore(1 - validation),
        "best_epoch": 1,
        "lowest_loss_epoch": 2,
        "cost": COST,
    }
    return Outcome(key=training.key, training=training, **{**values, **fields})


def alpha_of(training: Training) -> float:
    """Its α; 1 of one that has none."""
    found: float = 1.0
    if isinstance(training, StudentTraining):
        found = training.objective.parameters.get("alpha", 1.0)
    return found


def attempt_at(key: str, message: str = "out of memory") -> Attempt:
    """A try of a training that failed."""
    return Attempt(key=key, number=0, failure="error", message=message, host="here")


def walk(
    space: Space, score: Callable[[Trial], float | None]
) -> tuple[Progress, dict[Trial, ValidationScore | None]]:
    """Walk a space to its end, greedily; also every trial that was asked for, with its score."""
    scores: dict[Trial, ValidationScore | None] = {}
    while not (progress := Greedy()(space, scores)).finished:
        for trial in progress.wanted:
            assert trial not in scores, f"{trial} was asked for twice"
            value = score(trial)
            scores[trial] = None if value is None else ValidationScore(value)
    return progress, scores


def model_identity(digest: str | None, config: Mapping[str, Any] | None) -> str:
    """What a made-up result knows of a model: its content, whatever its name."""
    return repr((digest, config))


@dataclass(kw_only=True)
class World:
    """Made-up results: a function of a seed and of what a training is, not of its key or time."""

    seed: int
    levels: int = 1000
    """Scores are rounded to so many levels; few make ties."""
    failing: float = 0.0
    diverging: float = 0.0
    coinciding: float = 0.3
    """How often a teacher's two checkpoints are one epoch."""
    rates: dict[str, float] = field(default_factory=dict)
    """The learning rate of each teacher's training, by its key."""
    students: dict[str, tuple[object, ...]] = field(default_factory=dict)
    """What each student's training is, by its key."""
    ways: dict[str, str] = field(default_factory=dict)
    """How each teacher that writes does it, by that training's key."""

    def score(self, *what: object) -> float | None:
        """The validation score, or None for what fails for good or diverges."""
        if self.fails(*what) or self.diverges(*what):
            return None
        return round(uniform(self.seed, "score", what) * self.levels) / self.levels

    def fails(self, *what: object) -> bool:
        return uniform(self.seed, "fails", what) < self.failing

    def diverges(self, *what: object) -> bool:
        return uniform(self.seed, "diverges", what) < self.diverging

    def epochs(self, *what: object) -> tuple[int, int]:
        """The epoch of a teacher's best score and that of its lowest loss."""
        best = 1 + int(3 * uniform(self.seed, "best", what))
        if uniform(self.seed, "coincide", what) < self.coinciding:
            return best, best
        return best, 1 + int(3 * uniform(self.seed, "lowest", what))

    def identity(self, training: Training) -> tuple[object, ...]:
        """What `training` is, in words that the tests can say without a key."""
        data = training.data.train
        match training:
            case TeacherTraining():
                return ("teacher", data, _model(training.model), training.learning_rate)
            case OutputsTraining(checkpoint=checkpoint, sequences=key):
                on = self.ways[key] if key else training.split
                return ("outputs", data, self._checkpoint(checkpoint), on)
            case SequencesTraining():
                return ("sequences", data, self._checkpoint(training.checkpoint), training.how)
            case StudentTraining(teaching=None):
                model = _model(training.model)
                return ("erm", data, model, training.learning_rate, training.seed)
            case StudentTraining():
                values = training.objective.parameters
                return (
                    *("student", data, _model(training.model)),
                    self._checkpoint(training.taught.teacher),
                    training.objective.kind,
                    values.get("temperature"),
                    values.get("student_temperature"),
                    values.get("alpha"),
                    *({values.get("targets", DATA)} - {DATA}),
                    training.learning_rate,
                    training.seed,
                )

    def commit(
        self,
        ledger: Ledger,
        training: Training,
        keep: Callable[[Outcome], dict[str, str]] = lambda outcome: {},
    ) -> None:
        """Do as a worker does: commit the outcome, or a failed attempt.

        What is scored has the digests of the files that `keep` writes.
        """
        what = self.identity(training)
        if isinstance(training, TeacherTraining):
            self.rates[training.key] = training.learning_rate
        if isinstance(training, StudentTraining):
            self.students[training.key] = what
        if isinstance(training, SequencesTraining):
            self.ways[training.key] = training.how
        if self.fails(*what):
            ledger.write_attempt(attempt_at(training.key))
            return
        best, lowest = self.epochs(*what)
        score = self.score(*what)
        outcome = outcome_of(training, score, best_epoch=best, lowest_loss_epoch=lowest)
        digests = {} if score is None else keep(outcome)
        ledger.write_outcome(outcome.model_copy(update={"digests": digests}))

    def _checkpoint(self, checkpoint: CheckpointSpec) -> tuple[object, ...]:
        if checkpoint.training and checkpoint.epoch is None:
            return self.students[checkpoint.training]
        rate = self.rates[checkpoint.training] if checkpoint.training else None
        return (_model(checkpoint.model), rate, checkpoint.epoch)


def _model(model: ModelSpec) -> str:
    return model_identity(model.weights, model.config)


def search_through(
    resolved: Resolved, ledger: Ledger, world: World, *, slots: int = 1, order: int = 0
) -> Agenda:
    """Run a study to its end on simulated slots, in an order of completion that `order` draws."""
    agenda = Agenda(resolved, ledger.results())
    TabulatedEngine(
        look_up=lambda training: world.commit(ledger, training),
        seconds=lambda training: uniform(order, training.key),
        slots=slots,
    ).run(Dispatcher(agenda, ledger))
    return agenda


# -- what engines run; top-level and picklable -----------------------------------------------------


def made_up_training(training: Training, folder: Path) -> Outcome:
    """A `run_training` whose outcome follows from the key alone."""
    return outcome_of(training, round(uniform(training.key), 1), lowest_loss_epoch=1)


def whole_training(training: Training, folder: Path) -> Outcome:
    """`made_up_training` with epochs, kept files and scores that go together."""
    outcome = made_up_training(training, folder)
    score, name = outcome.validation, ""
    if isinstance(training, OutputsTraining):
        validation = score if training.split == "validation" else None
        test = outcome.test if training.split == "test" else None
        outcome = outcome.model_copy(update={"validation": validation, "test": test})
        name = f"outputs/{training.key}.npy" if training.split == "train" else ""
    else:
        epochs = tuple(
            Epoch(epoch=number, train_loss=1.0, validation=score, validation_loss=1.0)
            for number in range(1, training.settings.epochs + 1)
        )
        outcome = outcome.model_copy(update={"epochs": epochs})
    if isinstance(training, TeacherTraining):
        name = f"checkpoints/{training.key}/epoch-1/model.safetensors"
    if not name:
        return outcome
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(training.key)
    digest = hashlib.sha256(training.key.encode()).hexdigest()
    return outcome.model_copy(update={"digests": {name: digest}})


@dataclass(frozen=True, kw_only=True)
class RecordedTraining:
    """`made_up_training` that also writes down each run, as a line of `log`."""

    log: Path

    def __call__(self, training: Training, folder: Path) -> Outcome:
        with self.log.open("a") as lines:  # appended whole: the lines are short
            lines.write(f"{training.key}\n")
        return made_up_training(training, folder)

    def runs(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@dataclass(frozen=True, kw_only=True)
class TogetherTraining:
    """A `run_together` that gives what `made_up_training` does; each pass is a line of `log`."""

    log: Path

    def __call__(self, trainings: Sequence[Training], folder: Path) -> list[Outcome]:
        with self.log.open("a") as lines:
            lines.write(" ".join(training.key for training in trainings) + "\n")
        made = [made_up_training(training, folder) for training in trainings]
        return [outcome.model_copy(update={"fused": len(made)}) for outcome in made]

    def passes(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()]


@dataclass(frozen=True, kw_only=True)
class FailingTraining:
    """`made_up_training` that fails for trainings of one kind."""

    kind: str

    def __call__(self, training: Training, folder: Path) -> Outcome:
        if training.kind == self.kind:
            raise RuntimeError(f"cannot train a {self.kind}")
        return made_up_training(training, folder)


class FakeHub:
    """`load_dataset` with rows of our own, by repository, or by path for a packaged reader."""

    def __init__(self, rows: Mapping[str, Any]) -> None:
        self.rows = rows
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *args: Any, **options: Any) -> Any:
        from datasets import Dataset

        self.calls.append((args, options))
        key = args[0]
        if "data_files" in options:
            [key] = options["data_files"].values()
        if key not in self.rows:
            raise FileNotFoundError(f"no {key}\nand much more")
        found = self.rows[key]
        return found if isinstance(found, Dataset) else Dataset.from_list(found)


@contextmanager
def listening() -> Iterator[str]:
    """The address of a server that takes connections and says nothing: a Hub that is there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@dataclass(kw_only=True)
class FakeDashboard:
    """A Ray's dashboard with a job `x` that has written the parts of `log`."""

    log: Sequence[str] = ()
    lasts: int = 0
    """How often the job is said to run before it is said to have ended."""
    cut: int | None = None
    """The first connection to the log breaks behind so many of its parts."""
    silent: bool = False
    """Connections to the log stay open and never bring its last part."""
    gone: bool = False
    """It was started anew and has no job any more."""
    connections: int = 0
    """How many there have been to the log."""

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Its address."""
        from aiohttp import web

        routes = {
            "/api/version": self._version,
            "/api/jobs/": self._never,
            "/api/jobs/x": self._job,
            "/api/jobs/x/logs": self._whole_log,
            "/api/jobs/x/logs/tail": self._tail,
        }
        app = web.Application()
        for path, handler in routes.items():
            app.router.add_get(path, handler)
        app.router.add_post("/api/jobs/x/stop", self._stop)
        loop, runner = asyncio.new_event_loop(), web.AppRunner(app, shutdown_timeout=0.1)
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()

        async def start() -> None:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()

        asyncio.run_coroutine_threadsafe(start(), loop).result()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    async def _version(self, request: Any) -> Any:
        import ray
        from aiohttp import web

        return web.json_response({"version": "4", "ray_version": ray.__version__})

    async def _never(self, request: Any) -> Any:
        await asyncio.sleep(3600)

    async def _job(self, request: Any) -> Any:
        from aiohttp import web

        if self.gone:
            return web.Response(text="Job x does not exist", status=404)
        facts = {"type": "SUBMISSION", "submission_id": "x", "entrypoint": "true"}
        if self.lasts:
            self.lasts -= 1
            return web.json_response({**facts, "status": "RUNNING"})
        return web.json_response({**facts, "status": "SUCCEEDED", "driver_exit_code": 0})

    async def _stop(self, request: Any) -> Any:
        from aiohttp import web

        words = "Traceback (most recent call last):\n  File ...\nRuntimeError: no agent is there\n"
        return web.Response(text=words, status=500)

    async def _whole_log(self, request: Any) -> Any:
        from aiohttp import web

        return web.json_response({"logs": "".join(self.log)})

    async def _tail(self, request: Any) -> Any:
        from aiohttp import web

        if self.gone:
            return web.Response(text="Job x does not exist", status=404)
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        self.connections += 1
        cut = self.cut if self.connections == 1 else None
        for text in self.log[: -1 if self.silent else cut]:
            await answer.send_str(text)
        if self.silent:
            await answer.receive()  # until the other side leaves
        elif cut is not None and request.transport:
            request.transport.abort()
        return answer


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody has just now."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in taken]
    finally:
        for each in taken:
            each.close()


def until(found: Callable[[], bool], seconds: float = 90) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def model_folder(folder: Path) -> Path:
    """A folder that resolving takes for a classifier's; its weights are its name."""
    folder.mkdir()
    names = {str(number): label for number, label in enumerate(GRAMMAR_LABELS)}
    (folder / "config.json").write_text(json.dumps({"id2label": names}))
    (folder / "model.safetensors").write_text(folder.name)
    return folder
