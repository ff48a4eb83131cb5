"""A run as optuna-dashboard has it: named rates, and trials by our names and states."""

import json
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from analysis.findings import find
from analysis.optuna_journal import as_journal
from ubt.common.errors import UserError
from ubt.trials.record import State

RATIO = "defense.suspicious_ratio"


@pytest.fixture
def journal(trial, run_of, tmp_path):
    """The journal of five trials, as a file."""
    records = (
        trial(0, asr=0.4, ca=0.8, changes={RATIO: 0.1}, started_at="2026-01-02T03:04:05+00:00", seconds=60.0),
        trial(1, asr=0.1, ca=0.85, changes={RATIO: 0.2}),
        trial(2, changes={RATIO: 0.3}, state=State.PRUNED, reason="behind the others"),
        trial(3, changes={RATIO: 0.4}, state=State.FAILED, reason="MemoryError: much\nTraceback"),
        trial(4, changes={RATIO: 0.5}, state=State.RUNNING),
    )
    path = tmp_path / "toy.optuna.journal"
    path.write_text(as_journal(find(run_of(*records, space=[RATIO]))))
    return path


def test_its_trials_have_our_numbers_names_states_and_rates(journal):
    storage = JournalStorage(JournalFileBackend(str(journal)))
    (name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    assert study.metric_names == ["ASR", "CA"]
    complete, pruned, failed, runs = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING
    assert [trial.state for trial in study.trials] == [complete, complete, pruned, failed, runs]
    assert [trial.user_attrs["trial"] for trial in study.trials] == [f"trial-{at}" for at in range(5)]
    assert [trial.user_attrs["state"] for trial in study.trials][2:] == ["PRUNED", "FAILED", "RUNNING"]
    assert [trial.user_attrs.get("reason") for trial in study.trials][1:4] == [
        None, "behind the others", "MemoryError: much",
    ]  # fmt: skip
    assert [trial.params[RATIO] for trial in study.trials] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert study.trials[1].values == [0.1, 0.85]
    assert study.trials[0].duration.total_seconds() == 60
    assert [trial.number for trial in study.best_trials] == [1]
    assert [trial.user_attrs.get("front") for trial in study.trials] == [None, True, None, None, None]


def test_optuna_dashboard_opens_it(journal):
    from optuna_dashboard import wsgi

    app, status = wsgi(JournalStorage(JournalFileBackend(str(journal)))), []
    asked = {"PATH_INFO": "/api/studies/0"}
    setup_testing_defaults(asked)
    answer = json.loads(b"".join(app(asked, lambda said, headers, fault=None: status.append(said))))
    assert status == ["200 OK"]
    assert answer["objective_names"] == ["ASR", "CA"]
    assert [trial["state"] for trial in answer["trials"]] == ["Complete", "Complete", "Pruned", "Fail", "Running"]
    shown = [{attr["key"]: attr["value"] for attr in trial["user_attrs"]} for trial in answer["trials"]]
    assert shown[1]["trial"] == "trial-1"


def test_settings_that_are_words_and_that_only_some_have_are_kept(trial, run_of, tmp_path):
    kinds = [trial(at, changes={"defense.detector": kind}) for at, kind in enumerate([{"kind": "abl"}, {"kind": "x"}])]
    path = tmp_path / "toy"
    path.write_text(as_journal(find(run_of(*kinds, trial(2), space=["defense.detector"]))))
    storage = JournalStorage(JournalFileBackend(str(path)))
    trials = optuna.load_study(study_name=None, storage=storage).trials
    assert [trial.params.get("defense.detector") for trial in trials] == ["abl", "x", None]


def test_without_an_attack_there_is_nothing_to_show(trial, run_of):
    with pytest.raises(UserError, match="no attack is known"):
        as_journal(find(run_of(trial(0, asr=None))))
