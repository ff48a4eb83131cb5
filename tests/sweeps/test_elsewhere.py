"""Stages that other sweeps compute: what a session does about them, and how it learns that they are there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from memory_leases import MemoryLeases
from toy_session import Toy, toy_session

from sweeps.scheduling import elsewhere as elsewhere_module
from sweeps.scheduling.elsewhere import UNSEEN_SECONDS, Elsewhere
from ubt.artifacts import lease_watch
from ubt.artifacts.lease_watch import LeaseWatch, Wait
from ubt.artifacts.leases import Leases
from ubt.artifacts.store import ArtifactStore, UnusableStore
from ubt.common.errors import Problem
from ubt.engine.graph import Node, build_pipeline
from ubt.engine.stage_leases import slot_of
from ubt.trials.config import TrialConfig
from ubt.trials.record import State, read_records

THRESHOLD = "defense.token_threshold"


class Arrivals(Elsewhere):
    """What the tests say has arrived."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.coming: list[tuple[str, bool]] = []

    def wait_for(self, node: Node, trial: str) -> None:
        self.asked.append((node.spec.name, trial))

    def arrivals(self) -> list[tuple[str, bool]]:
        coming, self.coming = self.coming, []
        return coming


def waits(toy: Toy, assignment, stage: str, *done: str):  # type: ignore[no-untyped-def]
    key = toy.stages(assignment, stage)[-1].key
    lost = {"lost": True, "fault": "Waits", "waits_for": key, "state": State.FAILED}
    return toy.running(assignment, *done).model_copy(update=lost), key


def test_a_session_asks_for_what_it_waits_for_and_goes_on_when_it_is_there(tmp_path: Path) -> None:
    elsewhere = Arrivals()
    toy = toy_session(tmp_path, [{}, {THRESHOLD: 0.2}], elsewhere=elsewhere)
    (first,) = toy.start_all()
    record, key = waits(toy, first, "implant", "poison")
    toy.session.ended(first.trial, record)
    assert elsewhere.asked == [("implant", "t0000")]
    assert toy.start_all() == []
    elsewhere.coming = [(key, True)]
    (first,) = toy.start_all()
    assert first.trial == "t0000"


def test_what_a_trial_computed_before_it_waited_counts_as_computed(tmp_path: Path) -> None:
    elsewhere = Arrivals()
    toy = toy_session(tmp_path, [{}], elsewhere=elsewhere)
    (first,) = toy.start_all()
    record, key = waits(toy, first, "implant", "poison")
    toy.session.ended(first.trial, record)
    elsewhere.coming = [(key, True)]
    (first,) = toy.start_all()
    done = toy.done(first)
    toy.session.ended(
        first.trial,
        done.model_copy(update={"stages": tuple(each.model_copy(update={"reused": True}) for each in done.stages)}),
    )
    (found,) = read_records(toy.records)
    assert [stage.stage for stage in found.stages if not stage.reused] == [stage.stage for stage in record.stages]
    assert len(found.attempts) <= 1


def test_a_trial_that_waits_when_the_sweep_stops_has_not_failed_and_is_not_left_running(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}], elsewhere=Arrivals())
    (first,) = toy.start_all()
    toy.session.stop("the disk is full")
    toy.session.ended(first.trial, waits(toy, first, "implant", "poison")[0])
    (found,) = read_records(toy.records)
    assert (found.state, found.lost, found.reason) == (State.INTERRUPTED, False, "the disk is full")
    assert not found.waits_for
    assert toy.session.finished


def test_a_trial_that_waits_when_the_sweep_is_interrupted_is_not_left_running(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}], elsewhere=Arrivals())
    (first,) = toy.start_all()
    toy.session.ended(first.trial, waits(toy, first, "implant", "poison")[0])
    toy.session.interrupt("Ctrl-C")
    (found,) = read_records(toy.records)
    assert found.state is State.INTERRUPTED


@pytest.fixture
def node() -> Node:
    return next(node for node in build_pipeline(TrialConfig(), 0, "toy-data") if node.spec.name == "implant")


def looked_for(elsewhere: Elsewhere) -> list[tuple[str, bool]]:
    """Return what arrives, once something does."""
    while not (found := elsewhere.arrivals()):
        threading.Event().wait(0.01)
    return found


def test_a_lease_that_is_released_is_noticed(tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere_module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(lease_watch, "LEASE_SECONDS", 0.0)
    leases = Leases(ArtifactStore(tmp_path).lease_files())
    lease = leases.take(slot_of(node), "other/t0003")
    elsewhere = Elsewhere(str(tmp_path))
    elsewhere.wait_for(node, "t0000")
    assert elsewhere.arrivals() == []
    leases.release(lease, published=False)
    assert looked_for(elsewhere) == [(node.key, False)]
    folder = tmp_path / "artifacts" / "implant" / node.key
    folder.mkdir(parents=True)
    (folder / "meta.json").touch()
    elsewhere.wait_for(node, "t0000")
    assert looked_for(elsewhere) == [(node.key, True)]
    leases.close()


def test_a_wait_that_meets_what_nobody_foresaw_lets_its_trial_go_on(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def look(wait: Wait) -> bool | None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Wait, "look", look)
    elsewhere = Elsewhere(str(tmp_path))
    elsewhere.wait_for(node, "t0000")
    assert looked_for(elsewhere) == [(node.key, False)]
    assert "RuntimeError: a bug" in caplog.text


def test_a_store_that_does_not_answer_is_waited_for_a_while_and_told_of_once(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = iter(range(0, 10_000, 50))

    def look(wait: Wait) -> bool | None:
        raise UnusableStore([Problem("the store", "no answer")])

    monkeypatch.setattr(Wait, "look", look)
    monkeypatch.setattr(elsewhere_module, "LOOK_SECONDS", 0.01)
    elsewhere = Elsewhere(str(tmp_path), clock=lambda: next(seconds))
    elsewhere.wait_for(node, "t0000")
    assert looked_for(elsewhere) == [(node.key, False)]
    assert next(seconds) > UNSEEN_SECONDS
    assert caplog.text.count("cannot be seen: the store: no answer") == 1


def test_a_store_without_leases_is_told_and_nothing_is_waited_for(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = Elsewhere("memory://without-leases")
    elsewhere.wait_for(node, "t0000")
    assert elsewhere.arrivals() == [(node.key, False)]
    assert "sweeps that share it may compute a stage twice" in caplog.text


def test_nobody_waits_for_more_than_a_minute_without_a_line(caplog: pytest.LogCaptureFixture) -> None:
    files, now = MemoryLeases(), 0.0
    leases = Leases(files, lambda: now, beats_alone=False)
    leases.take("implant/0a", "other/t0003")
    wait = Wait("implant/0a", "t0001", lambda: False, LeaseWatch(files, lambda: now), lambda: now)
    lines: list[float] = []
    while now < 200:
        assert wait.look() is None
        lines += [now] * (len(caplog.records) - len(lines))
        now += 2
        leases.tick()
    assert lines == [30, 90, 150]
    assert "t0001 waits for `implant` since 1 min 30 s: other/t0003 on" in caplog.text
