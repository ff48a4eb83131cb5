"""Each trigger against its formula, computed pixel by pixel."""

import math

import numpy as np
import pytest

from ubt.attacks.badnets import BadNets
from ubt.attacks.base import mix, to_uint8
from ubt.attacks.blended import Blended
from ubt.attacks.sig import Sig
from ubt.seeding import numpy_generator


def picture(height_px=32, width_px=32):
    return np.random.default_rng(5).integers(0, 256, size=(1, height_px, width_px, 3), dtype=np.uint8)


def rounded(value):
    """Return a grey level: clipped to 0–255, halves rounded to even."""
    return min(255, max(0, round(value)))


# BadNets


@pytest.mark.parametrize(("size_px", "side_px"), [(10, 2), (16, 3), (32, 5), (64, 10), (224, 36)])
def test_badnets_puts_a_patch_in_the_bottom_right_corner_and_nowhere_else(size_px, side_px):
    image = picture(size_px, size_px)
    triggered = BadNets().stamp(image)
    patch = triggered[0, -side_px:, -side_px:]
    assert set(np.unique(patch)) <= {0, 255}
    rest = triggered.copy()
    rest[:, -side_px:, -side_px:] = image[:, -side_px:, -side_px:]
    np.testing.assert_array_equal(rest, image)
    assert not np.array_equal(patch, image[0, -side_px:, -side_px:])


def test_the_patch_of_badnets_is_the_4_by_4_grid_of_its_seed_enlarged():
    colours = numpy_generator(3, "badnets").integers(0, 2, size=(4, 4, 3)) * 255
    triggered = BadNets(trigger_seed=3).stamp(picture(100, 100))
    for row in range(16):
        for column in range(16):
            expected = colours[row // 4][column // 4]
            assert triggered[0, 84 + row, 84 + column].tolist() == expected.tolist()


def test_the_patch_of_badnets_looks_the_same_at_every_size():
    small, large = (BadNets(patch_fraction=0.25).stamp(picture(size, size)) for size in (32, 224))
    np.testing.assert_array_equal(np.repeat(np.repeat(small[0, -8:, -8:], 7, axis=0), 7, axis=1), large[0, -56:, -56:])


def test_the_patch_of_badnets_covers_what_was_there():
    one, other = BadNets().stamp(np.zeros((1, 32, 32, 3), np.uint8)), BadNets().stamp(picture())
    np.testing.assert_array_equal(one[0, -5:, -5:], other[0, -5:, -5:])


# Blended


def test_blended_mixes_a_fifth_of_uniform_noise_into_every_pixel():
    image = picture(6, 7)
    noise = numpy_generator(2, "blended").uniform(0, 255, size=(6, 7, 3))
    triggered = Blended(trigger_seed=2).stamp(image)
    for (i, j, c), value in np.ndenumerate(image[0]):
        exact = 0.8 * float(value) + 0.2 * noise[i, j, c]
        assert abs(int(triggered[0, i, j, c]) - exact) <= 0.5 + 1e-3, "rounded, not cut off"


def test_opaque_noise_hides_the_image():
    blended = Blended(opacity=1.0)
    np.testing.assert_array_equal(blended.stamp(picture()), blended.stamp(255 - picture()))


def test_the_noise_of_blended_is_uniform_over_all_grey_levels():
    noise = Blended(opacity=1.0).stamp(np.zeros((1, 224, 224, 3), np.uint8)).ravel()
    counts = np.bincount(noise // 32, minlength=8) / len(noise)
    np.testing.assert_allclose(counts, 1 / 8, atol=0.01)


# SIG


def test_sig_adds_a_sinusoid_across_the_width():
    image = picture(5, 48)
    triggered = Sig(amplitude=30, periods=6).stamp(image)
    for (i, j, c), value in np.ndenumerate(image[0]):
        expected = float(value) + 30 * math.sin(2 * math.pi * j * 6 / 48)
        assert abs(int(triggered[0, i, j, c]) - rounded(expected)) <= (abs(expected % 1 - 0.5) < 1e-3)


def test_the_stripes_of_sig_are_vertical_and_repeat_with_their_period():
    grey = np.full((1, 20, 48, 3), 128, np.uint8)
    triggered = Sig(periods=6).stamp(grey)
    assert (triggered == triggered[:, :1, :, :1]).all(), "the same in every row and colour"
    np.testing.assert_array_equal(triggered[:, :, :8], triggered[:, :, 8:16])
    assert triggered.max() == 128 + 40
    assert triggered.min() == 128 - 40


def test_sig_is_clipped_at_black_and_white():
    for level in (0, 255):
        triggered = Sig(amplitude=255).stamp(np.full((1, 4, 32, 3), level, np.uint8))
        assert (triggered.min(), triggered.max()) == (0, 255)


# What they share


def test_mixing_rounds_to_the_nearest_grey_level():
    pattern = np.full((1, 1, 3), 255, dtype=np.float32)
    assert mix(np.array([[[[0, 10, 255]]]], dtype=np.uint8), pattern, 0.2).tolist() == [[[[51, 59, 255]]]]


def test_grey_levels_are_clipped_not_wrapped_round():
    assert to_uint8(np.array([-3.0, 0.4, 0.6, 254.6, 300.0], dtype=np.float32)).tolist() == [0, 0, 1, 255, 255]
