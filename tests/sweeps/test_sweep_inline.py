"""Whole sweeps in this process, without Ray: `smoke`, from the study to records, search, MLflow and report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from sweeps.cli import app as cli
from sweeps.run import launch
from sweeps.run.export import export
from sweeps.run.finish import SweepEnd
from sweeps.run.folder import RunFolder, latest_run, new_run
from sweeps.run.launch import run_study
from sweeps.run.progress import Tally
from sweeps.study.loading import load_study
from ubt.defenses.ubt import Ubt
from ubt.models.clip import same_state
from ubt.trials.record import State, TrialRecord, read_records

pytestmark = pytest.mark.slow

QUIET = "tracking.enabled=false"
TRIALS = ["t0000", "t0001", "t0002", "t0003"]
TIMES = {"attempts"} | {
    "seconds",
    "spent_seconds",
    "own_seconds",
    "started_at",
    "commit",
    "peak_memory_bytes",
    "ended_at",
    "computed_by",
}


def run_smoke(folder: Path, *assignments: str, resume: bool = False) -> SweepEnd:
    """Sweep `smoke` with store and runs under `folder`."""
    study = load_study("smoke", [f"store={folder}/store", *assignments])
    run = latest_run(folder / "runs", study.name) if resume else new_run(folder / "runs", study.name)
    return run_study(study, run, "inline")


def timeless(value: Any) -> Any:
    """Return a record without what differs from one time to the next."""
    if isinstance(value, dict):
        return {name: timeless(part) for name, part in value.items() if name not in TIMES}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def contents(run: RunFolder) -> dict[str, Any]:
    return {path.name: timeless(json.loads(path.read_text())) for path in run.records.iterdir()}


def computed(run: RunFolder) -> list[str]:
    """Return the keys of the stages that trials of a run computed."""
    return [stage.key for record in read_records(run.records) for stage in record.stages if not stage.reused]


def results(record: TrialRecord) -> Any:
    """Return what a trial came to, whoever computed its stages."""
    return record.state, record.changes, record.val, record.test, [stage.key for stage in record.stages]


class Interrupter:
    """A view that presses Ctrl-C when some trials have ended."""

    def __init__(self, trials: int) -> None:
        self._left = trials
        self.ended: list[str] = []

    def __enter__(self) -> Interrupter:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def updated(self, record: TrialRecord) -> None:
        if record.state.ended:
            self.ended.append(record.trial)
            self._left -= 1
            if not self._left:
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> SweepEnd:
    """One tracked sweep in a fresh store."""
    return run_smoke(tmp_path_factory.mktemp("swept"))


@pytest.fixture(scope="module")
def folder(swept: SweepEnd) -> Path:
    return swept.run.path.parent.parent


class TestOneSweep:
    def test_is_complete(self, swept: SweepEnd) -> None:
        assert swept.all_done
        assert (swept.complete, swept.interrupted, swept.untracked.runs) == (True, None, 0)

    def test_has_a_whole_record_of_each_trial(self, swept: SweepEnd) -> None:
        records = read_records(swept.run.records)
        assert [record.trial for record in records] == TRIALS
        for record in records:
            assert record.state is State.DONE
            assert None not in (record.val, record.test, record.poisoned_val, record.poisoned_test)
            names = ["pretrain", "poison", "implant", *Ubt().stages, "evaluate"]
            assert [stage.stage for stage in record.stages] == names
            assert all(stage.complete for stage in record.stages)
            assert record.versions["torch"]
            assert record.started_at
            assert record.seconds > 0
        assert records[0].changes == {}

    def test_computed_every_stage_once(self, swept: SweepEnd) -> None:
        keys = computed(swept.run)
        assert len(set(keys)) == len(keys)
        every = [stage for record in read_records(swept.run.records) for stage in record.stages]
        assert set(keys) <= {stage.key for stage in every}
        on_the_way = [stage for stage in every if stage.key not in keys]  # epochs of a trial that ran for more of them
        assert all(stage.stage == "overfit" and stage.computed_by.startswith("smoke/") for stage in on_the_way)

    def test_writes_down_the_study_as_it_was_resolved(self, swept: SweepEnd) -> None:
        written = json.loads(swept.run.study.read_text())
        assert written["search"]["lag"] == 4
        assert written == {**load_study("smoke").as_json(), "store": written["store"], "search": written["search"]}

    def test_told_optuna_what_the_records_say(self, swept: SweepEnd) -> None:
        backend = optuna.storages.journal.JournalFileBackend(str(swept.run.journal))
        storage = optuna.storages.JournalStorage(backend)
        (name,) = optuna.get_all_study_names(storage)
        study = optuna.load_study(study_name=name, storage=storage)
        rates = [record.val for record in read_records(swept.run.records)]
        distinct = {tuple(sorted(trial.params.items())): trial.values for trial in study.trials}
        assert {trial.state for trial in study.trials} == {optuna.trial.TrialState.COMPLETE}
        assert list(distinct.values()) == [[val.asr, val.ca] for val in rates]

    def test_wrote_the_report(self, swept: SweepEnd) -> None:
        summary = json.loads((swept.run.report / "summary.json").read_text())
        assert summary == swept.summary.model_dump(mode="json")
        assert summary["states"]["DONE"] == 4
        assert summary["stages"] == {
            "computed": len(computed(swept.run)),
            "reused": 4 * 10 - len(computed(swept.run)),
        }
        page = (swept.run.report / "index.html").read_text()
        assert all(trial in page for trial in TRIALS)

    def test_can_be_looked_at_in_mlflow(self, swept: SweepEnd, folder: Path) -> None:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
        experiment = client.get_experiment_by_name("ubt")
        runs = client.search_runs([experiment.experiment_id])
        parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        assert [run.info.run_name for run in parents] == ["smoke"]
        children = {run.data.tags["ubt.trial"]: run for run in runs if run not in parents}
        assert sorted(children) == TRIALS
        for record in read_records(swept.run.records):
            run = children[record.trial]
            assert run.info.status == "FINISHED"
            assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
            assert (run.data.metrics["val/asr"], run.data.metrics["test/ca"]) == (record.val.asr, record.test.ca)
            assert run.data.params["defense.overfit_epochs"] == str(record.config["defense"]["overfit_epochs"])
        assert parents[0].info.status == "FINISHED"
        inputs = [given.dataset for given in parents[0].inputs.dataset_inputs]
        assert sorted(data.name for data in inputs) == ["scenes test", "scenes train", "scenes val"]

    def test_left_the_chosen_model_and_images_in_mlflow(self, swept: SweepEnd, folder: Path, tmp_path: Path) -> None:
        """The same weights to the bit as an export writes, of which open_clip made a network on the way."""
        from safetensors.torch import load_file

        (artifacts,) = [path.parent for path in (folder / "runs" / "mlartifacts").glob("*/artifacts/report")]
        (model,) = (folder / "runs" / "mlartifacts").glob("models/*/artifacts")
        export(swept.run.path, tmp_path / "exported.safetensors")
        assert swept.summary.chosen is not None
        assert same_state(load_file(model / "model.safetensors"), load_file(tmp_path / "exported.safetensors"))
        note = json.loads((model / "model.json").read_text())
        assert (note["trial"], note["test"]["asr"]) == (swept.summary.chosen.trial, swept.summary.chosen.test.asr)
        assert {"front.png", "epochs.png"} <= {path.name for path in (artifacts / "figures").iterdir()}

    def test_leaves_no_files_in_the_making(self, folder: Path) -> None:
        assert [path for path in folder.rglob(".*") if path.is_file()] == []


def test_the_same_study_in_a_fresh_store_gives_the_same_records_bit_for_bit(swept: SweepEnd, tmp_path: Path) -> None:
    again = run_smoke(tmp_path, QUIET)
    assert contents(again.run) == contents(swept.run)


def test_a_second_run_in_the_same_store_computes_nothing(swept: SweepEnd, folder: Path) -> None:
    second = run_smoke(folder, QUIET)
    assert second.run.path.name == "smoke-2"
    assert second.all_done
    assert computed(second.run) == []
    assert all(stage.spent_seconds == 0 for record in read_records(second.run.records) for stage in record.stages)
    pairs = zip(read_records(second.run.records), read_records(swept.run.records), strict=True)
    assert [results(mine) == results(theirs) for mine, theirs in pairs] == [True] * 4


def test_two_seeds_and_a_grid_share_what_they_can(folder: Path) -> None:
    grid = "search={design: grid, space: {defense.token_threshold: [0.05, 0.1]}}"
    outcome = run_smoke(folder, QUIET, "name=grid", grid, "seeds=[0, 1]")
    assert outcome.all_done
    assert sorted(contents(outcome.run)) == [f"t000{n}-s{seed}.json" for n in (0, 1) for seed in (0, 1)]
    keys = computed(outcome.run)
    assert len(set(keys)) == len(keys)
    by_seed = {record.seed: {stage.key for stage in record.stages} for record in read_records(outcome.run.records)}
    assert not by_seed[0] & by_seed[1]


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Interrupter]]:
    """Let the next sweep be interrupted after some trials, and those behind it not."""
    real = launch.progress_view

    def arrange(trials: int) -> Interrupter:
        interrupter = Interrupter(trials)

        def view(tally: Tally) -> Any:
            monkeypatch.setattr(launch, "progress_view", real)
            return interrupter

        monkeypatch.setattr(launch, "progress_view", view)
        return interrupter

    yield arrange
    monkeypatch.setattr(launch, "progress_view", real)


def test_an_interrupted_sweep_goes_on_as_if_nothing_had_happened(
    swept: SweepEnd, tmp_path: Path, interrupt: Callable[[int], Interrupter]
) -> None:
    """In a fresh store, so that what is not computed again was computed before the interruption."""
    interrupted = interrupt(2)
    first = run_smoke(tmp_path, QUIET)
    assert (first.status, first.complete, first.all_done) == (130, False, False)
    before = {path.name: path.read_bytes() for path in first.run.records.iterdir()}
    done = {name for name, text in before.items() if json.loads(text)["state"] == "DONE"}
    assert done == {f"{trial}.json" for trial in interrupted.ended}
    assert len(done) == 2

    second = run_smoke(tmp_path, QUIET, resume=True)
    assert second.run == first.run
    assert second.all_done
    assert {name: (second.run.records / name).read_bytes() for name in done} == {name: before[name] for name in done}
    keys = computed(second.run)
    assert len(set(keys)) == len(keys)
    assert contents(second.run) == contents(swept.run)


def test_a_finished_sweep_can_be_resumed_and_nothing_happens(
    folder: Path, swept: SweepEnd, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run_smoke(folder, QUIET, "name=twice")
    before = {path.name: path.read_bytes() for path in outcome.run.records.iterdir()}
    capsys.readouterr()
    again = run_smoke(folder, QUIET, "name=twice", resume=True)
    assert again.all_done
    assert {path.name: path.read_bytes() for path in again.run.records.iterdir()} == before
    assert "t0000" not in capsys.readouterr().err


class TestCommandLine:
    """Exit status and what is printed; the store has every stage of `smoke` already."""

    @pytest.fixture
    def ubt(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> Callable[..., tuple[int, str]]:
        def run(*words: str) -> tuple[int, str]:
            monkeypatch.setattr("sys.argv", ["ubt", *words])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            return int(ended.value.code or 0), capsys.readouterr().out

        return run

    @pytest.fixture
    def words(self, folder: Path, tmp_path: Path) -> list[str]:
        sets = ["--set", f"store={folder}/store", "--set", QUIET]
        return ["sweep", "smoke", "--address", "inline", "--out", str(tmp_path / "my runs"), *sets]

    def test_a_sweep_that_is_done_exits_with_0(self, ubt: Any, words: list[str], tmp_path: Path) -> None:
        status, out = ubt(*words)
        assert status == 0
        assert "smoke: 4 DONE" in out
        assert f"{tmp_path}/my runs/smoke/report/index.html" in out
        assert "resume" not in out

    def test_json_is_one_object_and_nothing_else(self, ubt: Any, words: list[str]) -> None:
        status, out = ubt(*words, "--json")
        assert status == 0
        assert json.loads(out)["states"]["DONE"] == 4

    def test_a_failed_trial_makes_it_1_and_the_others_are_done(self, ubt: Any, words: list[str]) -> None:
        trials = "search={design: list, trials: [{}, {defense.unlearn_learning_rate: 1e30}]}"
        status, out = ubt(*words, "--set", trials)
        assert status == 1
        assert "1 DONE, 1 FAILED" in out

    def test_an_interruption_makes_it_130_and_says_how_to_go_on(
        self, ubt: Any, words: list[str], interrupt: Callable[[int], Interrupter]
    ) -> None:
        import shlex

        interrupt(1)
        status, out = ubt(*words)
        assert status == 130
        assert "Interrupted; what is done is kept" in out
        command, *given = shlex.split(out.splitlines()[-1])
        assert command == "ubt"
        status, out = ubt(*given)
        assert status == 0
        assert "smoke: 4 DONE" in out

    def test_one_pipeline_can_be_run_alone(self, ubt: Any, folder: Path, tmp_path: Path) -> None:
        words = ["run", "smoke", "--out", str(tmp_path), "--set", f"store={folder}/store"]
        status, out = ubt(*words, "--json")
        assert status == 0
        record = TrialRecord.model_validate_json(out)
        assert (record.state, record.trial) == (State.DONE, "t0000")
        assert read_records(tmp_path / "smoke/records") == [record]
        assert ubt(*words, "--set", "defense.unlearn_learning_rate=1e30")[0] == 1

    def test_a_report_can_be_written_anew(self, ubt: Any, words: list[str], tmp_path: Path) -> None:
        ubt(*words)
        page = tmp_path / "my runs/smoke/report/index.html"
        page.unlink()
        assert ubt("report", str(tmp_path / "my runs/smoke")) == (0, f"{page}\n")
        assert page.exists()

    def test_what_was_sent_need_not_be_sent_again(self, ubt: Any, swept: SweepEnd) -> None:
        assert ubt("track", str(swept.run.path)) == (0, f"{swept.run.path}: MLflow has everything\n")

    def test_the_plan_knows_what_the_store_has(self, ubt: Any, folder: Path) -> None:
        status, out = ubt("plan", "smoke", "--set", f"store={folder}/store", "--json")
        assert status == 0
        counts = {stage["stage"]: (stage["unique"], stage["stored"]) for stage in json.loads(out)["stages"]}
        assert {counts[shared] for shared in ("pretrain", "poison", "implant", "detect_clean", "suspect")} == {(1, 1)}
        assert counts["evaluate"][1] >= 1, "that of the base: what a search will choose, a plan does not know"
