"""Whether a search goes on with other software than it has been run with so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kdsearch.agenda import Outcome

_COUNT = ("torch", "transformers", "tokenizers")
"""What scores may depend on; the code of the trainings has a version that keys know."""


def version_changes(
    now: Mapping[str, str], outcomes: Iterable[Outcome | None], before: Mapping[str, str]
) -> list[str]:
    """A line for each package of which the outcomes have other versions than there are `now`.

    Outcomes that say nothing of it were made with `before`, or with what nobody knows.
    """
    there = [outcome.cost.versions or before for outcome in outcomes if outcome is not None]
    lines = []
    for name in _COUNT:
        other = sorted({each[name] for each in there if name in each} - {now.get(name, "")})
        if other:
            had = sum(each.get(name) in other for each in there)
            trainings = "1 training was" if had == 1 else f"{had} trainings were"
            lines.append(
                f"{trainings} made with {name} {' and '.join(other)}, further ones will be with "
                f"{now.get(name, 'none')}: scores may differ a little"
            )
    return lines
