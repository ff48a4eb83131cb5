import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeps.tracking.delivery import Outbox, Sender, Waiting
from sweeps.tracking.events import RefusedError, TrialUpdated, UnavailableError

PATIENCE_SECONDS = 120  # on a busy machine; only a failure takes it


class Server:
    """Stands for MLflow: takes events unless told to fail. Each connection counts."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.connections = 0
        self.down = False
        self.refused: set[str] = set()
        self.outdated = False
        self.client = threading.current_thread()

    def connect(self) -> "Server":
        self.connections += 1
        self.client = threading.current_thread()
        self.outdated = False
        return self

    def send(self, event: TrialUpdated) -> None:
        if self.down:
            raise UnavailableError("down: http://ann:s3cret@host")
        if self.outdated or event.record.trial in self.refused:
            raise RefusedError("param changed")
        self.taken.append(event.record.trial)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path)


@pytest.fixture
def sender(outbox: Outbox, server: Server) -> Sender:
    return Sender(outbox, server.connect, "http://host", first_pause_seconds=0.01)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_mlflow_is_told_to_be_quiet_before_anybody_can_import_it(
    outbox, server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_LOGGING_LEVEL", raising=False)
    Sender(outbox, server.connect, "http://host")
    assert os.environ["MLFLOW_LOGGING_LEVEL"] == "ERROR"


def test_events_are_sent_over_one_connection_as_they_come(sender, outbox, server, make_record) -> None:
    for number in range(3):
        outbox.add(TrialUpdated(record=make_record(number)))
        sender.wake()
        until(lambda: len(outbox) == 0)
    assert server.taken == ["trial-0", "trial-1", "trial-2"]
    assert server.connections == 1
    assert sender.close(PATIENCE_SECONDS) == 0


def test_a_server_that_comes_back_gets_everything(sender, outbox, server, make_record, caplog) -> None:
    caplog.set_level(logging.INFO)
    server.down = True
    for number in range(3):
        outbox.add(TrialUpdated(record=make_record(number)))
        sender.wake()
    until(lambda: server.connections > 3)
    server.down = False
    until(lambda: len(outbox) == 0)
    assert server.taken == ["trial-0", "trial-1", "trial-2"]
    assert sum("does not answer" in message for message in caplog.messages) == 1
    assert "are sent later" in caplog.text
    assert "answers again" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_refused_event_is_set_aside_with_the_reason(sender, outbox, server, make_record, caplog) -> None:
    server.refused = {"trial-1"}
    for number in range(3):
        outbox.add(TrialUpdated(record=make_record(number)))
    sender.wake()
    assert sender.close(PATIENCE_SECONDS) == 0
    assert server.taken == ["trial-0", "trial-2"]
    (reason,) = outbox.rejected.glob("*.reason.txt")
    assert "param changed" in reason.read_text()
    assert reason.with_name(reason.name.replace(".reason.txt", ".json")).exists()
    assert "refuses an event (trial.trial-1)" in caplog.text


def test_what_an_outdated_connection_refuses_is_tried_over_a_new_one(sender, outbox, server, make_record) -> None:
    outbox.add(TrialUpdated(record=make_record(0)))
    sender.wake()
    until(lambda: len(outbox) == 0)
    server.outdated = True
    outbox.add(TrialUpdated(record=make_record(1)))
    sender.wake()
    assert sender.close(PATIENCE_SECONDS) == 0
    assert server.taken == ["trial-0", "trial-1"]
    assert not outbox.rejected.exists()


def test_closing_while_the_server_is_down_costs_one_attempt(outbox, server, make_record) -> None:
    sender = Sender(outbox, server.connect, "http://host", first_pause_seconds=60)
    server.down = True
    outbox.add(TrialUpdated(record=make_record(0)))
    sender.wake()
    until(lambda: server.connections == 1)
    assert sender.close(30) == 1
    assert not server.client.is_alive(), "it went into another pause"
    assert server.connections == 2


def test_closing_does_not_wait_for_the_end_of_a_pause(outbox, server, make_record, caplog) -> None:
    sender = Sender(outbox, server.connect, "http://host", first_pause_seconds=60)
    server.down = True
    outbox.add(TrialUpdated(record=make_record(0)))
    sender.wake()
    until(lambda: "does not answer" in caplog.text)
    server.down = False
    assert sender.close(30) == 0
    assert server.taken == ["trial-0"]


def test_closing_goes_on_past_a_refused_event(outbox, server, make_record, caplog) -> None:
    caplog.set_level(logging.INFO)
    sender = Sender(outbox, server.connect, "http://host", first_pause_seconds=3600)
    server.down = True
    for number in range(2):
        outbox.add(TrialUpdated(record=make_record(number)))
    sender.wake()
    until(lambda: "does not answer" in caplog.text)
    server.down, server.refused = False, {"trial-0"}
    assert sender.close(PATIENCE_SECONDS) == 0
    assert server.taken == ["trial-1"]
    assert "answers again" in caplog.text


def test_closing_does_not_wait_longer_than_it_may_for_a_server_that_hangs(outbox, make_record) -> None:
    hanging = threading.Event()

    class Hanging:
        def send(self, event: TrialUpdated) -> None:
            hanging.wait()

    sender = Sender(outbox, Hanging, "http://host")
    outbox.add(TrialUpdated(record=make_record(0)))
    sender.wake()
    assert sender.close(0.2) == 1
    hanging.set()


def test_closing_sends_what_waits_even_if_nothing_new_happened(outbox, server, make_record) -> None:
    outbox.add(TrialUpdated(record=make_record(0)))
    sender = Sender(outbox, server.connect, "http://host")
    sender.wake()
    assert sender.close(PATIENCE_SECONDS) == 0
    assert server.taken == ["trial-0"]


def test_a_failing_disk_of_the_outbox_is_waited_out(tmp_path, server, make_record, caplog) -> None:
    class Failing(Outbox):
        failures = 3

        def oldest(self) -> Waiting | None:
            self.failures -= 1
            if self.failures >= 0:
                raise OSError("stale file handle")
            return super().oldest()

    outbox = Failing(tmp_path)
    outbox.add(TrialUpdated(record=make_record(0)))
    sender = Sender(outbox, server.connect, "http://host", first_pause_seconds=0.01)
    sender.wake()
    until(lambda: len(outbox) == 0)
    assert server.taken == ["trial-0"]
    assert "stale file handle" in caplog.text
