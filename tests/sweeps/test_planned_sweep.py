"""A sweep and its plan: what it is expected to take is written down when it begins, and known once it has run."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis import load_run
from sweeps.cli.app import app
from sweeps.planning.plan import plan_study
from sweeps.run.calibrate import calibrate_study
from sweeps.run.folder import new_run
from sweeps.run.launch import run_study
from sweeps.study.loading import load_study
from ubt.common.errors import UserError
from ubt.stages import calibration

pytestmark = pytest.mark.slow

GRID = "search={design: grid, space: {defense.token_threshold: [0.05, 0.1]}}"


def test_a_calibrated_plan_is_what_a_sweep_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a factor that no machine's mood reaches; docs/clusters.md has what it was on studies of real size."""
    monkeypatch.setattr(calibration, "_LONG_ENOUGH_SECONDS", 0.1)
    study = load_study("smoke", [f"store={tmp_path}/store", "tracking.enabled=false", GRID])
    assert plan_study(study).seconds_left is None
    (on,) = calibrate_study(study, "inline")
    planned = plan_study(study)
    assert planned.setups == (str(on),)
    assert planned.seconds_left is not None
    end = run_study(study, new_run(tmp_path / "runs", "smoke"), "inline")
    assert end.all_done
    told = load_run(end.run.path).summary.planned
    assert told is not None
    assert told.planned == pytest.approx(planned.seconds_left)
    assert told.factor is not None
    assert 1 / 5 < told.factor < 5
    other = load_study("smoke", [f"store={tmp_path}/store", "seeds=[1]", GRID])
    assert all(stage.measured for stage in plan_study(other).stages), "the store has seen every stage now"


def test_where_to_measure_is_of_no_use_without_measuring(tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["plan", "smoke", "--address", "auto", "--set", f"store={tmp_path}"])
    assert isinstance(ended.exception, UserError)
    assert "--address: says where to measure" in str(ended.exception)
