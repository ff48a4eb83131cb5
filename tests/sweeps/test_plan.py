from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps.loading import load_study
from sweeps.plan import StudyPlan, plan_study, plan_text
from sweeps.study import StudyConfig
from ubt.graph import build_pipeline
from ubt.store import ArtifactStore, Meta

RATIO, OVERFIT, SAMPLES = "defense.suspicious_ratio", "defense.overfit_epochs", "defense.unlearn_samples"
VICTIM = {"data": {"kind": "scenes", "train_pairs": 200, "pretrain_pairs": 100, "val_images": 24, "test_images": 24}}


def plan(folder: Path, **fields: Any) -> StudyPlan:
    return plan_study(study(folder, **fields))


def study(folder: Path, **fields: Any) -> StudyConfig:
    return StudyConfig.model_validate({"name": "toy", "victim": VICTIM, "store": str(folder), **fields})


def counts(planned: StudyPlan) -> dict[str, tuple[int, int, int]]:
    return {stage.stage: (stage.trials, stage.unique, stage.stored) for stage in planned.stages}


def test_a_small_grid_counted_by_hand(tmp_path: Path) -> None:
    """2 ratios × 2 epochs × 2 seeds. `score` and `suspect` have no seed of their own, but their victim has."""
    grid = {"design": "grid", "space": {RATIO: [0.01, 0.02], OVERFIT: [1, 3]}}
    planned = plan(tmp_path, search=grid, seeds=[0, 1])
    assert (planned.configurations, planned.seeds, planned.trials) == (4, 2, 8)
    assert counts(planned) == {
        "pretrain": (8, 2, 0),
        "poison": (8, 2, 0),
        "implant": (8, 2, 0),
        "score": (8, 2, 0),
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
            meta = Meta(stage=node.spec.name, key=node.key, version=1, seed=0, settings={}, inputs={})
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
    assert len(planned.notes) == 1
    assert "cannot be read here" in plan_text(planned)
    assert planned.image_size_px == 224


def test_the_text_has_a_line_for_each_stage_and_a_sum(tmp_path: Path) -> None:
    planned = plan(tmp_path / "my store", search={"design": "grid", "space": {SAMPLES: [8, 16]}})
    text = plan_text(planned)
    assert "toy: grid, 2 configurations × 1 seeds = 2 trials" in text
    assert f"'{tmp_path}/my store'" in text
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    for stage in planned.stages:
        assert lines[stage.stage] == [str(stage.trials), str(stage.unique), str(stage.stored)]
    assert lines["all"] == ["20", "14", "0"]


def test_planning_leaves_nothing_behind(tmp_path: Path) -> None:
    plan(tmp_path / "store")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reference", ["demo", "paper"])
def test_planning_loads_neither_torch_nor_ray(reference: str, tmp_path: Path) -> None:
    script = (
        "import sys; from sweeps.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "print([name for name in ('torch', 'ray', 'optuna', 'mlflow', 'open_clip') if name in sys.modules])"
    )
    words = [sys.executable, "-c", script, "plan", reference, "--set", f"store={tmp_path}"]
    ended = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ended.stdout.splitlines()[-1] == "[]", ended.stdout
    assert ended.stdout.startswith(f"{reference}: optuna")


def test_help_loads_nothing_heavy() -> None:
    script = "import sys, sweeps.cli; print([name for name in ('torch', 'ray', 'pandas') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
