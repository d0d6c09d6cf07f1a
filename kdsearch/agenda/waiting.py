"""What the test cases want and has no result yet, kept in order as results come in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from operator import itemgetter

from kdsearch.agenda.view import Request
from kdsearch.study import ROLES, Role, TestCase

_Alike = tuple[Role, int]
"""The role of a training and its rounds: what is equally urgent in a case."""
_Group = dict[str, Request]
"""By key."""


class Waiting:
    """The requests of all cases, each training once. A result costs the same however many wait."""

    def __init__(
        self, cases: Iterable[TestCase], urgency: Callable[[TestCase, Role, int], float]
    ) -> None:
        """`urgency` is asked anew of each case, role and rounds once a result has come."""
        self._urgency = urgency
        self._groups: dict[TestCase, dict[_Alike, _Group]] = {case: {} for case in cases}
        self._open_rounds: dict[TestCase, dict[str, list[set[str]]]] = {}
        """By case and key: what is waited for as a whole, as far as it is missing."""
        self._cases: dict[Role, dict[str, set[TestCase]]] = {role: {} for role in ROLES}
        """Those that want a key."""
        self._order: list[_Group] | None = None

    def put(
        self, case: TestCase, requests: Iterable[Request], open_rounds: Iterable[set[str]]
    ) -> None:
        """Take down what a case wants, in the place of what it wanted before.

        Of the keys in a set of `open_rounds` nothing follows until the last one has its result.
        """
        groups: dict[_Alike, _Group] = defaultdict(dict)
        for request in requests:
            groups[request.role, request.rounds].setdefault(request.training.key, request)
        before, now = _merged(self._groups[case]), _merged(groups)
        for key in before.keys() - now.keys():
            cases = self._cases[before[key].role]
            cases[key].discard(case)
            if not cases[key]:
                del cases[key]
        for key in now.keys() - before.keys():
            self._cases[now[key].role].setdefault(key, set()).add(case)
        # Sorted: which of a case's requests is the first changes as results come.
        self._groups[case] = dict(sorted(groups.items(), key=itemgetter(0)))
        self._open_rounds[case] = defaultdict(list)
        for keys in open_rounds:
            for key in keys:
                self._open_rounds[case][key].append(keys)
        self._order = None

    def end(self, key: str) -> dict[TestCase, bool]:
        """A training has its result: the cases that wanted it, and whether more may follow."""
        self._order = None
        cases = {case for wanted in self._cases.values() for case in wanted.pop(key, ())}
        return {case: self._end(case, key) for case in cases}

    def _end(self, case: TestCase, key: str) -> bool:
        for group in self._groups[case].values():
            group.pop(key, None)
        parts = self._open_rounds[case].pop(key, [])
        for keys in parts:
            keys.discard(key)
        return not (parts and all(parts))  # teachers, say, are in none

    def count(self, roles: Collection[Role], but: Collection[str]) -> int:
        """How many trainings of these roles there are, those of the keys `but` left out."""
        return sum(
            len(wanted) - sum(key in wanted for key in but)
            for role, wanted in self._cases.items()
            if role in roles
        )

    def __contains__(self, key: str) -> bool:
        return any(key in wanted for wanted in self._cases.values())

    def __iter__(self) -> Iterator[Request]:
        """The most urgent first."""
        if self._order is None:
            groups = (
                (self._urgency(case, *alike), group)
                for case, by_kind in self._groups.items()
                for alike, group in by_kind.items()
                if group
            )
            self._order = [g for _, g in sorted(groups, key=itemgetter(0), reverse=True)]
        seen = set()
        for group in self._order:
            for key, request in group.items():
                if key not in seen:
                    seen.add(key)
                    yield request


def _merged(groups: dict[_Alike, _Group]) -> _Group:
    merged: _Group = {}
    for group in groups.values():
        merged |= group
    return merged
