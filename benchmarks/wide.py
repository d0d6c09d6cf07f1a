"""The loss of a wide vocabulary beside the direct computation: peak memory and time.

    python benchmarks/wide.py [--tokens 512] [--rounds 2] [--width 256 1024]
        [--precision fp32 bf16] [--classes 250027] [--liger]

mBART's vocabulary, a student's head and a teacher's, forward and backward, on one thread. The
direct computation is that of all logits at once: CE with α = 0.5 as torch has it, which holds fewer
of them at a time than kdsearch's own formula would. Each side runs in a process of its own, in
turns; its peak is what it takes on top of hidden states and heads. First both compute some tokens
in one process: the loss and all gradients must be equal to 1e-5 in fp32; in bf16 kdsearch's must be
no further from those of fp32 than the direct ones are.

With `--liger` (pip install --no-deps liger-kernel) also JSD beside the one of Liger-Kernel that
runs without Triton, liger_kernel.chunked_loss, in chunks of 64 rows, not compiled. Its fused losses
that are written in Triton need a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from pairs import child, peak_mb, report, take_turns
from torch import Tensor

from kdsearch.distill.wide import Hidden, WideUnits, wide_loss
from kdsearch.search import Ce, Jsd

TAU = 4.0
CE = Ce(temperature=TAU, student_temperature=TAU, alpha=0.5)
JSD = Jsd(temperature=TAU, student_temperature=TAU, alpha=0.5, beta=0.5)
GOALS = {"peak": {256: 0.2, 1024: 0.45}, "time": {256: 1.05, 1024: 1.05}}
CHECKED_TOKENS = 160


@dataclass(frozen=True, kw_only=True)
class Work:
    """Hidden states, heads and labels."""

    states: Tensor
    weight: Tensor
    teacher_states: Tensor
    teacher_weight: Tensor
    labels: Tensor


Loss = Callable[[Work], Tensor]


def main() -> None:
    """Compare, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--classes", type=int, default=250_027)
    parser.add_argument("--width", type=int, nargs="+", default=[1024, 256])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--liger", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        torch.set_num_threads(1)
        checks = {"check": False, "check_jsd": True}
        jsd = checks.get(given.child)
        print(json.dumps(measure(given) if jsd is None else check(given, jsd=jsd)))
        return
    print(
        "Liger-Kernel's losses that are written in Triton need a GPU and are not run"
        + ("" if given.liger else "; its chunked JSD is with --liger")
    )
    for width in given.width:
        for precision in given.precision:
            compare(given, width, precision, ["direct", "kdsearch"])
            if given.liger:
                compare(given, width, precision, ["liger", "kdsearch_jsd"])


def compare(given: argparse.Namespace, width: int, precision: str, sides: list[str]) -> None:
    """Both sides at one width and precision."""
    other, own = sides
    command = [sys.executable, "-W", "ignore", __file__, "--width", str(width)]
    command += ["--precision", precision, "--classes", str(given.classes)]
    tokens = ["--tokens", str(given.tokens)]
    checked = ["--tokens", str(CHECKED_TOKENS)]
    kind = "check" if other == "direct" else "check_jsd"
    conditions: dict[str, Any] = {"tokens": given.tokens, "classes": given.classes}
    conditions |= {
        f"off_{k}": v for k, v in child([*command, *checked, "--child", kind]).more.items()
    }
    run = {side: partial(child, [*command, *tokens, "--child", side]) for side in sides}
    rounds = take_turns(run, given.rounds, warm_up=False)
    for what, of in (("peak", "peak_mb"), ("time", "seconds")):
        report(
            f"wide.{precision}.{width}.{what}" + ("" if other == "direct" else ".liger"),
            f"{what} of a wide vocabulary's loss, kdsearch ÷ {other}, width {width}",
            rounds.ratio(own, other, of),
            unit="×",
            at_most=GOALS[what].get(width) if other == "direct" and precision == "fp32" else None,
            **conditions,
        )


def measure(given: argparse.Namespace) -> dict[str, float]:
    """What one forward and backward pass takes."""
    work = drawn(given)
    loss_of = partial(in_precision, SIDES[given.child], given.precision[0])
    loss_of(some(work, 4)).backward()
    work.weight.grad = work.states.grad = None
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, cpu, started = peak_mb(), time.process_time(), time.perf_counter()
    loss = loss_of(work)
    loss.backward()
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - cpu,
        "peak_mb": peak_mb() - before,
        "loss": float(loss.detach()),
    }


