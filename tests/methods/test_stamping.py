"""Triggers stamped by the batch by torch, against each attack's own `stamp`, of all images at once."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from ubt.attacks import ATTACKS, Rows
from ubt.attacks.patches import BadNets
from ubt.methods.stamping import Stamper, says_what_it_does

ATTACKS_FOLDER = Path(__file__).parents[1] / "attacks"
SAMPLES = {"image": ATTACKS_FOLDER / "trigger.png", "grid": ATTACKS_FOLDER / "grid.pt"}
CPU = torch.device("cpu")
DRAWN = {"cleanclip_badnets", "cleanclip_label_consistent", "cleanclip_blended", "detectclip_badnets"} | {
    *("par_badnets_stripes", "par_blended_stripes")
}
"""Attacks that draw something anew for each image, or treat splits differently."""


def made(kind):
    attack = kind(**{name: SAMPLES[name] for name in kind.path_fields if kind.model_fields[name].is_required()})
    return attack.carrying(pictures(1, 5, 5)[0]) if attack.learns else attack


def pictures(count, height_px, width_px, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(count, height_px, width_px, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", list(ATTACKS), ids=lambda kind: getattr(kind, "__name__", kind))
@pytest.mark.parametrize("size", [(32, 32), (33, 40), (64, 64)], ids=str)
def test_torch_stamps_by_the_batch_what_numpy_stamps_at_once_bit_for_bit(kind, size):
    attack = made(ATTACKS.get(kind) if isinstance(kind, str) else kind)
    images, rows = pictures(150, *size), Rows("val", np.arange(150) * 3)
    images.flags.writeable = False  # as memory-mapped ones are
    stamper, expected = Stamper(attack, CPU), attack.stamp(images, rows)
    batches = [slice(0, 70), slice(70, 71), slice(71, 150)]
    found = [stamper.on(images[one], Rows("val", rows.numbers[one])) for one in batches]
    np.testing.assert_array_equal(np.concatenate(found), expected)
    assert (attack.change(*size) is None) is (attack.kind in DRAWN), "else it is stamped on the CPU"


def test_images_that_are_stamped_stay_as_they_are():
    images = torch.from_numpy(pictures(3, 16, 16))
    before = images.clone()
    assert not torch.equal(Stamper(BadNets(), CPU)(images, Rows.first(3)), before)
    assert torch.equal(images, before)


@pytest.mark.parametrize("place", ["random", "four_corners", "middle"])
def test_a_patch_at_a_place_of_ones_own_is_stamped_alike(place):
    attack = ATTACKS.get("patch")(image=SAMPLES["image"], place=place, opacity=0.7, patch_fraction=0.5)
    images, rows = pictures(5, 35, 35), Rows("test", np.array([9, 1, 4, 2, 7]))
    np.testing.assert_array_equal(Stamper(attack, CPU).on(images, rows), attack.stamp(images, rows))


class Brighter(BadNets):
    """Has a `stamp` of its own, and inherits what another one does."""

    kind: Literal["brighter"] = "brighter"

    def stamp(self, images, rows):
        return np.maximum(images, 200)


def test_a_subclass_with_a_stamp_of_its_own_is_stamped_by_it():
    images = pictures(4, 16, 16)
    assert not says_what_it_does(Brighter)
    assert says_what_it_does(BadNets)
    np.testing.assert_array_equal(Stamper(Brighter(), CPU).on(images, Rows.first(4)), np.maximum(images, 200))
