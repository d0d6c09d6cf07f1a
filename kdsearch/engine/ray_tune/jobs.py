"""Ray Jobs by the address of a cluster's dashboard: submitting, following, fetching what one left.

The cluster is met through HTTP alone, so that it may be far away and its other ports closed.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import re
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast
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

from kdsearch.engine.ray_tune.cluster import WRONG_TOKEN
from kdsearch.errors import InputError, first_line, last_line

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
_CONNECTION_SECONDS = 1800.0
"""After which one that is quiet may have died without a word."""
_PART_SECONDS = 600
_BETWEEN = 1.0
_REFUSAL = re.compile(r"Request failed with status code (\d+): (.*)\.", re.DOTALL)
"""What Ray's client makes of an answer that is an error; a traceback often."""


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
    since: int = 0
    """When it was submitted, in milliseconds on the cluster's clock."""

    @property
    def ended(self) -> bool:
        """Whether it has come to its end, whatever that is."""
        return ENDED[self.state]


class JobUnknownError(InputError):
    """The cluster does not know a job: it was started anew, or somebody had it forgotten."""


class Jobs:
    """The jobs of the cluster whose dashboard is at `address`, which `source` gave.

    Every method raises `InputError` in words where the cluster does not answer.
    """

    def __init__(self, address: str, source: str, patience: float = _ANSWER_SECONDS) -> None:
        """`patience`: the seconds without a word in which an answer is given up."""
        self._patience = patience
        self._place = f"{source} {address}"
        headers = _headers()
        try:
            with self._in_words():
                _knock(address)
                for name in _LOGGERS:
                    logging.getLogger(name).setLevel(logging.ERROR)
                maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
                with _without(_ADDRESSES):  # they would win over `address`, without a word
                    self._client = _Client(address, headers=dict(headers), patience=patience)
                self._headers = {**headers, **get_auth_headers_if_auth_enabled(headers)}
        except (ValueError, LookupError, TypeError) as error:  # JSON of another server's own
            raise self._silent(error) from None

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
        """Take a job from the cluster's list that ended some seconds ago, or more.

        Sooner, Ray would enter it anew, as one that failed.
        """
        with self._in_words():
            self._client.delete_job(name)

    def follow(
        self,
        name: str,
        show: Callable[[str], bool],
        *,
        skip: int = 0,
        quiet: float = _QUIET_SECONDS,
    ) -> Job:
        """Hand a job's log to `show` as it is written, but for the first `skip` characters.

        Returns when the job has ended, or `show` that it has seen enough. A connection that breaks
        is made anew. The job is asked for whenever its log has been `quiet` for so many seconds.
        """
        asyncio.run(self._follow(name, show, skip, quiet))
        return self.job(name)

    async def _follow(
        self, name: str, show: Callable[[str], bool], skip: int, quiet: float
    ) -> None:
        async with aclosing(self._texts(name, skip, quiet)) as texts:
            async for text in texts:
                if not show(text):
                    return

    async def _texts(self, name: str, seen: int, quiet: float) -> AsyncGenerator[str, None]:
        """The log behind the first `seen` characters; Ray begins anew with each connection."""
        lost: float | None = None
        while True:
            known, heard = seen, time.monotonic()
            trouble: Exception | None = None
            try:
                async with aclosing(self._connection(name, quiet)) as texts:
                    async for text in texts:
                        lost = None
                        if text is None:
                            ended = (await asyncio.to_thread(self.job, name)).ended
                            if ended or time.monotonic() - heard > _CONNECTION_SECONDS:
                                break
                            continue
                        new, known = text[known:], max(0, known - len(text))
                        seen, heard = seen + len(new), time.monotonic()
                        if new:
                            yield new
            except (aiohttp.ClientError, OSError, RuntimeError, InputError) as error:
                trouble = error
            try:
                if (await asyncio.to_thread(self.job, name)).ended:
                    if rest := (await asyncio.to_thread(self.log, name))[seen:]:
                        yield rest
                    return
            except JobUnknownError:
                raise
            except InputError as error:
                trouble = error
            if trouble:
                lost = lost or time.monotonic()
                if time.monotonic() - lost > _PATIENCE:
                    raise self._silent(trouble) from None
            await asyncio.sleep(_BETWEEN)

    async def _connection(self, name: str, quiet: float) -> AsyncGenerator[str | None, None]:
        """The log from its begin over one connection, and None whenever it is `quiet`.

        The connection is kept meanwhile: Ray keeps its end of one that is closed until the job
        says something again, and has a hundred for all jobs.
        """
        # Ray calls it an iterator, but it is a generator, whose connection must close.
        tail = cast(AsyncGenerator[str, None], self._client.tail_job_logs(name))
        async with aclosing(tail):
            while True:
                coming = asyncio.ensure_future(anext(tail, ""))
                try:
                    while not (await asyncio.wait({coming}, timeout=quiet))[0]:
                        yield None
                finally:
                    coming.cancel()
                    await asyncio.wait({coming})
                if not (text := coming.result()):
                    return
                yield text

    def fetch(self, job: Job, file: str, to: IO[bytes]) -> None:
        """Fetch a file, given relative to the folder of the job's log on the job's node."""
        query = urlencode(
            {"node_id": job.node, "filename": file, "lines": -1, "timeout": _PART_SECONDS}
        )
        address = f"{self._client.get_address()}/api/v0/logs/file?{query}"
        with (
            self._in_words(),
            urlopen(Request(address, headers=self._headers), timeout=self._patience) as answer,
        ):
            shutil.copyfileobj(answer, to)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError:
            raise InputError.one(self._place, *WRONG_TOKEN) from None
        except RuntimeError as error:
            raise self._refused(error) from None
        except HTTPError as error:
            raise self._cannot(error.reason) from None
        except (http.client.HTTPException, OSError) as error:
            raise self._silent(error) from None

    def _refused(self, error: RuntimeError) -> InputError:
        """What the cluster answers that is an error, in the words that matter of it."""
        refusal = _REFUSAL.fullmatch(str(error))
        if refusal is None:
            return self._silent(error)
        code, text = refusal.groups()
        if code == "404" and "does not exist" in text:
            return JobUnknownError.one(
                self._place,
                "no longer knows this job: the cluster was restarted, or the job deleted",
                "run the same command to submit the next one",
            )
        return self._cannot(text)

    def _cannot(self, why: str) -> InputError:
        remedy = "the dashboard's logs on the head may say more"
        return InputError.one(self._place, f"failed: {last_line(why)}", remedy)

    def _silent(self, error: Exception) -> InputError:
        if isinstance(error, InputError):
            return error
        foreign = isinstance(error, http.client.BadStatusLine)  # its text may be no text at all
        why = "what answers does not speak HTTP" if foreign else first_line(error)
        return InputError.one(
            self._place,
            f"does not answer like the dashboard of a Ray cluster: {why}",
            "give the address of the dashboard, which `ray start --head` prints; its port is 8265 "
            "by default",
        )


class _Client(JobSubmissionClient):
    """Ray's own, whose requests would wait for ever on a connection that has died."""

    def __init__(self, address: str, *, headers: dict[str, str], patience: float) -> None:
        self._patience = patience
        super().__init__(address, headers=headers)

    def _do_request(self, *arguments: Any, **options: Any) -> Any:
        return super()._do_request(*arguments, **{"timeout": self._patience, **options})


def _headers() -> dict[str, str]:
    """What RAY_JOB_HEADERS holds, which may be secret. Raises `InputError`."""
    try:
        headers = json.loads(os.environ.get(_HEADERS) or "{}")
        if all(isinstance(text, str) for text in headers.values()):
            return dict(headers)
    except (ValueError, AttributeError):
        pass
    remedy = """such as {"Authorization": "Bearer …"}"""
    raise InputError.one(_HEADERS, "is not a JSON object of strings", remedy)


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
        since=details.start_time or 0,
    )
