"""A report that cannot be written costs neither the sweep nor its end in MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_runs import begin

import analysis
from sweeps.run.finish import close, report
from sweeps.tracking import Left


class ToldTracker:
    """Keeps what it is told of the end."""

    def __init__(self) -> None:
        self.ends: list[tuple[object, ...]] = []

    def finished(self, *end: object) -> None:
        self.ends.append(end)


def test_a_report_that_cannot_be_written_is_told_and_the_sweep_ends_in_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(folder: Path) -> None:
        raise ZeroDivisionError("no width")

    run, tracker = begin(tmp_path), ToldTracker()
    run.records.mkdir()
    (run.records / "t0000.json").write_text("{")  # nor can it be summed up
    monkeypatch.setattr(analysis, "write_report", fail)
    reported = report(run, tracker, complete=True)  # type: ignore[arg-type]
    assert reported.fault == "ZeroDivisionError: no width"
    assert reported.summary is None
    assert tracker.ends == [(True,)]
    assert "ubt report" in caplog.text
    assert "Traceback" not in caplog.text


def test_nothing_after_the_last_trial_ends_the_sweep(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ToldTracker):
        def finished(self, *end: object) -> None:
            raise RuntimeError("MLflow fell over")

        def close(self, timeout_seconds: float) -> Left:
            raise RuntimeError("it fell over again")

    run = begin(tmp_path)
    run.records.mkdir()
    (run.records / "t0000.json").write_text("{")
    assert report(run, Broken(), complete=True).summary is None  # type: ignore[arg-type]
    assert "MLflow cannot be told of the end: RuntimeError: MLflow fell over" in caplog.text
    left = close(Broken(), 1.0)  # type: ignore[arg-type]
    assert (left.runs, left.reason) == (1, "RuntimeError: it fell over again")


def test_without_records_there_is_nothing_to_report(tmp_path: Path) -> None:
    tracker = ToldTracker()
    assert report(begin(tmp_path), tracker, complete=False).fault == ""  # type: ignore[arg-type]
    assert tracker.ends == []
