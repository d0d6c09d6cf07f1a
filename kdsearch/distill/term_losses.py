"""The terms that may be added to an objective, each by the formula of its paper.

Each is a mean over the batch, in parts: what some of its examples add. Where a paper sums over
layers, the mean is taken, so that a weight means the same for any number of them. Padding counts
nowhere.

Shapes: B examples of L tokens, K pairs of layers, H heads, W numbers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import Tensor


def hidden_loss(student_BLKW: Tensor, teacher_BLKW: Tensor, real_BL: Tensor, tokens: int) -> Tensor:
    """The mean square of the difference, over tokens, layers and width: TinyBERT's, Eq. 8.

    Of one pair of layers FitNets' hint (Eq. 3, without its factor ½). The student's are projected.
    """
    square_BL = ((student_BLKW - teacher_BLKW) ** 2).mean(dim=(-2, -1))
    return (square_BL * real_BL).sum() / tokens


def cls_loss(student_BKW: Tensor, teacher_BKW: Tensor, examples: int) -> Tensor:
    """‖s/‖s‖ − t/‖t‖‖² of [CLS], the mean over examples and layers: PKD's patient loss."""
    difference_BKW = F.normalize(student_BKW, dim=-1) - F.normalize(teacher_BKW, dim=-1)
    return (difference_BKW**2).sum(dim=-1).mean(dim=-1).sum() / examples


def attention_loss(
    student_BLSW: Tensor,
    teacher_BLSW: Tensor,
    pairs_BLL: Tensor,
    pairs: int,
    *,
    layers: int,
    mean: bool,
) -> Tensor:
    """The mean square of the scores' difference, over pairs of tokens, heads and layers.

    TinyBERT's, Eq. 7: scores are queries times keys by the scale, before mask and softmax. With
    `mean`, the heads' mean is compared. S are the queries and keys of each layer's heads.
    """
    student_BKHLL, teacher_BKHLL = (
        _scores(parts_BLSW, layers, mean=mean) for parts_BLSW in (student_BLSW, teacher_BLSW)
    )
    square_BLL = ((student_BKHLL - teacher_BKHLL) ** 2).mean(dim=(1, 2))
    return (square_BLL * pairs_BLL).sum() / pairs


def relation_loss(
    student_BLSW: Tensor,
    teacher_BLSW: Tensor,
    real_BL: Tensor,
    pairs_BLL: Tensor,
    tokens: int,
    *,
    heads: int,
) -> Tensor:
    """KL of the student's relations from the teacher's, of queries, keys and values: MiniLMv2's.

    A relation is softmax(A·Aᵀ/√d) over the tokens that may be seen, of the width divided into so
    many `heads` of d numbers. The mean over heads and tokens, the sum over the three.
    """
    total = student_BLSW.new_zeros(())
    for student_BHLL, teacher_BHLL in zip(
        _relations(student_BLSW, pairs_BLL, heads),
        _relations(teacher_BLSW, pairs_BLL, heads),
        strict=True,
    ):
        kl_BL = (teacher_BHLL.exp() * (teacher_BHLL - student_BHLL)).sum(dim=-1).mean(dim=1)
        total = total + (kl_BL * real_BL).sum() / tokens
    return total


def _scores(parts_BLSW: Tensor, layers: int, *, mean: bool) -> Tensor:
    """[B, K, H, L, L], of one head where it is their mean."""
    batch, length, parts, width = parts_BLSW.shape
    heads = parts // (2 * layers)
    split = parts_BLSW.view(batch, length, layers, 2, heads, width).permute(3, 0, 2, 4, 1, 5)
    queries_BKHLW, keys_BKHLW = split
    if mean:
        scores_BKLL = torch.einsum("bkhiw,bkhjw->bkij", queries_BKHLW, keys_BKHLW)
        return scores_BKLL[:, :, None] / heads
    scores_BKHLL: Tensor = queries_BKHLW @ keys_BKHLW.transpose(-1, -2)
    return scores_BKHLL


def _relations(parts_BLSW: Tensor, pairs_BLL: Tensor, heads: int) -> list[Tensor]:
    """Of queries, keys and values, [B, H, L, L]: the logarithms, finite where nothing is seen."""
    found = []
    for part_BLW in parts_BLSW.flatten(2).chunk(3, dim=-1):
        vectors_BHLW = part_BLW.unflatten(-1, (heads, -1)).transpose(1, 2)
        scores_BHLL = vectors_BHLW @ vectors_BHLW.transpose(-1, -2)
        scores_BHLL = scores_BHLL / math.sqrt(vectors_BHLW.shape[-1])
        lowest = torch.finfo(scores_BHLL.dtype).min / 2
        found.append(scores_BHLL.masked_fill(~pairs_BLL[:, None], lowest).log_softmax(dim=-1))
    return found
