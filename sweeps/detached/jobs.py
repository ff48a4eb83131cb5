"""A cluster's job server, through Ray's own client: launch a job, ask how it is, read its log, stop it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ubt.common.errors import Problem, UserError
from ubt.common.progress import waiting_for
from ubt.common.secrets import without_credentials

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

SERVER_VARIABLE = "RAY_API_SERVER_ADDRESS"
"""Ray's own variable for the address of a job server."""

_ANSWER_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_OVERRIDING = (SERVER_VARIABLE, "RAY_ADDRESS")
"""Variables that Ray puts above the address that it is given."""
_CHATTY = ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.utils")
_ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}


@dataclass(frozen=True)
class JobState:
    """How a job is."""

    status: str
    """Ray's word: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What was said of it when it was launched."""

    @property
    def ended(self) -> bool:
        """Return whether it has ended."""
        return self.status in _ENDED


class JobServer:
    """The job server of a cluster. Every method raises `UserError` if it does not answer, or refuses.

    Raises:
        UserError: if the address is none of a job server, or nothing answers there.
    """

    def __init__(self, address: str) -> None:
        self.address, self.shown = address.rstrip("/"), without_credentials(address)
        self._where = f"--address {self.shown}"
        self._check()
        with self._asking(), waiting_for(f"the job server at {self.shown}"), _without_variables():
            from ray.job_submission import JobSubmissionClient  # noqa: PLC0415 — Ray, 2 s

            for chatty in _CHATTY:
                logging.getLogger(chatty).setLevel(logging.WARNING)
            self._client: JobSubmissionClient = JobSubmissionClient(self.address)

    def launch(
        self, job: str, command: str, folder: Path, variables: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """Start a command as a job, in a copy of a folder that Ray brings to the cluster."""
        environment = {"working_dir": str(folder), "env_vars": dict(variables)}
        with self._asking(), waiting_for(f"the job server at {self.shown}"):
            self._client.submit_job(
                entrypoint=command, submission_id=job, runtime_env=environment, metadata=dict(metadata)
            )

    def state(self, job: str) -> JobState:
        """Return how a job is."""
        with self._asking(job), waiting_for(f"the job server at {self.shown}"):
            found = self._client.get_job_info(job)
        message = without_credentials((found.message or "").strip())
        return JobState(str(found.status.value), message, found.metadata or {})

    def log(self, job: str) -> str:
        """Return what a job has printed."""
        with self._asking(job), waiting_for(f"the job server at {self.shown}"):
            return str(self._client.get_job_logs(job))

    def follow(self, job: str, show: Callable[[str], None]) -> None:
        """Show what a job prints, until it ends."""

        async def tail() -> None:
            async for lines in self._client.tail_job_logs(job):
                show(lines)

        with self._asking(job):
            asyncio.run(tail())

    def stop(self, job: str, at_most_seconds: float) -> JobState:
        """Have a job end in order, and return how it is then, or after some time."""
        with self._asking(job), waiting_for(f"{job} to end"):
            self._client.stop_job(job)
            limit = time.monotonic() + at_most_seconds
            while not (state := self.state(job)).ended and time.monotonic() < limit:
                time.sleep(_LOOK_SECONDS)
            return state

    def _check(self) -> None:
        parts = urlsplit(self.address)
        with suppress(ValueError):
            if parts.scheme in {"http", "https"} and parts.hostname:
                return self._connect(parts.hostname, parts.port or {"http": 80, "https": 443}[parts.scheme])
        message = "must be the address of a cluster's job server, http://HOST:8265 or https://…"
        advice = "" if parts.scheme != "ray" else "`ubt sweep` takes ray:// addresses, and stays in the foreground"
        raise UserError(Problem("--address", message, self.shown, advice))

    def _connect(self, host: str, port: int) -> None:
        """Check that something answers. Ray itself would wait for minutes."""
        try:
            socket.create_connection((host, port), _ANSWER_SECONDS).close()
        except (OSError, OverflowError) as error:
            advice = (
                "it is Ray's dashboard on the head, on the loopback interface unless the head was started with"
                " --dashboard-host=0.0.0.0 (and a token!); `ray dashboard cluster.yaml`, `kubectl port-forward` or"
                " `ssh -L 8265:localhost:8265 HEAD` bring it here"
            )
            message = f"nothing answers at {host}:{port} ({error})"
            raise UserError(Problem(self._where, message, advice=advice)) from error

    @contextmanager
    def _asking(self, job: str = "") -> Iterator[None]:
        from ray.exceptions import AuthenticationError, RayError  # noqa: PLC0415 — as above

        try:
            yield
        except UserError:
            raise
        except AuthenticationError as error:
            advice = "RAY_AUTH_MODE=token, and the cluster's token in ~/.ray/auth_token or $RAY_AUTH_TOKEN"
            first = str(error).strip().partition("\n")[0]
            raise UserError(Problem(self._where, f"the cluster asks for its token: {first}", advice=advice)) from error
        except (OSError, RuntimeError, ValueError, RayError) as error:
            said = " ".join(str(error).split())
            if job and re.search(r"status code 404|does not exist", said):
                advice = "`ray job list` names them; a job is forgotten with its cluster, its run folder is not"
                raise UserError(Problem(self._where, "there is no such job on this cluster", job, advice)) from error
            raise UserError(Problem(self._where, f"the job server cannot do that: {said}")) from error


def new_job(name: str) -> str:
    """Return the id of a new job for a run of a name, unlike that of any other."""
    return f"ubt-{name}-{uuid.uuid4().hex[:8]}"


def server_address(given: str | None, noted: str = "") -> str:
    """Return the address of the job server: the one given, else the one that was noted, else that of Ray's variable.

    Raises:
        UserError: if there is none.
    """
    address = given or noted or os.environ.get(SERVER_VARIABLE)
    if not address:
        advice = f"give it, http://HOST:8265, or set {SERVER_VARIABLE}"
        raise UserError(Problem("--address", "the cluster's job server is not known", advice=advice))
    return address


@contextmanager
def _without_variables() -> Iterator[None]:
    """Have Ray take the address that it is given: its variables would go before it."""
    kept = {name: os.environ.pop(name) for name in _OVERRIDING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
