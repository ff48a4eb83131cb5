import numpy as np
import pytest
import torch

from ubt.artifacts.codec import Artifact
from ubt.attacks.patches import BadNets
from ubt.engine.context import Output
from ubt.engine.poisoning import PoisonManifest
from ubt.stages.suspect import diagnose_select, select

SUSPECTS = [30, 11, 70, 5, 92]
"""Least alike under the clean model first."""
OVERFITTED = [0.2, 0.9, -0.5, 0.9, 0.4]
"""Their similarities under the overfitted model."""


def selected(bench, seed=0, suspects=SUSPECTS, **settings):
    """Return what is selected of the five suspects above."""
    changes = {f"defense.{name}": value for name, value in settings.items()}
    context = bench.context("select", changes, seed)
    given = {"suspects": {"indices": torch.tensor(suspects)}, "overfitted": {"similarities": torch.tensor(OVERFITTED)}}
    context._inputs = {role: Artifact(context.artifact(role).manifest, given[role]) for role in given}
    return select(context).tensors["indices"].tolist()


@pytest.mark.parametrize(("count", "expected"), [(1, [11]), (3, [11, 5, 92]), (5, [11, 5, 92, 30, 70])])
def test_the_suspects_most_alike_under_the_overfitted_model_are_selected_best_first(bench, count, expected):
    assert selected(bench, unlearn_samples=count) == expected


def test_the_suspects_least_alike_under_the_clean_model_are_selected(bench):
    assert selected(bench, unlearn_samples=3, selection="clean") == [30, 11, 70]


def test_random_selection_follows_the_seed(bench):
    draws = {seed: selected(bench, seed, unlearn_samples=3, selection="random") for seed in (0, 1)}
    assert draws[0] == selected(bench, 0, unlearn_samples=3, selection="random")
    assert draws[0] != draws[1]
    assert all(set(draw) <= set(SUSPECTS) for draw in draws.values())


@pytest.mark.parametrize("selection", ["overfitted", "clean", "random"])
@pytest.mark.parametrize("count", [1, 4, 5, 64])
def test_no_pair_is_selected_twice_and_no_more_than_are_suspected(bench, selection, count):
    found = selected(bench, unlearn_samples=count, selection=selection)
    assert len(found) == len(set(found)) == min(count, len(SUSPECTS))


@pytest.mark.parametrize("selection", ["overfitted", "clean", "random"])
def test_the_selection_of_the_tiny_trial_is_of_its_suspects(bench, selection):
    found = bench.output("select", {"defense.selection": selection}).tensors["indices"]
    suspects = bench.context("select").artifact("suspects").tensors["indices"]
    assert found.dtype == torch.int64
    assert len(set(found.tolist())) == 8
    assert set(found.tolist()) <= set(suspects.tolist())


def test_purity_is_the_share_of_poison_and_recall_the_share_of_it_that_is_selected(bench):
    output = Output(tensors={"indices": torch.tensor([4, 7, 0, 9])})
    manifest = PoisonManifest(np.array([0, 1, 4, 6, 9]), ["a"] * 5, BadNets())
    found = diagnose_select(bench.context("select"), output, manifest)
    assert found == {"pairs": 4, "purity": 3 / 4, "recall": 3 / 5}


def test_nothing_but_the_number_of_pairs_is_known_of_a_victim_that_came_poisoned(bench):
    output = Output(tensors={"indices": torch.tensor([4, 7, 0])})
    manifest = PoisonManifest(np.zeros(0, dtype=np.int64), [], BadNets())
    assert diagnose_select(bench.context("select"), output, manifest) == {"pairs": 3}
