"""What the losses of all objectives share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor

from kdsearch.search import Compared, Decoupled, Softened, Tempered
from kdsearch.tasks import IGNORED


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many units a batch has."""

    units: int
    labelled: Tensor
    """Those with a label, a scalar."""


@dataclass(frozen=True, kw_only=True)
class KeptClasses:
    """What is kept of a teacher's probabilities of N units, at one temperature: K classes of each.

    The K shares of a unit and its rest sum to 1.
    """

    classes: Tensor
    """Class numbers, [N, K]; where fewer are kept, any, with a share of 0."""
    shares: Tensor
    """[N, K]: their probabilities, or estimates of them without a bias."""
    rest: Tensor | None = None
    """[N]: what all other classes have together; None where they are sampled too."""

    def __getitem__(self, rows: slice) -> KeptClasses:
        """Those of some units."""
        rest = None if self.rest is None else self.rest[rows]
        return KeptClasses(classes=self.classes[rows], shares=self.shares[rows], rest=rest)

    def cross_entropy(self, log_p_NC: Tensor) -> Tensor:
        """[N]: −Σ_kept q log p, and of a rest −q_rest · log Σ_others p, in nats.

        With a rest it is the cross-entropy between K + 1 classes, the last of which stands for all
        that are not kept: at its least where p has the teacher's probabilities of the K, however
        the others share what remains. Renormalised, the K would teach a p without any others.
        """
        loss_N = -(self.shares * log_p_NC.gather(1, self.classes)).sum(dim=1)
        if self.rest is None:
            return loss_N
        others_N = log_p_NC.scatter(1, self.classes, -math.inf).logsumexp(dim=1)
        return loss_N - self.rest * others_N


@dataclass(frozen=True, kw_only=True)
class Units:
    """N scored units of C classes: what student, teacher and labels say of them."""

    student: Tensor
    """Logits, [N, C], in single precision; as are the teacher's."""
    labels: Tensor
    """Class numbers, [N], or `IGNORED`."""
    teacher: Tensor = field(default_factory=lambda: torch.empty(0))
    """Of an objective without a teacher, nothing; nor where some classes of it are kept."""
    kept: KeptClasses | None = None
    """What is kept of a teacher in place of its logits, at the objective's temperature."""
    real: Tensor | None = None
    """Where units have different classes, which of the C each has, [N, C]."""
    epoch: int = 1
    """Which this is of the training, from 1."""
    temperature: Tensor | None = None
    """Of an objective that learns one: what it is now, a scalar that takes a gradient."""
    of: Counts | None = None
    """Where these are some of a batch's, the counts of the batch."""

    def mean(self, values_N: Tensor) -> Tensor:
        """The mean over all units; of some of a batch, what they add to the batch's."""
        return values_N.sum() / (len(values_N) if self.of is None else self.of.units)

    def labelled_mean(self, values_N: Tensor) -> Tensor:
        """The same over the units that have a label; 0 if none has."""
        labelled_N = self.labels != IGNORED
        count = labelled_N.sum() if self.of is None else self.of.labelled
        return (values_N * labelled_N).sum() / count.clamp(min=1)


def mixed(units: Units, alpha: float, loss: Tensor) -> Tensor:
    """(1 − α)·L1(q, p_s) + α·`loss`, where L1 is the cross-entropy on the labels (Eq. 1).

    The student's softmax has no temperature in it. At α = 1 the labels may be none.
    """
    if alpha == 1:
        return loss
    own = label_loss(units)
    return (1 - alpha) * own + alpha * loss


def compared(objective: Compared, units: Units) -> tuple[Tensor, Tensor]:
    """The logits of student and teacher that are compared: standardised, where that is asked."""
    if not objective.standardise:
        return units.student, units.teacher
    return standardised(units.student, units.real), standardised(units.teacher, units.real)


def standardised(logits_NC: Tensor, real_NC: Tensor | None) -> Tensor:
    """(z − mean) / (deviation + 1e-7) over the real classes of each unit, [N, C].

    The deviation has divisor C − 1 (sunshangquan/logit-standardization-KD@f6e5aa5, `normalize`).
    """
    if real_NC is None:
        centred_NC = logits_NC - logits_NC.mean(dim=-1, keepdim=True)
        classes = logits_NC.new_tensor(logits_NC.shape[-1])
    else:
        classes = real_NC.sum(dim=-1, keepdim=True)
        logits_NC = logits_NC.masked_fill(~real_NC, 0)
        mean_N1 = logits_NC.sum(dim=-1, keepdim=True) / classes.clamp(min=1)
        centred_NC = (logits_NC - mean_N1).masked_fill(~real_NC, 0)
    # Its gradient is 0 where all logits are equal, that of a square root none.
    norm_N1: Tensor = torch.linalg.vector_norm(centred_NC, dim=-1, keepdim=True)
    return centred_NC / (norm_N1 / (classes - 1).clamp(min=1).sqrt() + 1e-7)


def softened(objective: Tempered, units: Units, temperature: float) -> tuple[Tensor, Tensor]:
    """log softmax of what is compared of student and teacher, at a temperature, [N, C]."""
    assert objective.temperature_unit == "none"  # else see `Tempered.at_scale`
    student_NC, teacher_NC = (
        masked(logits_NC / temperature, units.real).log_softmax(dim=-1)
        for logits_NC in compared(objective, units)
    )
    return student_NC, teacher_NC


def kl(teacher_NC: Tensor, student_NC: Tensor) -> Tensor:
    """[N]: KL divergence of the student from the teacher, both given as log probabilities."""
    return (teacher_NC.exp() * (teacher_NC - student_NC)).sum(dim=-1)


def ramp(objective: Decoupled, units: Units) -> float:
    """The share of its weight that distillation has in an epoch: it rises to 1 linearly."""
    epochs = objective.warmup_epochs
    return min(units.epoch / epochs, 1.0) if epochs else 1.0


def at_temperatures(objective: Softened, units: Units) -> tuple[Tensor, Tensor]:
    """The logits of student and teacher, each over its temperature, [N, C]."""
    assert objective.temperature_unit == "none"  # else see `Tempered.at_scale`
    student_NC, teacher_NC = compared(objective, units)
    return (
        masked(student_NC / float(objective.student_temperature), units.real),
        masked(teacher_NC / objective.temperature, units.real),
    )


def scaled(objective: Softened, loss: Tensor) -> Tensor:
    """The loss times τ_s², where that is asked for (Hinton et al., 2015)."""
    if objective.gradient_scale == "none":
        return loss
    return loss * float(objective.student_temperature) ** 2


def label_loss(units: Units) -> Tensor:
    """L1: cross-entropy on the labels, the mean over the units that have one; 0 if none has."""
    logits_NC = masked(units.student.float(), units.real)
    return units.labelled_mean(
        F.cross_entropy(logits_NC, units.labels, ignore_index=IGNORED, reduction="none")
    )


def masked(logits_NC: Tensor, real_NC: Tensor | None) -> Tensor:
    """With a finite logit that no softmax sees: 0 · log 0 would be no number."""
    if real_NC is None:
        return logits_NC
    return logits_NC.masked_fill(~real_NC, torch.finfo(logits_NC.dtype).min / 2)