def check(given: argparse.Namespace, *, jsd: bool = False) -> dict[str, float]:
    """How far loss and gradients of both sides are from each other, or from those of fp32."""
    work, precision = drawn(given), given.precision[0]
    other, own = ("liger", "kdsearch_jsd") if jsd else ("direct", "kdsearch")
    exact = found(work, SIDES[other], "fp32")
    pairs = {own: found(work, SIDES[own], precision)}
    if precision != "fp32":
        pairs[other] = found(work, SIDES[other], precision)
    off = {
        side: max(
            float((one - right).norm() / right.norm())
            for one, right in zip(tensors, exact, strict=True)
        )
        for side, tensors in pairs.items()
    }
    most = 1e-5 if precision == "fp32" else 1.01 * off[other]
    if off[own] > most:
        sys.exit(f"not the same: {off}")
    return off


def found(work: Work, side: Loss, precision: str) -> list[Tensor]:
    """The loss with the gradients of states and head."""
    work.weight.grad = work.states.grad = None
    loss = in_precision(side, precision, work)
    loss.backward()
    assert work.states.grad is not None
    assert work.weight.grad is not None
    return [loss.detach(), work.states.grad, work.weight.grad]


def drawn(given: argparse.Namespace) -> Work:
    """Weights of a usual size, hidden states as behind a norm."""
    draw = torch.Generator().manual_seed(0)
    width, tokens, classes = given.width[0], given.tokens, given.classes
    heads = [torch.empty(classes, width) for _ in range(2)]
    for head in heads:
        head.uniform_(-0.035, 0.035, generator=draw)  # as normal ones of 0.02 are
    states = [torch.randn(tokens, width, generator=draw) for _ in range(2)]
    return Work(
        states=states[0].requires_grad_(),
        weight=heads[0].requires_grad_(),
        teacher_states=states[1],
        teacher_weight=heads[1].bfloat16() if given.precision[0] == "bf16" else heads[1],
        labels=torch.randint(classes, (tokens,), generator=draw),
    )


def some(work: Work, tokens: int) -> Work:
    """The first of the tokens."""
    return replace(
        work,
        states=work.states[:tokens],
        teacher_states=work.teacher_states[:tokens],
        labels=work.labels[:tokens],
    )


def in_precision(side: Loss, precision: str, work: Work) -> Tensor:
    """A side's loss, under autocast unless in fp32."""
    if precision == "fp32":
        weight = work.teacher_weight.float()
        return side(replace(work, teacher_weight=weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return side(work)


def directly(work: Work) -> Tensor:
    """CE of all logits at once."""
    student = F.linear(work.states, work.weight).float()
    target = (F.linear(work.teacher_states, work.teacher_weight).float() / TAU).softmax(dim=-1)
    soft = F.cross_entropy(student / TAU, target)  # first: this order holds the fewest
    return 0.5 * soft + 0.5 * F.cross_entropy(student, work.labels)


def in_one_pass(objective: Any, work: Work) -> Tensor:
    """What kdsearch does."""
    student = Hidden(states=work.states, head=(work.weight, None))
    teacher = Hidden(states=work.teacher_states, head=(work.teacher_weight, None))
    return wide_loss(objective, WideUnits(student=student, teacher=teacher, labels=work.labels))


def liger(work: Work) -> Tensor:
    """Liger-Kernel's chunked JSD."""
    from liger_kernel.chunked_loss import (  # type: ignore[import-not-found]
        LigerFusedLinearJSDLoss,
    )

    loss = LigerFusedLinearJSDLoss(temperature=TAU, compiled=False, chunk_size=64)
    teacher = work.teacher_states.to(work.teacher_weight.dtype), work.teacher_weight
    value: Tensor = loss(work.states, work.weight, *teacher, work.labels)
    return value


SIDES: dict[str, Loss] = {
    "direct": directly,
    "kdsearch": partial(in_one_pass, CE),
    "liger": liger,
    "kdsearch_jsd": partial(in_one_pass, JSD),
}


if __name__ == "__main__":
    main()
