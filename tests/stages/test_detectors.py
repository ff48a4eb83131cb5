"""What pairs are trusted for: similarity under the clean or the poisoned model, or near neighbours of the image."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_victim import tiny_trial

from ubt.attacks.patches import BadNets
from ubt.defenses.ubt import Ubt
from ubt.engine.graph import build_pipeline
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.neighbours import (
    dimension_aware_outlierness,
    local_dimensions,
    nearest_neighbours,
    outlier_factors,
)
from ubt.models.clip import embed_images, pair_similarities
from ubt.stages.detectors import Trust, diagnose

STAGES = {name: f"detect_{name}" for name in ("clean", "gain", "poisoned", "knn", "lof", "lid", "dao")}
DETECTORS = pytest.mark.parametrize("detector", STAGES)


def keys(detector, changes=None, **settings):
    changes = {"defense.detector": {"kind": detector, **settings}, **(changes or {})}
    return {node.spec.name: node.key for node in build_pipeline(tiny_trial(changes), 0)}


def trust(bench, detector, **settings):
    return bench.output(STAGES[detector], {"defense.detector": {"kind": detector, **settings}}).tensors["trust"]


@DETECTORS
def test_every_pair_is_trusted_by_one_number(bench, detector):
    found = trust(bench, detector)
    assert found.shape == (200,)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert torch.equal(found, trust(bench, detector)), "to the bit"


@pytest.mark.parametrize(("detector", "role"), [("clean", "clean"), ("poisoned", "poisoned")])
def test_pairs_are_trusted_by_their_similarity_under_the_model_that_is_named(bench, detector, role):
    context = bench.context(STAGES[detector], {"defense.detector": detector})
    expected = pair_similarities(context.clip(role), context.pairs, context.pair_tokens, np.arange(200))
    assert torch.equal(trust(bench, detector), expected)
    assert not torch.allclose(trust(bench, "clean"), trust(bench, "poisoned"))


def test_pairs_are_distrusted_as_far_as_the_implant_made_them_more_alike(bench):
    assert torch.allclose(trust(bench, "gain"), trust(bench, "clean") - trust(bench, "poisoned"))


@pytest.fixture
def embeddings(bench):
    """Of all images under the poisoned model, in one block."""
    context = bench.context("detect_knn", {"defense.detector": "knn"})
    return embed_images(context.clip("poisoned"), context.pairs.take(np.arange(200))).numpy().astype(float)


@pytest.mark.parametrize("neighbours", [1, 16])
def test_the_nearest_neighbour_detector_is_the_distance_to_the_kth_other_image(
    bench, embeddings, neighbours, monkeypatch
):
    monkeypatch.setattr("ubt.models.clip._IMAGES", 64)
    distances = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    expected = -np.sort(distances, axis=1)[:, neighbours - 1]
    np.testing.assert_allclose(trust(bench, "knn", neighbours=neighbours), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("detector", "outlyingness"),
    [("lof", outlier_factors), ("lid", local_dimensions), ("dao", dimension_aware_outlierness)],
)
def test_images_are_distrusted_as_far_as_they_lie_apart(bench, embeddings, detector, outlyingness):
    expected = -outlyingness(nearest_neighbours(torch.from_numpy(embeddings), 5))
    np.testing.assert_allclose(trust(bench, detector, neighbours=5), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("poisoned", "auroc"), [((0, 1), 1.0), ((2, 3), 0.0), ((0, 3), 0.5)])
def test_poison_that_is_trusted_less_than_the_rest_has_a_high_auroc(bench, poisoned, auroc):
    output = Trust(torch.arange(4), torch.tensor([0.1, 0.2, 0.3, 0.4])).output()
    manifest = PoisonManifest(np.array(poisoned), ["a"] * len(poisoned), BadNets())
    assert diagnose(bench.context("detect_clean"), output, manifest) == {"pairs": 4.0, "recall": 1.0, "auroc": auroc}


# Which stages run, and what trials share


@DETECTORS
def test_a_detector_is_the_first_stage_of_the_defense(detector):
    assert Ubt(detector=detector).stages[0] == STAGES[detector]
    assert Ubt(detector=detector).stages[1:] == Ubt().stages[1:]


@pytest.mark.parametrize(("detector", "shared"), [("clean", True), ("poisoned", False), ("knn", False), ("dao", False)])
def test_only_the_clean_models_trust_is_shared_by_all_implants(detector, shared):
    one, other = keys(detector), keys(detector, {"victim.implant.epochs": 3})
    assert one["implant"] != other["implant"]
    assert (one[STAGES[detector]] == other[STAGES[detector]]) is shared
    assert (one["suspect"] == other["suspect"]) is shared


def test_detectors_share_the_victim_and_nothing_else():
    found = [keys(detector) for detector in STAGES]
    for name in ("pretrain", "poison", "implant"):
        assert len({each[name] for each in found}) == 1
    for name in ("suspect", "overfit", "select", "attribute", "unlearn", "evaluate"):
        assert len({each[name] for each in found}) == len(STAGES)


@pytest.mark.parametrize("detector", ["knn", "lof", "lid", "dao"])
def test_the_number_of_neighbours_matters_where_neighbours_do(detector):
    one, other = keys(detector), keys(detector, neighbours=5)
    assert one[STAGES[detector]] != other[STAGES[detector]]
    assert one["evaluate"] != other["evaluate"]
    assert keys(detector, neighbours=16) == one == keys(detector, {"defense.detector": detector})


@pytest.mark.parametrize("detector", ["clean", "gain", "poisoned"])
def test_a_detector_that_looks_for_no_neighbours_has_no_number_of_them(detector):
    with pytest.raises(ValidationError, match="neighbours"):
        keys(detector, neighbours=5)


@DETECTORS
def test_the_defense_goes_on_from_any_detector(bench, detector):
    changes = {"defense.detector": detector}
    assert bench.inputs("unlearn", changes)["trust"].manifest.stage == STAGES[detector]
    assert torch.equal(
        bench.output("suspect", changes).tensors["indices"],
        torch.argsort(trust(bench, detector), stable=True)[:20],
    )
    assert bench.output("unlearn", changes).model
