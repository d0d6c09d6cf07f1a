"""What a student's training costs: kdsearch beside other libraries, on one thread.

    python benchmarks/step.py [--precisions fp32 bf16] [--rounds N] [--rows N] [--epochs N]
                              [--data FOLDER --model FOLDER] [--sides NAME …]

kdsearch's loop, within `run_training`, with the teacher's outputs at hand as in every study;
transformers' Trainer with the teacher online, and without any; torchdistill; TextBrewer. All train
a copy of one two-layer student on the same rows for as many epochs, with batches of 32, the same
loss, AdamW and learning rate; only the order differs, in which kdsearch puts rows of similar
length together. The data set has the whole vocabulary of the data given (MRPC's, or made-up words
of that number), though few of its rows are trained on.

Before anything is timed: on one batch without dropout all sides have the same loss and gradient;
then, of each timed run, that it read as many rows and tokens as the others.

Where a library is not installed (pip install -r benchmarks/requirements.txt), its side is skipped.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from material import (
    Prepared,
    Row,
    arguments,
    cut,
    encoder_in,
    features,
    looked_into,
    prepare,
    rows_of,
    scratch,
    teacher_in,
)
from others import (
    ALPHA,
    TEMPERATURE,
    Recipe,
    missing,
    plain_loss,
    run_textbrewer,
    run_torchdistill,
    run_trainer,
    textbrewer_distiller,
    torchdistill_box,
    torchdistill_loss,
    trainer_of,
)
from pairs import Figure, Rounds, Taken, report, take_turns
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsearch.distill.models import build_model
from kdsearch.ledger import Ledger, layout
from kdsearch.tasks import TASKS

TARGETS = {
    ("trainer", "fp32"): 2.9,
    ("trainer", "bf16"): 3.5,
    ("alone", "fp32"): 1.5,
    ("alone", "bf16"): 1.45,
    ("torchdistill", "fp32"): 1.5,
    ("torchdistill", "bf16"): 1.5,
    ("textbrewer", "fp32"): 1.5,
    ("textbrewer", "bf16"): 1.5,
}
WORDS = {
    "trainer": "transformers' Trainer with the teacher online",
    "grouped": "the same with rows of similar length together, which it offers",
    "alone": "transformers' Trainer without a teacher",
    "torchdistill": "torchdistill, which runs the teacher online",
    "textbrewer": "TextBrewer with its cache of logits",
}
TOLERANCES = {"fp32": (1e-5, 1e-4), "bf16": (1e-2, 0.3)}
"""Of the loss and of the gradient's norm, relative to those in single precision. The gradient of a
batch is a sum that cancels, so that bf16's 8 bits leave it off by a tenth, on each side in a way of
its own."""
RATE = 1.0
"""Of the one step of SGD by which kdsearch's gradient is read from the weights."""
LossOf = Callable[[Recipe, Any, dict[str, Tensor]], Tensor]


def ours(prepared: Prepared, epochs: int) -> Taken:
    """The steps of one training in kdsearch."""
    with looked_into(epochs) as loop:
        prepared.run()
    return loop.taken


def initial(prepared: Prepared, tokenizer: Any) -> torch.nn.Module:
    """The student as kdsearch begins it."""
    training, resolved = prepared.training, Ledger(prepared.folder).resolved()
    torch.manual_seed(training.seed)
    task = TASKS[training.data.task]
    return build_model(
        training.model,
        task,
        training.data.labels,
        tokenizer,
        resolved,
        dropout=training.settings.dropout,
    )


