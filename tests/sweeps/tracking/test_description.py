"""A study's run as its reader meets it: the description, and the numbers that a list shows first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import MakeRecord

from analysis import load_run
from sweeps.tracking import study_payload
from sweeps.tracking.description import of_outcome, view_of
from sweeps.tracking.ledger import Source
from sweeps.tracking.outcome import RunOutcome
from sweeps.tracking.payload import NOTE, Payload
from ubt.common.paths import RECORDS_FOLDER, STUDY_FILE
from ubt.trials.labels import ComparisonCell, TrialLabel
from ubt.trials.planned import PLAN_FILE, PlannedCosts, PlannedData
from ubt.trials.record import State, TrialRecord, write_record

SPACE = {"defense.suspicious_ratio": [0.1]}


def outcome_of(folder: Path, *records: TrialRecord, design: str = "grid") -> RunOutcome:
    study = {"name": "toy", "search": {"design": design, "space": SPACE if design == "grid" else {}}}
    (folder / STUDY_FILE).write_text(json.dumps(study))
    for record in records:
        write_record(folder / RECORDS_FOLDER, record)
    return RunOutcome(load_run(folder))


def shown(outcome: RunOutcome, *files: str) -> Payload:
    return of_outcome(Payload(), outcome, Path("/runs/toy"), files)


def test_it_says_the_result_first_then_the_front_what_failed_and_how_to_go_on(
    tmp_path: Path, make_record: MakeRecord, rates
) -> None:
    good = {"val": rates(0.89, 0.0), "test": rates(0.88, 0.05), "poisoned_test": rates(0.9, 0.95)}
    outcome = outcome_of(
        tmp_path,
        make_record(0, state=State.DONE, **good),
        make_record(1, state=State.DONE, val=rates(0.5, 0.9), test=rates(0.5, 0.9)),
        make_record(2, state=State.FAILED, reason="the loss | is not finite\nsecond line", failure="method"),
    )
    found = shown(outcome, "report/index.html", "figures", "model/0123")
    note = found.tags[NOTE]
    headings = [line for line in note.splitlines() if line.startswith("#")]
    assert headings == [
        # Their intervals are from 0 to 100 %.
        "## Attack success does not clearly change (95.0%, then 5.0%), "
        "clean accuracy does not clearly change (90.0%, then 88.0%)",
        "### The front", "### Not finished", "### Files", "### How to go on",
    ]  # fmt: skip
    assert "| chosen, [trial-0](trial:trial-0) | 5.0%" in note
    assert "suspicious_ratio\u00a0=\u00a00.1" in note
    assert "| [trial-2](trial:trial-2) | failed | the loss &#124; is not finite |" in note
    assert "[Report](artifact:report/index.html)" in note
    assert "[The cleaned model](model:model)" in note
    assert "](image:figures/front.png)" in note
    assert "CSV" not in note, "what is not there is not linked to"
    assert "ubt export /runs/toy --out cleaned.safetensors" in note
    assert found.metrics["chosen/test_asr"] == 0.05
    assert found.metrics["poisoned/test_asr"] == 0.95
    assert (found.metrics["trials/done"], found.metrics["trials/failed"], found.metrics["trials/all"]) == (2, 1, 3)
    assert (found.tags["chosen"], found.tags["front"]) == ("trial-0", "trial-0")


def test_an_ablation_crowns_nothing_and_shows_its_effects(tmp_path: Path, make_record: MakeRecord, rates) -> None:
    same = {"state": State.DONE, "val": rates(0.89, 0.3), "test": rates(0.88, 0.3), "poisoned_test": rates(0.9, 0.9)}
    base = make_record(0, **same, changes={}, label=TrialLabel(component="base"))
    without = TrialLabel(component="no-overfit", words="without overfitting")
    better = make_record(1, **{**same, "val": rates(0.89, 0.0)}, label=without)
    note = shown(outcome_of(tmp_path, base, better, design="leave_one_out")).tags[NOTE]
    assert "### Effects" in note
    assert "| without overfitting |" in note
    assert "### The front" not in note
    assert "trial-1" not in note


def test_a_comparison_shows_its_table_and_has_no_choice(tmp_path: Path, make_record: MakeRecord, rates) -> None:
    records = [
        make_record(
            number, state=State.DONE, test=rates(0.8, 0.1), poisoned_test=rates(0.9, 0.9), changes={},
            config={"victim": {"attack": {"kind": "badnets"}}, "defense": {"kind": defense}},
            label=TrialLabel(cell=ComparisonCell(phase="table", defense=defense, attack="badnets")),
        )
        for number, defense in enumerate(("ubt", "finetune"))
    ]  # fmt: skip
    found = shown(outcome_of(tmp_path, *records, design="comparison"))
    assert "### Comparison" in found.tags[NOTE]
    assert found.tags["chosen"] == ""
    assert not any(name.startswith(("chosen/", "poisoned/", "hypervolume")) for name in found.metrics)
    assert found.curves == ()


def test_a_large_front_is_cut_by_rows_and_mlflow_takes_it(tmp_path: Path, make_record: MakeRecord, rates) -> None:
    records = [
        make_record(number, state=State.DONE, val=rates((number + 1) / 200, number / 200), changes={"a.b": "x" * 300})
        for number in range(100)
    ]
    note = shown(outcome_of(tmp_path, *records)).tags[NOTE]
    assert len(note) < 8000
    assert "in the report." in note
    rows = [line for line in note.splitlines() if line.startswith("| [trial")]
    assert rows
    assert all(line.endswith(" |") for line in rows)
    assert "### How to go on" in note


def test_nothing_measured_yet_is_said(tmp_path: Path, make_record: MakeRecord) -> None:
    assert shown(outcome_of(tmp_path, make_record(0))).tags[NOTE].startswith("## No trial is done yet")


def test_links_get_mlflow_s_addresses_and_one_that_leads_nowhere_becomes_text() -> None:
    note = "[t0](trial:t0) and [t1](trial:t1), [Report](artifact:report/index.html), [a](https://x/y)"
    image = study_payload.with_addresses("![The front](image:figures/ab.png)", "", "S", {})
    assert image == "![The front](get-artifact?path=figures%2Fab.png&run_uuid=S)"
    assert study_payload.with_addresses(note, "#/e/1/runs/", "S", {"t0": "R"}) == (
        "[t0](#/e/1/runs/R?workflowType=machine_learning) and t1, "
        "[Report](#/e/1/runs/S/artifacts/report/index.html?workflowType=machine_learning), [a](https://x/y)"
    )


def test_a_link_to_the_model_leads_to_its_page_or_to_its_file_where_mlflow_has_no_models() -> None:
    note = "[The cleaned model](model:model)"
    page = study_payload.with_addresses(note, "#/e/1/runs/", "S", {}, "#/e/1/models/m-1/artifacts")
    assert page == "[The cleaned model](#/e/1/models/m-1/artifacts?workflowType=machine_learning)"
    file = study_payload.with_addresses(note, "#/e/1/runs/", "S", {})
    assert file == "[The cleaned model](#/e/1/runs/S/artifacts/model?workflowType=machine_learning)"


def test_the_whole_command_stands_in_the_description_of_a_study_that_runs_and_of_one_that_has_ended(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    command = "ubt sweep demo --out /data/runs"
    begun = study_payload.of_study({}, tmp_path, Source(command, "ann"))
    assert f"{command}   # what started it" in begun.tags[NOTE]
    ended = of_outcome(begun, outcome_of(tmp_path, make_record(0, state=State.DONE)), tmp_path, [])
    assert f"{command}   # what started it" in ended.tags[NOTE]


def test_a_chosen_model_that_is_not_there_is_said_to_be_had_by_an_export(
    tmp_path: Path, make_record: MakeRecord, rates
) -> None:
    chosen = make_record(1, state=State.DONE, val=rates(0.9, 0.0), test=rates(0.8, 0.1))
    outcome = outcome_of(tmp_path, chosen)
    assert "The cleaned model is not here" in shown(outcome, "report/index.html").tags[NOTE]
    assert "is not here" not in shown(outcome, "report/index.html", "model/0123").tags[NOTE]


def test_a_study_that_runs_says_what_started_it_and_on_what(tmp_path: Path) -> None:
    data = PlannedData(kind="scenes", key="f" * 64, counts={"train": 2500, "pretrain": 0, "val": 240, "test": 300})
    plan = PlannedCosts(seconds={}, wall_seconds=None, workers=1, gpus=0, trials=1, data=(data,))
    (tmp_path / PLAN_FILE).write_text(plan.model_dump_json())
    study = {
        "victim": {"attack": {"kind": "badnets"}, "model": {"name": "RN50"}, "data": {"kind": "scenes"}},
        "defense": {"kind": "ubt"},
        "search": {"design": "grid", "space": SPACE},
        "seeds": [0, 1],
    }
    found = study_payload.of_study(study, tmp_path, Source("ubt sweep demo", "ann"))
    expected = {"mlflow.source.name": "ubt sweep demo", "mlflow.user": "ann", "attack": "badnets", "model": "RN50"}
    assert expected.items() <= found.tags.items()
    assert {(one.name, one.context, one.count) for one in found.inputs} == {
        ("scenes train", "training", 2500), ("scenes val", "validation", 240), ("scenes test", "test", 300),
    }  # fmt: skip
    view = study_payload.view_of(study, "identity")
    assert (view.knobs, view.seeds, view.attacked) == (tuple(SPACE), 2, True)


@pytest.mark.parametrize(
    "content", ["", "{}", '{"seconds": {}, "wall_seconds": 1, "workers": 1, "gpus": 0, "trials": 1}']
)
def test_a_plan_that_says_nothing_of_the_data_gives_no_data_sets(tmp_path: Path, content: str) -> None:
    (tmp_path / PLAN_FILE).write_text(content)
    assert study_payload.of_study({"victim": {}}, tmp_path, Source()).inputs == ()


def test_a_view_has_the_knobs_that_trials_varied(tmp_path: Path, make_record: MakeRecord) -> None:
    outcome = outcome_of(tmp_path, make_record(0, state=State.DONE, seed=1), make_record(1, state=State.DONE, seed=2))
    view = view_of(study_payload.view_of({}, "identity"), outcome)
    assert (view.knobs, view.seeds, view.attacked) == (("defense.suspicious_ratio",), 2, True)
