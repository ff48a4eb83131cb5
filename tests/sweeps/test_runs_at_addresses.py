"""Runs behind an address: one sweep at a time, sent there while it runs, and gone on with from another machine."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from memory_leases import MemoryLeases
from toy_runs import study

from sweeps.run import places
from sweeps.run.folder import RunFolder
from sweeps.run.places import has_run, latest_run, new_run, run_at, sweep_at_work
from sweeps.run.resume import run_for
from ubt.artifacts.mirror import Mirror
from ubt.artifacts.remote_folder import RemoteFolder, UnusableFolder
from ubt.common.errors import Problem, UserError
from ubt.trials.record import State, TrialRecord, write_record


class Machine:
    """A machine with a cache of its own; all see the same addresses."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch

    def use(self, name: str) -> None:
        self._monkeypatch.setenv("UBT_CACHE", str(self._folder / name))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path, monkeypatch)
    machine.use("one")
    return machine


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> dict[str, MemoryLeases]:
    """Give addresses in memory leases, as S3 has them."""
    made: dict[str, MemoryLeases] = {}
    monkeypatch.setattr(RemoteFolder, "leases", lambda self: made.setdefault(self.address, MemoryLeases()))
    monkeypatch.setattr(places, "_LOOK_SECONDS", 0.01)
    return made


@pytest.fixture
def out(machine: Machine, leases: dict[str, MemoryLeases]) -> Iterator[str]:
    yield f"memory://{uuid4().hex}/runs"
    fsspec.filesystem("memory").store.clear()


def record(trial: str, state: State = State.DONE) -> TrialRecord:
    return TrialRecord(study="toy", trial=trial, number=int(trial[1:]), config={}, changes={}, seed=0, state=state)


def begin(out: str, trials: int = 0) -> RunFolder:
    with new_run(out, "toy").taken() as run:
        run.begin(study())
        for number in range(trials):
            write_record(run.records, record(f"t{number}"))
    return run


class TestNames:
    def test_they_are_numbered_from_the_second_on(self, out: str) -> None:
        assert [begin(out).path.name for _ in range(3)] == ["toy", "toy-2", "toy-3"]
        assert run_at(f"{out}/toy").shown == f"{out}/toy"

    def test_nothing_is_made_until_a_run_begins(self, out: str) -> None:
        assert new_run(out, "toy").shown == f"{out}/toy"
        assert not has_run(out, "toy")
        assert RemoteFolder(out).folders() == []

    def test_two_that_were_promised_one_get_two(self, out: str) -> None:
        promised = [new_run(out, "toy") for _ in range(2)]
        with promised[0].taken() as first, promised[1].taken() as second:
            assert [first.path.name, second.path.name] == ["toy", "toy-2"]

    def test_an_address_that_may_not_be_written_is_a_mistake(self, out: str, monkeypatch: pytest.MonkeyPatch) -> None:
        promised = new_run(out, "toy")

        def refuses(*_: object) -> None:
            raise UnusableFolder(Problem("memory://", "403"))

        monkeypatch.setattr(MemoryLeases, "take", refuses)
        with pytest.raises(UnusableFolder, match="403"), promised.taken():
            pass

    def test_the_latest_is_gone_on_with_and_no_other_study_s(self, out: str) -> None:
        begin(out)
        begin(out)
        with new_run(out, "toy-3").taken() as other:
            other.begin(study(name="toy-3"))
        assert latest_run(out, "toy").path.name == "toy-2"
        with pytest.raises(UserError, match="no run of `tox`"):
            latest_run(out, "tox")

    def test_a_resume_without_a_run_begins_one(self, out: str) -> None:
        run, _ = run_for(study(), out, resume="auto")
        assert run.new == "toy"
        begin(out)
        run, _ = run_for(study(), out, resume="auto")
        assert (run.new, run.shown) == ("", f"{out}/toy")

    def test_a_resume_with_another_study_is_refused(self, out: str) -> None:
        begin(out)
        with pytest.raises(UserError, match="--resume toy: seeds: differs"):
            run_for(study(seeds=[5]), out, resume=True)


