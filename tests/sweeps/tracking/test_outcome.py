"""What trials come to together, as MLflow shows it: by findings that the report has, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import Run, load_run
from analysis.findings import validation_points
from analysis.points.configurations import configurations
from analysis.points.geometry import hypervolume
from analysis.records import RunRecords
from sweeps.tracking.outcome import RunOutcome, outcome_of
from sweeps.tracking.payload import Standing
from ubt.common.paths import RECORDS_FOLDER, STUDY_FILE
from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord, StageRecord, State, TrialRecord, write_record

Measured = Callable[..., TrialRecord]


@pytest.fixture
def measured(make_record: MakeRecord, rates: Callable[[float, float], Rates]) -> Measured:
    """Return a function that makes the record of a trial with rates, of a configuration and a seed."""

    def make(number: int, configuration: int, seed: int, asr: float, ca: float, **changed: object) -> TrialRecord:
        found = rates(ca, asr)
        own = {"victim": {"attack": {"kind": "badnets"}}, "defense": {"kind": "ubt", "suspicious_ratio": configuration}}
        minute = f"2026-01-02T03:{number % 60:02d}:00+00:00"
        return make_record(
            number, seed=seed, config=own, changes={"defense.suspicious_ratio": configuration}, state=State.DONE,
            val=found, test=found, started_at=minute, trial=f"t{configuration:04d}-s{seed}", **changed,
        )  # fmt: skip

    return make


def run_of(folder: Path, *records: TrialRecord, **study: object) -> RunOutcome:
    (folder / STUDY_FILE).write_text(json.dumps({"name": "toy", "search": {"design": "grid"}, **study}))
    for record in records:
        write_record(folder / RECORDS_FOLDER, record)
    return RunOutcome(load_run(folder))


def test_every_seed_of_a_configuration_is_on_the_front_with_its_means(tmp_path: Path, measured: Measured) -> None:
    """The first seed of the better configuration is far worse than its mean."""
    outcome = run_of(
        tmp_path,
        measured(0, 0, 0, asr=0.6, ca=0.9),
        measured(1, 0, 1, asr=0.0, ca=0.9),
        measured(2, 1, 0, asr=0.5, ca=0.8),
        measured(3, 1, 1, asr=0.5, ca=0.8),
    )
    standings = outcome.standings
    assert [standings[f"t0000-s{seed}"].front for seed in (0, 1)] == ["end", "end"]
    assert [standings[f"t0001-s{seed}"].front for seed in (0, 1)] == ["", ""]
    assert [standings[f"t0000-s{seed}"].chosen for seed in (0, 1)] == ["end", "end"]
    for seed in (0, 1):
        means = standings[f"t0000-s{seed}"].means
        assert (means["mean/test_asr"], means["mean/val_ca"], means["mean/seeds"]) == (0.3, 0.9, 2)
        assert means["mean/test_asr_low"] <= 0.3 <= means["mean/test_asr_high"]


def test_one_seed_has_no_mean(tmp_path: Path, measured: Measured) -> None:
    outcome = run_of(tmp_path, measured(0, 0, 0, 0.1, 0.9))
    assert outcome.standings["t0000-s0"] == Standing(front="end", chosen="end")


def test_a_trial_that_is_nothing_among_others_has_nothing_to_show(tmp_path: Path, measured: Measured) -> None:
    outcome = run_of(tmp_path, measured(0, 0, 0, 0.1, 0.9), measured(1, 1, 0, 0.2, 0.8))
    assert not outcome.standings["t0001-s0"]
    assert outcome.standings["t0000-s0"].tags == {
        "front": "true", "front_at": "end", "chosen": "true", "chosen_at": "end",
    }  # fmt: skip


def test_a_trial_is_on_the_front_at_the_epochs_that_are(tmp_path: Path, make_record: MakeRecord, rates) -> None:
    """Its second epoch is better than its end; another one's end has as good rates in one respect."""
    curve = tuple(
        EpochRecord(epoch=epoch, seconds=1.0, val=rates(ca, asr))
        for epoch, (asr, ca) in enumerate([(0.5, 0.7), (0.1, 0.8), (0.2, 0.6)], 1)
    )
    longer = make_record(
        0, state=State.DONE, val=rates(0.6, 0.2), poisoned_val=rates(0.8, 1.0),
        stages=(StageRecord(stage="unlearn", key="u", reused=False, seconds=3.0, epochs=curve),),
        config=_of_epochs(3, 0.1), changes={"defense.unlearn_epochs": 3},
    )  # fmt: skip
    other = make_record(1, epochs=0, state=State.DONE, val=rates(0.9, 0.3), config=_of_epochs(3, 0.2))
    standings = run_of(tmp_path, longer, other, objectives={"epochs": "every"}).standings
    assert (standings["trial-0"].front, standings["trial-0"].chosen) == ("2", "2")
    assert standings["trial-0"].tags["front"] == "true"
    assert (standings["trial-1"].front, standings["trial-1"].chosen) == ("end", "")


