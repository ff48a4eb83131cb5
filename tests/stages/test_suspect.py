import numpy as np
import pytest
import torch

from ubt.artifacts import Artifact
from ubt.attacks.badnets import BadNets
from ubt.poisoning import Manifest
from ubt.similarity import pair_similarities
from ubt.stages import score, suspect
from ubt.stages.context import Output


def suspects(bench, ratio):
    return bench.output("suspect", {"defense.suspicious_ratio": ratio}).tensors["indices"]


@pytest.mark.parametrize(("ratio", "count"), [(0.1, 20), (0.5, 100), (1.0, 200), (0.0126, 3), (0.001, 2), (0.0001, 2)])
def test_the_pairs_that_the_clean_model_finds_least_alike_are_suspected_the_worst_first(bench, ratio, count):
    similarities = bench.output("score").tensors["similarities"].numpy()
    assert suspects(bench, ratio).tolist() == np.argsort(similarities, kind="stable")[:count].tolist()


def test_of_equal_pairs_the_first_are_suspected(bench, monkeypatch):
    context = bench.context("suspect", {"defense.suspicious_ratio": 0.5})
    tied = torch.tensor([0.3, 0.1, 0.3, 0.1, 0.1, 0.3])
    meta = context.artifact("similarities").meta
    monkeypatch.setitem(context._inputs, "similarities", Artifact(meta, {"similarities": tied}))
    assert suspect.run(context).tensors["indices"].tolist() == [1, 3, 4]


def test_all_pairs_are_scored_by_the_clean_model(bench):
    context = bench.context("score")
    similarities = score.run(context).tensors["similarities"]
    assert similarities.shape == (200,)
    assert similarities.dtype == torch.float32
    clean = pair_similarities(context.clip("clean"), context.pairs, context.pair_tokens, np.arange(200))
    assert torch.equal(similarities, clean)
    poisoned = bench.context("overfit").clip("poisoned")
    other = pair_similarities(poisoned, context.pairs, context.pair_tokens, np.arange(200))
    assert not torch.allclose(similarities, other), "or the test could not tell the two models apart"


def manifest(*indices):
    return Manifest(np.array(indices), ["a"] * len(indices), BadNets())


def test_recall_and_precision_of_suspects_are_counted(bench):
    output = Output(tensors={"indices": torch.tensor([4, 7, 0, 9, 5])})
    found = suspect.measure(bench.context("suspect"), output, manifest(0, 1, 2, 4))
    assert found == {"pairs": 5.0, "recall": 2 / 4, "precision": 2 / 5}


@pytest.mark.parametrize(("poisoned", "auroc"), [((0, 1), 1.0), ((2, 3), 0.0), ((0, 3), 0.5)])
def test_poison_that_is_less_alike_than_the_rest_has_a_high_auroc(bench, poisoned, auroc):
    output = Output(tensors={"similarities": torch.tensor([0.1, 0.2, 0.3, 0.4])})
    assert score.measure(bench.context("score"), output, manifest(*poisoned)) == {"auroc": auroc}
