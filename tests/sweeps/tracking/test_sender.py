"""The thread that sends: in what order, how often, and what it says of what is in the way."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ToyRun

from sweeps.tracking import delivery
from sweeps.tracking.contents import STUDY, Content, Ledger, RunContents
from sweeps.tracking.delivery import Sender
from sweeps.tracking.faults import BlockedError, RefusedError, TrackingFault, UnavailableError
from ubt.common.paths import RECORDS_FOLDER
from ubt.trials.record import State, write_record

PATIENCE_SECONDS = 60


class Server:
    """Stands for MLflow: may be down, and refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.fault: BaseException | None = None
        self.refused: set[str] = set()
        self.shown: list[str] = []
        self.runs: dict[str, str] = {}
        self.tried = threading.Event()
        self.connections: list[TrackingFault | None] = []

    def connect(self, fault: TrackingFault | None) -> "Server":
        self.connections.append(fault)
        self._fail()
        return self

    def show(self, content: Content, files: bool) -> str:
        self._fail()
        self.runs.setdefault(content.subject, f"id of {content.subject}")
        if content.subject in self.refused:
            raise RefusedError("a parameter was changed")
        self.shown.append(content.subject)
        return self.runs[content.subject]

    def _fail(self) -> None:
        self.tried.set()
        if self.fault:
            raise self.fault


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def run(tmp_path: Path, make_record) -> ToyRun:
    toy = ToyRun(tmp_path / "toy").begin()
    for number in range(3):
        write_record(toy.folder / RECORDS_FOLDER, make_record(number, state=State.DONE))
    return toy


TRIALS = ["trial-0", "trial-1", "trial-2"]


@pytest.fixture
def sender(run: ToyRun, server: Server) -> Callable[..., Sender]:
    def make(pause_seconds: float = 0.01) -> Sender:
        return Sender(RunContents(run.folder), Ledger(run.folder), server.connect, "http://host", pause_seconds)

    return make


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_study_comes_first_and_everything_goes_over_one_connection(sender, server) -> None:
    one = sender()
    one.note(["trial-2"])
    one.wake()
    assert one.close(PATIENCE_SECONDS).runs == 0
    assert server.shown == [STUDY, *TRIALS]
    assert server.connections == [None]


def test_what_was_confirmed_is_not_sent_again_by_the_next(sender, server, run, make_record) -> None:
    sender().close(0)
    first = sender()
    first.wake()
    first.close(PATIENCE_SECONDS)
    server.shown.clear()
    write_record(run.folder / RECORDS_FOLDER, make_record(1, epochs=5, state=State.DONE))
    second = sender()
    second.wake()
    assert second.close(PATIENCE_SECONDS).runs == 0
    assert server.shown == ["trial-1"]


def test_a_server_that_knows_nothing_of_it_gets_what_another_confirmed(sender, server) -> None:
    first = sender()
    first.wake()
    first.close(PATIENCE_SECONDS)
    server.runs.clear()
    server.shown.clear()
    second = sender()
    second.wake()
    assert second.close(PATIENCE_SECONDS).runs == 0
    assert sorted(server.shown) == [STUDY, *TRIALS]


class StrangeError(BaseException):
    """As a library may raise: not even an `Exception`."""


@pytest.mark.parametrize(
    "fault",
    [UnavailableError("down"), RuntimeError("of a library"), StrangeError("odd"), SystemExit(3), OSError(28, "full")],
    ids=lambda fault: type(fault).__name__,
)
def test_no_exception_ends_the_thread_and_it_is_told_once(sender, server, caplog, fault) -> None:
    server.fault = fault
    one = sender()
    one.wake()
    until(lambda: len(server.connections) > 4)
    assert len([record for record in caplog.records if "does not answer" in record.getMessage()]) == 1
    server.fault = None
    assert one.close(PATIENCE_SECONDS).runs == 0
    assert sorted(server.shown) == [STUDY, *TRIALS]


def test_what_waiting_does_not_mend_is_told_with_what_to_do(sender, server, caplog) -> None:
    server.fault = BlockedError("401", "log in")
    one = sender(pause_seconds=60)
    one.wake()
    until(lambda: bool(caplog.records))
    left = one.close(PATIENCE_SECONDS)
    assert (left.runs, left.reason, left.advice) == (4, "401", "log in")
    (told,) = {record.getMessage() for record in caplog.records}
    assert "cannot be used" in told
    assert "What to do: log in" in told
    assert "sent later" not in told


