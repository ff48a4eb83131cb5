"""Stages that work by epochs: an epoch is the same however many follow, and wherever one continues from."""

import copy
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from tiny_victim import run_trial

from ubt.artifacts.codec import OPTIMIZER
from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import DamagedArtifact
from ubt.engine.execution import Execution
from ubt.engine.spec import stage_named

CHAINS = {
    "overfit": ("overfit", {}),
    "overfit, all pairs": ("overfit", {"defense.overfit_data": "all", "defense.overfit_batch_size": 50}),
    "overfit, contrastive": ("overfit", {"defense.overfit_loss": "contrastive"}),
    "unlearn, image tower": ("unlearn", {"defense.unlearn_towers": "image", "defense.retain_loss": "distill"}),
    "unlearn, both towers": ("unlearn", {"defense.unlearn_towers": "both", "defense.retain_loss": "contrastive"}),
    **{
        f"{kind}, batch norm {norm}": (
            kind,
            {
                "defense": {"kind": kind, "clean_pairs": 40, f"{kind}_batch_size": 20, f"{kind}_batch_norm": norm},
                f"defense.{kind}_learning_rate_decay": 0.5,
            },
        )
        for kind, norm in (
            ("finetune", "trained"),
            ("finetune", "frozen"),
            ("cleanclip", "trained"),
            ("par", "trained"),
        )
    },
    "rank, clean": ("rank", {"defense": {"kind": "abl", "isolate_from": "clean", "isolate_batch_size": 100}}),
    "rank, poisoned": ("rank", {"defense": {"kind": "abl", "isolate_from": "poisoned", "isolate_batch_size": 100}}),
    "ascend": ("ascend", {"defense": {"kind": "abl", "isolation_ratio": 0.05, "ascend_batch_size": 16}}),
    "unlearn, ascent": ("unlearn", {"defense.unlearn_loss": "ascent", "defense.retain_weight": 0.0}),
}
EVERY_CHAIN = pytest.mark.parametrize("chain", CHAINS)


class Lane:
    """A store of its own, in which one stage is computed with the tiny victim's artifacts at hand."""

    def __init__(self, bench, root, chain):
        self._bench = bench
        self._stage, self._changes = CHAINS[chain]
        self._workspace = copy.copy(bench.workspace)
        self._workspace.store = self.store = ArtifactStore(root)

    def run(self, epochs, keep=()):
        """Compute the stage with so many epochs, as a trial would; return its record."""
        node, inputs = self._prepare(epochs)
        poison = self._bench.context("implant").artifact("poison")
        *_, record = Execution(node, self._workspace, inputs, poison, keep).steps()
        return record

    def meta(self, epochs):
        """Return what the store holds of the stage with so many epochs."""
        return self.store.manifest(self._stage, self._prepare(epochs)[0].key)

    def result(self, epochs):
        """Return its tensors and its model, read back."""
        node, _ = self._prepare(epochs)
        artifact = self._workspace.load(self._stage, node.key)
        return artifact.tensors, artifact.weights

    def _prepare(self, epochs):
        setting = stage_named(self._stage).epochs
        context = self._bench.context(self._stage, {**self._changes, f"defense.{setting}": epochs})
        inputs = {role: context.artifact(role) for role in context.node.spec.needs}
        self._workspace._artifacts = OrderedDict((artifact.manifest.key, artifact) for artifact in inputs.values())
        return context.node, inputs


@pytest.fixture
def lanes(bench, tmp_path):
    """Two stores that know nothing of each other."""
    return lambda chain: (Lane(bench, tmp_path / "one", chain), Lane(bench, tmp_path / "other", chain))


def assert_same(one, other):
    for first, second in zip(one, other, strict=True):
        assert first.keys() == second.keys()
        for name in first:
            assert torch.equal(first[name], second[name]), name


