"""How a sweep ends that is not let come to its end, with real signals; on Ray see `test_sweep_ray`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial
from test_texts import outcome
from toy_runs import begin, study
from toy_session import toy_session
from typer.testing import CliRunner

import analysis
from sweeps.backends.order import Interruption
from sweeps.backends.trainable import RECORD, WAITS
from sweeps.cli import app as cli
from sweeps.cli.ends import command_end
from sweeps.run import finish, launch
from sweeps.run.finish import SweepEnd
from sweeps.run.folder import RunFolder, has_run
from sweeps.run.launch import sweep
from sweeps.tracking import Left
from ubt.common.ending import GRACE_SECONDS, Ending, current
from ubt.common.errors import Problem, UserError
from ubt.common.exits import Cause, Ended, Exit
from ubt.trials.record import Attempt, State, read_records

PATIENCE_SECONDS = 240
SIGTERM = Cause.of_signal(signal.SIGTERM)
ATTEMPT = (Attempt(),)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ({}, 0),
        ({"all_done": False}, 1),
        ({"report_fault": "no width"}, 1),
        ({"complete": False, "all_done": False, "stopped": "the disk is full"}, 3),
        ({"complete": False, "all_done": False, "interrupted": SIGTERM}, 143),
        ({"interrupted": SIGTERM}, 143),
    ],
)
def test_each_end_has_its_status(end: dict[str, Any], status: int) -> None:
    assert outcome(**end).status == status


def test_what_ran_is_interrupted_in_its_record_and_goes_on_in_a_resume(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}, {"defense.suspicious_ratio": 0.2}])
    (first,) = toy.start_all()
    toy.session.updated(toy.running(first, "pretrain").model_copy(update={"started_at": "then", "attempts": ATTEMPT}))
    toy.session.interrupt(SIGTERM.text)
    (record,) = known = read_records(toy.records)
    assert (record.state, record.reason) == (State.INTERRUPTED, "interrupted by SIGTERM")
    again = toy_session(tmp_path, [{}, {"defense.suspicious_ratio": 0.2}], known=known)
    (first,) = again.start_all()
    assert first.trial == record.trial
    again.session.updated(again.running(first, "poison").model_copy(update={"started_at": "now", "attempts": ATTEMPT}))
    attempts = next(one for one in read_records(again.records) if one.trial == record.trial).attempts
    assert [attempt.ended_by for attempt in attempts] == ["interrupted by SIGTERM", ""]


class ToldTracker:
    def __init__(self, takes_seconds: float = 0.0) -> None:
        self.ends: list[bool] = []
        self.given: list[float] = []
        self._takes = takes_seconds

    def finished(self, complete: bool) -> None:
        self.ends.append(complete)

    def close(self, timeout_seconds: float) -> Left:
        self.given.append(timeout_seconds)
        time.sleep(self._takes if timeout_seconds else 0)
        return Left(3, "no time")


@pytest.fixture
def short() -> Any:
    with Ending() as ending:
        ending.grace_seconds = finish.LAST_SECONDS
        with ending.closing():
            yield ending


def test_a_report_that_there_is_no_time_for_is_left_out_and_mlflow_told(
    short: Ending, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, tracker = begin(tmp_path), ToldTracker()
    run.records.mkdir()
    (run.records / "t0000.json").write_text("{")

    def slow(folder: Path) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE_SECONDS)

    monkeypatch.setattr(analysis, "write_report", slow)
    assert finish.report(run, tracker, complete=False).fault == "no time was left"  # type: ignore[arg-type]
    assert tracker.ends == [False]


def test_mlflow_is_waited_for_as_long_as_there_is_time(short: Ending) -> None:
    tracker = ToldTracker(takes_seconds=PATIENCE_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    assert finish.close(tracker, 60.0) == Left(3, "no time")  # type: ignore[arg-type]
    assert tracker.given[-1] == 0


class TestResumeAuto:
    @pytest.fixture
    def run_of(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunFolder]:
        """Return the run folder that a sweep would use."""
        monkeypatch.setattr(launch, "run_study", lambda study, run, address, begun: run)
        return sweep  # type: ignore[return-value]

    def test_begins_where_there_is_nothing_to_go_on_with(
        self, run_of: Callable[..., RunFolder], tmp_path: Path
    ) -> None:
        run = run_of(study(), tmp_path, resume="auto")
        assert (run.path, run.new) == (tmp_path / "toy", "toy")

    def test_goes_on_where_there_is(self, run_of: Callable[..., RunFolder], tmp_path: Path) -> None:
        begun = begin(tmp_path)
        assert (
            run_of(study(), tmp_path, resume="auto") == run_of(study(), tmp_path, resume=True) == RunFolder(begun.path)
        )

    def test_a_sweep_that_was_killed_at_its_very_start_is_nothing_to_go_on_with(self, tmp_path: Path) -> None:
        begin(tmp_path).study.write_text("")
        assert not has_run(tmp_path, "toy")

    @pytest.mark.parametrize(("word", "resume"), [("--resume", True), ("--resume=auto", "auto"), ("--json", False)])
    def test_is_an_option(self, word: str, resume: object, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: dict[str, Any] = {}

        def noted(*given: object, **options: Any) -> SweepEnd:
            asked.update(options)
            return outcome()

        monkeypatch.setattr(launch, "sweep", noted)
        result = CliRunner().invoke(cli.app, ["sweep", "smoke", word, "--grace", "30"])
        assert result.exit_code == 0, result.output
        assert (asked["resume"], asked["grace_seconds"]) == (resume, 30)


def trial(name: str, status: str = Trial.RUNNING) -> Any:
    return SimpleNamespace(trial_id=name, status=status)


class TestTimeForRunningStages:
    @pytest.fixture
    def ending(self) -> Any:
        with Ending() as ending, ending.patient(0):
            yield ending

    def test_without_it_the_sweep_ends_at_the_next_step(self, ending: Ending, tmp_path: Path) -> None:
        session = toy_session(tmp_path, [{}]).session
        with pytest.raises(Ended):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Ended):
            Interruption(ending, session).on_step_begin(1, [trial("a")])

    def test_with_it_every_trial_that_runs_comes_to_the_end_of_its_stage(self, ending: Ending, tmp_path: Path) -> None:
        ending.grace_seconds = GRACE_SECONDS + PATIENCE_SECONDS
        session = toy_session(tmp_path, [{}]).session
        trials = [trial("a"), trial("b"), trial("waits", Trial.PENDING)]
        interruption = Interruption(ending, session)
        interruption.on_step_begin(1, trials)
        os.kill(os.getpid(), signal.SIGTERM)
        interruption.on_step_begin(2, trials)
        assert session.next_assignment() is None, "nothing more is started"
        interruption.on_trial_complete(2, trials, trials[1])
        for no_end_of_a_stage in ({WAITS: "for a store"}, {RECORD: json.dumps({"stages": []})}):
            interruption.on_trial_result(3, trials, trials[0], no_end_of_a_stage)
            interruption.on_step_begin(3, trials)
        interruption.on_trial_result(4, trials, trials[0], {RECORD: json.dumps({"stages": [{"stage": "poison"}]})})
        with pytest.raises(Ended):
            interruption.on_step_begin(4, trials)


INLINE = ["-c", "from sweeps.cli.start import main; main()", "sweep", "smoke", "--address", "inline", "--resume=auto"]


@pytest.mark.slow
def test_a_sweep_in_this_process_ends_by_a_signal_and_goes_on_with_the_command_that_it_says(tmp_path: Path) -> None:
    words = [*INLINE, "--out", str(tmp_path / "runs"), "--set", f"store={tmp_path}/store", "--grace", "30"]
    run = RunFolder(tmp_path / "runs" / "smoke")

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, *words], stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    first = start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not list(run.records.glob("*.json")):
        assert first.poll() is None, first.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=PATIENCE_SECONDS)
    assert first.returncode == Exit.TERMINATED, err
    assert out.rstrip().endswith("--resume")
    assert "Traceback" not in err
    assert State.RUNNING not in {record.state for record in read_records(run.records)}
    assert (run.report / "index.html").is_file()
    assert [path for path in run.path.rglob(".*") if path.is_file()] == []

    second = start()
    out, err = second.communicate(timeout=PATIENCE_SECONDS)
    assert second.returncode == 0, err
    assert json.loads((run.report / "summary.json").read_text())["states"]["DONE"] == 4


STARTING = """
import builtins, os, signal, sys
imported = builtins.__import__
def interrupted(name, *rest):
    if name == "typer":
        os.kill(os.getpid(), signal.SIGTERM)
    return imported(name, *rest)
