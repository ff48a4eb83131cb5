"""Not now, not before somebody does something, or never: told apart by what libraries raise."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import ToyRun
from hypothesis import given
from hypothesis import strategies as st

from sweeps.tracking.faults import (
    BlockedError,
    BrokenDatabaseError,
    RefusedError,
    TrackingFault,
    UnavailableError,
    check_driver,
    fault_of,
)
from ubt.common.errors import UserError
from ubt.trials.record import State


class Coded(Exception):
    """As MLflow's own: with a code."""

    def __init__(self, error_code: str, text: str = "of MLflow") -> None:
        super().__init__(text)
        self.error_code = error_code


POSTGRES = 'connection to server at "10.0.0.1", port 5432 failed: '

KINDS = [
    (Coded("INTERNAL_ERROR", "API request failed with error code 500 != 200"), UnavailableError, ""),
    (Coded("TEMPORARILY_UNAVAILABLE", "(sqlite3.OperationalError) database is locked"), UnavailableError, ""),
    (OSError(28, "No space left on device"), UnavailableError, ""),
    (RuntimeError("something unforeseen"), UnavailableError, ""),
    (RuntimeError(POSTGRES + "Connection refused"), UnavailableError, ""),
    (RuntimeError(POSTGRES + "FATAL:  the database system is starting up"), UnavailableError, ""),
    (RuntimeError(POSTGRES + "FATAL:  sorry, too many clients already"), UnavailableError, ""),
    (Coded("UNAUTHENTICATED"), BlockedError, "MLFLOW_TRACKING_USERNAME"),
    (Coded("PERMISSION_DENIED"), BlockedError, "MLFLOW_TRACKING_TOKEN"),
    (ModuleNotFoundError("No module named 'psycopg'"), BlockedError, "ubt-sweeper[postgres]"),
    (RuntimeError(POSTGRES + 'FATAL:  password authentication failed for user "ann"'), BlockedError, "--uri"),
    (RuntimeError(POSTGRES + "fe_sendauth: no password supplied"), BlockedError, "--uri"),
    (RuntimeError(POSTGRES + 'FATAL:  database "mlflow" does not exist'), BlockedError, "make the database"),
    (RuntimeError("[Errno -2] Name or service not known"), BlockedError, "check the address"),
    (RuntimeError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"), BlockedError, "CERT_PATH"),
    (RuntimeError("Can't locate revision identified by 'abc'"), BlockedError, "newer MLflow"),
    (Coded("INTERNAL_ERROR", "Detected out-of-date database schema (found version a)"), BlockedError, "db upgrade"),
    (Coded("BAD_REQUEST", "(sqlite3.DatabaseError) database disk image is malformed"), BrokenDatabaseError, "mended"),
    (RuntimeError("(sqlite3.OperationalError) table spans already exists"), BrokenDatabaseError, "mended"),
    (Coded("TEMPORARILY_UNAVAILABLE", "(sqlite3.OperationalError) no such table: runs"), BrokenDatabaseError, ""),
    (PermissionError(13, "Permission denied"), BlockedError, "writable"),
    (Coded("INVALID_PARAMETER_VALUE", "Changing param values is not allowed"), RefusedError, ""),
]


@pytest.mark.parametrize(("error", "kind", "advice"), KINDS, ids=lambda value: str(value)[:40])
def test_what_is_raised_says_whether_waiting_helps_and_what_does(error, kind: type, advice: str) -> None:
    fault = fault_of(error)
    assert type(fault) is kind
    assert advice in fault.advice
    assert bool(fault.advice) == isinstance(fault, BlockedError), (
        "what waiting does not mend has advice, and nothing else"
    )


def test_nothing_is_refused_before_it_was_sent() -> None:
    assert not isinstance(fault_of(Coded("RESOURCE_DOES_NOT_EXIST"), connecting=True), RefusedError)


def test_of_the_words_of_requests_those_stay_that_matter() -> None:
    text = (
        "API request to http://h:9/api failed with exception HTTPConnectionPool(host='h', port=9): Max retries "
        "exceeded with url: /api?a=b (Caused by NewConnectionError(\"HTTPConnection(host='h', port=9): Failed to "
        'establish a new connection: [Errno 111] Connection refused"))'
    )
    assert str(fault_of(Coded("INTERNAL_ERROR", text))) == (
        "Failed to establish a new connection: [Errno 111] Connection refused"
    )


@pytest.mark.parametrize("uri", [None, "http://host:1", "sqlite:////data/mlflow.db", "postgresql://ann:s3cret@host/db"])
def test_a_driver_that_is_there_is_no_mistake(uri: str | None) -> None:
    pytest.importorskip("psycopg")
    check_driver(uri)


def test_a_driver_that_is_missing_is_a_mistake_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match="not installed") as told:
        check_driver("postgresql://ann:s3cret@host/db")
    assert "ubt-sweeper[postgres]" in str(told.value)
    assert "s3cret" not in str(told.value)
    with pytest.raises(UserError, match="behind the `\\+`"):
        check_driver("mysql+nodriver://host/db")


