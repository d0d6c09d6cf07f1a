"""A whole study: the wall time to its report, beside plain Ray Tune with the Trainer.

    python benchmarks/study.py search_spaces/quickstart.yaml [--slots 2] [--at-least 4]
    python benchmarks/study.py search_spaces/mrpc.yaml -- --data-dir DIR --model encoder=DIR

`kdsearch launch` (with what stands behind `--`) to its end; then the trainings that it ran,
teachers and students, as function trainables of Ray Tune on as many slots: the Trainer with fused
AdamW, each student with its teacher online. Plain Ray Tune is given the list beforehand, the rows
encoded as kdsearch has them, its losses and its evaluation, and need not compute what a teacher
says of each split; what is its own is the loop, the order of the rows, the processes. `--reuse` has
it keep processes from trial to trial, which is not its default.

Both sides' mean validation scores are printed: they train the same students, but in another order
of the rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pairs import Rounds, Taken, busy_cores, child, report
from torch import Tensor

from kdsearch.agenda import StudentTraining, TeacherTraining, parse_training, written
from kdsearch.distill.batch_loss import batch_loss
from kdsearch.distill.caches import Split, encoded, tokenizer_of
from kdsearch.distill.evaluation import evaluate
from kdsearch.distill.models import (
    build_model,
    known_inputs,
    load_checkpoint,
    load_model,
    model_folder,
)
from kdsearch.ledger import Ledger, layout
from kdsearch.search import Labels
from kdsearch.tasks import TASKS, Batch, head_weights

Student = StudentTraining | TeacherTraining


class OnlineTeacher:
    """In place of a teacher's cached outputs: it reads each batch."""

    def __init__(self, training: StudentTraining, folder: Path) -> None:
        ledger, checkpoint = Ledger(folder), training.taught.teacher
        resolved, spec = ledger.resolved(), checkpoint.model
        self._task, data = TASKS[training.data.task], training.data
        tokenizer = tokenizer_of(spec, data, folder)
        if checkpoint.training is None:
            where = model_folder(spec.name, spec.weights, resolved)
            self._model = load_model(where, spec.name, self._task, tokenizer)
        else:
            where = ledger.path(layout.checkpoint(checkpoint.training, checkpoint.epoch or 0))
            given = (spec, self._task, data.labels, tokenizer, resolved)
            self._model = load_checkpoint(where, *given)
        self._model.eval()
        self._order = [checkpoint.labels.index(label) for label in data.labels]
        self._examples = split_of(training, "train", folder, self._model, spec=spec)
        self.head = head_weights(self._model) if self._task.wide else None

    @torch.no_grad()
    def of(self, batch: Batch) -> Tensor:
        """What it says of a batch, whose rows of classification are its examples."""
        if not self._task.per_token:
            batch = self._examples.batch(batch.rows)
        values = self._task.outputs(self._model, batch)
        return values[:, self._order] if self._order else values


def split_of(training: Student, split: str, folder: Path, model: Any, *, spec: Any = None) -> Any:
    """A split as a model reads it."""
    taught = isinstance(training, StudentTraining) and training.teaching is not None
    wanted = Split(
        spec=spec or training.model,
        data=training.data,
        split=split,
        settings=training.settings,
        labelled=split == "train" and not taught,
        folder=folder,
        device="cpu",
    )
    return known_inputs(model, encoded(wanted))


