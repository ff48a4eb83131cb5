"""A run folder that version 0.1 wrote: read, reported, compared and drawn as one of today."""

import json

import pytest

import analysis

OLD_STAGES = {"detect_clean": "score"}


def as_version_1(record):
    """Return a record as version 0.1 wrote it: labels as text, diagnostics as `metrics`, older names of stages."""
    tree = record.as_json()
    stages = [
        {**{("metrics" if k == "diagnostics" else k): v for k, v in stage.items()}} | {"stage": stage["stage"]}
        for stage in tree["stages"]
    ]
    for stage in stages:
        stage["stage"] = OLD_STAGES.get(stage["stage"], stage["stage"])
    return {**tree, "version": 1, "label": str(record.label), "stages": stages, "attempts": 1}


@pytest.fixture
def old_run(run_folder, trial):
    """A comparison of two defenses on one attack, with the labels of 0.1."""
    from ubt.trials.labels import ComparisonCell, TrialLabel

    def label(defense):
        return TrialLabel(cell=ComparisonCell(phase="table", defense=defense, attack="badnets"))

    records = [
        trial(0, asr=0.5, label=label("finetune"), changes={"defense": {"kind": "finetune"}}),
        trial(1, asr=0.1, label=label("ubt")),
    ]
    found = tuple(stage.model_copy(update={"stage": "detect_clean"}) for stage in records[1].stages[:1])
    records[1] = records[1].model_copy(update={"stages": found + records[1].stages})
    study = {"name": "old", "measures": ["retrieval"], "search": {"design": "comparison"}}
    folder = run_folder(study=study)
    for record in records:
        (folder / "records" / f"{record.trial}.json").write_text(json.dumps(as_version_1(record)))
    return folder


def test_it_is_read_with_todays_names(old_run):
    run = analysis.load_run(old_run)
    assert list(run.stages[run.stages["trial"] == "trial-1"]["stage"]) == ["detect_clean", "suspect", "unlearn"]
    assert run.trials.loc[1, "detect_clean.recall"] == 0.5
    assert (run.ca_floor, len(run.trials), run.trials.loc[1, "val_asr"]) == (0.02, 2, 0.1)


def test_it_is_compared(old_run):
    run = analysis.load_run(old_run)
    assert run.summary.compared == "2 defenses against 1 attack"
    table = run.comparison.set_index(["defense", "attack"])
    assert table.loc[("UBT", "BadNets"), "asr"] == pytest.approx(0.11)
    assert "| fine-tuning |" in run.comparison_markdown


def test_it_is_reported(old_run):
    html = analysis.write_report(old_run).page.read_text(encoding="utf-8")
    assert "2 defenses against 1 attack" in html
    assert '<section id="comparison">' in html


def test_what_it_searched_has_the_names_of_its_settings_of_now(old_run):
    study = json.loads((old_run / "study.json").read_text())
    study["search"] = {"space": {"defense.detector": ["clean", "lof"], "defense.neighbours": [8, 16]}}
    (old_run / "study.json").write_text(json.dumps(study))
    run = analysis.load_run(old_run)
    assert "defense.detector.neighbours" in run.trials.columns
    assert "defense.neighbours" not in run.trials.columns
