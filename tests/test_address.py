"""Which Ray a launch uses, and what is said of an address that is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_cli import kdsearch, refused
from test_ray import TINY

from kdsearch.cli.address import Address, find_address
from kdsearch.errors import InputError

THERE = {"RAY_ADDRESS": "10.0.0.1:6379"}


@pytest.mark.parametrize(
    ("given", "environment", "kind", "value", "source"),
    [
        (None, {}, "local", "local", "no --address"),
        (None, {"RAY_ADDRESS": ""}, "local", "local", "no --address"),
        ("local", {}, "local", "local", "--address"),
        ("local", THERE, "local", "local", "--address"),
        (None, THERE, "cluster", "10.0.0.1:6379", "RAY_ADDRESS"),
        (None, {"RAY_ADDRESS": "auto"}, "cluster", "auto", "RAY_ADDRESS"),
        ("auto", {}, "cluster", "auto", "--address"),
        ("auto", THERE, "cluster", "10.0.0.1:6379", "RAY_ADDRESS"),
        ("head:6380", THERE, "cluster", "head:6380", "--address"),
        (" head:6380 ", {}, "cluster", "head:6380", "--address"),
        ("[fd00::1]:6379", {}, "cluster", "[fd00::1]:6379", "--address"),
        ("http://head:8265/", {}, "jobs", "http://head:8265", "--address"),
        ("HTTP://head:8265", {}, "jobs", "http://head:8265", "--address"),
        (None, {"RAY_ADDRESS": "https://head"}, "jobs", "https://head", "RAY_ADDRESS"),
    ],
)
def test_an_option_goes_before_the_environment_and_that_before_a_local_ray(
    given: str | None, environment: dict[str, str], kind: str, value: str, source: str
) -> None:
    found = find_address(given, environment)
    assert (found.kind, found.value, found.source) == (kind, value, source)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("ray://head:10001", "Ray Client address.*from elsewhere, http://HOST:8265"),
        ("tcp://head:6379", "is not the address of a Ray cluster"),
        ("htp://head:8265", "give http://HEAD:8265"),
        ("http://", "is not the address of a Ray cluster"),
        ("head", "has no port .*give head:6379"),
        ("localhost", "has no port .*give localhost:6379"),
        ("Auto", "did you mean auto"),
        ("locl", "did you mean local"),
        ("head:8265", "port of Ray's dashboard .*http://head:8265"),
        ("head:0", "0 is not a port"),
        ("head:99999", "99999 is not a port"),
        ("head:6379/", "is not HOST:PORT"),
        ("", "is not HOST:PORT"),
        ("fd00::1", "is not HOST:PORT"),
    ],
)
def test_what_is_no_address_gets_words_that_say_what_to_give(wrong: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        find_address(wrong, {})
    assert error.value.problems[0].place == f"--address {wrong}"


@pytest.mark.parametrize(
    "address", ["http://me:hush/x@head:8265", "me:hush@head:6379", "https://hush@h"]
)
def test_a_password_in_an_address_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(InputError, match=r"^--address: .*RAY_JOB_HEADERS") as error:
        find_address(address, {})
    assert "hush" not in str(error.value)


def test_a_wrong_ray_address_is_named() -> None:
    with pytest.raises(InputError, match="RAY_ADDRESS head: has no port"):
        find_address(None, {"RAY_ADDRESS": "head"})


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (Address(kind="local", value="local", source="--address"), "starting a local one"),
        (
            Address(kind="cluster", value="auto", source="--address"),
            "the one on this machine (--address)",
        ),
        (
            Address(kind="cluster", value="head:6379", source="RAY_ADDRESS"),
            "the cluster at head:6379 (RAY_ADDRESS)",
        ),
    ],
)
def test_a_launch_says_which_ray_it_uses(address: Address, words: str) -> None:
    assert str(address) == words


def test_a_ray_address_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    study = tmp_path / "tiny.yaml"
    study.write_text(TINY)
    ended = kdsearch("launch", study, "--folder", tmp_path / "run")
    refused(ended, "RAY_ADDRESS 127.0.0.1:1: cannot reach a Ray", "--address local")
