"""A whole sweep in this process with its run folder on S3 (moto): interrupted, gone on with elsewhere, read by all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from s3_server import s3_server

from analysis import load_run, write_figures, write_report
from sweeps import export
from sweeps.cli import app
from sweeps.detached.status import read_status
from sweeps.run import launch
from sweeps.run.finish import SweepEnd
from sweeps.run.launch import sweep
from sweeps.run.track import track
from sweeps.study.loading import load_study
from ubt.artifacts.remote_folder import RemoteFolder
from ubt.artifacts.upkeep.housekeeping import keys_of_runs
from ubt.common.errors import UserError
from ubt.trials.record import State, TrialRecord

pytestmark = pytest.mark.slow

OUT = "s3://bucket/runs"
RUN = f"{OUT}/smoke"
TRIALS = [f"t000{number}" for number in range(4)]


class Interrupter:
    """A view that presses Ctrl-C when two trials have ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def __enter__(self) -> Interrupter:
        return self

    def __exit__(self, *error: object) -> None: ...

    def updated(self, record: TrialRecord) -> None:
        if record.state.ended:
            self.ended.append(record.trial)
            if len(self.ended) == 2:
                raise KeyboardInterrupt

    def answered(self, record: TrialRecord) -> None: ...


@dataclass
class Swept:
    """What was found after the interruption, and how it ended on the second machine."""

    client: Any
    after: dict[str, Any]
    interrupted: SweepEnd
    ended: SweepEnd


def keys(client: Any, prefix: str) -> set[str]:
    found = client.list_objects_v2(Bucket="bucket", Prefix=f"runs/smoke/{prefix}").get("Contents", [])
    return {one["Key"].removeprefix("runs/smoke/") for one in found}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    folder = tmp_path_factory.mktemp("s3")
    study = load_study("smoke", [f"store={folder / 'store'}", "tracking.enabled=false"])
    with s3_server("bucket") as client, pytest.MonkeyPatch.context() as machine:
        machine.setenv("UBT_CACHE", str(folder / "one"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch, "progress_view", lambda tally: Interrupter())
            interrupted = sweep(study, OUT, "inline")
        after = {"status": read_status(RUN), "keys": keys(client, "")}
        machine.setenv("UBT_CACHE", str(folder / "two"))
        ended = sweep(study, OUT, "inline", resume="auto")
        machine.setenv("UBT_CACHE", str(folder / "three"))
        yield Swept(client, after, interrupted, ended)


def test_what_was_done_is_there_after_an_interruption(swept: Swept) -> None:
    status = swept.after["status"]
    assert (status.at_work, status.complete, status.states[State.DONE]) == (False, False, 2)
    assert {"study.json", "records/t0000.json", "report/summary.json"} <= swept.after["keys"]
    assert not [key for key in swept.after["keys"] if key.startswith(("ray", "optuna.journal", "sweep.lock", "."))]
    assert swept.interrupted.run.shown == RUN


def test_another_machine_goes_on_without_doing_anything_again(swept: Swept) -> None:
    assert swept.ended.all_done
    assert swept.ended.run.shown == RUN
    assert swept.ended.run.path != swept.interrupted.run.path
    records = load_run(RUN).records
    assert [record.trial for record in records] == TRIALS
    computed = [stage.key for record in records for stage in record.stages if not stage.reused]
    assert len(computed) == len(set(computed))


def test_optuna_s_storage_is_rebuilt_from_the_records(swept: Swept) -> None:
    assert len({json.dumps(record.config, sort_keys=True) for record in load_run(RUN).records}) == len(TRIALS)
    assert swept.ended.run.journal.exists()


def test_a_third_machine_reads_all_of_it(swept: Swept, tmp_path: Path) -> None:
    status = read_status(RUN)
    assert (status.complete, status.status, status.total) == (True, 0, 4)
    report = write_report(RUN)
    assert report.summary == swept.ended.summary
    body = swept.client.get_object(Bucket="bucket", Key="runs/smoke/report/index.html")["Body"].read()
    assert body == report.page.read_bytes()
    assert any(written.files for written in write_figures(RUN))
    assert any(key.endswith(".pdf") for key in keys(swept.client, "figures/"))
    assert export(RUN, tmp_path / "model.safetensors", "t0000").origin.trial == "t0000"
    assert len(keys_of_runs([RUN])) > len(TRIALS)


def test_it_can_be_sent_to_mlflow_from_there(swept: Swept, tmp_path: Path) -> None:
    said: list[str] = []
    left = track(RUN, said.append, uri=f"sqlite:///{tmp_path}/mlflow.db")
    assert (left.runs, left.refused) == (0, 0)
    assert said[0].startswith(f"{RUN}: to MLflow at sqlite:///{tmp_path}/mlflow.db")
    assert {"tracked/identity", "tracked/confirmed.jsonl"} <= keys(swept.client, "tracked/")


def test_a_second_sweep_of_the_name_has_a_number(swept: Swept) -> None:
    assert launch.new_run(OUT, "smoke").shown == f"{RUN}-2"


def test_a_bucket_that_is_not_there_is_a_mistake_before_anything_is_computed(
    swept: Swept, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ubt", "sweep", "smoke", "--address", "inline", "--out", "s3://no-bucket/runs"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert "s3://no-bucket/runs/smoke: cannot be" in told
    assert "Traceback" not in told


def test_a_run_that_is_not_there_is_a_mistake(swept: Swept) -> None:
    with pytest.raises(UserError, match="s3://bucket/runs/none: is no run folder"):
        load_run(f"{OUT}/none")
    with pytest.raises(UserError, match="s3://bucket/runs/none: is no run folder"):
        read_status(f"{OUT}/none")


def test_what_s3_says_of_leases_is_that_one_sweep_works_there(swept: Swept) -> None:
    """Through moto's own conditions, not through leases in memory."""
    from sweeps.run.places import Hold, sweep_at_work

    hold = Hold(RemoteFolder(RUN))
    try:
        assert hold.is_ours()
        assert sweep_at_work(RUN) is not None
        with pytest.raises(UserError, match="another sweep is at work"):
            Hold(RemoteFolder(RUN), patient=False)
    finally:
        hold.release()
    assert sweep_at_work(RUN) is None