@EVERY_CHAIN
def test_three_epochs_continued_from_one_are_three_epochs_straight_to_the_bit(lanes, chain):
    straight, stepwise = lanes(chain)
    straight.run(3)
    first = stepwise.run(1, keep=(1, 3))
    continued = stepwise.run(3, keep=(1, 3))
    assert continued.epochs[0] == first.epochs[0], "taken over, not computed again"
    assert [epoch.epoch for epoch in continued.epochs] == [1, 2, 3]
    assert continued.spent_seconds < continued.seconds, "the seconds of a stage are those from nothing"
    assert first.own_seconds < continued.own_seconds < continued.seconds
    assert_same(straight.result(3), stepwise.result(3))


@EVERY_CHAIN
def test_an_epoch_kept_on_the_way_is_the_stage_with_so_many_epochs(lanes, chain):
    kept, alone = lanes(chain)
    kept.run(3, keep=(1, 3))
    alone.run(1)
    assert_same(kept.result(1), alone.result(1))
    assert [epoch.epoch for epoch in kept.manifest(1).epochs] == [1]
    assert kept.manifest(1).diagnostics == alone.manifest(1).diagnostics
    assert [epoch.val for epoch in kept.manifest(1).epochs] == [epoch.val for epoch in alone.manifest(1).epochs]


@EVERY_CHAIN
def test_epochs_do_change_the_model(lanes, chain):
    lane, _ = lanes(chain)
    lane.run(2, keep=(1,))
    one, two = lane.result(1)[1], lane.result(2)[1]
    assert any(not torch.equal(one[name], two[name]) for name in one)


def test_the_optimizers_memory_is_kept_only_where_somebody_continues(lanes):
    lane, _ = lanes("overfit")
    lane.run(4, keep=(1, 3, 4))
    assert [OPTIMIZER in lane.manifest(epochs).payloads for epochs in (1, 3, 4)] == [True, True, False]
    assert lane.manifest(2) is None


def test_an_epoch_without_the_optimizers_memory_is_not_continued_from(lanes):
    straight, lane = lanes("overfit")
    first = lane.run(1)
    again = lane.run(3)
    straight.run(3)
    assert again.epochs[0] != first.epochs[0], "computed again"
    assert_same(straight.result(3), lane.result(3))


def test_the_latest_epoch_there_is_is_continued_from(lanes):
    straight, lane = lanes("overfit")
    lane.run(1, keep=(1, 2, 4))
    second = lane.run(2, keep=(1, 2, 4))
    last = lane.run(4, keep=(1, 2, 4))
    assert last.epochs[:2] == second.epochs
    straight.run(4)
    assert_same(straight.result(4), lane.result(4))


@pytest.mark.parametrize("payload", ["model", OPTIMIZER])
def test_a_damaged_epoch_is_set_aside_and_then_the_stage_is_computed_from_nothing(lanes, payload):
    straight, lane = lanes("overfit")
    lane.run(1, keep=(1, 3))
    meta = lane.manifest(1)
    path = Path(lane.store.root, "artifacts", "overfit", meta.key, meta.payloads[payload].file)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedArtifact):
        lane.run(3, keep=(1, 3))
    assert lane.manifest(1) is None
    lane.run(3, keep=(3,))
    straight.run(3)
    assert_same(straight.result(3), lane.result(3))


@pytest.mark.parametrize("stage", ["overfit", "unlearn"])
def test_no_epochs_leave_the_poisoned_model_as_it_is(bench, stage):
    output = bench.output(stage, {f"defense.{stage}_epochs": 0})
    poisoned = bench.context(stage).artifact("poisoned").weights
    assert output.base == "poisoned"
    assert all(torch.equal(value, poisoned[name]) for name, value in output.model.items())


def test_a_trial_reports_after_every_epoch(tiny_run, tmp_path):
    root = tiny_run.copy(tmp_path)
    seen = [
        (stage.stage, len(stage.epochs), stage.complete)
        for record in run_trial(root, {"defense.overfit_epochs": 3, "defense.unlearn_epochs": 1})
        for stage in record.stages[-1:]
        if record.state == "RUNNING" and stage.stage in {"overfit", "unlearn"}
    ]
    expected = [*(("overfit", n, False) for n in (1, 2, 3)), ("overfit", 3, True)]
    assert seen == [*expected, ("unlearn", 1, False), ("unlearn", 1, True)]
