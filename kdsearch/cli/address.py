"""Which Ray a launch uses: what `--address` says, else RAY_ADDRESS, else one of its own."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kdsearch.errors import InputError

VARIABLE = "RAY_ADDRESS"
_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):(?P<port>\d{1,5})")
_DASHBOARD_PORT = 8265
_SUBMIT = "http://HOST:8265, which submits a job"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where Ray is."""

    kind: Literal["local", "cluster", "jobs"]
    """A Ray of this launch's own; one that runs; a dashboard that takes jobs."""
    value: str
    """As Ray takes it: `local`, `auto`, HOST:PORT or a URL."""
    source: str
    """Who said so, as a person knows it."""

    def __str__(self) -> str:
        if self.kind == "local":
            return "starting a local one"
        what = "the one on this machine" if self.value == "auto" else f"the cluster at {self.value}"
        return f"{what} ({self.source})"


def find_address(given: str | None, environment: Mapping[str, str]) -> Address:
    """The Ray that `--address` (`given`) and the environment name; as in Ray, the latter is `auto`.

    Raises `InputError` for what is no address.
    """
    said = environment.get(VARIABLE, "").strip()
    if given in (None, "auto") and said:
        return _parsed(said, VARIABLE)
    if given is None:
        return Address(kind="local", value="local", source="no --address")
    return _parsed(given.strip(), "--address")


def _parsed(text: str, source: str) -> Address:
    if "@" in text:  # not shown: what stands before it is a password
        remedy = """leave them out, and set RAY_JOB_HEADERS={"Authorization": "Basic …"}"""
        raise InputError.one(
            source, "holds a user name or a password, which others would see", remedy
        )
    place = f"{source} {text}"
    if text in ("local", "auto"):
        kind: Literal["local", "cluster"] = "local" if text == "local" else "cluster"
        return Address(kind=kind, value=text, source=source)
    scheme, slashes, rest = text.partition("://")
    scheme, host = scheme.lower(), rest.rstrip("/")
    if slashes and host and scheme in ("http", "https"):
        return Address(kind="jobs", value=f"{scheme}://{host}", source=source)
    if slashes and scheme == "ray":
        raise InputError.one(
            place,
            "is a Ray Client address; a search cannot run through it",
            f"on a machine of the cluster, give auto or HOST:6379; from elsewhere, {_SUBMIT}",
        )
    parts = _HOST_AND_PORT.fullmatch(text)
    if parts is None:
        raise InputError.one(place, *_what_and_remedy(text))
    port = int(parts["port"])
    if not 0 < port < 2**16:
        raise InputError.one(place, f"{port} is not a port", "ports run from 1 to 65535")
    if port == _DASHBOARD_PORT:
        remedy = f"give {parts['host']}:6379, which is Ray's; or, to submit a job, http://{text}"
        raise InputError.one(place, f"{port} is the port of Ray's dashboard", remedy)
    return Address(kind="cluster", value=text, source=source)


def _what_and_remedy(text: str) -> tuple[str, str]:
    """What is wrong with an address that is not HOST:PORT, and what to write instead."""
    if "://" in text:
        remedy = "give http://HEAD:8265 for a dashboard, or the HOST:PORT that `ray start` printed"
        return "is not the address of a Ray cluster", remedy
    close = difflib.get_close_matches(text.lower(), ["auto", "local"], n=1, cutoff=0.75)
    if close:
        return "is not HOST:PORT", f"did you mean {close[0]}?"
    if re.fullmatch(r"[\w.-]+", text):
        return "has no port", f"give {text}:6379, if that is what `ray start --head` printed"
    return "is not HOST:PORT", "give auto, local, or the HOST:PORT that `ray start --head` printed"
