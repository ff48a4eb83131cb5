"""Leases: never two who live hold one, and that of one who died is taken. Clocks of processes do not agree."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_leases import MemoryLeases
from s3_server import s3_server

from ubt.artifacts import leases as leases_module
from ubt.artifacts.heartbeat import own_heartbeat
from ubt.artifacts.lease_files import LeaseFiles
from ubt.artifacts.lease_watch import DEAD_SECONDS, Lease, LeaseWatch, keys_in_use
from ubt.artifacts.leases import BEAT_SECONDS, IDLE_SECONDS, LINGER_SECONDS, HeldElsewhere, Leases
from ubt.artifacts.store import ArtifactStore

SLOT = "implant/0a"


@dataclass
class Process:
    """A process with a clock of its own, seen from outside."""

    files: LeaseFiles
    offset: float = 0.0
    now: float = 0.0
    lives: bool = True
    holds: dict[str, Lease] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.leases = Leases(self.files, lambda: self.offset + self.now, beats_alone=False)

    def take(self, slot: str = SLOT) -> bool:
        try:
            self.holds[slot] = self.leases.take(slot, "study/t0000")
        except HeldElsewhere:
            return False
        return True

    def release(self, slot: str = SLOT, published: bool = True) -> None:
        self.leases.release(self.holds.pop(slot), published)

    def pass_to(self, now: float) -> None:
        self.now = now
        if self.lives:
            self.leases.tick()


@dataclass
class World:
    """Processes over one store, some of which do something between any two steps of another."""

    chance: Random
    names: int = 3
    depth: int = 0

    def __post_init__(self) -> None:
        self.files = MemoryLeases(self._meanwhile)
        self.processes = [Process(self.files, self.chance.uniform(-1e6, 1e6)) for _ in range(self.names)]
        self.busy: list[Process] = []
        self.now = 0.0

    def act(self) -> None:
        idle = [process for process in self.processes if process.lives and process not in self.busy]
        if not idle:
            return
        process = self.chance.choice(idle)
        self.busy.append(process)
        slot = self.chance.choice([SLOT, "pretrain/0b"])
        if slot in process.holds:
            process.release(slot, self.chance.random() < 0.5)
        elif process.take(slot):
            others = [other for other in self.processes if other.lives and other is not process and slot in other.holds]
            assert not others, f"{slot} is held twice"
        self.busy.remove(process)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for process in self.processes:
            self.busy.append(process)
            process.pass_to(self.now)
            self.busy.remove(process)

    def _meanwhile(self) -> None:
        if self.depth < 2 and self.chance.random() < 0.3:
            self.depth += 1
            self.act()
            self.depth -= 1


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_never_do_two_that_live_hold_one_lease(chance: Random) -> None:
    world = World(chance)
    for _ in range(30):
        world.act()
        world.wait(chance.uniform(0, BEAT_SECONDS))
        if chance.random() < 0.05:
            chance.choice(world.processes).lives = False


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_lease_of_one_that_died_is_taken_within_a_minute(chance: Random) -> None:
    files = MemoryLeases()
    dead, *waiting = (Process(files, chance.uniform(-1e6, 1e6)) for _ in range(3))
    assert dead.take()
    watches = [LeaseWatch(files, lambda waiter=waiter: waiter.offset + waiter.now) for waiter in waiting]
    lived = chance.uniform(0, 100)
    now = 0.0
    while now < lived + 60:
        now += chance.uniform(0.5, 5)
        for process in (dead, *waiting):
            process.pass_to(now)
        looks = [watch.look(SLOT) for watch in watches if chance.random() < 0.8]
        dead.lives = dead.lives and now < lived
        if now < lived + DEAD_SECONDS - BEAT_SECONDS - 5:
            assert all(look.heartbeat for look in looks), "taken for dead too early"
        elif any(look.heartbeat is None for look in looks):
            break
    assert [waiter.take() for waiter in waiting] == [True, False]


def test_who_was_asleep_himself_takes_nobody_for_dead() -> None:
    files = MemoryLeases()
    holder, waiter = Process(files), Process(files)
    watch = LeaseWatch(files, lambda: waiter.now)
    assert holder.take()
    assert watch.look(SLOT).heartbeat
    waiter.now = 1000.0  # the machine of both was suspended, and this process woke up first
    assert watch.look(SLOT).heartbeat


def test_one_that_was_only_asleep_does_not_free_the_lease_of_who_took_over() -> None:
    files = MemoryLeases()
    asleep, other = Process(files), Process(files)
    assert asleep.take()
    files.silence(next(iter(files.beats)))  # it was found dead
    assert other.take()
    asleep.pass_to(100.0)
    asleep.release()
    asleep.pass_to(102.0)
    assert Lease(SLOT, files.held[SLOT]).process == other.holds[SLOT].process


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b'{"host": "a", "pid": 99999999999999999999}'])
def test_a_heartbeat_that_cannot_be_read_is_one_as_long_as_it_changes(content: bytes) -> None:
    files = MemoryLeases()
    dead, other = Process(files), Process(files)
    dead.take()
    files.beats[dead.holds[SLOT].process] = content
    watch = LeaseWatch(files, lambda: other.now)
    while other.now < DEAD_SECONDS:
        assert watch.look(SLOT).heartbeat
        other.now += 5
    assert watch.look(SLOT).heartbeat is None
    assert keys_in_use(files, datetime.min.replace(tzinfo=UTC)) == frozenset()


@pytest.mark.parametrize("who", ["study" * 29 + "abc/t0000", "ü" * 60, "", "\x1b[2J\nx/t0000"])
def test_a_lease_of_the_dead_can_be_taken_whatever_it_is_for(who: str) -> None:
    files = MemoryLeases()
    dead, other = Process(files), Process(files)
    dead.leases.take(SLOT, who)
    assert str(LeaseWatch(files).look(SLOT)).isprintable()
    files.beats.clear()
    assert other.take()


def test_a_stage_costs_two_requests_and_a_process_one_heartbeat() -> None:
    files = MemoryLeases()
    process = Process(files)
    process.take("pretrain/0")  # and the first heartbeat
    process.release("pretrain/0")
    before = files.steps
    for number in range(1, 100):
        process.take(f"implant/{number}")
        process.pass_to(number / 100)
        process.release(f"implant/{number}")
    process.pass_to(1 + LINGER_SECONDS)
    assert files.steps - before == 2 * 99 + 1
    assert len(files.beats) == 1
    assert files.held == {}


def test_a_published_stage_is_left_to_who_looked_just_before() -> None:
    files = MemoryLeases()
    first, late = Process(files), Process(files)
    first.take()
    looked_at = late.now
    first.release(published=True)
    assert not late.take()
    for process in (first, late):
        process.pass_to(LINGER_SECONDS)
    assert late.take()
    assert late.leases.must_look_again(looked_at)
    assert not late.leases.must_look_again(late.now)


def test_what_was_not_published_is_free_at_once() -> None:
    files = MemoryLeases()
    first, other = Process(files), Process(files)
    first.take()
    first.release(published=False)
    assert other.take()


def test_a_process_takes_again_what_it_has_just_released() -> None:
    process = Process(MemoryLeases())
    for _ in range(3):
        assert process.take()
        process.release()


def test_an_idle_process_falls_silent_and_comes_back_under_another_name() -> None:
    files = MemoryLeases()
    process = Process(files)
    process.take()
    process.release()
    process.pass_to(LINGER_SECONDS)
    process.pass_to(IDLE_SECONDS)
    assert (files.held, files.beats) == ({}, {})
    process.take()
    assert len(files.beats) == 1


def test_closing_releases_everything() -> None:
    files = MemoryLeases()
    process = Process(files)
    process.take()
    process.leases.close()
    assert (files.held, files.beats) == ({}, {})


def test_a_store_that_lets_two_make_one_file_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    files = MemoryLeases(promises=False)
    process = Process(files)
    assert process.take()
    process.release()
    assert Process(files).take()
    assert process.take()
    assert files.held == {}
    assert caplog.text.count("compute a stage twice") == 2  # one of each process


def test_who_holds_a_lease_is_told() -> None:
    files = MemoryLeases()
    Process(files).leases.take(SLOT, "a study/t0003")
    look = LeaseWatch(files).look(SLOT)
    assert str(look) == f"a study/t0003 on {own_heartbeat().host} (process {os.getpid()})"


def test_a_process_of_this_machine_that_has_ended_is_known_to_be_gone() -> None:
    code = "from ubt.artifacts.heartbeat import own_heartbeat; print(own_heartbeat().model_dump_json())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    files = MemoryLeases()
    files.held[SLOT] = "other.1.study%2Ft0000"
    files.beats["other"] = ended.encode()
    assert LeaseWatch(files).look(SLOT).heartbeat is None
    elsewhere = own_heartbeat().model_copy(update={"kernel": "of another machine", "pid": 2**22})
    files.beats["other"] = elsewhere.model_dump_json().encode()
    assert LeaseWatch(files).look(SLOT).heartbeat == elsewhere


def test_a_number_that_was_given_to_another_process_is_told_apart() -> None:
    assert not own_heartbeat().gone
    assert own_heartbeat().model_copy(update={"started": "1"}).gone


@contextmanager
def on_s3():
    with s3_server("bucket"):
        yield "s3://bucket/store"


@pytest.fixture(params=["folder", "s3"], scope="module")
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    if request.param == "folder":
        yield str(tmp_path_factory.mktemp("store"))
        return
    with on_s3() as url:
        yield url


def test_a_store_keeps_what_leases_rest_on(root: str) -> None:
    here, there = (ArtifactStore(root).lease_files() for _ in range(2))
    assert here
    assert there
    assert here.announce("one", b"1")
    assert (there.heartbeat("one"), there.heartbeat("other"), list(there.processes())) == (b"1", None, ["one"])
    assert [here.take("implant/1", "a"), there.take("implant/1", "b"), here.take("implant/2", "c")] == [
        True,
        False,
        True,
    ]
    assert there.slots() == [("implant/1", "a"), ("implant/2", "c")]
    there.free("implant/1", "b")
    assert there.holder("implant/1") == "a"
    there.free("implant/1", "a")
    assert there.holder("implant/1") is None
    assert there.take("implant/1", "d")
    here.free("implant/1", "a")
    here.free("implant/2", "c")
    here.free("implant/2", "c")
    assert here.slots() == [("implant/1", "d")]
    there.free("implant/1", "d")
    for _ in range(2):
        here.silence("one")
    assert (here.heartbeat("one"), here.slots(), here.processes()) == (None, [], {})


def test_a_heartbeat_goes_on_by_itself(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "BEAT_SECONDS", 0.05)
    files = ArtifactStore(root).lease_files()
    assert files
    leases = Leases(files)
    lease = leases.take(SLOT, "study/t0000")
    first = files.heartbeat(lease.process)
    while files.heartbeat(lease.process) == first:
        pass
    leases.close()
    assert (files.slots(), files.processes()) == ([], {})


def test_other_stores_have_no_leases() -> None:
    assert ArtifactStore("memory://store").lease_files() is None
    leases = Leases(None)
    leases.release(leases.take(SLOT, "study/t0000"), published=True)
    leases.close()