def check(
    folder: Path,
    rows: Mapping[str, list[Row]],
    encoder: Path,
    teacher: Path,
    precision: str,
    skipped: Mapping[str, str],
) -> None:
    """End unless all sides have the same loss and gradient on one batch without dropout."""
    batch = {**rows, "train": rows["train"][:32]}
    prepared = prepare(
        *(folder, batch, encoder, teacher),
        learning_rate=RATE,
        epochs=1,
        precision=precision,
        dropout=0.0,
        optimizer="sgd",
        sgd={"momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
    )
    recipe = recipe_of(folder, prepared, batch["train"], encoder, teacher, 1, precision)
    outcome = prepared.run(keep=True)
    kept = Ledger(prepared.folder).path(layout.student(prepared.training.key))
    after = AutoModelForSequenceClassification.from_pretrained(kept).state_dict()
    weights = recipe.student.named_parameters()
    gradient = {name: (weight.detach() - after[name]) / RATE for name, weight in weights}
    found = {"kdsearch": (outcome.epochs[0].train_loss, gradient)}
    sides = {side: loss for side, loss in LOSSES.items() if side not in skipped}
    for side, loss_of in sides.items():
        found[side] = gradient_of(recipe, loss_of)
    plain = gradient_of(replace(recipe, precision="fp32"), by_formula)
    compare(found, plain, precision)


def gradient_of(recipe: Recipe, loss_of: LossOf) -> tuple[float, dict[str, Tensor]]:
    """A side's loss of the batch of all rows, and its gradient."""
    student = copy.deepcopy(recipe.student).train()
    loss = loss_of(recipe, student, recipe.collate(recipe.rows))
    loss.backward()
    return float(loss), {name: weight.grad for name, weight in student.named_parameters()}


def compare(
    found: Mapping[str, tuple[float, Mapping[str, Tensor]]],
    plain: tuple[float, Mapping[str, Tensor]],
    precision: str,
) -> None:
    """End unless all losses and gradients are those of the formula."""
    loss, gradient = plain
    norm = sum(float(part.square().sum()) for part in gradient.values()) ** 0.5
    loss_bound, bound = TOLERANCES[precision]
    same = True
    for side, (other, others) in found.items():
        apart = sum(float((others[n] - p).square().sum()) for n, p in gradient.items()) ** 0.5
        same &= abs(other - loss) <= loss_bound * loss and apart <= bound * norm
        print(
            f"  {precision}, one batch without dropout: {side:12} loss {other:.6f} (by the formula "
            f"in fp32 {loss:.6f}), gradient off by {apart / norm:.1e} of its norm"
        )
    if not same:
        sys.exit(f"the sides do not compute the same to {bound:g}: nothing was timed")


def by_formula(recipe: Recipe, student: Any, batch: dict[str, Tensor]) -> Tensor:
    """Without any library."""
    labels = batch.pop("labels")
    with torch.no_grad():
        teacher_BC = recipe.teacher(**batch).logits
    return plain_loss(student(**batch).logits, teacher_BC, labels)


def trainer_loss(recipe: Recipe, student: Any, batch: dict[str, Tensor]) -> Tensor:
    """By the Trainer's `compute_loss`."""
    trainer = trainer_of(recipe, student, taught=True)
    model = recipe.precise(student)  # as its accelerator does once it trains
    return trainer.compute_loss(model, batch)


def box_loss(recipe: Recipe, student: Any, batch: dict[str, Tensor]) -> Tensor:
    """By torchdistill, and the constant that its KL divergence has less than a cross-entropy."""
    box = torchdistill_box(recipe, student)
    loss = torchdistill_loss(recipe, box, dict(batch))
    with torch.no_grad(), recipe.autocast():
        batch = {name: value for name, value in batch.items() if name != "labels"}
        soft_BC = (recipe.teacher(**batch).logits.float() / TEMPERATURE).softmax(-1)
    return loss - ALPHA * (soft_BC * soft_BC.log()).sum(-1).mean()


def distiller_loss(recipe: Recipe, student: Any, batch: dict[str, Tensor]) -> Tensor:
    """By TextBrewer, from its cache."""
    distiller = textbrewer_distiller(recipe, student)
    distiller.cache_logits(batch, {}, None)
    [cached] = distiller.logits_cache
    loss, _ = distiller.train_on_batch(cached, {})
    return loss


LOSSES: dict[str, LossOf] = {
    "trainer": trainer_loss,
    "torchdistill": box_loss,
    "textbrewer": distiller_loss,
}


def recipe_of(
    folder: Path,
    prepared: Prepared,
    rows: list[Row],
    encoder: Path,
    teacher: Path,
    epochs: int,
    precision: str,
) -> Recipe:
    """What the other libraries are given."""
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    return Recipe(
        student=initial(prepared, tokenizer),
        teacher=AutoModelForSequenceClassification.from_pretrained(teacher).eval(),
        tokenizer=tokenizer,
        rows=features(tokenizer, rows),
        epochs=epochs,
        precision=precision,
        folder=folder,
    )


def same_work(rounds: Rounds) -> None:
    """End unless every run read the same rows as often."""
    seen = {(turn.more["rows"], turn.more["tokens"]) for s in rounds.turns.values() for turn in s}
    if len(seen) > 1:
        sys.exit(f"the sides did not read the same: rows and tokens {sorted(seen)}")


def measure(
    folder: Path,
    rows: Mapping[str, list[Row]],
    encoder: Path,
    teacher: Path,
    precision: str,
    given: argparse.Namespace,
    skipped: Mapping[str, str],
) -> None:
    """Time the sides in one precision, and report."""
    check(folder / "check", rows, encoder, teacher, precision, skipped)
    prepared = prepare(
        *(folder / "timed", dict(rows), encoder, teacher),
        epochs=given.epochs,
        precision=precision,
    )
    recipe = recipe_of(
        *(folder, prepared, rows["train"], encoder, teacher, given.epochs, precision)
    )
    sides: dict[str, Callable[[], Taken]] = {
        "kdsearch": partial(ours, prepared, given.epochs),
        "trainer": partial(run_trainer, recipe, taught=True),
        "grouped": partial(run_trainer, recipe, taught=True, grouped=True),
        "alone": partial(run_trainer, recipe, taught=False),
        "torchdistill": partial(run_torchdistill, recipe),
        "textbrewer": partial(run_textbrewer, recipe),
    }
    gone = {*skipped, *({"grouped", "alone"} if "trainer" in skipped else ())}
    wanted = {"kdsearch", *(given.sides or sides)} - gone
    chosen = {name: side for name, side in sides.items() if name in wanted}
    # The check was their warm-up.
    rounds = take_turns(chosen, given.rounds, warm_up=False)
    same_work(rounds)
    figures(rounds, precision, given)


def figures(rounds: Rounds, precision: str, given: argparse.Namespace) -> None:
    """Report the ratios, kdsearch's rate, and what its optimizer takes."""
    data = given.data.name if given.data else "made up"
    conditions = {
        "precision": precision,
        "rows": given.rows,
        "epochs": given.epochs,
        "batch": 32,
        "data": data,
        "student": "2 layers of a 6-layer encoder of width 384",
    }
    for side in rounds.turns:
        if side != "kdsearch":
            report(
                f"step.{precision}.{side}",
                f"a training's steps in {precision}, rows {data}: kdsearch ÷ {WORDS[side]}",
                rounds.speedup("kdsearch", side),
                unit="×",
                at_least=TARGETS.get((side, precision)),
                **conditions,
            )
    turns = rounds.turns["kdsearch"]
    rates = [turn.more["rows"] / turn.seconds for turn in turns]
    report(
        f"step.{precision}.rate",
        f"rows a second in kdsearch's steps in {precision}",
        Figure(values=rates, others=rounds.others),
        unit="rows/s",
        **conditions,
    )
    shares = [100 * turn.more["optimizer"] / turn.seconds for turn in turns]
    report(
        f"step.{precision}.optimizer",
        f"the optimizer's share of the steps in {precision}",
        Figure(values=shares, others=rounds.others),
        unit="%",
        at_most=7,
        **conditions,
    )
    if "textbrewer" in rounds.turns:
        pairs = zip(rounds.turns["textbrewer"], turns, strict=True)
        report(
            f"step.{precision}.textbrewer_filled",
            f"the same in {precision}: kdsearch ÷ TextBrewer once its cache is filled",
            Figure(
                values=[a.more["after_first_batch"] / b.seconds for a, b in pairs],
                others=rounds.others,
            ),
            unit="×",
            **conditions,
        )


def main() -> None:
    """Measure, print, and append to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments(parser)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=192)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--sides", nargs="+", choices=list(WORDS))
    given = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    skipped = missing()
    for side, why in skipped.items():
        print(f"SKIPPED: {side}; {why}")
    with scratch() as folder:
        encoder = given.model or encoder_in(folder / "encoder")
        teacher = teacher_in(folder / "teacher", encoder)
        tokenizer = AutoTokenizer.from_pretrained(encoder)
        rows = cut(rows_of(given.data), tokenizer, given.rows)
        for precision in given.precisions:
            where = folder / precision
            where.mkdir()
            measure(where, rows, encoder, teacher, precision, given, skipped)


if __name__ == "__main__":
    main()
