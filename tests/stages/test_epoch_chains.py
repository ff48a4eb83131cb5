"""Stages that work by epochs: an epoch is the same however many follow, and wherever one continues from."""

import pytest
import torch
from tiny_victim import assign, run_trial, tiny_trial

from ubt.artifacts import OPTIMIZER
from ubt.graph import build_pipeline
from ubt.runner import TrialRunner
from ubt.store import ArtifactStore
from ubt.workspace import Workspace

CHAINS = {
    "overfit": ("overfit", {}),
    "overfit, all pairs": ("overfit", {"defense.overfit_data": "all", "defense.overfit_batch_size": 50}),
    "overfit, contrastive": ("overfit", {"defense.overfit_loss": "contrastive"}),
    "unlearn, image tower": ("unlearn", {"defense.unlearn_towers": "image", "defense.retain_loss": "distill"}),
    "unlearn, both towers": ("unlearn", {"defense.unlearn_towers": "both", "defense.retain_loss": "contrastive"}),
    "unlearn, ascent": ("unlearn", {"defense.unlearn_loss": "ascent", "defense.retain_weight": 0.0}),
}


@pytest.fixture(params=CHAINS)
def chain(request):
    return CHAINS[request.param]


def with_epochs(chain, epochs):
    stage, changes = chain
    return {**changes, f"defense.{stage}_epochs": epochs}


def run(root, chain, epochs, keep=()):
    """Run a trial with so many epochs in a runner of its own; return the stage's record."""
    changes, stage = with_epochs(chain, epochs), chain[0]
    *_, record = TrialRunner().run(assign(root, changes, keep_epochs={stage: keep}))
    assert record.state == "DONE", record.reason
    return next(found for found in record.stages if found.stage == stage)


def result(root, chain, epochs):
    """Return what the store holds of the stage after so many epochs: its meta, its tensors, its model."""
    trial = tiny_trial(with_epochs(chain, epochs))
    node = next(node for node in build_pipeline(trial, 0) if node.spec.name == chain[0])
    store = ArtifactStore(root)
    artifact = Workspace(trial.victim, store, store_images(root)).load(chain[0], node.key)
    return artifact.meta, artifact.tensors, artifact.weights


def store_images(root):
    return root / "images"


def assert_same(one, other):
    for first, second in zip(one[1:], other[1:], strict=True):
        assert first.keys() == second.keys()
        for name in first:
            assert torch.equal(first[name], second[name]), name


def test_three_epochs_continued_from_one_are_three_epochs_straight_to_the_bit(tiny_run, tmp_path, chain):
    straight, stepwise = (tiny_run.copy(tmp_path / name) for name in ("straight", "stepwise"))
    run(straight, chain, 3)
    first = run(stepwise, chain, 1, keep=(1, 3))
    continued = run(stepwise, chain, 3, keep=(1, 3))
    assert continued.epochs[0] == first.epochs[0], "taken over, not computed again"
    assert [epoch.epoch for epoch in continued.epochs] == [1, 2, 3]
    assert not continued.reused
    assert continued.spent_seconds < continued.seconds, "the seconds of a stage are those from nothing"
    assert_same(result(straight, chain, 3), result(stepwise, chain, 3))


def test_an_epoch_kept_on_the_way_is_the_stage_with_so_many_epochs(tiny_run, tmp_path, chain):
    root, alone = (tiny_run.copy(tmp_path / name) for name in ("kept", "alone"))
    run(root, chain, 3, keep=(1, 3))
    run(alone, chain, 1)
    assert_same(result(root, chain, 1), result(alone, chain, 1))
    found = run(root, chain, 1)
    assert found.reused
    assert [epoch.epoch for epoch in found.epochs] == [1]
    assert found.metrics == result(alone, chain, 1)[0].metrics


def test_the_optimizers_memory_is_kept_only_where_somebody_continues(tiny_run, tmp_path):
    chain, root = CHAINS["overfit"], tiny_run.copy(tmp_path)
    run(root, chain, 4, keep=(1, 3, 4))
    assert [OPTIMIZER in result(root, chain, epochs)[0].payloads for epochs in (1, 3, 4)] == [True, True, False]


def test_an_epoch_without_the_optimizers_memory_is_not_continued_from(tiny_run, tmp_path):
    chain, root = CHAINS["overfit"], tiny_run.copy(tmp_path)
    run(root, chain, 1)
    again = run(root, chain, 3)
    straight = tiny_run.copy(tmp_path / "straight")
    run(straight, chain, 3)
    assert again.epochs[0] != run(root, chain, 1).epochs[0], "computed again"
    assert_same(result(straight, chain, 3), result(root, chain, 3))


@pytest.mark.parametrize("stage", ["overfit", "unlearn"])
def test_no_epochs_leave_the_poisoned_model_as_it_is(bench, stage):
    output = bench.output(stage, {f"defense.{stage}_epochs": 0})
    poisoned = bench.context(stage).artifact("poisoned").weights
    assert output.base == "poisoned"
    assert all(torch.equal(value, poisoned[name]) for name, value in output.model.items())


def test_a_damaged_epoch_to_continue_from_is_set_aside_and_the_stage_computed_from_nothing(tiny_run, tmp_path):
    chain, root = CHAINS["overfit"], tiny_run.copy(tmp_path)
    run(root, chain, 1, keep=(1, 3))
    meta = result(root, chain, 1)[0]
    for payload in (meta.payloads["model"], meta.payloads[OPTIMIZER]):
        path = root / "artifacts" / "overfit" / meta.key / payload.file
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    run(root, chain, 3, keep=(3,))
    straight = tiny_run.copy(tmp_path / "straight")
    run(straight, chain, 3)
    assert_same(result(straight, chain, 3), result(root, chain, 3))
    assert not ArtifactStore(root).has("overfit", meta.key)


def test_a_trial_reports_after_every_epoch(tiny_run, tmp_path):
    root = tiny_run.copy(tmp_path)
    seen = [
        (stage.stage, len(stage.epochs), stage.complete)
        for record in run_trial(root, {"defense.overfit_epochs": 3, "defense.unlearn_epochs": 1})
        for stage in record.stages[-1:]
        if stage.stage in {"overfit", "unlearn"}
    ]
    expected = [*(("overfit", n, False) for n in (1, 2, 3)), ("overfit", 3, True)]
    assert seen == [*expected, ("unlearn", 1, False), ("unlearn", 1, True)]
