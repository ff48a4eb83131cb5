from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toy_runs import RATIO, begin, study

from sweeps.cli.sweep import resume_command
from sweeps.run.folder import RunFolder, tracking_of
from sweeps.run.resume import check_same_study, with_more_trials
from sweeps.study.config import StudyConfig
from sweeps.study.loading import load_study
from ubt.common.errors import Problem, UserError

EPOCHS = "defense.overfit_epochs"


def differences(run: RunFolder, given: StudyConfig) -> dict[str, Problem]:
    with pytest.raises(UserError) as caught:
        check_same_study(run, given)
    return {problem.where.partition(": ")[2]: problem for problem in caught.value.problems}


def test_the_same_study_goes_on(tmp_path: Path) -> None:
    assert check_same_study(begin(tmp_path), study()) == study()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "renamed"},
        {"store": "/elsewhere"},
        {"resources": {"concurrent_trials": 7, "retries": 0}},
        {"tracking": {"enabled": False}},
        {"objectives": {"ca_floor": 0.5}},
    ],
)
def test_what_decides_nothing_may_change(tmp_path: Path, change: dict[str, Any]) -> None:
    given = study(**change)
    assert check_same_study(begin(tmp_path), given) == given


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"seeds": [0, 1]}, "seeds"),
        ({"victim": {"attack": {"kind": "badnets", "poison_rate": 0.5}}}, "victim.attack.poison_rate"),
        ({"defense": {"kind": "ubt", "retain_weight": 0.25}}, "defense.retain_weight"),
        ({"search": {"design": "grid", "space": {RATIO: [0.2]}}}, f"search.space.{RATIO}"),
        ({"search": {"design": "grid", "space": {RATIO: [0.1], EPOCHS: [1]}}}, f"search.space.{EPOCHS}"),
        ({"search": {"design": "grid"}}, f"search.space.{RATIO}"),
        ({"search": {"design": "ofat", "space": {RATIO: [0.1]}}}, "search.design"),
    ],
)
def test_what_decides_the_trials_may_not(tmp_path: Path, change: dict[str, Any], where: str) -> None:
    found = differences(begin(tmp_path), study(**change))
    assert list(found) == [where]
    assert "differs from the run" in found[where].message
    assert found[where].advice


def test_every_field_that_differs_is_named_with_both_values(tmp_path: Path) -> None:
    found = differences(begin(tmp_path), study(seeds=[3], defense={"kind": "ubt", "retain_weight": 0.25}))
    assert set(found) == {"seeds", "defense.retain_weight"}
    assert found["seeds"].given == [3]
    assert "[0]" in found["seeds"].message


def test_a_field_that_one_side_lacks_is_a_difference_too(tmp_path: Path) -> None:
    found = differences(begin(tmp_path), study(defense={"kind": "none"}))
    assert {"defense.kind", RATIO} < set(found)


def as_version_0_1_wrote_it(run: RunFolder) -> None:
    """Give a run's study the names that version 0.1 had; its detector is `clean`."""
    tree = json.loads(run.study.read_text())
    defense = {**tree.pop("defense"), "detector": "clean", "neighbours": 16}
    measures = tree.pop("metrics")
    del tree["plugins"]
    run.study.write_text(json.dumps({**tree, "defense": defense, "measures": measures}))


def test_a_run_of_version_0_1_goes_on(tmp_path: Path) -> None:
    given = study(search={"design": "grid", "space": {"defense.detector": ["clean", "gain"]}})
    given = given.with_search(given.search.settled(given))
    run = begin(tmp_path, given)
    as_version_0_1_wrote_it(run)
    tree = json.loads(run.study.read_text())
    tree["search"]["space"] = {"defense.detector": ["clean", "gain"]}
    run.study.write_text(json.dumps(tree))
    assert check_same_study(run, given) == check_same_study(run, given, extend=True) == given


def test_what_differs_from_a_run_of_version_0_1_is_told_by_its_name_of_now(tmp_path: Path) -> None:
    run = begin(tmp_path)
    as_version_0_1_wrote_it(run)
    found = differences(run, study(metrics=["retrieval"], defense={"kind": "ubt", "detector": "gain"}))
    assert set(found) == {"metrics", "defense.detector.kind"}


def test_a_run_of_version_0_1_takes_more_trials(tmp_path: Path) -> None:
    given = study(search={"design": "optuna", "space": {RATIO: [0.1, 0.2]}, "n_trials": 3})
    run = begin(tmp_path, given)
    as_version_0_1_wrote_it(run)
    assert getattr(with_more_trials(run, given, 2).search, "n_trials", 0) == 5


