"""`ubt status`: how a run is, from its folder alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_runs import study

from sweeps.cli import app
from sweeps.detached.status import read_status, status_text
from sweeps.run.folder import RunFolder, new_run
from ubt.trials.labels import TrialLabel
from ubt.trials.record import State, TrialRecord, write_record

SPACE = {"defense.suspicious_ratio": [0.1, 0.2, 0.3]}


def record(number: int, state: State) -> TrialRecord:
    return TrialRecord(study="toy", trial=f"t{number}", number=number, config={}, changes={}, seed=0, state=state)


def toy(out: Path, *states: State) -> RunFolder:
    run = new_run(out, "toy")
    run.write_study(study(search={"design": "grid", "space": SPACE}))
    for number, state in enumerate(states):
        write_record(run.records, record(number, state))
    return run


def test_trials_are_counted(tmp_path: Path) -> None:
    status = read_status(str(toy(tmp_path, State.DONE, State.FAILED, State.RUNNING).path))
    assert (status.study, status.total, status.at_work, status.complete) == ("toy", 3, False, False)
    assert (status.states[State.DONE], status.states[State.FAILED], status.states[State.RUNNING]) == (1, 1, 1)
    assert "2 of 3 trials have ended: 1 done, 1 running, 1 failed" in status.progress
    assert status.running == ("t2 is starting",)


@pytest.mark.parametrize(
    ("states", "complete", "exits"),
    [
        ([State.DONE, State.DONE, State.DONE], True, 0),
        ([State.DONE, State.DONE, State.FAILED], True, 1),
        ([State.DONE, State.DONE, State.INTERRUPTED], False, 3),
        ([State.DONE, State.DONE, State.RUNNING], False, 3),
        ([State.DONE, State.DONE], False, 3),
        ([], False, 3),
    ],
)
def test_who_waited_for_the_end_learns_how_it_ended(
    tmp_path: Path, states: list[State], complete: bool, exits: int
) -> None:
    status = read_status(str(toy(tmp_path, *states).path))
    assert (status.complete, status.status) == (complete, exits)


@pytest.mark.parametrize(("state", "complete"), [(State.DONE, True), (State.INTERRUPTED, False)])
def test_an_earlier_epoch_that_has_become_a_trial_counts_as_one_more(
    tmp_path: Path, state: State, complete: bool
) -> None:
    """Ten of eight trials were done, and a run was whole whose fourth trial had been cut off."""
    run = toy(tmp_path, State.DONE, State.DONE, State.DONE)
    write_record(run.records, record(3, state).model_copy(update={"label": TrialLabel(epoch_of="t0")}))
    status = read_status(str(run.path))
    assert (status.total, status.complete) == (4, complete)


def test_a_sweep_that_is_gone_was_cut_off_in_what_it_ran(tmp_path: Path) -> None:
    text = status_text(read_status(str(toy(tmp_path, State.RUNNING).path)))
    assert "none is at work; `ubt sweep` or `ubt launch` with --resume goes on" in text
    assert "cut off  t0 is starting" in text


def test_one_that_works_is_said_to(tmp_path: Path) -> None:
    run = toy(tmp_path, State.RUNNING)
    with RunFolder(run.path).taken():
        text = status_text(read_status(str(run.path)))
    assert "sweep    at work" in text
    assert "running  t0 is starting" in text


@pytest.mark.parametrize(
    ("seconds", "said"), [(3.0, "last sign of life 3.0 s ago"), (200.0, "may be dead, or cut off")]
)
def test_a_sign_of_life_is_said_with_its_age(tmp_path: Path, seconds: float, said: str) -> None:
    status = read_status(str(toy(tmp_path).path))
    working = status.model_copy(update={"at_work": True, "sweep": "toy on host-1", "silent_seconds": seconds})
    assert f"at work: toy on host-1, {'last' if seconds < 60 else 'but without a sign of life'}" in status_text(working)
    assert said in status_text(working)


def test_a_damaged_record_hides_no_other_one(tmp_path: Path) -> None:
    run = toy(tmp_path, State.DONE)
    (run.records / "t1.json").write_text("{")
    assert read_status(str(run.path)).states[State.DONE] == 1


def test_a_study_that_this_version_cannot_read_is_counted_without_its_total(tmp_path: Path) -> None:
    run = toy(tmp_path, State.DONE)
    tree = json.loads(run.study.read_text())
    run.study.write_text(json.dumps({**tree, "search": {"design": "of a plug-in"}}))
    status = read_status(str(run.path))
    assert (status.total, status.complete) == (None, False)
    assert "1 of ? trials have ended" in status.progress


class TestCommand:
    def ubt(self, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
        monkeypatch.setattr("sys.argv", ["ubt", *words])
        with pytest.raises(SystemExit) as ended:
            app.main()
        return int(ended.value.code or 0)

    def test_a_look_ends_well_whatever_it_shows(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = toy(tmp_path, State.FAILED)
        assert self.ubt(monkeypatch, "status", str(run.path)) == 0
        assert "0 done, 0 running, 1 failed" in capsys.readouterr().out

    def test_a_watch_that_finds_nobody_at_work_ends_as_the_sweep_did(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = toy(tmp_path, State.DONE, State.DONE, State.FAILED)
        assert self.ubt(monkeypatch, "status", str(run.path), "--watch", "--json") == 1
        told = json.loads(capsys.readouterr().out)
        assert (told["run"]["complete"], told["job"]) == (True, None)

    @pytest.mark.parametrize("command", ["status", "logs", "stop"])
    def test_what_is_no_run_is_a_mistake(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
    ) -> None:
        assert self.ubt(monkeypatch, command, str(tmp_path)) == 2
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize("command", ["status", "logs", "stop"])
    def test_a_job_without_a_server_is_a_mistake(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
    ) -> None:
        monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
        assert self.ubt(monkeypatch, command, "ubt-demo-1") == 2
        assert "the cluster's job server is not known" in capsys.readouterr().err

    @pytest.mark.parametrize(("out", "told"), [("runs", "a folder of the cluster's head"), ("s3:/bucket", "one slash")])
    def test_a_place_that_would_be_another_one_on_the_head_is_a_mistake(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: str, told: str
    ) -> None:
        assert self.ubt(monkeypatch, "launch", "smoke", "--address", "http://127.0.0.1:1", "--out", out) == 2
        assert told in capsys.readouterr().err