def _of_epochs(number: int, ratio: float) -> dict[str, object]:
    return {
        "victim": {"attack": {"kind": "badnets"}},
        "defense": {"kind": "ubt", "unlearn_epochs": number, "suspicious_ratio": ratio},
    }


RATE = st.integers(0, 5).map(lambda number: number / 5)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), RATE, RATE), min_size=1, max_size=14))
def test_the_hypervolume_grows_with_each_configuration_that_is_measured_whole(
    trials: list[tuple[int, float, float]],
) -> None:
    """One of several seeds counts from its last one on: its mean over fewer is none of its points."""
    seeds: dict[int, int] = {}
    records = []
    for number, (configuration, asr, ca) in enumerate(trials):
        seed = seeds[configuration] = seeds.get(configuration, -1) + 1
        records.append(_record(number, configuration, seed, asr, ca))
    points = RunOutcome(Run(RunRecords(Path("toy"), "toy", 0.02, (), tuple(records)))).hypervolumes
    assert [point.step for point in points] == list(range(1, len(records) + 1))
    for point in points:
        whole = [one for one in configurations(records) if one.trials[-1].number < point.step]
        assert point.value == pytest.approx(hypervolume(validation_points(whole)))


def _record(number: int, configuration: int, seed: int, asr: float, ca: float) -> TrialRecord:
    found = Rates(
        ca=ca, asr=asr, ca_images=10, asr_images=10, triggered_accuracy=0.5, ca_low=0, ca_high=1, asr_low=0, asr_high=1
    )
    return TrialRecord(
        study="toy", trial=f"t{configuration:04d}-s{seed}", number=number, seed=seed, state=State.DONE,
        config={"victim": {"attack": {"kind": "badnets"}}, "defense": {"ratio": configuration}},
        changes={"defense.ratio": configuration}, val=found, poisoned_val=found,
        started_at=f"2026-01-02T03:{number:02d}:00+00:00",
    )  # fmt: skip


def test_trials_that_end_without_rates_change_nothing(tmp_path: Path, measured: Measured, make_record) -> None:
    failed = make_record(1, state=State.FAILED, started_at="2026-01-02T03:01:00+00:00", reason="no")
    runs = make_record(2, started_at="2026-01-02T03:02:00+00:00")
    points = run_of(tmp_path, measured(0, 7, 0, 0.5, 0.5), failed, runs).hypervolumes
    assert [point.value for point in points] == [0.25, 0.25], "one that runs has not ended"


def test_without_an_attack_there_is_no_hypervolume(tmp_path: Path, make_record) -> None:
    clean = Rates(ca=0.8, ca_images=10, ca_low=0.7, ca_high=0.9)
    record = make_record(0, state=State.DONE, val=clean, test=clean, poisoned_val=clean)
    assert run_of(tmp_path, record).hypervolumes == ()


def test_a_run_that_cannot_be_read_has_no_outcome(tmp_path: Path, make_record) -> None:
    assert outcome_of(tmp_path) is None
    run_of(tmp_path, make_record(0))
    assert outcome_of(tmp_path) is not None
    (tmp_path / RECORDS_FOLDER / "trial-1.json").write_text("")
    assert outcome_of(tmp_path) is None
