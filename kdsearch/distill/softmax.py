"""A model's softmax at several temperatures: how undecided it is, and its mean in sorted order.

Of tasks whose units all have the same classes, and few enough that all logits are there at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from kdsearch.agenda import MOST_RANKS, Softmax
from kdsearch.distill.losses import Units

TEMPERATURES = (0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 15, 16, 20, 25, 30, 32, 40, 50, 64, 100)
"""Of a teacher: fixed, so that no outcome depends on the study that first asked for it."""
_DIGITS = 6
"""Significant ones that are kept."""


class SoftmaxTally:
    """Counts some units at a time; a device is not waited for."""

    def __init__(self, temperatures: Sequence[float]) -> None:
        self._temperatures = temperatures
        self._units = 0
        self._sums: list[Tensor] = []
        """Of each temperature [C + 2]: the sorted softmax, and the two entropies in nats."""

    def add(self, logits_UC: Tensor, real_UC: Tensor | None) -> None:
        """Count units in, those without a label too; none whose classes vary."""
        if real_UC is not None:
            return
        sorted_UC = logits_UC.float().sort(dim=1, descending=True).values
        sums = [self._sum(sorted_UC / temperature) for temperature in self._temperatures]
        self._sums = (
            [old + new for old, new in zip(self._sums, sums, strict=True)] if self._sums else sums
        )
        self._units += len(logits_UC)

    def watching(self, units: Iterable[Units]) -> Iterator[Units]:
        """Units, counted in as they pass."""
        for each in units:
            self.add(each.student, each.real)
            yield each

    @staticmethod
    def _sum(sorted_UC: Tensor) -> Tensor:
        p_UC = sorted_UC.softmax(dim=1)
        entropies = [torch.special.entr(p_UC).sum(dim=1)]
        rest_UC = sorted_UC[:, 1:].softmax(dim=1)  # before rounding: at a low temperature p is 1
        entropies.append(torch.special.entr(rest_UC).sum(dim=1))
        return torch.cat([p_UC, torch.stack(entropies, dim=1)], dim=1).double().sum(dim=0)

    def values(self) -> tuple[Softmax, ...]:
        """By temperature, in ascending order; nothing where a model says what is not finite."""
        found = []
        for temperature, sums in zip(self._temperatures, self._sums, strict=bool(self._sums)):
            means = sums / self._units
            if not bool(means.isfinite().all()):
                return ()
            *ranks, entropy, without_top = means.tolist()
            logs = torch.tensor([len(ranks), max(1, len(ranks) - 1)], dtype=torch.float64).log()
            found.append(
                Softmax(
                    temperature=temperature,
                    classes=len(ranks),
                    relative_entropy=_short(entropy / float(logs[0])) if len(ranks) > 1 else None,
                    relative_entropy_without_top=(
                        _short(without_top / float(logs[1])) if len(ranks) > 2 else None
                    ),
                    ranks=tuple(map(_short, ranks[:MOST_RANKS])),
                    lowest=_short(ranks[-1]),
                )
            )
        return tuple(found)


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
