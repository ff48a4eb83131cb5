"""Real sweeps on a real, private Ray with two workers: what goes well, what fails, what is killed, SIGTERM.

Four starts of Ray, each by the command line in a process of its own. The process is ended by its id.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import held
import pytest
from held import Holds

from sweeps.run.track import track
from ubt.trials.record import State, TrialRecord, read_records

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 240
FAILING = "search={design: list, trials: [{}, {defense.unlearn_learning_rate: 1e30}, {defense.token_threshold: 0.05}]}"


@dataclass
class Ubt:
    """A `ubt sweep smoke` in a process of its own."""

    folder: Path
    process: subprocess.Popen[str]

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "smoke"

    @property
    def records(self) -> list[TrialRecord]:
        return read_records(self.run / "records")

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, as long as the sweep runs."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        ended = False
        while not condition():
            assert not ended, self.process.communicate()
            assert time.monotonic() < deadline, "it takes too long"
            time.sleep(0.05)
            ended = self.process.poll() is not None  # the condition is then looked at once more

    def wait_for_stage(self, trial: str, stage: str) -> None:
        """Wait until a trial has told that it is at a stage, or past it."""
        self.wait_until(lambda: any(r.trial == trial and stage in names(r) for r in self.records))

    def workers(self) -> list[int]:
        """Return the ids of the processes that run trials, of this sweep and no other."""
        return [pid for pid in descendants(self.process.pid) if re.match(r"ray::\w*Trainable", command_of(pid))]

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, out, err


def names(record: TrialRecord) -> list[str]:
    return [stage.stage for stage in record.stages]


def start(folder: Path, *words: str, holds: Holds | None = None) -> Ubt:
    sets = [f"store={folder}/store", "resources.concurrent_trials=2"]
    arguments = ["sweep", "smoke", "--out", str(folder / "runs"), *(w for s in sets for w in ("--set", s)), *words]
    program = [held.__file__, str(holds.folder)] if holds else ["-c", "from sweeps.cli.app import main; main()"]
    process = subprocess.Popen(
        [sys.executable, *program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        start_new_session=True,  # the test's own Ctrl-C does not reach it
    )
    return Ubt(folder, process)


def descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
    found = [pid]
    for ancestor in found:
        found += [child for child, parent in parents.items() if parent == ancestor]
    return found[1:]


def command_of(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def still_there(pids: list[int], seconds: float = 10.0) -> list[int]:
    """Return which of some processes are there after a while; what has ended and was not asked about is not."""
    deadline = time.monotonic() + seconds
    while (there := [pid for pid in pids if command_of(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return there


@pytest.fixture(scope="module")
def started() -> Iterator[Callable[..., Ubt]]:
    """Start sweeps; those that a failed test leaves running are ended, with what they started."""
    begun: list[Ubt] = []

    def begin(folder: Path, *words: str, holds: Holds | None = None) -> Ubt:
        begun.append(start(folder, *words, holds=holds))
        return begun[-1]

    yield begin
    for ubt in begun:
        if ubt.process.poll() is None:
            for pid in [*descendants(ubt.process.pid), ubt.process.pid]:
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    os.kill(pid, signal.SIGKILL)
            ubt.process.wait()


def send_the_rest(run: Path) -> None:
    """Send what a busy machine had no time to tell MLflow before the sweep's end: what `ubt track` does."""
    assert track(run, lambda text: None, patience_seconds=PATIENCE_SECONDS).runs == 0


def mlflow_statuses(folder: Path) -> dict[str, str]:
    from mlflow.tracking import MlflowClient

    send_the_rest(folder / "runs" / "smoke")
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("ubt").experiment_id])
    names = [run.data.tags.get("ubt.trial", run.info.run_name) for run in runs]
    assert len(set(names)) == len(names), "a run is there twice"
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert {run.data.tags.get("mlflow.parentRunId", parent.info.run_id) for run in runs} == {parent.info.run_id}
    return {name: run.info.status for name, run in zip(names, runs, strict=True)}


def computed(records: list[TrialRecord]) -> list[str]:
    return [stage.key for record in records for stage in record.stages if not stage.reused]


@dataclass
class Troubled:
    """A sweep of three trials: the first one's worker is killed on the way, the second one fails."""

    ubt: Ubt
    killed: list[int]
    status: int
    out: str


@pytest.fixture(scope="module")
def troubled(started: Callable[..., Ubt], tmp_path_factory: pytest.TempPathFactory) -> Troubled:
    folder = tmp_path_factory.mktemp("troubled")
    holds = Holds(folder / "holds", "poison", "t0000")
    ubt = started(folder, "--set", FAILING, holds=holds)
    ubt.wait_for_stage("t0000", "poison")
    killed = ubt.workers()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    holds.end()
    status, out, _ = ubt.end()
    return Troubled(ubt, killed, status, out)


