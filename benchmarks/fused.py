"""Students in one pass beside the same ones one after another.

    python benchmarks/fused.py [--students 4 8 16] [--hidden 32 64 128 384] [--rounds 3]
                               [--steps 40] [--epochs 6] [--only-steps]

The quickstart's sentiment data and its small encoder (1 layer), also wider ones; its teacher,
trained for an epoch. The students differ in distance, temperature, α and learning rate, and take
fused steps of AdamW on both sides. Two figures: steps alone, of each width; whole trainings with
validation, test and outcome, of the first. Before, both sides take 150 steps, and must have the
same losses (1e-6, relatively) and weights (5e-6 at width 32, 1e-4 above it, a tenth of a step at
the highest learning rate; but for the biases of keys, whose gradient is rounding and nothing else).
One thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import torch
from material import begin, first_student, scratch
from pairs import report, take_turns
from torch import Tensor, nn

from kdsearch.agenda import StudentTraining
from kdsearch.distill import run_together, run_training
from kdsearch.distill.batch_loss import batch_loss
from kdsearch.distill.caches import Split, encoded, tokenizer_of
from kdsearch.distill.first_token import read_first_alone
from kdsearch.distill.models import build_model
from kdsearch.distill.outputs import KeptOutputs
from kdsearch.distill.together import Together
from kdsearch.distill.training import TrainingState, batches
from kdsearch.ledger import Ledger
from kdsearch.search import Ce, Mse
from kdsearch.tasks import TASKS

COMPARED = 150
LEAST = {4: 1.7, 8: 1.7, 16: 2.1}
TASK = TASKS["classification"]
CPU = torch.device("cpu")


def encoder(layers: int, hidden: int) -> dict[str, object]:
    """As the quickstart has them."""
    return {
        "model_type": "bert",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": max(2, hidden // 32),
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": 64,
        "initializer_range": 0.1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def student_of(folder: Path, hidden: int, epochs: int) -> StudentTraining:
    """A student whose teacher has said what it says."""
    study = {
        "name": "fused",
        "datasets": {
            "sentiment": {"grammar": {"train": 2000, "validation": 300, "test": 500, "noise": 0.1}}
        },
        "models": {"big": {"config": encoder(2, 64)}, "small": {"config": encoder(1, hidden)}},
        "teachers": {"big": {"model": "big", "fine_tune": {"learning_rate": [1e-3], "epochs": 1}}},
        "students": {"small": {"model": "small"}},
        "search": {"learning_rate": [1e-3]},
        "training": {"epochs": epochs, "batch_size": 32, "max_length": 32, "precision": "fp32"},
    }
    return first_student(*begin(folder, study))


def different(student: StudentTraining, count: int) -> list[StudentTraining]:
    """So many students that differ in all that may."""
    objectives = [
        Mse(alpha=0.5)
        if number % 3 == 0
        else Ce(
            temperature=2.0 ** (number % 4),
            student_temperature=2.0 ** (number % 4),
            alpha=0.5 + 0.5 * (number % 2),
        )
        for number in range(count)
    ]
    return [
        student.model_copy(
            update={"objective": objective, "learning_rate": (1 + number % 3) * 1e-3 / 3}
        )
        for number, objective in enumerate(objectives)
    ]


class Students:
    """Students before their first step, and the batches that they learn from."""

    def __init__(self, folder: Path, trainings: Sequence[StudentTraining]) -> None:
        first = trainings[0]
        tokenizer = tokenizer_of(first.model, first.data, folder)
        split = Split(
            spec=first.model,
            data=first.data,
            split="train",
            settings=first.settings,
            labelled=False,
            folder=folder,
            device="cpu",
        )
        self.examples, ledger = encoded(split), Ledger(folder)
        torch.manual_seed(first.seed)
        built = build_model(first.model, TASK, first.data.labels, tokenizer, ledger.resolved())
        read_first_alone(built, TASK, self.examples)
        self.states = [
            self._state(deepcopy(built), KeptOutputs(ledger, each, CPU), each) for each in trainings
        ]
        every = batches(self.examples.lengths, first.settings.batch_size, first.seed, 1)
        self.batches = list(every)

    def _state(
        self, model: nn.Module, kept: KeptOutputs, training: StudentTraining
    ) -> TrainingState:
        teacher = kept.on("train", len(self.examples.labels))
        return TrainingState(
            *(model, TASK, self.examples),
            *(batch_loss(TASK, model, training.objective, teacher), training.settings),
            learning_rate=training.learning_rate,
            evaluated_on=(),
        )

    def some(self, steps: int) -> list[Tensor]:
        """The batches of so many steps."""
        return list(islice(cycle(self.batches), steps))


def one_after_another(students: Students, steps: int) -> None:
    """Take so many steps of each student."""
    for state in students.states:
        state.begin(1)
        for indices in students.some(steps):
            state.step(indices, 1)


def in_one_pass(students: Students, together: Together, steps: int) -> None:
    """Take so many steps of all."""
    together.begin(1)
    for indices in students.some(steps):
        together.step(indices, 1)


def compare(folder: Path, trainings: Sequence[StudentTraining], tolerance: float) -> None:
    """Raise unless both sides learn the same."""
    apart, fused = Students(folder, trainings), Students(folder, trainings)
    one_after_another(apart, COMPARED)
    in_one_pass(fused, Together(fused.states, TASK), COMPARED)
    for state, too in zip(apart.states, fused.states, strict=True):
        assert abs(float(state.total / too.total) - 1) < 1e-6
        for name, weight in state.model.state_dict().items():
            gap = (weight - too.model.state_dict()[name]).abs().max()
            assert "key.bias" in name or gap < tolerance, (name, gap)


def steps_alone(
    folder: Path, student: StudentTraining, hidden: int, given: argparse.Namespace
) -> None:
    """Report what the steps of each number of students take."""
    for count in given.students:
        trainings = different(student, count)
        apart, fused = Students(folder, trainings), Students(folder, trainings)
        steps = max(4, given.steps * 32 // hidden)
        rounds = take_turns(
            {
                "apart": partial(one_after_another, apart, steps),
                "fused": partial(in_one_pass, fused, Together(fused.states, TASK), steps),
            },
            given.rounds,
        )
        report(
            f"fused.steps.{hidden}.{count}",
            f"steps of {count} students of width {hidden}: in one pass ÷ one after another",
            rounds.speedup("fused", "apart"),
            unit="×",
            at_least=LEAST.get(count) if hidden == 32 else None,
            students=count,
            hidden=hidden,
            batch=32,
            steps=steps,
        )


def whole_trainings(folder: Path, student: StudentTraining, given: argparse.Namespace) -> None:
    """Report what whole trainings take."""
    for count in given.students:
        trainings = different(student, count)

        def apart(trainings: Sequence[StudentTraining] = trainings) -> None:
            for training in trainings:
                run_training(training, folder)

        rounds = take_turns(
            {"apart": apart, "fused": partial(_pass, trainings, folder)}, given.rounds
        )
        report(
            f"fused.trainings.{count}",
            f"trainings of {count} students, {student.settings.epochs} epochs: "
            "in one pass ÷ one after another",
            rounds.speedup("fused", "apart"),
            unit="×",
            at_least=LEAST.get(count),
            students=count,
            epochs=student.settings.epochs,
        )


def _pass(trainings: Sequence[StudentTraining], folder: Path) -> None:
    run_together(trainings, folder)


def main() -> None:
    """Measure, print, and append to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--students", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--hidden", type=int, nargs="+", default=[32, 64, 128, 384])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="in a turn, of a student of width 32")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--only-steps", action="store_true")
    given = parser.parse_args()
    with scratch() as folder:
        for number, hidden in enumerate(given.hidden):
            student = student_of(folder / f"hidden-{hidden}", hidden, given.epochs)
            where = folder / f"hidden-{hidden}"
            compare(where, different(student, 3), 5e-6 if hidden == 32 else 1e-4)
            steps_alone(where, student, hidden, given)
            if number == 0 and not given.only_steps:
                whole_trainings(where, student, given)


if __name__ == "__main__":
    main()
