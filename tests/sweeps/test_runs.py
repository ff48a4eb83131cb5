from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.runs import RunFolder, check_same_study, latest_run, new_run, tracking_of
from sweeps.study import StudyConfig
from ubt.errors import Problem, UserError

RATIO, EPOCHS = "defense.suspicious_ratio", "defense.overfit_epochs"


def study(**fields: Any) -> StudyConfig:
    return StudyConfig.model_validate({"name": "toy", "search": {"design": "grid", "space": {RATIO: [0.1]}}, **fields})


def begin(out: Path, given: StudyConfig | None = None, name: str = "toy") -> RunFolder:
    run = new_run(out, name)
    run.write_study(given or study())
    return run


def differences(run: RunFolder, given: StudyConfig) -> dict[str, Problem]:
    with pytest.raises(UserError) as caught:
        check_same_study(run, given)
    return {problem.where.partition(": ")[2]: problem for problem in caught.value.problems}


def test_runs_of_a_name_are_numbered_from_the_second_on(tmp_path: Path) -> None:
    assert [begin(tmp_path).path.name for _ in range(3)] == ["toy", "toy-2", "toy-3"]
    assert begin(tmp_path, name="other").path.name == "other"


def test_a_new_run_makes_nothing_until_its_study_is_written(tmp_path: Path) -> None:
    assert new_run(tmp_path / "runs", "toy").path == new_run(tmp_path / "runs", "toy").path
    assert not list(tmp_path.iterdir())


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert begin(Path("runs")).path == tmp_path / "runs/toy"
    assert latest_run(Path("runs"), "toy").path == tmp_path / "runs/toy"


def test_a_folder_that_is_no_run_yet_is_taken(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    assert new_run(tmp_path, "toy").path == tmp_path / "toy"


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_place_that_cannot_be_written_is_a_mistake(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is no folder") as caught:
        new_run(tmp_path / out, "toy").check_writable()
    assert str(tmp_path / "file") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_that_does_not_exist_yet_is_none(tmp_path: Path) -> None:
    new_run(tmp_path / "a/b/c", "toy").check_writable()
    assert not list(tmp_path.iterdir())


def test_the_latest_run_is_resumed(tmp_path: Path) -> None:
    for _ in range(3):
        begin(tmp_path)
    assert latest_run(tmp_path, "toy").path.name == "toy-3"


def test_without_a_run_there_is_nothing_to_resume(tmp_path: Path) -> None:
    begin(tmp_path, name="other")
    with pytest.raises(UserError, match=r"--resume: there is no run of `toy`"):
        latest_run(tmp_path, "toy")


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


def test_a_run_says_where_it_is_tracked(tmp_path: Path) -> None:
    run = begin(tmp_path, study(tracking={"uri": "http://host:5000", "experiment": "mine"}))
    assert tracking_of(run.path) == study(tracking={"uri": "http://host:5000", "experiment": "mine"}).tracking


def test_a_folder_that_is_no_run_is_tracked_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no run folder"):
        tracking_of(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_study_that_cannot_be_read_is_a_mistake(tmp_path: Path, text: str) -> None:
    run = RunFolder(tmp_path)
    run.study.write_text(text)
    for read in (lambda: tracking_of(tmp_path), lambda: check_same_study(run, study())):
        with pytest.raises(UserError, match=r"study\.json"):
            read()


def test_a_run_of_another_version_can_still_be_looked_at(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.study.write_text(json.dumps({**json.loads(run.study.read_text()), "former": 1}))
    assert tracking_of(run.path) == study().tracking
    assert "former" in differences(run, study())
