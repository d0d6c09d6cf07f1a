"""Teachers, their outputs, students. Needs torch and transformers, and nothing of ray.

Importing this package costs nothing: torch is imported when the first training runs.
"""

from collections.abc import Sequence
from pathlib import Path

from kdsearch.agenda import DataSpec, ModelSpec, Outcome, StudentTraining, Training
from kdsearch.distill.consent import run_trusting, trusting
from kdsearch.distill.memory import limit_gpu, tight
from kdsearch.ledger import Ledger
from kdsearch.study import Preflight, Resolved, TrainingSettings


def run_training(training: Training, folder: Path, *, keep: bool = False) -> Outcome:
    """Run a training with the files of the study's folder; see `kdsearch.distill.run.run`."""
    from kdsearch.distill.run import run

    return run(training, folder, keep=keep)


def run_together(trainings: Sequence[StudentTraining], folder: Path) -> tuple[Outcome, ...]:
    """Train several students in one pass; see `kdsearch.distill.run.run_together`."""
    from kdsearch.distill.run import run_together

    return run_together(trainings, folder)


def fused_at_most(
    probes: Sequence[tuple[ModelSpec, DataSpec, TrainingSettings]],
    asked: int | None,
    folder: Path,
    *,
    device: str = "",
) -> list[int]:
    """How many of each of several students to train in one pass.

    See `kdsearch.distill.together.fusing_pays`.
    """
    from kdsearch.distill.together import fusing_pays

    return [fusing_pays(*probe, folder, asked=asked, device=device) for probe in probes]


def check_models(resolved: Resolved, place: str) -> None:
    """See `kdsearch.distill.check.check_models`."""
    from kdsearch.distill.check import check_models

    check_models(resolved, place)


def preflight(resolved: Resolved, ledger: Ledger, place: str, digest: str) -> Preflight:
    """See `kdsearch.distill.preflight.preflight`."""
    from kdsearch.distill.preflight import preflight

    return preflight(resolved, ledger, place, digest)


def forward_preflight(
    before: Preflight, resolved: Resolved, ledger: Ledger, place: str
) -> Preflight:
    """See `kdsearch.distill.preflight.forward_preflight`; on this process's GPU, if it has one."""
    import torch

    from kdsearch.distill.preflight import forward_preflight

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return forward_preflight(before, resolved, ledger, place, device=device)


__all__ = [
    "check_models",
    "forward_preflight",
    "fused_at_most",
    "limit_gpu",
    "preflight",
    "run_together",
    "run_training",
    "run_trusting",
    "tight",
    "trusting",
]