class TestTrouble:
    def test_a_trial_whose_worker_was_killed_is_run_again_and_done(self, troubled: Troubled) -> None:
        assert troubled.killed
        first, _, third = troubled.ubt.records
        assert (first.state, third.state) == (State.DONE, State.DONE)
        assert first.stages[0].ended_at < first.attempts[-1].started_at, "the attempt before had published it"
        killed, last = first.attempts
        assert killed.ended_by == f"WorkerDied: the worker process was killed or crashed (node {last.node})"
        assert last.started_at > killed.ended_at > killed.started_at

    def test_a_trial_that_fails_says_why_and_makes_the_status_1(self, troubled: Troubled) -> None:
        failed = troubled.ubt.records[1]
        assert troubled.status == 1
        assert failed.state is State.FAILED
        assert failed.reason
        assert failed.fault
        assert names(failed)[:2] == ["pretrain", "poison"]
        assert "2 DONE, 1 FAILED" in troubled.out

    def test_no_stage_was_computed_by_two_trials(self, troubled: Troubled) -> None:
        keys = computed(troubled.ubt.records)
        assert len(set(keys)) == len(keys)

    def test_the_report_and_mlflow_show_all_three(self, troubled: Troubled) -> None:
        ubt = troubled.ubt
        page = unescape((ubt.run / "report" / "index.html").read_text())
        assert ubt.records[1].reason.splitlines()[0][:30] in page
        assert json.loads((ubt.run / "report" / "summary.json").read_text())["states"]["FAILED"] == 1
        assert mlflow_statuses(ubt.folder) == {
            "smoke": "FINISHED",
            "t0000": "FINISHED",
            "t0001": "FAILED",
            "t0002": "FINISHED",
        }


@dataclass
class Interrupted:
    """A sweep that got SIGTERM after its first trial and within others, and its continuation."""

    first: tuple[int, str, str]
    left: list[int]
    """Processes that outlived it."""
    records: dict[str, bytes]
    artifacts: set[str]
    ubt: Ubt
    second: tuple[int, str, str]


@pytest.fixture(scope="module")
def interrupted(started: Callable[..., Ubt], tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    folder = tmp_path_factory.mktemp("interrupted")
    holds = Holds(folder / "holds", "unlearn", "t0001")
    ubt = started(folder, holds=holds)
    ubt.wait_for_stage("t0001", "unlearn")
    ubt.wait_until(lambda: any(record.trial == "t0000" and record.state is State.DONE for record in ubt.records))
    begun = descendants(ubt.process.pid)
    os.kill(ubt.process.pid, signal.SIGTERM)
    holds.end()
    first = ubt.end()
    left = still_there(begun)
    records = {path.name: path.read_bytes() for path in (ubt.run / "records").glob("*.json")}
    artifacts = {path.parent.name for path in (folder / "store").glob("artifacts/*/*/meta.json")}
    again = started(folder, "--resume")
    return Interrupted(first, left, records, artifacts, again, again.end())


class TestInterruption:
    def test_sigterm_ends_the_sweep_and_says_how_to_go_on(self, interrupted: Interrupted) -> None:
        status, out, err = interrupted.first
        assert status == 143, err
        assert "Interrupted; what is done is kept. Go on with:" in out
        assert out.rstrip().endswith("--resume")
        assert "Traceback" not in err

    def test_it_was_in_the_middle(self, interrupted: Interrupted) -> None:
        states = {name: json.loads(text)["state"] for name, text in interrupted.records.items()}
        assert states["t0000.json"] == "DONE"
        assert states["t0001.json"] == "INTERRUPTED"
        assert "RUNNING" not in states.values()

    def test_no_process_outlives_it(self, interrupted: Interrupted) -> None:
        assert interrupted.left == []

    def test_the_continuation_is_done(self, interrupted: Interrupted) -> None:
        status, out, err = interrupted.second
        assert status == 0, err
        assert "smoke: 4 DONE" in out
        assert [record.state for record in interrupted.ubt.records] == [State.DONE] * 4

    def test_finished_trials_are_not_run_again(self, interrupted: Interrupted) -> None:
        for name, text in interrupted.records.items():
            if json.loads(text)["state"] == "DONE":
                assert (interrupted.ubt.run / "records" / name).read_bytes() == text

    def test_finished_stages_are_not_computed_again(self, interrupted: Interrupted) -> None:
        later = [record for record in interrupted.ubt.records if self._is_new(interrupted, record)]
        assert later
        assert not interrupted.artifacts & set(computed(later))

    def _is_new(self, interrupted: Interrupted, record: TrialRecord) -> bool:
        before: dict[str, Any] = json.loads(interrupted.records.get(f"{record.trial}.json", "{}"))
        return before.get("state") != "DONE"

    def test_mlflow_has_one_run_of_the_study_and_of_each_trial(self, interrupted: Interrupted) -> None:
        names = ["smoke", "t0000", "t0001", "t0002", "t0003"]
        assert mlflow_statuses(interrupted.ubt.folder) == dict.fromkeys(names, "FINISHED")

    def test_the_report_shows_all_trials(self, interrupted: Interrupted) -> None:
        summary = json.loads((interrupted.ubt.run / "report" / "summary.json").read_text())
        assert summary["states"]["DONE"] == 4


def test_a_lost_raylet_ends_the_sweep_in_order(started: Callable[..., Ubt], tmp_path: Path) -> None:
    """For which Tune would wait for ever."""
    ubt = started(tmp_path, holds=Holds(tmp_path / "holds", "pretrain", "t0000", "t0001", "t0002", "t0003"))
    ubt.wait_until(lambda: any("pretrain" in names(record) for record in ubt.records))  # which begins is its choice
    begun = descendants(ubt.process.pid)
    (raylet,) = [pid for pid in begun if command_of(pid).split(" ")[0].endswith("/raylet")]
    os.kill(raylet, signal.SIGKILL)
    status, out, err = ubt.end()
    assert status == 3, err
    assert "Stopped: Ray was lost: its process `raylet` on this machine has ended" in out
    assert out.rstrip().endswith("--resume")
    assert "Traceback" not in err
    assert {record.state for record in ubt.records} == {State.INTERRUPTED}
    assert (ubt.run / "report" / "index.html").is_file()
    assert still_there(begun) == []
