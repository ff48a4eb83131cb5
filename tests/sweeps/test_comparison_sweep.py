"""A whole comparison in this process: two attacks, two defenses, two seeds, one search."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sweeps.cli.output import outcome_text
from sweeps.run.finish import SweepEnd
from sweeps.run.folder import latest_run, new_run
from sweeps.run.launch import run_study
from sweeps.run.resume import check_same_study
from sweeps.scheduling.outcomes import outcome_of
from sweeps.search.comparison_proposer import choose
from sweeps.study.config import StudyConfig
from ubt.testing import TINY
from ubt.trials.labels import label_of_text
from ubt.trials.record import State, TrialRecord, read_records

pytestmark = pytest.mark.slow

EPOCHS = "defense.unlearn_epochs"
ATTACKS = {"badnets": {"kind": "badnets", "poison_rate": 0.1}, "sig": {"kind": "sig", "poison_rate": 0.1}}
DEFENSES = {
    "none": {"defense": {"kind": "none"}},
    "ubt": {"defense": TINY["defense"], "search": {"design": "grid", "space": {EPOCHS: [1, 3]}}},
}


def study(folder: Path, **search: Any) -> StudyConfig:
    compared = {"design": "comparison", "attacks": ATTACKS, "search_on": ["sig"], "defenses": DEFENSES, **search}
    return StudyConfig.model_validate(
        {
            "name": "compared",
            "victim": TINY["victim"],
            "search": compared,
            "seeds": [0, 1],
            "store": str(folder / "store"),
            "tracking": {"enabled": False},
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compared")


@pytest.fixture(scope="module")
def swept(folder: Path) -> SweepEnd:
    return run_study(study(folder), new_run(folder / "runs", "compared"), "inline")


@pytest.fixture(scope="module")
def records(swept: SweepEnd) -> list[TrialRecord]:
    return read_records(swept.run.records)


def test_every_trial_of_the_searches_and_of_the_table_is_done(swept: SweepEnd, records: list[TrialRecord]) -> None:
    assert swept.all_done
    assert {record.state for record in records} == {State.DONE}
    assert Counter(str(record.label) for record in records) == {
        "search:ubt/sig": 2,
        **{f"table:{defense}/{attack}": 2 for defense in DEFENSES for attack in ATTACKS},
    }


def test_the_table_s_settings_are_those_that_the_rule_chooses(records: list[TrialRecord]) -> None:
    searched = [record for record in records if str(record.label) == "search:ubt/sig"]
    chosen = choose([[outcome_of(record)] for record in searched], "mean", 0.02)
    assert chosen is not None
    table = [record.config["defense"] for record in records if str(record.label).startswith("table:ubt")]
    assert table == [searched[chosen].config["defense"]] * 4


def test_no_stage_is_computed_twice(records: list[TrialRecord]) -> None:
    computed = [stage.key for record in records for stage in record.stages if not stage.reused]
    assert len(set(computed)) == len(computed)
    implants = {stage.key for record in records for stage in record.stages if stage.stage == "implant"}
    assert len(implants) == len(ATTACKS) * 2


def test_the_searched_setting_is_measured_alike_in_the_table(records: list[TrialRecord]) -> None:
    """The same configuration and seed under another label: other records, the same bits."""
    by_place = {(str(record.label), record.seed, str(record.config)): record for record in records}
    twins = [
        (record, twin)
        for (label, seed, config), record in by_place.items()
        if label == "search:ubt/sig" and (twin := by_place.get(("table:ubt/sig", seed, config)))
    ]
    assert len(twins) == 1
    for searched, tabled in twins:
        assert (searched.val, searched.test) == (tabled.val, tabled.test)
        assert all(stage.reused for stage in tabled.stages)


def test_the_end_points_to_the_table_and_names_no_choice(swept: SweepEnd) -> None:
    text = outcome_text(swept, "")
    assert "2 defenses against 2 attacks: the table is in the report." in text
    assert "chosen" not in text
    assert (swept.run.report / "index.html").is_file()


def test_another_attack_runs_its_own_trials_and_no_others(folder: Path, records: list[TrialRecord]) -> None:
    more = study(folder, attacks={**ATTACKS, "blended": {"kind": "blended", "poison_rate": 0.1}})
    run = latest_run(folder / "runs", "compared")
    outcome = run_study(check_same_study(run, more, extend=True), run, "inline")
    assert outcome.all_done
    after = {record.trial: record for record in read_records(run.records)}
    assert all(after[record.trial] == record for record in records)
    added = [record for name, record in after.items() if name not in {known.trial for known in records}]
    assert Counter(record.label.cell for record in added) == Counter(
        label_of_text(label).cell for label in ["table:none/blended"] * 2 + ["table:ubt/blended"] * 2
    )
