import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubt.common.errors import UserError
from ubt.config import validate
from ubt.data.scenes import CLASSES, COLOURS, PLACES, SIZES, Scene, Scenes, draw

SMALL = {"pretrain_pairs": 20, "train_pairs": 24, "val_images": 24, "test_images": 36}


def scenes(**changes):
    return Scenes(**{**SMALL, **changes})


def test_equal_settings_give_equal_pixels_captions_and_labels(tmp_path):
    first, again = (scenes().load(16, tmp_path / name) for name in ("first", "again"))
    for one, other in ((first.train, again.train), (first.pretrain, again.pretrain)):
        np.testing.assert_array_equal(one.images, other.images)
        assert list(one.captions) == list(other.captions)
    for one, other in ((first.val, again.val), (first.test, again.test)):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_another_seed_gives_other_scenes(tmp_path):
    first, other = (scenes(data_seed=seed).load(16, tmp_path) for seed in (0, 1))
    assert not np.array_equal(first.train.images, other.train.images)
    assert list(first.train.captions) != list(other.train.captions)


def test_no_image_is_in_two_splits(tmp_path):
    data = scenes().load(16, tmp_path)
    splits = (data.train, data.pretrain, data.val, data.test)
    images = [image.tobytes() for split in splits for image in split.images]
    assert len(set(images)) == len(images) == sum(SMALL.values())


def test_the_number_of_images_in_one_split_leaves_the_others_alone(tmp_path):
    few, many = (scenes(train_pairs=count).load(16, tmp_path) for count in (24, 30))
    np.testing.assert_array_equal(few.val.images, many.val.images)


def test_classes_have_equal_shares(tmp_path):
    data = scenes(val_images=30, test_images=36).load(16, tmp_path)
    assert set(np.bincount(data.val.labels, minlength=len(CLASSES))) <= {2, 3}
    assert set(np.bincount(data.test.labels, minlength=len(CLASSES))) == {3}


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3])
def test_the_share_of_shuffled_captions_is_as_set(tmp_path, rate):
    count = 3000
    matched = scenes(train_pairs=count, mismatch_rate=0.0, noise=0).load(4, tmp_path).train.captions
    shuffled = scenes(train_pairs=count, mismatch_rate=rate, noise=0).load(4, tmp_path).train.captions
    changed = np.mean([one != other for one, other in zip(matched, shuffled, strict=True)])
    # A shuffled caption may by chance equal its own: rarely, and the share itself is drawn.
    assert abs(changed - rate) <= 4 * np.sqrt(rate * (1 - rate) / count) + 0.1 * rate
    assert sorted(matched) == sorted(shuffled)


def test_captions_of_the_drawn_object_name_it(tmp_path):
    captions = scenes(mismatch_rate=0).load(8, tmp_path).train.captions
    assert all(any(name in caption for name in CLASSES) for caption in captions)
    assert all("  " not in caption and caption == caption.strip() for caption in captions)


def test_scenes_are_drawn_once(tmp_path, monkeypatch):
    scenes().load(16, tmp_path)
    monkeypatch.setattr("ubt.data.scenes.draw", lambda *_: pytest.fail("drawn again"))
    assert scenes().load(16, tmp_path).train.images.shape == (24, 16, 16, 3)


def test_the_content_key_follows_every_setting():
    changes = [{}, {"data_seed": 1}, {"noise": 3.0}, {"mismatch_rate": 0.1}, {"train_pairs": 25}]
    assert len({scenes(**change).content_key() for change in changes}) == len(changes)
    assert scenes().content_key() == scenes().content_key()


SCENES = st.builds(
    Scene,
    label=st.integers(0, len(CLASSES) - 1),
    colour=st.sampled_from(sorted(COLOURS)),
    place=st.sampled_from(sorted(PLACES)),
    size=st.sampled_from(sorted(SIZES)),
)


@given(SCENES, st.integers(8, 40), st.integers(0, 2**32))
def test_every_scene_can_be_drawn_at_any_size(scene, size_px, seed):
    image = draw(scene, size_px, 12.0, np.random.default_rng(seed))
    assert image.shape == (size_px, size_px, 3)
    assert image.dtype == np.uint8


@given(SCENES, st.integers(0, 2**32))
def test_the_object_stands_out_from_its_background(scene, seed):
    if scene.colour == "white" and scene.place == "in the snow":
        return  # the two differ by less than the spread of either
    image = draw(scene, 32, 0.0, np.random.default_rng(seed))
    assert len(np.unique(image.reshape(-1, 3), axis=0)) >= 3, "sky, ground and an object"


@pytest.mark.parametrize(("field", "value"), [("train_pairs", 0), ("mismatch_rate", 1.0), ("noise", -1.0)])
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(UserError, match=field):
        validate(Scenes, {field: value}, "study.yaml")