builtins.__import__ = interrupted
from sweeps.cli.start import main
main()
"""


def test_a_signal_while_the_command_is_being_imported_ends_it_in_order() -> None:
    words = [sys.executable, "-c", STARTING, "sweep", "smoke"]
    ended = subprocess.run(words, check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (ended.returncode, ended.stderr) == (143, "Interrupted by SIGTERM. Start again with:\n  ubt sweep smoke\n")


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_mistake_met_in_the_middle_says_how_the_sweep_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_begun: bool
) -> None:
    def no_node_is_left(*given: object, begun: Callable[[RunFolder], None], **options: object) -> None:
        if has_begun:
            begun(RunFolder(tmp_path))
        raise UserError(Problem("node host-3", "has other content"))

    monkeypatch.setattr(launch, "sweep", no_node_is_left)
    result = CliRunner().invoke(cli.app, ["sweep", "smoke"])
    if has_begun:
        assert result.exit_code == Exit.MISTAKE
        assert "node host-3: has other content" in result.output
        assert result.output.rstrip().endswith("--resume")
    else:
        assert isinstance(result.exception, UserError)


def test_a_cleaning_that_a_fault_stops_says_so_and_how_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: object) -> None:
        raise Ended(Cause("the disk is full", Exit.FAULT))

    monkeypatch.setattr("sweeps.cleaning.checkpoint.clean_checkpoint", stopped)
    words = ["clean", "--model", "RN50", "--checkpoint", "m.pt", "--pairs", "p.csv", "--out", "clean"]
    with command_end():
        current().last_words = ". Start again with: ubt clean …"
        result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == Exit.FAULT
    assert result.output == "The disk is full. Start again with: ubt clean …\n"


def test_a_sweep_that_ends_by_a_mistake_leaves_no_record_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_node_is_left(session: object) -> None:
        raise UserError(Problem("node host-3", "has other content"))

    toy = toy_session(tmp_path, [{}])
    (assignment,) = toy.start_all()
    toy.session.updated(toy.running(assignment))
    monkeypatch.setattr(launch, "run_inline", no_node_is_left)
    with pytest.raises(UserError):
        launch._execute(toy.session, study(), "inline", 1, RunFolder(tmp_path), None)
    (record,) = read_records(toy.records)
    assert (record.state, record.reason) == (State.INTERRUPTED, "the sweep ended: node host-3: has other content")


SWALLOWED = """
import os, signal, time
from sweeps.cli.ends import command_end
class Closes:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
class Breaks:
    def __del__(self):
        raise ValueError("a bug")