class TestOneSweepAtATime:
    def test_another_one_is_refused_and_told_who_works_there(self, out: str, machine: Machine) -> None:
        with new_run(out, "toy").taken() as run:
            run.begin(study())
            run.settle(10)
            machine.use("two")
            beat = places.Heartbeat.read
            beats = iter(range(100))
            with pytest.MonkeyPatch.context() as alive:
                alive.setattr(
                    "ubt.artifacts.lease_watch.Heartbeat.read",
                    lambda content: beat(content).model_copy(update={"beat": next(beats), "kernel": "another"}),
                )
                refused = pytest.raises(
                    UserError, match=r"another sweep is at work in this run folder: toy on .*process"
                )
                with refused, latest_run(out, "toy").taken():
                    pass
            working = sweep_at_work(f"{out}/toy")
            assert working is not None
            assert "toy on" in working.who
        assert sweep_at_work(f"{out}/toy") is None
        with latest_run(out, "toy").taken():
            pass

    def test_a_dead_one_s_run_is_taken_over(
        self, out: str, machine: Machine, leases: dict[str, MemoryLeases], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begin(out, trials=1)
        files = leases[f"{out}/toy"]
        files.beats["dead"] = places.Heartbeat(host="gone", pid=5).model_dump_json().encode()
        files.held["sweep"] = "dead.1.toy"
        monkeypatch.setattr("ubt.artifacts.lease_watch.DEAD_SECONDS", 0.05)
        machine.use("two")
        with latest_run(out, "toy").taken() as run:
            assert [path.name for path in run.records.iterdir()] == ["t0.json"]
            assert not files.held["sweep"].startswith("dead")

    def test_a_sweep_that_was_taken_over_ends_and_sends_nothing_more(
        self, out: str, leases: dict[str, MemoryLeases], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        begin(out)
        remote = RemoteFolder(f"{out}/toy")
        (tmp_path / "late.json").write_text("{}")
        with Mirror(tmp_path, remote, ours=lambda: False, look_seconds=0.01) as mirror:
            mirror.close(10)
        assert remote.read("late.json") is None
        assert "another sweep has taken over" in caplog.text

    def test_an_address_that_cannot_lock_says_so(
        self, out: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(RemoteFolder, "leases", lambda self: None)
        assert begin(out, trials=1).shown == f"{out}/toy"
        assert "start no second sweep in this run folder" in caplog.text
        assert sweep_at_work(f"{out}/toy") is None


class TestGoingOn:
    def test_another_machine_finds_everything_but_what_is_made_anew(self, out: str, machine: Machine) -> None:
        with new_run(out, "toy").taken() as run:
            run.begin(study())
            write_record(run.records, record("t0"))
            for name in ("optuna.journal", "ray/tune/state", "tracked/confirmed.jsonl", ".hidden"):
                path = run.path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("x")
        machine.use("two")
        with latest_run(out, "toy").taken() as run:
            found = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
            assert {name for name in found if name[0] != "."} == {
                "study.json",
                "records/t0.json",
                "tracked/confirmed.jsonl",
                "sweep.lock",
            }
            assert [known.trial for known in run.begin(study())] == ["t0"]

    def test_who_held_it_last_goes_on_with_what_lies_here_also_if_it_was_never_sent(
        self, out: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        begin(out, trials=1)
        with latest_run(out, "toy").taken() as run, monkeypatch.context() as away:

            def refuses(*_: object) -> None:
                raise OSError("no route to host")

            away.setattr(RemoteFolder, "write", refuses)
            write_record(run.records, record("t1"))
            run.settle(0.5)
        assert "files are not at" in caplog.text
        assert RemoteFolder(run.shown).read("records/t1.json") is None
        with latest_run(out, "toy").taken() as run:
            assert {path.name for path in run.records.iterdir()} == {"t0.json", "t1.json"}
        assert RemoteFolder(run.shown).read("records/t1.json") is not None

    def test_who_did_not_hold_it_last_takes_what_the_address_has(self, out: str, machine: Machine) -> None:
        begin(out, trials=1)
        machine.use("two")
        with latest_run(out, "toy").taken() as run:
            write_record(run.records, record("t1"))
        machine.use("one")
        with latest_run(out, "toy").taken() as run:
            write_record(run.records, record("t2"))
            assert {path.name for path in run.records.iterdir()} == {"t0.json", "t1.json", "t2.json"}


class TestMirror:
    def test_what_changes_is_sent_while_the_sweep_runs(self, out: str, tmp_path: Path) -> None:
        remote = RemoteFolder(f"{out}/toy")
        with Mirror(tmp_path, remote, look_seconds=0.01):
            (tmp_path / "study.json").write_text("1")
            assert within_seconds(10, lambda: remote.read("study.json") == b"1")
            (tmp_path / "study.json").write_text("22")
            assert within_seconds(10, lambda: remote.read("study.json") == b"22")

    def test_what_is_there_already_is_not_sent_again(
        self, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sent: list[str] = []
        monkeypatch.setattr(RemoteFolder, "write", lambda self, contents: sent.extend(contents))
        (tmp_path / "old").write_text("1")
        with Mirror(tmp_path, RemoteFolder(f"{out}/toy"), look_seconds=0.01, as_sent=True):
            (tmp_path / "new").write_text("1")
        assert sent == ["new"]

    def test_an_address_that_does_not_answer_is_tried_again_and_told_once(
        self, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        write, failures = RemoteFolder.write, iter([True, True, False])

        def stumbles(self: RemoteFolder, contents: dict[str, bytes]) -> None:
            if next(failures, False):
                raise ConnectionError("503")
            write(self, contents)

        monkeypatch.setattr(RemoteFolder, "write", stumbles)
        remote = RemoteFolder(f"{out}/toy")
        with caplog.at_level(logging.WARNING), Mirror(tmp_path, remote, look_seconds=0.01):
            (tmp_path / "study.json").write_text("1")
            assert within_seconds(10, lambda: "up to date again" in caplog.text)
        assert remote.read("study.json") == b"1"
        assert caplog.text.count("is behind: 503") == 1

    def test_a_file_that_vanishes_while_it_is_read_is_left_out(
        self, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        remote = RemoteFolder(f"{out}/toy")
        mirror = Mirror(tmp_path, remote, look_seconds=0.01)
        (tmp_path / "study.json").write_text("1")
        states = mirror._states()
        monkeypatch.setattr(mirror, "_states", lambda: {**states, "records/gone.json": (1, 1)})
        mirror._send()
        assert set(remote.stamps()) == {"study.json"}


def within_seconds(limit: float, done: object) -> bool:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if done():  # type: ignore[operator]
            return True
        time.sleep(0.01)
    return False


def test_a_folder_of_this_machine_says_whether_a_sweep_works_in_it(tmp_path: Path) -> None:
    assert sweep_at_work(tmp_path) is None
    with new_run(tmp_path, "toy").taken() as run:
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(sweep_at_work(run.path)))
        thread.start()
        thread.join()
        assert found[0] is not None
    assert sweep_at_work(run.path) is None


def test_a_look_does_not_keep_a_sweep_out(tmp_path: Path) -> None:
    with new_run(tmp_path, "toy").taken() as run:
        run.begin(study())
    for _ in range(20):
        thread = threading.Thread(target=sweep_at_work, args=[run.path])
        thread.start()
        with latest_run(tmp_path, "toy").taken():
            pass
        thread.join()


def test_the_study_is_here_before_a_resume_has_taken_the_run(out: str, machine: Machine) -> None:
    begin(out)
    machine.use("two")
    assert json.loads(latest_run(out, "toy").study.read_text())["name"] == "toy"
