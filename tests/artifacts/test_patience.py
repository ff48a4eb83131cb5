"""Which errors of a store may pass, and how long they are waited for."""

from __future__ import annotations

import errno
import logging

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from fsspec.implementations.local import LocalFileSystem

from ubt.artifacts.patience import is_passing, patiently
from ubt.artifacts.store import ArtifactStore, UnusableStore
from ubt.common.errors import Problem


def said_of_a_store(cause: Exception) -> UnusableStore:
    error = UnusableStore(Problem("store s3://bucket", f"cannot be written: {cause}"))
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (OSError(errno.EREMOTEIO, "Internal Error"), True),
        (OSError(errno.EBUSY, "Slow Down"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (EndpointConnectionError(endpoint_url="http://store"), True),
        (ReadTimeoutError(endpoint_url="http://store"), True),
        (PermissionError(errno.EACCES, "Access Denied"), False),
        (NoCredentialsError(), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (FileNotFoundError(), False),
        (RuntimeError("a bug"), False),
        (said_of_a_store(ConnectionResetError()), True),
        (said_of_a_store(PermissionError(errno.EACCES, "Access Denied")), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_may_pass_is_told_from_what_will_not(error: Exception, passing: bool) -> None:
    assert is_passing(error) is passing


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were waited for, without waiting: each passes at once."""
    waited: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("tenacity.nap.time.sleep", sleep)
    monkeypatch.setattr("tenacity.time.monotonic", lambda: now[0])
    return waited


def test_a_store_that_answers_again_is_all_a_trial_notices(slept, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    (tmp_path / "artifacts").mkdir()
    answers = iter([OSError(errno.EREMOTEIO, "Internal Error"), ConnectionResetError("reset"), None])
    exists = LocalFileSystem.exists

    def shaky(self, path, **options):
        if (error := next(answers)) is not None:
            raise error
        return exists(self, path, **options)

    monkeypatch.setattr(LocalFileSystem, "exists", shaky)
    assert ArtifactStore(tmp_path, patience_seconds=60).has("overfit", "a" * 32) is False
    assert len(slept) == 1, "what fails once is tried again at once"
    assert f"as the store {tmp_path} cannot be read: ConnectionResetError: reset" in caplog.text


def test_a_store_that_stays_away_is_a_fault_after_a_bounded_time(slept, tmp_path, monkeypatch):
    def away(*_, **__):
        raise TimeoutError("no answer")

    monkeypatch.setattr(LocalFileSystem, "exists", away)
    with pytest.raises(UnusableStore, match="no answer"):
        ArtifactStore(tmp_path, patience_seconds=60).has("overfit", "a" * 32)
    assert 45 < sum(slept) <= 60 + 16
    assert slept[0] < slept[-1]


@pytest.mark.parametrize("patience", [0.0, 60.0])
def test_a_refusal_is_told_at_once(slept, patience):
    def refused() -> None:
        raise PermissionError(errno.EACCES, "Access Denied")

    with pytest.raises(PermissionError):
        patiently(refused, patience, "as a test")
    assert not slept
