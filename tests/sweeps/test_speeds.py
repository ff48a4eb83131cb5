from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_costs import SECONDS, calibrated, ran, setup, study

from sweeps.planning.costs import assumed
from sweeps.planning.plan import StudyPlan, plan_study
from sweeps.planning.speeds import Speeds
from sweeps.study.config import StudyConfig
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.engine.graph import build_pipeline
from ubt.engine.work import KINDS, setup_of, work_of
from ubt.models.settings import ModelSettings


def seconds(planned: StudyPlan) -> dict[str, float | None]:
    return {stage.stage: stage.seconds_left for stage in planned.stages}


class TestUnknown:
    def test_is_all_in_an_empty_store(self, tmp_path: Path) -> None:
        planned = plan_study(study(tmp_path))
        assert planned.unknown == tuple(stage.stage for stage in planned.stages)
        assert (planned.seconds_left, planned.wall_seconds, planned.critical_path_seconds) == (None, None, None)

    @pytest.mark.parametrize(
        "other",
        [
            {"model": {"name": "RN50", "random_weights": True}},
            {"model": {"name": "tiny-rn", "precision": "bfloat16"}},
            {"resources": {"cpus_per_trial": 2}},
            {"resources": {"gpus_per_trial": 1}},
            {"resources": {"gpus_per_trial": 0.5}},
        ],
    )
    def test_is_what_was_measured_on_another_setup(self, other: dict[str, Any], tmp_path: Path) -> None:
        """A smoke run of `tiny-rn` said that an implant of RN50 takes seconds."""
        ran(study(tmp_path), setup())
        calibrated(tmp_path, setup())
        planned = plan_study(study(tmp_path, **other))
        assert set(seconds(planned).values()) == {None}
        assert planned.memory_bytes is None

    def test_is_a_stage_that_has_not_run_beside_others_that_have(self, tmp_path: Path) -> None:
        ran(study(tmp_path, defense={"kind": "none"}), setup())
        planned = plan_study(study(tmp_path))
        assert planned.unknown == ("detect_clean", "suspect", "overfit", "select", "attribute", "unlearn")
        assert planned.seconds_left is None
        assert seconds(planned)["implant"] is not None

    def test_is_how_much_data_there_is_if_it_is_not_here_unless_it_is_said(self, tmp_path: Path) -> None:
        gone = {"kind": "csv", "pairs": str(tmp_path / "none.csv"), "labels": str(tmp_path / "none.csv")}
        given = study(tmp_path, data=None)
        given = StudyConfig.model_validate(
            {
                **given.model_dump(mode="json", include={"name", "store"}),
                "victim": {
                    "data": {**gone, "classes": "imagenet", "templates": "openai"},
                    "model": {"name": "RN50", "random_weights": True},
                },
                "search": {"design": "grid"},
            }
        )
        calibrated(tmp_path, setup("RN50"))
        assert plan_study(given).seconds_left is None
        told = plan_study(given, sizes=assumed(1000, 100))
        assert told.cache_bytes == 1100 * 224 * 224 * 3
        implant = seconds(told)["implant"]
        assert implant is not None
        assert implant > 6 * 1000 * (SECONDS["trained_images"] + SECONDS["trained_captions"]) * 0.8