class TestLag:
    SPACE = {"design": "optuna", "space": {RATIO: [0.1, 0.2]}}  # noqa: RUF012 — never changed

    def test_is_taken_over_from_the_run_where_the_study_leaves_it_open(self, tmp_path: Path) -> None:
        run = begin(tmp_path, study(search={**self.SPACE, "lag": 6}))
        assert check_same_study(run, study(search=self.SPACE)).search.lag == 6

    def test_may_not_be_changed(self, tmp_path: Path) -> None:
        run = begin(tmp_path, study(search={**self.SPACE, "lag": 6}))
        assert set(differences(run, study(search={**self.SPACE, "lag": 7}))) == {"search.lag"}

    def test_is_no_trouble_where_the_run_was_no_adaptive_search(self, tmp_path: Path) -> None:
        assert "search.design" in differences(begin(tmp_path), study(search=self.SPACE))


def test_passwords_are_not_written_down_and_do_not_hinder_resuming(tmp_path: Path) -> None:
    data = {"kind": "webdataset", "pairs": "https://ann:s3cret@host/a.tar", "labels": "l.csv", "classes": "imagenet"}
    given = study(victim={"data": data}, tracking={"uri": "https://ann:s3cret@host:5000"})
    run = begin(tmp_path, given)
    assert "s3cret" not in run.study.read_text()
    assert check_same_study(run, given) == given


class TestMoreTrials:
    SPACE = {"design": "optuna", "space": {RATIO: [0.1, 0.2]}}  # noqa: RUF012 — never changed

    def test_are_added_to_what_the_run_was_last_asked_for(self, tmp_path: Path) -> None:
        run = begin(tmp_path, study(search={**self.SPACE, "n_trials": 30}))
        assert with_more_trials(run, study(search=self.SPACE), 5).search.n_trials == 35

    def test_stay_when_the_run_is_resumed_later(self, tmp_path: Path) -> None:
        given = study(search={**self.SPACE, "n_trials": 24})
        run = begin(tmp_path, given)
        run.write_study(with_more_trials(run, given, 6))
        assert check_same_study(run, given).search.n_trials == 30

    def test_are_no_least_for_another_search(self, tmp_path: Path) -> None:
        run = begin(tmp_path, study(search={**self.SPACE, "n_trials": 100, "lag": 6}))
        extended = check_same_study(run, study(search={**self.SPACE, "n_trials": 20}), extend=True)
        assert (extended.search.n_trials, extended.search.lag) == (20, 6)

    def test_are_not_had_by_asking_for_another_number(self, tmp_path: Path) -> None:
        run = begin(tmp_path, study(search={**self.SPACE, "n_trials": 24}))
        assert set(differences(run, study(search={**self.SPACE, "n_trials": 25}))) == {"search.n_trials"}


def test_gpus_may_not_come_to_trials_that_had_none(tmp_path: Path) -> None:
    """They compute in another precision, and the table would hold both."""
    run = begin(tmp_path, load_study("smoke"), name="smoke")
    assert check_same_study(run, load_study("smoke", ["resources.concurrent_trials=3"]))
    found = differences(run, load_study("smoke", ["resources.gpus_per_trial=1"]))
    assert list(found) == ["victim.model.precision"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("sweep demo", "sweep demo --resume"),
        ("sweep demo --resume", "sweep demo --resume"),
        ("sweep demo --add-trials 24 --set store=s", "sweep demo --set store=s --resume"),
        ("sweep demo --add-trials=24", "sweep demo --resume"),
        ("sweep demo --extend --set seeds=[1]", "sweep demo --extend --set 'seeds=[1]' --resume"),
    ],
)
def test_the_command_that_goes_on_adds_no_trials_again(given: str, expected: str) -> None:
    assert resume_command(["/bin/ubt", *given.split()]) == f"ubt {expected}"


@pytest.mark.parametrize("search", [3, [1], "grid", None])
def test_a_study_that_was_changed_by_hand_is_told(tmp_path: Path, search: object) -> None:
    run = begin(tmp_path)
    run.study.write_text(json.dumps({**json.loads(run.study.read_text()), "search": search}))
    with pytest.raises(UserError, match="search: must be an object"):
        check_same_study(run, study())


@pytest.mark.parametrize("tracking", [3, [1], "x", None])
def test_where_a_run_is_tracked_must_be_said_in_an_object(tmp_path: Path, tracking: object) -> None:
    run = begin(tmp_path)
    run.study.write_text(json.dumps({**json.loads(run.study.read_text()), "tracking": tracking}))
    with pytest.raises(UserError, match="must be an object"):
        tracking_of(run.path)
