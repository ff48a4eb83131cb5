from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from toy_runs import begin, study

from sweeps.run.folder import RunFolder, latest_run, new_run, tracking_of
from sweeps.run.resume import check_same_study
from ubt.common.errors import UserError
from ubt.config import read_json
from ubt.trials.record import State, TrialRecord, write_record


def test_runs_of_a_name_are_numbered_from_the_second_on(tmp_path: Path) -> None:
    assert [begin(tmp_path).path.name for _ in range(3)] == ["toy", "toy-2", "toy-3"]
    assert begin(tmp_path, name="other").path.name == "other"


def test_a_new_run_makes_nothing_until_its_study_is_written(tmp_path: Path) -> None:
    assert new_run(tmp_path / "runs", "toy").path == new_run(tmp_path / "runs", "toy").path
    assert not list(tmp_path.iterdir())


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert begin(Path("runs")).path == tmp_path / "runs/toy"
    assert latest_run(Path("runs"), "toy").path == tmp_path / "runs/toy"


def test_a_folder_that_is_no_run_yet_is_taken(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    assert new_run(tmp_path, "toy").path == tmp_path / "toy"


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_a_mistake(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is no folder") as caught:
        new_run(tmp_path / out, "toy").check_writable()
    assert str(tmp_path / "file") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_that_does_not_exist_yet_is_none(tmp_path: Path) -> None:
    new_run(tmp_path / "a/b/c", "toy").check_writable()
    assert not list(tmp_path.iterdir())


def test_the_latest_run_is_resumed(tmp_path: Path) -> None:
    for _ in range(3):
        begin(tmp_path)
    assert latest_run(tmp_path, "toy").path.name == "toy-3"


def test_the_latest_is_the_one_that_was_begun_or_resumed_last(tmp_path: Path) -> None:
    first, second = begin(tmp_path), begin(tmp_path)
    os.utime(second.study, (1, 1))
    assert latest_run(tmp_path, "toy").path == first.path
    shutil.rmtree(first.path)
    assert latest_run(tmp_path, "toy").path == second.path, "the first may be gone"


def test_another_study_s_run_is_not_taken_for_a_second_one(tmp_path: Path) -> None:
    begin(tmp_path)
    begin(tmp_path, study(name="toy-2"), name="toy-2")
    begin(tmp_path, study(name="toy-clean"), name="toy-clean")
    (tmp_path / "toy-3").mkdir()
    (tmp_path / "toy-3" / "study.json").touch()  # a sweep that was killed at once
    assert latest_run(tmp_path, "toy").path.name == "toy"
    assert latest_run(tmp_path, "toy-2").path.name == "toy-2"


class TestTaken:
    def test_two_that_were_promised_one_folder_get_two(self, tmp_path: Path) -> None:
        promised = [new_run(tmp_path, "toy") for _ in range(2)]
        assert promised[0] == promised[1]
        with promised[0].taken() as first, promised[1].taken() as second:
            assert [first.path.name, second.path.name] == ["toy", "toy-2"]

    def test_a_sweep_that_was_killed_at_once_leaves_a_folder_that_the_next_one_takes(self, tmp_path: Path) -> None:
        with new_run(tmp_path, "toy").taken() as killed:
            assert not killed.study.exists(), "an empty one could not be told from a damaged one"
        with new_run(tmp_path, "toy").taken() as next_one:
            assert next_one.path == killed.path

    @pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
    def test_a_disk_that_takes_nothing_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
    ) -> None:
        def refuses(*_: object, **__: object) -> None:
            raise OSError(fault, os.strerror(fault))

        with new_run(tmp_path, "toy").taken() as run:
            monkeypatch.setattr("sweeps.run.folder.write_whole", refuses)
            with pytest.raises(UserError, match=f"cannot be written: .*{os.strerror(fault)}"):
                run.begin(study())
        monkeypatch.setattr(Path, "mkdir", refuses)
        with (
            pytest.raises(UserError, match=f"cannot be written: .*{os.strerror(fault)}"),
            new_run(tmp_path / "runs", "toy").taken(),
        ):
            pass

    def test_a_run_is_not_resumed_while_a_sweep_is_at_work_in_it(self, tmp_path: Path) -> None:
        with new_run(tmp_path, "toy").taken() as run:
            run.write_study(study())
            again = latest_run(tmp_path, "toy")
            with pytest.raises(UserError, match="another sweep is at work"), again.taken():
                pass
        with again.taken() as resumed:
            assert resumed.path == run.path

    def test_a_file_system_without_locks_is_said_and_used(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def lacks(lock: FileLock) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(FileLock, "_acquire", lacks)
        with new_run(tmp_path, "toy").taken() as run:
            assert run.path.is_dir()
        assert "cannot be locked" in caplog.text


class TestDamagedFiles:
    """What a resume reads may be empty, cut off or garbage after a full disk, a loss of power, or bit rot."""

    GARBAGE = [b"", b"{", b"\x00" * 40, b"\xff\xfe", b"[]", b'{"study": "toy"}', b"[" * 100_000]  # noqa: RUF012

    @pytest.fixture
    def run(self, tmp_path: Path) -> RunFolder:
        run = begin(tmp_path)
        for number in range(3):
            write_record(run.records, record(number))
        return run

    @pytest.mark.parametrize("garbage", GARBAGE)
    def test_a_record_is_set_aside_and_said(
        self, run: RunFolder, garbage: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        (run.records / "t1.json").write_bytes(garbage)
        assert [known.trial for known in run.begin(study())] == ["t0", "t2"]
        (aside,) = run.records.glob("t1.json.damaged-*")
        assert aside.read_bytes() == garbage
        assert "t1.json: is no" in caplog.text
        assert f"set aside as {aside.name}, and the trial is run again" in caplog.text
        assert "\n" not in caplog.messages[0]
        assert len(run.begin(study())) == 2, "once is enough"

    def test_a_later_version_s_record_is_left_where_it_is(self, run: RunFolder) -> None:
        (run.records / "t1.json").write_text('{"version": 99}')
        with pytest.raises(UserError, match="no record of version"):
            run.begin(study())
        assert (run.records / "t1.json").exists()

    @pytest.mark.parametrize("garbage", GARBAGE[:5])
    def test_a_study_is_taken_as_it_is_given_now(
        self, run: RunFolder, tmp_path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        run.study.write_bytes(garbage)
        assert latest_run(tmp_path, "toy").path == run.path
        assert check_same_study(run, study(seeds=[3])) == study(seeds=[3])
        assert "study.json is damaged" in caplog.text
        assert len(run.begin(study())) == 3
        assert read_json(run.study)["name"] == "toy"
        (aside,) = run.path.glob("study.json.damaged-*")
        assert aside.read_bytes() == garbage

    def test_a_study_without_trials_is_nothing_to_go_on_with(self, tmp_path: Path) -> None:
        run = begin(tmp_path)
        run.study.write_text("")
        with pytest.raises(UserError, match="there is no run of `toy`"):
            latest_run(tmp_path, "toy")

    def test_whose_second_run_it_is_its_trials_tell(self, run: RunFolder, tmp_path: Path) -> None:
        second = begin(tmp_path)
        write_record(second.records, record(0))
        second.study.write_text("")
        assert latest_run(tmp_path, "toy").path == second.path
        write_record(second.records, record(0).model_copy(update={"study": "toy-2"}))
        assert latest_run(tmp_path, "toy").path == run.path
        assert latest_run(tmp_path, "toy-2").path == second.path


def record(number: int) -> TrialRecord:
    return TrialRecord(study="toy", trial=f"t{number}", number=number, seed=0, config={}, changes={}, state=State.DONE)


def test_without_a_run_there_is_nothing_to_resume(tmp_path: Path) -> None:
    begin(tmp_path, name="other")
    with pytest.raises(UserError, match=r"--resume: there is no run of `toy`"):
        latest_run(tmp_path, "toy")


def test_a_run_says_where_it_is_tracked(tmp_path: Path) -> None:
    run = begin(tmp_path, study(tracking={"uri": "http://host:5000", "experiment": "mine"}))
    assert tracking_of(run.path) == study(tracking={"uri": "http://host:5000", "experiment": "mine"}).tracking


def test_a_folder_that_is_no_run_is_tracked_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no run folder"):
        tracking_of(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_study_that_cannot_be_read_is_a_mistake(tmp_path: Path, text: str) -> None:
    run = RunFolder(tmp_path)
    run.study.write_text(text)
    with pytest.raises(UserError, match=r"study\.json"):
        tracking_of(tmp_path)
    with pytest.raises(UserError, match=r"study\.json"):
        read_json(run.study)


def test_a_run_of_another_version_can_still_be_looked_at(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.study.write_text(json.dumps({**json.loads(run.study.read_text()), "former": 1}))
    assert tracking_of(run.path) == study().tracking
