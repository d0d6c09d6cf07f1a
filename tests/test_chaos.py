from __future__ import annotations

import random
from pathlib import Path

import pytest
from chaos import Chaos

pytestmark = pytest.mark.undisturbed


@pytest.mark.slow  # of one kill: test_ray.py
@pytest.mark.timeout(600)
def test_a_search_that_was_killed_three_times_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    chaos = Chaos(folder=tmp_path / "chaos", kills=3, draw=random.Random(5), seeds=(0,))
    chaos.run()
    assert len(chaos.done) == 3
    assert chaos.problems == []
    assert chaos.repeats == 0
