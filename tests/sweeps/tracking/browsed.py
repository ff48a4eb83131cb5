"""A study of 30 trials as a sweep leaves it, for tests that look at MLflow with a browser: a tiny trial, varied."""

from __future__ import annotations

import json
from pathlib import Path

from ubt.common.atomic_files import write_whole
from ubt.common.paths import RECORDS_FOLDER, REPORT_FOLDER, STUDY_FILE
from ubt.config import set_path
from ubt.trials.planned import PLAN_FILE, PlannedCosts, PlannedData
from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord, StageRecord, State, TrialRecord, write_record

DONE = 30
RATIO, SAMPLES = "defense.suspicious_ratio", "defense.unlearn_samples"


def lay_out(folder: Path, record: TrialRecord, store: Path) -> None:
    """Write a run folder: trials over two settings, one that failed, one that was stopped, and a report."""
    space = {RATIO: [0.01 * at for at in range(1, 11)], SAMPLES: [8, 16, 24]}
    study = {
        "name": folder.name, "store": str(store), "search": {"design": "grid", "space": space},
        "victim": record.config["victim"], "defense": record.config["defense"], "tracking": {},
    }  # fmt: skip
    write_whole(folder / STUDY_FILE, json.dumps(study))
    data = PlannedData(kind="scenes", key="0123456789abcdef", counts={"train": 200, "val": 48, "test": 48})
    plan = PlannedCosts(seconds={}, wall_seconds=None, workers=1, gpus=0.0, trials=DONE + 2, data=(data,))
    write_whole(folder / PLAN_FILE, plan.model_dump_json())
    for number in range(DONE + 2):
        write_record(folder / RECORDS_FOLDER, _varied(record, number))
    write_whole(
        folder / REPORT_FOLDER / "index.html", "<!doctype html><title>report</title><p>The report of 30 trials."
    )
    write_whole(folder / REPORT_FOLDER / "trials.csv", "trial\n")
    write_whole(folder / REPORT_FOLDER / "summary.json", "{}")


def _varied(record: TrialRecord, number: int) -> TrialRecord:
    changes = {RATIO: round(0.01 * (number % 10 + 1), 2), SAMPLES: 8 * (number // 10 + 1)}
    config = record.config
    for path, value in changes.items():
        config = set_path(config, path, value)
    assert record.val
    asr, ca = 0.9 - 0.029 * number, 0.812 - 0.001 * number
    found = _rates(record.val, asr, ca)
    state, reason, stages = State.DONE, "", record.stages
    if number >= DONE:
        state, reason = [(State.FAILED, "MemoryError: 7 GB were asked for"), (State.PRUNED, "stopped early: behind")][
            number - DONE
        ]
        stages = record.stages[:2]
    stages = tuple(_falling(stage, asr, ca) for stage in stages)
    done, victim = state is State.DONE, _rates(record.val, 0.95, 0.8)
    return record.model_copy(
        update={
            "study": "browsed", "trial": f"t{number:04d}", "number": number, "config": config, "changes": changes,
            "val": found if done else None, "test": found if done else None, "state": state, "reason": reason,
            "stages": stages, "poisoned_val": victim, "poisoned_test": victim,
        }
    )  # fmt: skip


def _falling(stage: StageRecord, asr: float, ca: float) -> StageRecord:
    """Return a stage whose attack success falls evenly from that of the poisoned model."""
    steps, epochs = (0.95 - asr) / max(1, len(stage.epochs)), list[EpochRecord]()
    for epoch in stage.epochs:
        val = epoch.val and _rates(epoch.val, 0.95 - steps * epoch.epoch, ca)
        epochs.append(epoch.model_copy(update={"val": val}))
    return stage.model_copy(update={"epochs": tuple(epochs)})


def _rates(like: Rates, asr: float, ca: float) -> Rates:
    around = {"asr": asr, "asr_low": asr / 2, "asr_high": min(1.0, asr + 0.05)}
    return like.model_copy(update={**around, "ca": ca, "ca_low": ca - 0.02, "ca_high": ca + 0.02})