@given(st.text(), st.sampled_from([OSError, ValueError, KeyError, SystemExit, ImportError, UnicodeError]))
def test_of_anything_a_fault_is_made(text: str, kind: type[BaseException]) -> None:
    fault = fault_of(kind(text))
    assert isinstance(fault, TrackingFault)
    assert fault_of(fault) is fault


def test_a_reason_shows_neither_passwords_nor_what_was_to_be_written() -> None:
    text = "no such table: x [SQL: INSERT INTO x VALUES (1)] for postgresql://ann:s3cret@host/db"
    assert str(fault_of(RuntimeError(text))) == "RuntimeError: no such table: x"
    assert "s3cret" not in str(fault_of(RuntimeError("could not reach postgresql://ann:s3cret@host/db")))


@contextmanager
def answering(status: int, body: bytes = b"as the test wants it", seconds: float = 0.0) -> Iterator[str]:
    """A server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(seconds)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://ann:s3cret@127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "headline", "advice"),
    [
        (401, "cannot be used", "MLFLOW_TRACKING_USERNAME"),
        (403, "cannot be used", "MLFLOW_TRACKING_USERNAME"),
        (404, "cannot be used", "check the address"),
        (200, "cannot be used", "check the address"),  # a web server that is no MLflow
        (500, "does not answer", ""),
        (503, "does not answer", ""),
    ],
)
def test_a_server_that_will_never_take_it_is_told_from_one_that_is_down(
    toy: ToyRun, make_record, caplog, status: int, headline: str, advice: str
) -> None:
    with answering(status) as uri:
        tracker = toy.tracker(uri=uri)
        toy.record(tracker, make_record(0, 2, State.DONE))
        tracker.finished(complete=True)
        left = tracker.close(60)
    assert left.runs == 2
    assert advice in left.advice
    assert bool(advice) == bool(left.advice)
    (told,) = caplog.messages
    assert headline in told
    assert "s3cret" not in told + left.reason
    assert toy.catch_up().runs == 0
    assert set(toy.statuses().values()) == {"FINISHED"}


def test_calls_that_ran_into_their_time_limit_but_were_carried_out_make_no_twins(
    toy: ToyRun, make_record, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    carry_out, lost = MlflowClient.create_run, [True, False, True, True]

    def create(client: MlflowClient, *words: object, **named: object) -> object:
        made = carry_out(client, *words, **named)
        if lost and lost.pop(0):
            raise TimeoutError("Read timed out")
        return made

    monkeypatch.setattr(MlflowClient, "create_run", create)
    tracker = toy.tracker()
    toy.record(tracker, *(make_record(number, 2, State.DONE) for number in range(3)))
    tracker._sender.drain(60, lambda runs, reason: None)
    tracker.finished(complete=True)
    assert tracker.close(60).runs == 0
    assert toy.statuses() == dict.fromkeys(("toy", "trial-0", "trial-1", "trial-2"), "FINISHED")