with command_end():
    Breaks()
    Closes()
    time.sleep(600)
"""


def test_what_a_destructor_swallows_ends_a_command_all_the_same_and_without_a_traceback() -> None:
    words = [sys.executable, "-u", "-c", SWALLOWED]
    ended = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 143
    assert "ValueError: a bug" in ended.stderr
    assert "Ended" not in ended.stderr


LEAVING = """
import atexit, os, signal, sys, threading, time
from sweeps.cli.ends import left_in_time
if "hangs" in sys.argv:
    threading.Thread(target=time.sleep, args=(600,)).start()
    atexit.register(time.sleep, 600)
atexit.register(print, "tidied up")
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
with left_in_time(0.5 if "hangs" in sys.argv else 600):
    print("all is said")
    if "ends" not in sys.argv:
        sys.exit({"status": 3, "words": "what is wrong"}[sys.argv[1]])
"""


@pytest.mark.parametrize("hangs", [(), ("hangs",)])
@pytest.mark.parametrize(
    ("how", "status", "said"), [("ends", 0, ""), ("status", 3, ""), ("words", 1, "what is wrong\n")]
)
def test_a_command_leaves_with_its_status_also_where_python_would_wait_for_ever(
    how: str, status: int, said: str, hangs: tuple[str, ...]
) -> None:
    words = [sys.executable, "-c", LEAVING, how, *hangs]
    ended = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (status, said)
    assert ended.stdout == "all is said\ntidied up\n"