class TestKnown:
    def test_follows_the_work(self, tmp_path: Path) -> None:
        """What ran had 600 pairs, 4 batches of 128 of them; 6000 are 46, and evaluating takes as long as before."""
        ran(study(tmp_path), setup())
        before, after = (seconds(plan_study(study(tmp_path, data=data))) for data in ({}, {"train_pairs": 6000}))
        assert after["detect_clean"] is not None
        assert before["detect_clean"] is not None
        assert before["implant"] is not None
        assert after["implant"] is not None
        assert after["implant"] / before["implant"] == pytest.approx(46 / 4, rel=0.05)
        assert after["evaluate"] == pytest.approx(before["evaluate"])

    def test_follows_the_epochs(self, tmp_path: Path) -> None:
        ran(study(tmp_path), setup())
        once, twice = (
            seconds(plan_study(study(tmp_path, defense={"kind": "ubt", "overfit_epochs": epochs})))["overfit"] or 0
            for epochs in (10, 20)
        )
        assert 1.5 < twice / once <= 2

    def test_is_a_calibration_where_a_stage_has_not_run(self, tmp_path: Path) -> None:
        calibrated(tmp_path, setup())
        planned = plan_study(study(tmp_path))
        assert planned.unknown == ()
        trial = study(tmp_path).trial({})
        for node in build_pipeline(trial, 0):
            work = work_of(node, trial, study(tmp_path).victim.data.sizes(Path("nowhere")))
            assert work is not None
            assert seconds(planned)[node.spec.name] == pytest.approx(
                work.seconds({k: SECONDS.get(k, 0.0) for k in KINDS})
            )
        assert planned.memory_bytes == 7

    def test_goes_by_whole_stages_before_a_few_batches(self, tmp_path: Path) -> None:
        ran(study(tmp_path), setup(), factor=3)
        calibrated(tmp_path, setup(), factor=1)
        by_stages = seconds(plan_study(study(tmp_path)))
        calibrated(tmp_path, setup(), factor=10)
        again = seconds(plan_study(study(tmp_path)))
        assert by_stages == pytest.approx(again)

    def test_takes_the_hardware_of_this_machine_before_another_one_s(self, tmp_path: Path) -> None:
        calibrated(tmp_path, setup(hardware="a faster CPU"), factor=0.1)
        calibrated(tmp_path, setup())
        assert (
            Speeds(ArtifactStore(tmp_path), ()).setup(setup(hardware="x").model_copy(update={"hardware": ""}))
            == setup()
        )

    def test_gpu_hours_and_price(self, tmp_path: Path) -> None:
        on = setup_of(ModelSettings(precision="bfloat16"), "NVIDIA H100", 4, 0.5)
        calibrated(tmp_path, on, factor=100)
        given = study(tmp_path, resources={"gpus_per_trial": 0.5, "cpus_per_trial": 4}, seeds=[0, 1])
        planned = plan_study(given, workers=2, price_per_gpu_hour=3.0)
        assert planned.setups == ("tiny-rn, 32 px, bfloat16, NVIDIA H100, 0.5 of a GPU",)
        assert planned.seconds_left is not None
        assert planned.wall_seconds == pytest.approx(planned.seconds_left / 2), "two seeds share nothing"
        assert planned.gpu_hours == pytest.approx(planned.seconds_left * 0.5 / 3600)
        assert planned.gpu_hours_held == pytest.approx(planned.gpu_hours)
        assert planned.price == pytest.approx(3.0 * (planned.gpu_hours_held or 0))


def test_a_stage_that_does_not_say_its_work_is_known_where_it_has_run_so(tmp_path: Path) -> None:
    """As one of a plug-in: with the same settings on as much data, by the epoch."""
    given = study(tmp_path)
    trial = given.trial({})
    told = next(node for node in build_pipeline(trial, 0) if node.spec.name == "overfit")
    node = replace(told, spec=replace(told.spec, work=None))
    sizes = given.victim.data.sizes(Path("nowhere"))
    assert sizes is not None
    work = work_of(node, trial, sizes)
    assert work is not None
    assert work.uncounted
    ran = ArtifactManifest(
        stage="overfit",
        key="ran",
        version=1,
        seed=0,
        settings={**node.settings, "overfit_epochs": 10},
        inputs={},
        seconds=30,
        setup=setup(),
        work=work.as_json(),
    )
    ArtifactStore(tmp_path).publish(ran, {})
    speeds = Speeds(ArtifactStore(tmp_path), ["overfit"])
    found = speeds.estimate(node, work, setup())
    assert found is not None
    assert found.seconds == pytest.approx(3 * node.epochs)
    more = work_of(node, trial, sizes.model_copy(update={"train": 601}))
    assert speeds.estimate(node, more, setup()) is None, "on more data it is unknown"
    other = replace(node, settings={**node.settings, "overfit_learning_rate": 0.5})
    assert speeds.estimate(other, work, setup()) is None, "with other settings, too"


def test_an_adaptive_search_is_planned_from_its_budget(tmp_path: Path) -> None:
    calibrated(tmp_path, setup())
    space = {"defense.unlearn_samples": [8, 16, 32], "defense.token_threshold": {"low": 0.01, "high": 0.5}}
    search = {"design": "optuna", "space": space, "n_trials": 12}
    planned = plan_study(study(tmp_path, search=search, seeds=[0, 1]))
    counts = {stage.stage: (stage.trials, stage.unique) for stage in planned.stages}
    assert planned.trials == 24
    assert counts["implant"] == (24, 2)
    assert counts["unlearn"] == (24, 24)
    assert counts["overfit"] == (24, 2)
    assert counts["select"][1] <= 2 * 4
    assert planned.seconds_left is not None


def test_a_space_with_less_in_it_than_the_budget_is_planned_whole(tmp_path: Path) -> None:
    search = {"design": "optuna", "space": {"defense.unlearn_samples": [8, 16, 64]}, "n_trials": 50}
    planned = plan_study(study(tmp_path, search=search))
    assert {stage.stage: stage.unique for stage in planned.stages}["select"] == 3
