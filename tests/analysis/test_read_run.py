import json
import subprocess
import sys

import pytest

from analysis.records import read_run
from ubt.common.errors import UserError


def test_a_run_is_read_with_its_records_by_number(run_folder, trial):
    run = read_run(run_folder(trial(1, changes={"defense.unlearn_samples": 8}), trial(0)))
    assert (run.name, run.ca_floor) == ("toy", 0.02)
    assert run.space == ("defense.suspicious_ratio", "defense.unlearn_samples")
    assert [record.number for record in run.records] == [0, 1]


@pytest.mark.parametrize("search", [None, {}, {"space": None}, {"space": {}}, {"design": "list", "trials": []}])
def test_a_study_without_a_space_searched_what_its_trials_changed(loaded, trial, search):
    run = loaded(trial(0), trial(1, changes={"defense.token_threshold": 0.3}), study={"name": "toy", "search": search})
    assert run.space == ()
    assert run.knobs == ("defense.token_threshold",)
    assert run.ca_floor == 0.02


def test_settings_that_another_defense_brings_are_no_knobs(loaded, trial):
    changes = {"defense.kind": "abl", "defense.rate": 1}
    other = trial(1, config={"victim": {}, "defense": {"kind": "abl", "rate": 1}}, changes=changes)
    run = loaded(trial(0), other, study={"name": "toy"})
    assert run.knobs == ("defense.kind",)
    assert run.settings == ("defense.kind", "defense.rate")


def test_settings_are_the_space_and_whatever_else_was_changed(loaded, trial):
    run = loaded(trial(0, changes={"defense.token_threshold": 0.3, "defense.unlearn_samples": 8}))
    assert run.settings == ("defense.suspicious_ratio", "defense.unlearn_samples", "defense.token_threshold")
    assert run.knobs == run.space


def test_a_folder_that_does_not_exist_is_told_with_advice(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_run(tmp_path / "nowhere")


def test_all_that_is_missing_is_told_at_once(tmp_path):
    with pytest.raises(UserError, match=r"(?s)study\.json.*records"):
        read_run(tmp_path)


def test_the_folder_of_runs_names_the_runs_inside_it(run_folder, trial):
    folder = run_folder(trial())
    with pytest.raises(UserError, match=f"one of the runs inside it: {folder.name}"):
        read_run(folder.parent)


def test_a_run_without_records_says_what_to_do(run_folder):
    with pytest.raises(UserError, match="holds no trial records yet"):
        read_run(run_folder())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "cannot be read"), ("[]", "must hold a JSON object"), ("{}", "name: is required")],
)
def test_an_unusable_study_is_a_users_error(run_folder, trial, text, complaint):
    folder = run_folder(trial())
    (folder / "study.json").write_text(text)
    with pytest.raises(UserError, match=complaint):
        read_run(folder)


def test_a_negative_floor_is_refused_with_its_path(run_folder, trial):
    with pytest.raises(UserError, match=r"study\.json: objectives\.ca_floor"):
        read_run(run_folder(trial(), study={"name": "toy", "objectives": {"ca_floor": -0.1}}))


def test_the_study_is_kept_whole_to_be_shown(loaded, trial):
    run = loaded(trial(), study={"name": "toy", "anything": {"nested": 1}})
    assert json.loads(run.study_json)["anything"] == {"nested": 1}


def test_importing_analysis_loads_no_heavy_library():
    heavy = "{'torch', 'ray', 'mlflow', 'optuna', 'matplotlib', 'sweeps'}"
    check = f"import analysis, sys; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "set()\n"
