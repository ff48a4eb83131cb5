import numpy as np
import pytest
import torch

from ubt.attacks.patches import BadNets
from ubt.common.errors import StageFault
from ubt.defenses.ubt import UnlearnSettings
from ubt.engine.context import Output, StageInput
from ubt.engine.poisoning import PoisonManifest
from ubt.stages import unlearn
from ubt.stages.detectors import Trust, detect_clean, diagnose
from ubt.stages.retention import trusted_pairs
from ubt.stages.suspect import diagnose_suspect, suspect


def suspects(bench, ratio):
    return bench.output("suspect", {"defense.suspicious_ratio": ratio}).tensors["indices"]


@pytest.mark.parametrize(("ratio", "count"), [(0.1, 20), (0.5, 100), (1.0, 200), (0.0126, 3), (0.001, 2), (0.0001, 2)])
def test_the_pairs_that_the_clean_model_finds_least_alike_are_suspected_the_worst_first(bench, ratio, count):
    trust = bench.output("detect_clean").tensors["trust"].numpy()
    assert suspects(bench, ratio).tolist() == np.argsort(trust, kind="stable")[:count].tolist()


def trusting(values):
    """Return what a detector puts out that has looked at the first pairs."""
    return {"trust": StageInput(Trust(torch.arange(len(values)), values).output().tensors)}


def test_of_equal_pairs_the_first_are_suspected(bench):
    tied = torch.tensor([0.3, 0.1, 0.3, 0.1, 0.1, 0.3])
    context = bench.context("suspect", {"defense.suspicious_ratio": 0.5}, given=trusting(tied))
    assert suspect(context).tensors["indices"].tolist() == [1, 3, 4]


def manifest(*indices):
    return PoisonManifest(np.array(indices), ["a"] * len(indices), BadNets())


def test_recall_precision_and_separation_of_the_suspects_are_measured(bench):
    context = bench.context("suspect", given=trusting(torch.linspace(-1, 0, 200)))
    output = Output(tensors={"indices": torch.tensor([4, 7, 0, 9, 5])})
    found = diagnose_suspect(context, output, manifest(0, 1, 2, 7))
    assert found == {"pairs": 5.0, "recall": 2 / 4, "precision": 2 / 5, "auroc": pytest.approx(4 / 6, rel=1e-12)}


@pytest.mark.parametrize("detector", ["clean", "gain", "knn"])
def test_only_pairs_that_were_looked_at_are_suspected_or_held_in_place(bench, detector):
    changes = {"defense.detector": detector, "defense.screened_ratio": 0.3, "defense.suspicious_ratio": 0.1}
    context = bench.context("unlearn", changes)
    trust = Trust.of(context.artifact("trust"))
    looked_at = set(trust.pairs.tolist())
    assert len(looked_at) == len(trust.values) == 60
    indices = context.artifact("suspects").tensors["indices"]
    assert len(indices) == 6
    assert set(indices.tolist()) < looked_at
    assert trust.in_pairs(indices).tolist() == sorted(trust.values.tolist())[:6]
    held = set(trusted_pairs(context, context.settings(UnlearnSettings)).tolist())
    assert held < looked_at - set(indices.tolist())
    assert len(held) == 30


def test_which_pairs_are_looked_at_does_not_depend_on_the_seed_and_their_trust_not_on_the_others(bench):
    some = Trust.of(bench.context("suspect", {"defense.screened_ratio": 0.3}).artifact("trust"))
    again = Trust.of(bench.context("suspect", {"defense.screened_ratio": 0.3}, seed=1).artifact("trust"))
    whole = Trust.of(bench.context("suspect").artifact("trust"))
    assert torch.equal(some.pairs, again.pairs)
    torch.testing.assert_close(some.values, whole.in_pairs(some.pairs))


def test_what_was_looked_at_and_its_share_of_the_poison_are_measured(bench):
    context = bench.context("detect_clean", {"defense.screened_ratio": 0.5})
    output = detect_clean(context)
    found = Trust(output.tensors["pairs"], output.tensors["trust"])
    held = manifest(*found.pairs[:3].tolist(), *sorted(set(range(200)) - set(found.pairs.tolist()))[:1])
    diagnostics = diagnose(context, found.output(), held)
    assert (diagnostics["pairs"], diagnostics["recall"]) == (100.0, 3 / 4)
    assert set(diagnostics) == {"pairs", "recall", "auroc"}


def test_it_is_a_fault_if_nothing_is_left_to_hold_in_place(bench):
    context = bench.context("unlearn", {"defense.suspicious_ratio": 1.0})
    with pytest.raises(StageFault, match="0 pairs are left to hold in place: lower suspicious_ratio"):
        next(unlearn.run(context))
    free = bench.context("unlearn", {"defense.suspicious_ratio": 1.0, "defense.retain_weight": 0.0})
    assert next(unlearn.run(free)).number == 1