def trial(config: dict[str, Any]) -> None:
    """One training by the Trainer, as a function trainable."""
    import transformers
    from ray import tune

    training = parse_training(config["training"])
    assert not isinstance(training, str)
    torch.set_num_threads(training.settings.cpu_threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tune.report({"validation": trained(training, Path(config["folder"]))})


def trained(training: Student, folder: Path) -> float:
    """Train, score each epoch on validation, and the last one on test; the best validation."""
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    data, settings, task = training.data, training.settings, TASKS[training.data.task]
    tokenizer = tokenizer_of(training.model, data, folder)
    torch.manual_seed(training.seed)
    resolved = Ledger(folder).resolved()
    model: Any = build_model(
        training.model, task, data.labels, tokenizer, resolved, dropout=settings.dropout
    )
    examples, validation, test = (
        split_of(training, split, folder, model) for split in ("train", "validation", "test")
    )
    teacher: Any = None
    if isinstance(training, StudentTraining) and training.teaching is not None:
        teacher = OnlineTeacher(training, folder)
    objective = training.objective if isinstance(training, StudentTraining) else Labels()
    loss_of = batch_loss(task, model, objective, teacher)
    scores: list[float] = []

    class Distilling(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Tensor:
            batch = examples.batch(inputs["indices"])
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
                return loss_of(task.outputs(model, batch), batch)

    class Scoring(TrainerCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            scored = evaluate(model, task, tokenizer, validation, data, settings)
            scores.append(scored.score or 0.0)

    with tempfile.TemporaryDirectory() as temporary:
        given = TrainingArguments(
            output_dir=temporary,
            per_device_train_batch_size=settings.batch_size,
            num_train_epochs=settings.epochs,
            learning_rate=training.learning_rate,
            weight_decay=settings.adam.weight_decay,
            lr_scheduler_type="constant",
            max_grad_norm=settings.clip or 0.0,
            seed=training.seed,
            use_cpu=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        trainer = Distilling(
            model=model,
            args=given,
            train_dataset=[{"index": number} for number in range(len(examples))],  # type: ignore[arg-type]
            data_collator=lambda rows: {"indices": torch.tensor([row["index"] for row in rows])},
            callbacks=[Scoring()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    if isinstance(training, StudentTraining):
        evaluate(model, task, tokenizer, test, data, settings)
    return max(scores)


def plain(folder: Path, slots: int, *, reuse: bool) -> None:
    """Run the trainings of a finished study by Ray Tune, the teachers first."""
    import ray
    from ray import tune

    found = [outcome.training for outcome in Ledger(folder).outcomes()]
    ray.init("local", num_cpus=slots, include_dashboard=False, log_to_driver=False)
    scores: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        for kind in (TeacherTraining, StudentTraining):
            given = [written(training) for training in found if isinstance(training, kind)]
            if given:
                results = tune.Tuner(
                    tune.with_resources(trial, {"cpu": 1}),
                    param_space={"folder": str(folder), "training": tune.grid_search(given)},
                    tune_config=tune.TuneConfig(reuse_actors=reuse),
                    run_config=tune.RunConfig(
                        storage_path=temporary, name=kind.__name__, verbose=0
                    ),
                ).fit()
                if results.num_errors:
                    sys.exit(f"{results.num_errors} trials failed: {results.errors[0]}")
                scores = [result.metrics["validation"] for result in results]
    ray.shutdown()
    print(json.dumps({"students": len(scores), "mean_validation": statistics.mean(scores)}))


def launched(study: Path, folder: Path, slots: int, options: Sequence[str]) -> Taken:
    """`kdsearch launch` to the end, report included."""
    command = [sys.executable, "-m", "kdsearch", "launch", study, "--folder", folder]
    taken = child([*command, "--address", "local", "--max-slots", str(slots), *options])
    students = [o for o in Ledger(folder).outcomes() if isinstance(o.training, StudentTraining)]
    scores = [float(outcome.validation or 0) for outcome in students]
    more = {"students": len(students), "mean_validation": statistics.mean(scores)}
    return replace(taken, more=more)


def main() -> None:
    """Measure, print, and append to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--at-least", type=float)
    parser.add_argument("--reuse", action="store_true")
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("options", nargs="*", help="of `kdsearch launch`, behind --")
    # Intermixed: else the options of `launch` would have to stand before ours.
    given = parser.parse_intermixed_args()
    if given.plain:
        plain(given.plain, given.slots, reuse=given.reuse)
        return
    with tempfile.TemporaryDirectory(prefix="kdsearch-bench-") as name:
        folder = Path(name) / "run"
        others = [busy_cores(1)]
        ours = launched(given.study, folder, given.slots, given.options)
        others.append(busy_cores(1))
        command = [sys.executable, "-W", "ignore", __file__, given.study, "--plain", folder]
        command += ["--slots", str(given.slots), *(["--reuse"] if given.reuse else [])]
        theirs = child(command)
    rounds = Rounds(turns={"kdsearch": [ours], "plain": [theirs]}, others=others)
    for side, [turn] in rounds.turns.items():
        print(f"{side}: {turn.seconds:.0f} s, {turn.more}")
    if ours.more["students"] != theirs.more["students"]:
        sys.exit("the sides did not train as many students")
    how = "keeping processes" if given.reuse else "a process for each trial"
    report(
        f"study.{given.study.stem}{'.reuse' if given.reuse else ''}",
        f"wall time to the report: kdsearch ÷ Ray Tune with the Trainer, {how}",
        rounds.speedup("kdsearch", "plain"),
        unit="×",
        at_least=given.at_least,
        slots=given.slots,
        students=ours.more["students"],
    )


if __name__ == "__main__":
    main()
