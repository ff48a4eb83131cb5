from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_session import rates

from analysis import Summary
from analysis.summary import Chosen, Point, Seconds, Splits, StageCounts
from sweeps.cli.output import outcome_text, record_text
from sweeps.run.finish import SweepEnd
from sweeps.run.folder import RunFolder
from sweeps.run.places import RemoteRun
from sweeps.tracking import Left
from ubt.common.exits import Cause
from ubt.trials.record import State, TrialRecord

SIGTERM = Cause.of_signal(15)
POISONED, DEFENDED = Point(asr=0.93, ca=0.81), Point(asr=0.021, ca=0.8)
CHOSEN = Chosen(trial="t0007", config={"defense.overfit_epochs": 3}, val=DEFENDED, test=DEFENDED, epoch=8)


def summary(**fields: Any) -> Summary:
    described = {
        "name": "toy",
        "states": {State.DONE: 23, State.FAILED: 1, State.PRUNED: 0},
        "poisoned": Splits(val=POISONED, test=POISONED),
        "chosen": CHOSEN,
        "front": ("t0007",),
        "hypervolume": 0.7,
        "gates": {},
        "stages": StageCounts(computed=60, reused=180),
        "seconds": Seconds(wall=754, computed=1400, saved=3725),
    }
    return Summary.model_validate({**described, **fields})


def outcome(told: Summary | None = None, **fields: Any) -> SweepEnd:
    described: dict[str, Any] = {
        "run": RunFolder(Path("/runs/toy")),
        "interrupted": None,
        "complete": True,
        "all_done": True,
        "stopped": "",
        "untracked": Left(),
    }
    return SweepEnd(summary=told, **{**described, **fields})


def test_the_end_of_a_sweep_says_what_came_out_and_where_it_lies() -> None:
    assert outcome_text(outcome(summary()), "ubt sweep toy --resume").strip().splitlines() == [
        "toy: 23 DONE, 1 FAILED in 12 min 34 s; stages: 60 computed, 180 reused (1 h 02 min saved)",
        "  poisoned model        test ASR 0.930  CA 0.810",
        "  chosen: t0007         test ASR 0.021  CA 0.800",
        "    overfit_epochs=3",
        "",
        "Report:  /runs/toy/report/index.html",
        "MLflow:  ubt ui /runs/toy",
    ]


def test_commands_can_be_typed_as_they_are() -> None:
    text = outcome_text(outcome(run=RunFolder(Path("/runs/my toy")), report_fault="disk full"), "")
    assert "MLflow:  ubt ui '/runs/my toy'" in text
    assert "`ubt report '/runs/my toy'`" in text


def test_a_run_at_an_address_is_named_by_that() -> None:
    text = outcome_text(outcome(summary(), run=RemoteRun.at("s3://ann:s3cret@bucket/runs/toy")), "")
    assert "Report:  s3://bucket/runs/toy/report/index.html" in text
    assert "MLflow:  ubt ui s3://bucket/runs/toy" in text
    assert "s3cret" not in text


def test_a_report_that_could_not_be_written_is_told_with_what_writes_it() -> None:
    for told in (summary(), None):
        text = outcome_text(outcome(told, report_fault="OSError: disk full"), "")
        assert "Report:  could not be written (OSError: disk full); `ubt report /runs/toy` writes it again" in text
        assert "index.html" not in text


def test_where_none_is_chosen_it_says_why() -> None:
    text = outcome_text(outcome(summary(chosen=None)), "")
    assert "objectives.ca_floor: none is chosen" in text


def test_what_was_not_measured_is_said_to_be_so() -> None:
    text = outcome_text(outcome(summary(poisoned=Splits(val=None, test=None), chosen=None)), "")
    assert "poisoned model        not measured" in text


@pytest.mark.parametrize(("interrupted", "why"), [(SIGTERM, "Interrupted"), (None, "Not all trials have run")])
def test_an_unfinished_sweep_says_how_to_go_on(interrupted: Cause | None, why: str) -> None:
    text = outcome_text(outcome(summary(), interrupted=interrupted, complete=False), "ubt sweep toy --resume")
    assert text.endswith(f"{why}; what is done is kept. Go on with:\n  ubt sweep toy --resume")


def test_a_budget_is_told_and_what_is_left_for_it() -> None:
    told = {"budget": "3.00 of 3 hours (reached)", "over_budget": True}
    lines = outcome_text(outcome(summary(), **told), "ubt sweep toy --resume").splitlines()
    assert lines[-3:] == [
        "Budget:  3.00 of 3 hours (reached)",
        "Trials are left; with more in search.budget they are run by",
        "  ubt sweep toy --resume",
    ]
    assert "Budget:  2 of 9 trials" in outcome_text(outcome(summary(), budget="2 of 9 trials"), "")


def test_what_mlflow_lacks_comes_with_the_reason_and_the_command_that_sends_it() -> None:
    left = Left(runs=7, reason="401 for url", advice="log in", refused=1)
    lines = outcome_text(outcome(summary(), untracked=left), "").splitlines()
    assert [line.strip() for line in lines[-4:]] == [
        "7 of MLflow's runs are not complete: 401 for url",
        "what to do: log in",
        "`ubt track /runs/toy` sends the rest; the run folder has everything",
        "1 of MLflow's runs cannot be brought up to date: MLflow refuses what they would show",
    ]


def test_without_any_record_there_is_no_report_to_point_at() -> None:
    text = outcome_text(outcome(None, interrupted=SIGTERM, complete=False), "ubt sweep toy --resume")
    assert text.startswith("No trial has run.")
    assert "Report:" not in text
    assert "ubt sweep toy --resume" in text


def test_a_trial_is_told_with_its_intervals_and_its_reason() -> None:
    described = {"study": "toy", "trial": "t0000", "number": 0, "seed": 0, "config": {}, "changes": {}, "seconds": 61}
    failed = TrialRecord.model_validate({**described, "state": "FAILED", "reason": "loss is NaN"})
    assert record_text(failed) == "toy t0000: FAILED in 1 min 01 s\n  loss is NaN"
    done = TrialRecord.model_validate(
        {**described, "state": "DONE", "poisoned_val": rates(0.9, 0.8), "test": rates(0.05, 0.79)}
    )
    assert record_text(done).splitlines() == [
        "toy t0000: DONE in 1 min 01 s",
        "  poisoned, val   ASR 0.900 [0.000, 1.000]  CA 0.800 [0.000, 1.000]",
        "  defended, test  ASR 0.050 [0.000, 1.000]  CA 0.790 [0.000, 1.000]",
    ]
