from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_costs import calibrated, setup
from typer.testing import CliRunner

from sweeps.cli.app import app
from sweeps.cli.plan import draw_graph, plan_text
from sweeps.planning.layout import planned_pipelines
from sweeps.planning.plan import StudyPlan, plan_study
from sweeps.study.config import StudyConfig
from sweeps.study.loading import load_study
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import UserError
from ubt.engine.graph import build_pipeline

RATIO, OVERFIT, SAMPLES = "defense.suspicious_ratio", "defense.overfit_epochs", "defense.unlearn_samples"
VICTIM = {"data": {"kind": "scenes", "train_pairs": 200, "pretrain_pairs": 100, "val_images": 24, "test_images": 24}}


def plan(folder: Path, **fields: Any) -> StudyPlan:
    return plan_study(study(folder, **fields))


def study(folder: Path, **fields: Any) -> StudyConfig:
    return StudyConfig.model_validate({"name": "toy", "victim": VICTIM, "store": str(folder), **fields})


def counts(planned: StudyPlan) -> dict[str, tuple[int, int, int]]:
    return {stage.stage: (stage.trials, stage.unique, stage.stored) for stage in planned.stages}


def test_a_small_grid_counted_by_hand(tmp_path: Path) -> None:
    """2 ratios × 2 epochs × 2 seeds. `detect_clean` and `suspect` have no seed of their own, but their victim has."""
    grid = {"design": "grid", "space": {RATIO: [0.01, 0.02], OVERFIT: [1, 3]}}
    planned = plan(tmp_path, search=grid, seeds=[0, 1])
    assert (planned.configurations, planned.seeds, planned.trials) == (4, 2, 8)
    assert counts(planned) == {
        "pretrain": (8, 2, 0),
        "poison": (8, 2, 0),
        "implant": (8, 2, 0),
        "detect_clean": (8, 2, 0),
        "suspect": (8, 4, 0),
        "overfit": (8, 8, 0),
        "select": (8, 8, 0),
        "attribute": (8, 8, 0),
        "unlearn": (8, 8, 0),
        "evaluate": (8, 8, 0),
    }
    assert (planned.total, planned.unique, planned.stored) == (80, 52, 0)


def test_a_later_knob_shares_more(tmp_path: Path) -> None:
    planned = plan(tmp_path, search={"design": "grid", "space": {SAMPLES: [8, 16, 32]}})
    assert counts(planned)["overfit"] == (3, 1, 0)
    assert counts(planned)["select"] == (3, 3, 0)


def test_defenses_with_other_stages_share_the_victim(tmp_path: Path) -> None:
    planned = plan(tmp_path, search={"design": "list", "trials": [{}, {"defense": {"kind": "none"}}]})
    assert counts(planned)["implant"] == (2, 1, 0)
    assert counts(planned)["unlearn"] == (1, 1, 0)
    assert counts(planned)["evaluate"] == (2, 2, 0)


def test_what_the_store_has_is_counted(tmp_path: Path) -> None:
    given = study(tmp_path, search={"design": "grid", "space": {SAMPLES: [8, 16]}})
    trial = given.trial({SAMPLES: 8})
    for node in build_pipeline(trial, 0):
        if node.spec.name in {"pretrain", "poison", "select"}:
            meta = ArtifactManifest(stage=node.spec.name, key=node.key, version=1, seed=0, settings={}, inputs={})
            ArtifactStore(tmp_path).publish(meta, {})
    assert {name: stored for name, (_, _, stored) in counts(plan_study(given)).items() if stored} == {
        "pretrain": 1,
        "poison": 1,
        "select": 1,
    }


def test_an_adaptive_search_shows_its_whole_budget(tmp_path: Path) -> None:
    search = {"design": "optuna", "space": {SAMPLES: [8, 16, 24, 32, 48, 64]}, "n_trials": 5}
    planned = plan(tmp_path, search=search, seeds=[0, 1])
    assert (planned.configurations, planned.trials) == (5, 10)
    assert counts(planned)["evaluate"] == (10, 10, 0)
    assert counts(planned)["implant"] == (10, 2, 0)
    assert "chooses 4 configurations as it goes" in plan_text(planned)


def test_a_configuration_that_repeats_the_base_is_one_trial(tmp_path: Path) -> None:
    search = {"design": "ofat", "space": {SAMPLES: [8, 64]}}
    assert plan(tmp_path, search=search, defense={"kind": "ubt", "unlearn_samples": 64}).trials == 2


