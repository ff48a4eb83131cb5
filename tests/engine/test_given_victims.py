"""Victims that are not made here: pairs or a model that came poisoned, and no known attack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_victim import run_trial

from ubt.common.errors import StageFault
from ubt.stages import poison
from ubt.trials.record import TrialRecord

TELLS = {"recall", "precision", "purity", "auroc", "auroc_before", "auroc_all", "auroc_loss", "target_share"}
"""Diagnostics that tell poison from clean pairs."""
ABL = {"kind": "abl", "isolate_epochs": 1, "ascend_epochs": 1}
EVERYTHING = ["retrieval", "linear_probe", "rebound", "pac_bayes"]


def told(record: TrialRecord) -> set[str]:
    assert record.state == "DONE", record.reason
    return {name for stage in record.stages for name in stage.diagnostics}


@pytest.fixture(scope="module")
def store(tiny_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_run.copy(tmp_path_factory.mktemp("given")))


@pytest.fixture(scope="module")
def checkpoint(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny poisoned model as a file, as it comes from elsewhere."""
    path = tmp_path_factory.mktemp("checkpoint") / "poisoned.pt"
    torch.save(dict(bench.artifact("implant").weights), path)
    return str(path)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    (tmp_path / "rows.json").write_text(json.dumps(list(range(0, 200, 10))))
    return str(tmp_path / "rows.json")


@pytest.mark.parametrize("defense", [{}, {"defense": ABL}])
def test_what_nobody_knows_is_absent(store: Path, defense: dict[str, Any]) -> None:
    given = {"victim.poison": {"kind": "given"}, **defense}
    record = run_trial(store, given)[-1]
    assert not told(record) & TELLS
    assert not {name for name in told(record) if "poison" in name or name.endswith("_clean")}
    assert record.test is not None
    assert record.test.asr is not None, "the attack is named, and measured"


@pytest.mark.parametrize("defense", [{}, {"defense": ABL}])
def test_a_list_tells_it(store: Path, rows: str, defense: dict[str, Any]) -> None:
    given = {"victim.poison": {"kind": "given", "manifest": rows}, **defense}
    assert told(run_trial(store, given)[-1]) >= TELLS & told(run_trial(store, defense)[-1])


def test_nothing_is_stamped_on_pairs_that_came_poisoned(bench: Any, rows: str) -> None:
    context = bench.context("implant", {"victim.poison": {"kind": "given", "manifest": rows}})
    everything = torch.arange(200).numpy()
    assert (context.pairs.take(everything) == context.data.train.images).all()
    assert list(context.pairs.captions) == list(context.data.train.captions)
    assert context.manifest.indices.tolist() == list(range(0, 200, 10))
    assert list(context.manifest.captions) == [context.data.train.captions[row] for row in range(0, 200, 10)]


def test_without_a_known_attack_there_is_clean_accuracy_alone(store: Path) -> None:
    record = run_trial(store, {"victim.attack": None, "metrics": EVERYTHING})[-1]
    assert not told(record) & TELLS
    assert not {name for name in told(record) if "asr" in name}
    for rates in (record.poisoned_val, record.poisoned_test, record.val, record.test):
        assert rates is not None
        assert rates.ca > 0
        assert rates.asr is None
    epochs = [epoch.val for _, epoch in record.epochs]
    assert epochs
    assert all(rates is not None and rates.asr is None for rates in epochs)


def test_without_a_known_attack_a_list_tells_all_but_the_target(store: Path, rows: str) -> None:
    record = run_trial(store, {"victim.attack": None, "victim.poison": {"kind": "given", "manifest": rows}})[-1]
    assert {"recall", "purity", "auroc"} <= told(record)
    assert "target_share" not in told(record)


def test_a_model_that_came_poisoned_and_pairs_that_are_poisoned_here(bench: Any, checkpoint: str) -> None:
    """An author's checkpoint, and one's own pairs poisoned as the author did."""
    changes = {"victim.implant.checkpoint": checkpoint, "victim.poison": {"kind": "made"}}
    context = bench.context("overfit", changes)
    own = bench.context("overfit")
    here, there = (one.artifact("poisoned").weights for one in (context, own))
    assert all(torch.equal(value, there[name]) for name, value in here.items())
    everything = torch.arange(200).numpy()
    assert (context.pairs.take(everything) == own.pairs.take(everything)).all()
    assert bench.context("implant", changes).manifest.known


def test_any_clean_model_stands_beside_one_that_came_poisoned(bench: Any, checkpoint: str, tmp_path: Path) -> None:
    torch.save(dict(bench.artifact("pretrain", seed=1).weights), tmp_path / "clean.pt")
    changes = {"victim.model.checkpoint": str(tmp_path / "clean.pt"), "victim.implant.checkpoint": checkpoint}
    context = bench.context("rank", {**changes, "defense": ABL})
    clean, poisoned = (context.artifact(role).weights for role in ("clean", "poisoned"))
    assert all(torch.equal(value, bench.artifact("pretrain", seed=1).weights[name]) for name, value in clean.items())
    assert all(torch.equal(value, bench.artifact("implant").weights[name]) for name, value in poisoned.items())


def test_the_oracle_leaves_out_what_a_list_says(store: Path, rows: str) -> None:
    oracle = {"victim.poison": {"kind": "given", "manifest": rows}, "defense": {"kind": "oracle"}}
    record = run_trial(store, oracle)[-1]
    assert record.state == "DONE", record.reason
    assert next(stage.diagnostics for stage in record.stages if stage.stage == "retrain")["pairs"] == 180


def test_a_list_that_changed_since_it_was_planned_is_refused(bench: Any, rows: str) -> None:
    context = bench.context("poison", {"victim.poison": {"kind": "given", "manifest": rows}})
    Path(rows).write_text("[1, 2, 3]")
    with pytest.raises(StageFault, match="is another file than when this was planned"):
        poison.run(context)