def test_a_refused_content_does_not_hold_up_the_rest_and_is_not_tried_again(sender, server, caplog) -> None:
    server.refused = {"trial-1"}
    one = sender()
    one.wake()
    left = one.close(PATIENCE_SECONDS)
    assert (left.runs, left.refused) == (0, 1)
    assert server.shown == [STUDY, "trial-0", "trial-2"]
    assert sum("refuses" in message for message in caplog.messages) == 1
    again = sender()
    again.wake()
    assert again.close(PATIENCE_SECONDS).refused == 1
    assert sum("refuses" in message for message in caplog.messages) == 1


def test_what_an_outdated_connection_raises_is_tried_over_a_new_one(sender, server, run, make_record, caplog) -> None:
    one = sender()
    one.wake()
    until(lambda: server.shown == [STUDY, *TRIALS])
    show, failing = server.show, [RefusedError("this connection knows a run that is gone")]
    server.show = lambda content, files: (_ for _ in ()).throw(failing.pop()) if failing else show(content, files)
    write_record(run.folder / RECORDS_FOLDER, make_record(0, epochs=7, state=State.DONE))
    one.note(["trial-0"])
    one.wake()
    left = one.close(PATIENCE_SECONDS)
    assert (left.runs, left.refused) == (0, 0)
    assert [type(fault) for fault in server.connections] == [type(None), type(None)]
    assert caplog.messages == []


def test_one_that_always_fails_does_not_keep_the_others_from_being_tried(sender, server) -> None:
    show = server.show

    def selective(content: Content, files: bool) -> str:
        if content.subject == "trial-0":
            raise RuntimeError("its file is too large")
        return show(content, files)

    server.show = selective
    one = sender()
    one.wake()
    until(lambda: server.shown == [STUDY, "trial-1", "trial-2"])
    left = one.close(PATIENCE_SECONDS)
    assert (left.runs, left.reason) == (1, "RuntimeError: its file is too large")


def test_closing_while_the_server_is_down_costs_one_attempt(sender, server) -> None:
    server.fault = UnavailableError("down")
    one = sender(pause_seconds=3600)
    one.wake()
    assert server.tried.wait(PATIENCE_SECONDS)
    assert one.close(PATIENCE_SECONDS).runs == 4
    assert len(server.connections) <= 2


def test_closing_does_not_wait_longer_than_it_may_and_counts_what_is_on_its_way(sender, server) -> None:
    hold = threading.Event()
    server.show = lambda content, files: str(hold.wait(PATIENCE_SECONDS))
    one = sender()
    one.wake()
    assert server.tried.wait(PATIENCE_SECONDS)
    until(lambda: bool(one._in_hand))
    assert one.close(0.05).runs == 4
    hold.set()


def test_catching_up_waits_while_there_is_progress_and_not_when_there_is_none(sender, server, monkeypatch) -> None:
    monkeypatch.setattr(delivery, "_HOPELESS_SECONDS", 0.05)
    told: list[tuple[int, str]] = []
    server.fault = BlockedError("401", "log in")
    one = sender()
    one.drain(PATIENCE_SECONDS, lambda runs, reason: told.append((runs, reason)))
    assert (4, "401") in told, "returned long before its patience, for waiting does not mend that"
    server.fault = None
    one.drain(PATIENCE_SECONDS, lambda runs, reason: None)
    assert one.close(PATIENCE_SECONDS).runs == 0


def test_news_of_what_is_being_sent_are_sent_after_it(sender, server, run, make_record) -> None:
    hold, show = threading.Event(), server.show

    def slow(content: Content, files: bool) -> str:
        if content.subject == "trial-0" and not hold.is_set():
            server.tried.set()
            hold.wait(PATIENCE_SECONDS)
        return show(content, files)

    server.show = slow
    one = sender()
    one.wake()
    until(lambda: one._in_hand == {"trial-0"})
    write_record(run.folder / RECORDS_FOLDER, make_record(0, epochs=9, state=State.DONE))
    one.note(["trial-0"])
    hold.set()
    assert one.close(PATIENCE_SECONDS).runs == 0
    assert server.shown.count("trial-0") == 2
