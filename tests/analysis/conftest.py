"""Synthetic trial records and run folders: what `analysis` reads, without running anything."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from analysis.records import RunRecords, read_run
from ubt.common.statistics import wilson_interval
from ubt.config import set_path
from ubt.trials.labels import label_of_text
from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord, StageRecord, State, TrialRecord, write_record

BASE = {
    "victim": {"attack": {"kind": "badnets", "target": 3}},
    "defense": {"kind": "ubt", "suspicious_ratio": 0.01, "unlearn_samples": 64, "token_threshold": 0.1},
}
SPACE = ("defense.suspicious_ratio", "defense.unlearn_samples")


def build_rates(asr: float | None, ca: float, images: int = 1000) -> Rates:
    ca_low, ca_high = wilson_interval(round(ca * images), images)
    clean = {"ca": ca, "ca_images": images, "ca_low": ca_low, "ca_high": ca_high}
    if asr is None:
        return Rates.model_validate(clean)
    asr_low, asr_high = wilson_interval(round(asr * images), images)
    attacked = {"asr": asr, "asr_images": images, "asr_low": asr_low, "asr_high": asr_high}
    return Rates.model_validate({**clean, **attacked, "triggered_accuracy": ca / 2})


def build_stages(unlearned: Rates) -> tuple[StageRecord, ...]:
    epochs = (
        EpochRecord(epoch=1, seconds=2, val=build_rates(None if unlearned.asr is None else 0.5, 0.7)),
        EpochRecord(epoch=2, seconds=2, val=unlearned),
    )
    return (
        StageRecord(stage="suspect", key="s", reused=True, seconds=10, diagnostics={"recall": 0.5}),
        StageRecord(
            stage="unlearn", key="u", reused=False, seconds=4, spent_seconds=4, diagnostics={"loss": 0.1}, epochs=epochs
        ),
    )


def _higher(rate: float | None) -> float | None:
    return None if rate is None else min(1.0, round(rate + 0.01, 9))


def build_trial(number: int = 0, *, asr: float | None = 0.1, ca: float = 0.8, **fields: object) -> TrialRecord:
    """Return a record; `asr` and `ca` are those of validation, on test both are 0.01 higher.

    With an `asr` of None no attack is known.
    """
    attacked = asr is not None
    state = State(str(fields.pop("state", State.DONE)))
    changes = fields.pop("changes", {})
    label = label_of_text(str(fields.pop("label", "")))
    config = BASE
    for path, value in changes.items():
        config = set_path(config, path, value)
    done = state is State.DONE
    measured = {"val": build_rates(asr, ca), "test": build_rates(_higher(asr), _higher(ca))} if done else {}
    defaults = {
        "study": "toy",
        "trial": f"trial-{number}",
        "number": number,
        "seed": 0,
        "config": config,
        "changes": changes,
        "label": label,
        "state": state,
        "reason": "" if done else "it went wrong",
        "stages": build_stages(measured["val"]) if done else (),
        "poisoned_val": build_rates(0.9 if attacked else None, 0.82),
        "poisoned_test": build_rates(0.89 if attacked else None, 0.83),
        "started_at": f"2026-01-01T00:00:{number % 60:02d}+00:00",
        "seconds": 20.0,
        "versions": {"torch": "2.15.0"},
    }
    return TrialRecord.model_validate(defaults | measured | fields)


def build_study(space: Iterable[str] = SPACE, ca_floor: float = 0.02) -> dict:
    return {
        "name": "toy",
        "objectives": {"ca_floor": ca_floor},
        "search": {"space": {path: [1, 2] for path in space}},
        **BASE,
    }


def write_run(folder: Path, records: Iterable[TrialRecord], study: dict | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(study or build_study()))
    (folder / "records").mkdir(exist_ok=True)
    for record in records:
        write_record(folder / "records", record)
    return folder


@pytest.fixture(scope="session")
def trial():
    """The builder of trial records."""
    return build_trial


@pytest.fixture(scope="session")
def rates():
    """The builder of rates."""
    return build_rates


@pytest.fixture(scope="session")
def run_of():
    """The builder of a run in memory."""

    def build(*records: TrialRecord, space: Iterable[str] = SPACE, ca_floor: float = 0.02) -> RunRecords:
        return RunRecords(Path("nowhere"), "toy", ca_floor, tuple(space), tuple(records))

    return build


@pytest.fixture
def run_folder(tmp_path):
    """The builder of a run folder on disk."""

    def build(*records: TrialRecord, study: dict | None = None) -> Path:
        return write_run(tmp_path / "run", records, study)

    return build


@pytest.fixture
def loaded(run_folder):
    """The builder of a run that went through the disk."""
    return lambda *records, study=None: read_run(run_folder(*records, study=study))


@pytest.fixture
def run_in(tmp_path, trial):
    """Writes a run of trials with the given (ASR, CA), each a configuration of its own under one seed."""

    def build(name, *rates, records=(), ca_floor=0.02, **fields):
        made = [
            trial(n, asr=asr, ca=ca, changes={"defense.unlearn_samples": 32 + n} if n else {}, **fields)
            for n, (asr, ca) in enumerate(rates)
        ]
        return write_run(
            tmp_path / name, [*made, *records], {**build_study(["defense.unlearn_samples"], ca_floor), "name": "toy"}
        )

    return build