def test_data_that_cannot_be_read_is_a_note(tmp_path: Path) -> None:
    planned = plan_study(load_study("paper", [f"store={tmp_path}"]))
    assert len([note for note in planned.notes if note.startswith("the data")]) == 1
    assert "cannot be read here" in plan_text(planned)
    assert planned.image_size_px == 224


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        ({}, None),
        ({"cpus_per_trial": 512}, "a trial asks for 512 CPUs and this machine has 2"),
        ({"concurrent_trials": 3}, "3 trials at a time ask for 3 CPUs and this machine has 2"),
        ({"gpus_per_trial": 1}, "a trial asks for 1 GPU and this machine has 0"),
    ],
)
def test_what_this_machine_does_not_have_is_a_note(
    resources: dict[str, int], told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setattr("sweeps.planning.machine.gpus", lambda: 0)
    notes = plan(tmp_path, resources=resources).notes
    assert notes == (() if told is None else (f"resources: {told}; a cluster's nodes must have them",))


def test_the_text_has_a_line_for_each_stage_and_a_sum(tmp_path: Path) -> None:
    planned = plan(tmp_path / "my store", search={"design": "grid", "space": {SAMPLES: [8, 16]}})
    text = plan_text(planned)
    assert "toy: grid, 2 configurations × 1 seeds = 2 trials" in text
    assert f"'{tmp_path}/my store'" in text
    lines = {line.split()[0]: line.split()[1:4] for line in text.splitlines() if line}
    for stage in planned.stages:
        assert lines[stage.stage] == [str(stage.trials), str(stage.unique), str(stage.stored)]
    assert lines["all"] == ["20", "14", "0"]


class TestCost:
    """In a store that has measured this machine by a few batches, which took a second each."""

    @pytest.fixture
    def seen(self, tmp_path: Path) -> Path:
        calibrated(tmp_path, setup(), factor=10)
        return tmp_path

    def plan(self, store: Path, workers: int = 1) -> StudyPlan:
        grid = {"design": "grid", "space": {OVERFIT: [1, 3]}}
        return plan_study(study(store, search=grid, defense={"kind": "ubt", "unlearn_epochs": 4}), workers)

    def test_epochs_that_several_continue_from_count_once(self, seen: Path) -> None:
        stages = {stage.stage: stage for stage in self.plan(seen).stages}
        overfit = stages["overfit"]
        longest = {stage.stage: stage for stage in plan(seen, defense={"kind": "ubt", "overfit_epochs": 3}).stages}
        assert overfit.seconds_shared == pytest.approx(longest["overfit"].seconds_shared)
        assert overfit.seconds_alone is not None
        assert overfit.seconds_shared is not None
        assert overfit.seconds_alone > overfit.seconds_shared
        unlearn = stages["unlearn"]
        assert (unlearn.trials, unlearn.unique, unlearn.seconds_alone) == (2, 2, unlearn.seconds_shared)

    def test_the_wall_time_is_bounded_by_the_work_and_by_the_longest_chain(self, seen: Path) -> None:
        one, two, many = (self.plan(seen, workers) for workers in (1, 2, 64))
        assert one.wall_seconds == pytest.approx(one.seconds_left)
        assert many.wall_seconds == pytest.approx(many.critical_path_seconds)
        assert one.wall_seconds is not None
        assert two.wall_seconds is not None
        assert many.wall_seconds is not None
        assert one.wall_seconds > two.wall_seconds >= 0.999 * many.wall_seconds
        assert "on 64 workers" in plan_text(many)

    def test_what_is_stored_is_not_left(self, seen: Path) -> None:
        given = study(seen, search={"design": "grid"}, defense={"kind": "ubt", "unlearn_epochs": 4})
        for node in build_pipeline(given.trial({}), 0)[:3]:
            meta = ArtifactManifest(
                stage=node.spec.name, key=node.key, version=1, seed=0, settings={}, inputs={}, seconds=1
            )
            ArtifactStore(seen).publish(meta, {})
        planned = plan_study(given)
        assert [stage.seconds_left == 0 for stage in planned.stages[:4]] == [True, True, True, False]
        assert planned.wall_seconds == pytest.approx(planned.seconds_left)

    def test_an_epoch_on_the_way_is_stored_with_what_continuing_needs(self, seen: Path) -> None:
        """The body of 40 bytes at the end; on the way the same with two moments of each weight."""
        stages = {stage.stage: stage for stage in self.plan(seen).stages}
        assert stages["overfit"].size_bytes == 40 + (40 + 3 * 40)
        assert stages["unlearn"].size_bytes == 2 * 30

    def test_a_store_that_has_seen_nothing_says_so(self, tmp_path: Path) -> None:
        text = plan_text(self.plan(tmp_path))
        assert "Time:    unknown. Nothing on this store says how long any stage takes" in text
        assert "--calibrate" in text

    def test_the_text_says_what_is_paid_and_what_room_it_takes(self, seen: Path) -> None:
        text = plan_text(plan_study(study(seen), price_per_gpu_hour=2.5))
        assert "nothing to pay" in text
        assert "Disk:    170 bytes of artifacts to come; " in text
        assert "Store:   170 bytes of this study at most; trials need 170 bytes at a time" in text
        assert "Memory:  at least 7 bytes for each worker" in text

    def test_the_store_s_peak_is_said_with_a_budget_and_without(self, seen: Path) -> None:
        grid = {"design": "grid", "space": {OVERFIT: [1, 3]}}
        kept = {"search": grid, "defense": {"kind": "ubt", "unlearn_epochs": 4}}
        planned, most = self.plan(seen), 10**6
        tight = plan_study(study(seen, **kept, store_budget=1))
        assert planned.store_peak_bytes == tight.store_peak_bytes == planned.store_bytes
        assert (planned.store_within_bytes, tight.store_within_bytes) == (None, tight.store_needed_bytes)
        assert plan_study(study(seen, **kept, store_budget=most)).store_within_bytes == planned.store_peak_bytes
        assert f", {round(tight.store_needed_bytes or 0)} bytes by its `store_budget`; " in plan_text(tight)

    def test_a_trial_of_an_earlier_epoch_costs_unlearning_and_what_follows(self, seen: Path) -> None:
        planned = self.plan(seen)
        costs = {stage.stage: stage.seconds_alone or 0.0 for stage in planned.stages}  # of two trials that are alike
        assert planned.every_epoch
        assert planned.earlier_epoch_seconds == pytest.approx((costs["unlearn"] + costs["evaluate"]) / 2)
        assert "Front:   earlier epochs on it" in plan_text(planned)

    @pytest.mark.parametrize(
        "fields",
        [
            {"objectives": {"epochs": "last"}},
            {"search": {"design": "ofat", "space": {OVERFIT: [1, 3]}}},
            {"defense": {"kind": "none"}},
            {"defense": {"kind": "ubt", "unlearn_epochs": 1}},
        ],
    )
    def test_where_no_earlier_epoch_can_come_up_nothing_is_said_of_any(self, seen: Path, fields: Any) -> None:
        planned = plan(seen, **fields)
        assert (planned.every_epoch, planned.earlier_epoch_seconds) == (False, None)
        assert "Front:" not in plan_text(planned)


def test_the_graph_has_a_mark_for_each_distinct_piece_and_a_heading_for_each_stage(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    given = study(tmp_path, search={"design": "grid", "space": {SAMPLES: [8, 16]}})
    pipelines, notes = planned_pipelines(given)
    drawing = draw_graph(pipelines, stored={pipelines[0][0].key})
    shapes = list(ElementTree.fromstring(drawing))
    circles = [shape for shape in shapes if shape.tag.endswith("circle")]
    assert len(circles) == 14
    assert [circle.get("fill") for circle in circles].count("white") == 1
    headings = [shape.text for shape in shapes if shape.tag.endswith("text")]
    assert headings[:4] == ["pretrain", "1 of 2", "poison", "1 of 2"]
    assert headings[-2:] == ["evaluate", "2 of 2"]
    assert not notes


def test_a_picture_that_cannot_be_written_is_the_user_s_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = ["plan", "smoke", "--set", f"store={tmp_path}/store", "--graph"]
    ended = CliRunner().invoke(app, [*words, str(tmp_path / "file" / "plan.svg")])
    assert isinstance(ended.exception, UserError)
    assert "--graph: cannot be written" in str(ended.exception)
    CliRunner().invoke(app, [*words, str(tmp_path / "plan.svg")], catch_exceptions=False)
    assert (tmp_path / "plan.svg").read_text().startswith("<svg")


def test_planning_leaves_nothing_behind(tmp_path: Path) -> None:
    plan(tmp_path / "store")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reference", ["demo", "paper"])
def test_planning_loads_neither_torch_nor_ray(reference: str, tmp_path: Path) -> None:
    script = (
        "import sys; from sweeps.cli.app import app; app(sys.argv[1:], standalone_mode=False); "
        "print([name for name in ('torch', 'ray', 'optuna', 'mlflow', 'open_clip') if name in sys.modules])"
    )
    words = [sys.executable, "-c", script, "plan", reference, "--set", f"store={tmp_path}"]
    ended = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ended.stdout.splitlines()[-1] == "[]", ended.stdout
    assert ended.stdout.startswith(f"{reference}: optuna")


def test_help_loads_nothing_heavy() -> None:
    script = "import sys, sweeps.cli.app; print([name for name in ('torch', 'ray', 'pandas') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
