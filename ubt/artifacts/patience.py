"""Patience with a store that does not answer just now: what may come right by itself is tried again for a while."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from ubt.common.errors import Problem, UserError
from ubt.common.progress import PULSE

Result = TypeVar("Result")

WORKERS_PATIENCE_SECONDS = 120.0
"""How long a trial waits for its store: long enough for a server that starts anew."""

_PASSING = {
    errno.EAGAIN,
    errno.EBUSY,  # what s3fs makes of SlowDown and 503
    errno.EINTR,
    errno.EIO,  # what NFS answers when its server does not
    errno.EREMOTEIO,  # what s3fs makes of 500
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENETRESET,
}
_PASSING_CLASSES = {
    "ConnectionError",
    "HTTPClientError",
    "ClientConnectionError",
    "ClientPayloadError",
    "TransportError",
}
"""Of clients of clouds (botocore, aiohttp, google.auth), by name, as none of them need be installed."""

Access = Callable[[str], AbstractContextManager[None]]
"""Reports what a file system refuses; given "read" or "written". Only calls of the file system stand within."""

_log = logging.getLogger(__name__)


def access_to(place: str, unusable: type[UserError], advice: str, words: Callable[[Exception], str] = str) -> Access:
    """Return what reports what a file system refuses, as `unusable`, with its place and the error in `words`.

    Each cloud's client has errors of its own (no credentials, an expired token, no such bucket), most of them no
    `OSError`, so every error counts. It holds no store: the heartbeat of leases, a thread that a defense's stage could
    find, has it too.
    """

    @contextmanager
    def access(what: str) -> Iterator[None]:
        try:
            yield
        except unusable:
            raise
        except Exception as error:
            raise unusable(Problem(place, f"cannot be {what}: {words(error)}", advice=advice)) from error

    return access


def is_passing(error: BaseException) -> bool:
    """Tell whether an error of a file system may well be gone soon. A refusal, a full disk or a missing file is not."""
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, UserError):  # with the store's place around what its client says
        return error.__cause__ is not None and is_passing(error.__cause__)
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    return not _PASSING_CLASSES.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def patiently(call: Callable[[], Result], seconds: float, what: str) -> Result:
    """Return what `call` returns; while it meets what may pass it is called again, at growing intervals, for `seconds`.

    `what` is what it wants, for the log: "to read the store s3://bucket/ubt".
    """
    try:  # not by tenacity: what it has raised leads to itself, and holds all that called it until a collection
        return call()
    except Exception as error:
        if not seconds or not is_passing(error):
            raise

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        text = f"{what}: {type(error).__name__}: {error}"
        PULSE.wait(text)
        left = seconds - (state.seconds_since_start or 0.0)
        _log.warning("trying again for another %.0f s %s", left, text)

    retrying = Retrying(
        retry=retry_if_exception(is_passing),
        stop=stop_after_delay(seconds),
        wait=wait_exponential_jitter(multiplier=0.5, max=15.0),
        before_sleep=say,
        reraise=True,
    )
    return retrying(call)
