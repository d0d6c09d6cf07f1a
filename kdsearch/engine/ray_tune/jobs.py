"""Ray Jobs by the address of a cluster's dashboard: submitting, following, fetching what one left.

The cluster is met through HTTP alone, so that it may be far away and its other ports closed.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import aiohttp
from ray._private.authentication.authentication_token_setup import (
    maybe_enable_token_auth_if_token_available,
)
from ray._private.authentication.http_token_authentication import (
    get_auth_headers_if_auth_enabled,
)
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from kdsearch.errors import InputError, first_line

State = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]
ENDED: Mapping[State, bool] = {
    "PENDING": False,
    "RUNNING": False,
    "STOPPED": True,
    "SUCCEEDED": True,
    "FAILED": True,
}
"""Whether a job in this state has ended."""

_ADDRESSES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
_HEADERS = "RAY_JOB_HEADERS"
_LOGGERS = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
_KNOCK_SECONDS = 5.0
_ANSWER_SECONDS = 60.0
_PATIENCE = 120.0
"""How long a connection may be away, such as while a head restarts or a laptop changes networks."""
_QUIET_SECONDS = 60.0
_PART_SECONDS = 600
_BETWEEN = 1.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the cluster says of a job."""

    name: str
    """Ray's submission id."""
    state: State
    code: int | None
    """The exit code of its command; None until that has ended, or where it never began."""
    message: str
    entrypoint: str
    metadata: Mapping[str, str]
    node: str | None
    """The id of the node where its command runs."""

    @property
    def ended(self) -> bool:
        """Whether it has come to its end, whatever that is."""
        return ENDED[self.state]


class Jobs:
    """The jobs of the cluster whose dashboard is at `address`, which `source` gave.

    Every method raises `InputError` in words where the cluster does not answer.
    """

    def __init__(self, address: str, source: str) -> None:
        self._place = f"{source} {address}"
        with self._in_words():
            _knock(address)
            for name in _LOGGERS:
                logging.getLogger(name).setLevel(logging.ERROR)
            headers: dict[str, str] = json.loads(os.environ.get(_HEADERS, "{}"))
            maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
            with _without(_ADDRESSES):  # they would win over `address`, without a word
                self._client = JobSubmissionClient(address, headers=dict(headers))
            self._headers = {**headers, **get_auth_headers_if_auth_enabled(headers)}

    def submit(
        self,
        entrypoint: str,
        name: str,
        metadata: Mapping[str, str],
        package: Path | None = None,
    ) -> bool:
        """Submit a job that runs in what the zip file `package` holds.

        False where there is one of this name already, such as one that was submitted meanwhile.
        """
        environment = {"working_dir": str(package)} if package else {}
        with self._in_words():
            try:
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=name,
                    metadata=dict(metadata),
                    runtime_env=environment,
                )
            except RuntimeError as error:
                if f"{name} already exists" not in str(error):
                    raise
                return False
        return True

    def named(self, start: str) -> list[Job]:
        """The jobs whose names begin with `start`."""
        with self._in_words():
            found = self._client.list_jobs()
        return [_job(each) for each in found if (each.submission_id or "").startswith(start)]

    def job(self, name: str) -> Job:
        """What is to be known of a job now."""
        with self._in_words():
            return _job(self._client.get_job_info(name))

    def log(self, name: str) -> str:
        """All that a job has written so far."""
        with self._in_words():
            return self._client.get_job_logs(name)

    def stop(self, name: str) -> None:
        """Have Ray end a job: by SIGTERM, and a little later by SIGKILL."""
        with self._in_words():
            self._client.stop_job(name)

    def forget(self, name: str) -> None:
        """Take a job that has ended from the cluster's list."""
        with self._in_words():
            self._client.delete_job(name)

    def follow(self, name: str, show: Callable[[str], bool], *, skip: int = 0) -> Job:
        """Hand a job's log to `show` as it is written, but for the first `skip` characters.

        Returns when the job has ended, or `show` that it has seen enough. A connection that breaks
        is made anew.
        """
        asyncio.run(self._follow(name, show, skip))
        return self.job(name)

    async def _follow(self, name: str, show: Callable[[str], bool], skip: int) -> None:
        async with aclosing(self._texts(name, skip)) as texts:
            async for text in texts:
                if not show(text):
                    return

    async def _texts(self, name: str, seen: int) -> AsyncGenerator[str, None]:
        """The log behind the first `seen` characters; Ray begins anew with each connection."""
        lost: float | None = None
        while True:
            known, whole = seen, True
            try:
                try:
                    tail = self._client.tail_job_logs(name)
                    # Ray calls it an iterator, but it is a generator, whose connection must close.
                    async with aclosing(cast(AsyncGenerator[str, None], tail)) as texts:
                        while text := await asyncio.wait_for(anext(texts, ""), _QUIET_SECONDS):
                            new, known = text[known:], max(0, known - len(text))
                            seen, lost = seen + len(new), None
                            if new:
                                yield new
                except TimeoutError:  # nothing to tell, or a connection that died without a word
                    whole = False
                if (await asyncio.to_thread(self.job, name)).ended and whole:
                    return
                lost = None
            except (aiohttp.ClientError, OSError, RuntimeError, InputError) as error:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > _PATIENCE:
                    raise self._silent(error) from None
            await asyncio.sleep(_BETWEEN)

    def fetch(self, job: Job, file: str, to: IO[bytes]) -> None:
        """Fetch a file, given relative to the folder of the job's log on the job's node."""
        query = urlencode(
            {"node_id": job.node, "filename": file, "lines": -1, "timeout": _PART_SECONDS}
        )
        address = f"{self._client.get_address()}/api/v0/logs/file?{query}"
        with (
            self._in_words(),
            urlopen(Request(address, headers=self._headers), timeout=_ANSWER_SECONDS) as answer,
        ):
            shutil.copyfileobj(answer, to)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError:
            raise InputError.one(
                self._place,
                "asks for a token, and does not take what there is here",
                "put the cluster's into ~/.ray/auth_token; `ray get-auth-token` prints it on the "
                "head. Where RAY_AUTH_MODE is set, it must be token",
            ) from None
        # LookupError and TypeError: something else answers there, in JSON of its own.
        except (
            http.client.HTTPException,
            OSError,
            RuntimeError,
            ValueError,
            LookupError,
            TypeError,
        ) as error:
            raise self._silent(error) from None

    def _silent(self, error: Exception) -> InputError:
        if isinstance(error, InputError):
            return error
        return InputError.one(
            self._place,
            f"does not answer as the dashboard of a Ray cluster: {first_line(error)}",
            "give the address of the dashboard, which `ray start --head` prints; its port is 8265 "
            "unless said otherwise",
        )


def _knock(address: str) -> None:
    """See that something answers: Ray's own client would wait for ever where nothing does."""
    with suppress(HTTPError):  # an answer too, such as that it wants a token
        urlopen(f"{address}/api/version", timeout=_KNOCK_SECONDS).close()


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _job(details: JobDetails) -> Job:
    return Job(
        name=details.submission_id or "",
        state=details.status.value,
        code=details.driver_exit_code,
        message=details.message or "",
        entrypoint=details.entrypoint,
        metadata=details.metadata or {},
        node=details.driver_node_id,
    )
