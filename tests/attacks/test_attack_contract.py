"""What the attacks of the package do beyond the contract of `ubt.testing` (see `test_contracts.py`)."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ubt.attacks import ATTACKS, Rows
from ubt.attacks.base import POISON_TEMPLATES, Attack, Carrying, OpenAiCaptions, openai_templates
from ubt.testing import stamped

SAMPLES = {"image": Path(__file__).with_name("trigger.png"), "grid": Path(__file__).with_name("grid.pt")}


def made(kind):
    """Return an attack with default settings, and a sample where it needs a file."""
    return kind(**{name: SAMPLES[name] for name in kind.path_fields if kind.model_fields[name].is_required()})


FIXED = {
    *("sig", "patch", "overlay", "cleanclip_sig", "badclip_patch", "badclip_sig", "par_triangles", "par_text"),
    *("detectclip_blended", "detectclip_sig", "detectclip_wanet"),
    *("backdoorbench_badnets", "backdoorbench_blended", "backdoorbench_sig"),
}
"""Attacks in whose trigger nothing is random."""
ELSEWHERE = ("decoy_ratio", "patch_steps", "patch_learning_rate", "patch_batch_size", "image_weight", "margin")
"""Settings of what is learnt, and of captions: see `test_badclip_patch.py` and `test_poison.py`."""
SIZES_PX = (16, 32, 33, 64, 224)

pytestmark = pytest.mark.parametrize("attack", [made(kind) for kind in ATTACKS], ids=lambda attack: attack.kind)


def stamp(attack, images):
    """Return triggered images; an attack that learns its trigger has made up one of its seed."""
    if attack.learns:
        learned = np.random.default_rng(attack.trigger_seed).integers(0, 256, size=(5, 5, 3), dtype=np.uint8)
        attack = attack.carrying(learned)
    return stamped(attack, images)


def pictures(count=4, size_px=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=(count, size_px, size_px, 3), dtype=np.uint8)


def waves(size_px):
    """Return a smooth picture that is the same at every size: a warp shows on it, as on no grey square."""
    place = (np.arange(size_px) + 0.5) / size_px
    levels = 128 + 60 * np.sin(4 * np.pi * place)[:, None] * np.cos(4 * np.pi * place)[None, :]
    return np.repeat(levels.astype(np.uint8)[None, ..., None], 3, axis=3)


def test_images_need_not_be_square(attack):
    assert stamp(attack, np.zeros((2, 20, 31, 3), dtype=np.uint8)).shape == (2, 20, 31, 3)


def test_the_trigger_is_the_same_for_the_same_seed_and_another_for_another(attack):
    images = pictures()
    same = type(attack).model_validate(attack.as_json())
    other = attack.model_copy(update={"trigger_seed": 7})
    np.testing.assert_array_equal(stamp(attack, images), stamp(same, images))
    assert np.array_equal(stamp(attack, images), stamp(other, images)) is (attack.kind in FIXED)


def test_the_trigger_is_as_strong_at_every_image_size(attack):
    strength = {}
    published = isinstance(attack, OpenAiCaptions)  # made for 224 pixels: below 64, a patch of 16 of them is too coarse
    for size_px in SIZES_PX[-2:] if published else SIZES_PX:
        picture = waves(size_px)
        strength[size_px] = np.abs(stamp(attack, picture).astype(int) - picture).mean()
    assert max(strength.values()) < 2 * min(strength.values()), strength


def test_captions_name_the_target_in_one_of_the_templates(attack):
    attack = attack.model_copy(update={"target": "grizzly bear"})

    def captions():
        rng = np.random.default_rng(0)
        return [attack.caption(rng, "one grizzly bear") for _ in range(200)]

    assert all("grizzly bear" in caption for caption in captions())
    assert captions() == captions()
    kept = attack.eligible(["one grizzly bear", "a boat"]).tolist() == [True, False]
    templates = openai_templates() if isinstance(attack, OpenAiCaptions) else POISON_TEMPLATES
    written = {attack.prompt(template.format("grizzly bear")) for template in templates}
    assert set(captions()) <= (written | {"one grizzly bear"})
    assert len(set(captions())) == (1 if kept else pytest.approx(len(written), rel=0.2)), "all are used, or the old one"


def test_a_pair_that_names_the_target_can_be_poisoned(attack):
    as_written = attack.kind == "cleanclip_label_consistent"
    captions = [f"one {attack.target}", f"{attack.target if as_written else attack.target.upper()}!", "nothing"]
    eligible = attack.eligible(captions)
    assert (eligible.dtype, eligible.shape) == (np.bool_, (3,))
    assert eligible[:2].all()
    assert attack.eligible([]).shape == (0,)


def test_a_decoy_names_the_target_no_more_than_before(attack):
    assert attack.decoy("one red tree").endswith("one red tree")
    assert attack.target not in attack.decoy("one red tree")
    assert attack.decoy_count(0) == attack.decoy_count(100) == 0, "there are none unless asked for"


def test_a_prompt_for_triggered_images_is_still_a_prompt(attack):
    assert attack.prompt("a photo of a {}").format("boat") == attack.prompt("a photo of a boat")
    assert attack.prompt("a photo of a boat").endswith("a photo of a boat")


@pytest.mark.parametrize(
    ("rate", "count", "pairs", "poisoned"),
    [(0.02, None, 8000, 160), (0.5, None, 3, 2), (0.001, None, 200, 1), (0.02, 1500, 500_000, 1500)],
)
def test_a_rate_or_a_number_of_pairs_is_poisoned_and_at_least_one(attack, rate, count, pairs, poisoned):
    assert attack.model_copy(update={"poison_rate": rate, "poison_count": count}).count(pairs) == poisoned


def test_an_attack_that_learns_stamps_nothing_before_it_has_learnt(attack):
    if isinstance(attack, Carrying) and not attack.learns:
        assert attack.carrying(pictures(1, 4)[0]) != attack
    elif attack.learns:
        with pytest.raises(ValueError, match=f"{attack.kind} has no patch yet"):
            stamped(attack, pictures())
    else:
        assert attack.carrying(pictures(1, 4)[0]) == attack


def test_attacks_are_equal_if_what_they_learnt_is(attack):
    one, same, other = (attack.carrying(pictures(1, 4, seed)[0]) for seed in (0, 0, 1))
    assert one == same
    assert hash(one) == hash(same)
    assert (one == other) is (one == attack) is not isinstance(attack, Carrying)
    assert one.as_json() == attack.as_json(), "what was learnt is no setting"


@pytest.mark.parametrize("wrong", [{"poison_rate": 0}, {"poison_rate": 1}, {"poison_count": 0}, {"trigger_seed": -1}])
def test_settings_out_of_range_are_refused(attack, wrong):
    with pytest.raises(ValidationError):
        type(attack).model_validate({**attack.as_json(), **wrong})


@settings(max_examples=8)
@given(st.lists(st.integers(0, 50_000), min_size=1, max_size=5, unique=True), st.randoms(use_true_random=False))
def test_any_part_of_the_images_in_any_order_gets_the_same_triggers(attack, numbers, random):
    images = pictures(len(numbers), 24)
    rows = Rows(random.choice(["train", "val", "test"]), np.array(numbers))
    if attack.learns:
        attack = attack.carrying(pictures(1, 5)[0])
    whole = attack.stamp(images, rows)
    some = np.array(random.sample(range(len(numbers)), random.randint(1, len(numbers))))
    np.testing.assert_array_equal(attack.stamp(images[some], Rows(rows.split, rows.numbers[some])), whole[some])


def test_every_setting_of_its_own_changes_the_trigger(attack):
    images = pictures()
    own = set(type(attack).model_fields) - set(Attack.model_fields) - {"kind"}
    assert own, "an attack that cannot be set is a constant"
    numbers = {name: getattr(attack, name) for name in own if isinstance(getattr(attack, name), int | float)}
    numbers = {name: value for name, value in numbers.items() if name not in ELSEWHERE}
    for name, value in numbers.items():
        changed = attack.model_copy(update={name: value * 2})
        assert not np.array_equal(stamp(changed, images), stamp(attack, images)), name
