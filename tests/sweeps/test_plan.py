from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sweeps.cli.app import app
from sweeps.cli.plan import draw_graph, plan_text
from sweeps.planning.plan import StudyPlan, plan_study, planned_pipelines
from sweeps.study.config import StudyConfig
from sweeps.study.loading import load_study
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import UserError
from ubt.engine.graph import build_pipeline
from ubt.engine.spec import stage_names
from ubt.trials.record import EpochRecord

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


def test_an_adaptive_search_shows_its_first_trial_and_counts_all(tmp_path: Path) -> None:
    search = {"design": "optuna", "space": {SAMPLES: [8, 16]}, "n_trials": 5}
    planned = plan(tmp_path, search=search, seeds=[0, 1])
    assert (planned.configurations, planned.trials) == (5, 10)
    assert counts(planned)["evaluate"] == (2, 2, 0)
    assert "its first trial" in plan_text(planned)


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
    """In a store that has seen every stage take a second, or two seconds an epoch."""

    EPOCHWISE = ("overfit", "unlearn")

    @pytest.fixture
    def seen(self, tmp_path: Path) -> Path:
        for name in stage_names():
            epochs = [EpochRecord(epoch=n, seconds=2) for n in (1, 2)] if name in self.EPOCHWISE else []
            fields = {"stage": name, "key": "seen", "version": 1, "seed": 0, "settings": {}, "inputs": {}}
            meta = ArtifactManifest.model_validate({**fields, "epochs": epochs, "seconds": 4 if epochs else 1})
            ArtifactStore(tmp_path).publish(meta, {"tensors": b"x" * 1000})
        return tmp_path

    def plan(self, store: Path, workers: int = 1) -> StudyPlan:
        grid = {"design": "grid", "space": {OVERFIT: [1, 3]}}
        return plan_study(study(store, search=grid, defense={"kind": "ubt", "unlearn_epochs": 4}), workers)

    def test_is_estimated_from_what_the_store_has_seen(self, seen: Path) -> None:
        """Two trials; the epochs of `overfit` are shared, those of `unlearn` follow another selection."""
        stages = {stage.stage: stage for stage in self.plan(seen).stages}
        assert (stages["detect_clean"].seconds_alone, stages["detect_clean"].seconds_shared) == (2, 1)
        assert (stages["overfit"].seconds_alone, stages["overfit"].seconds_shared) == (2 + 6, 6)
        assert (stages["unlearn"].seconds_alone, stages["unlearn"].seconds_shared) == (8 + 8, 8 + 8)
        assert (stages["select"].measured, stages["select"].size_bytes) == (1, 2000)

    def test_the_wall_time_is_bounded_by_the_work_and_by_the_longest_trial(self, seen: Path) -> None:
        work, longest = 5 + 6 + 2 + 2 + 16 + 2, 5 + 6 + 1 + 1 + 8 + 1
        for workers, least in ((1, work), (2, longest), (64, longest)):
            planned = self.plan(seen, workers)
            assert (planned.seconds_left, planned.critical_path_seconds) == (work, longest)
            assert planned.wall_seconds == least
        assert "At least 22 s on 64 workers" in plan_text(planned)

    def test_what_is_stored_is_not_left(self, seen: Path) -> None:
        given = study(seen, search={"design": "grid"}, defense={"kind": "ubt", "unlearn_epochs": 4})
        for node in build_pipeline(given.trial({}), 0)[:3]:
            meta = ArtifactManifest(
                stage=node.spec.name, key=node.key, version=1, seed=0, settings={}, inputs={}, seconds=1
            )
            ArtifactStore(seen).publish(meta, {})
        planned = plan_study(given)
        assert [stage.seconds_left for stage in planned.stages[:4]] == [0, 0, 0, 1]

    def test_a_store_that_has_seen_nothing_says_so(self, tmp_path: Path) -> None:
        planned = self.plan(tmp_path)
        assert all(stage.measured == 0 for stage in planned.stages)
        assert "no artifact: 60 s taken" in plan_text(planned)


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
