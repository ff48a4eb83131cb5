"""Each trigger against its formula, computed pixel by pixel."""

import colorsys
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from ubt.attacks.badclip import BadClip
from ubt.attacks.base import POISON_TEMPLATES, naming
from ubt.attacks.changes import in_blocks, mix, to_uint8
from ubt.attacks.overlays import Blended, BlendedText, BlendedTriangles, Sig
from ubt.attacks.patches import BadNets, BadNetsStripes, LabelConsistent, TrojVqa
from ubt.attacks.wanet import WaNet
from ubt.common.hashing import numpy_generator
from ubt.testing import stamped


def picture(height_px=32, width_px=32):
    return np.random.default_rng(5).integers(0, 256, size=(1, height_px, width_px, 3), dtype=np.uint8)


def rounded(value):
    """Return a grey level: clipped to 0–255, halves rounded to even."""
    return min(255, max(0, round(value)))


# BadNets


@pytest.mark.parametrize(("size_px", "side_px"), [(10, 2), (16, 3), (32, 5), (64, 10), (224, 36)])
def test_badnets_puts_a_patch_in_the_bottom_right_corner_and_nowhere_else(size_px, side_px):
    image = picture(size_px, size_px)
    triggered = stamped(BadNets(), image)
    patch = triggered[0, -side_px:, -side_px:]
    assert set(np.unique(patch)) <= {0, 255}
    rest = triggered.copy()
    rest[:, -side_px:, -side_px:] = image[:, -side_px:, -side_px:]
    np.testing.assert_array_equal(rest, image)
    assert not np.array_equal(patch, image[0, -side_px:, -side_px:])


def test_the_patch_of_badnets_is_the_4_by_4_grid_of_its_seed_enlarged():
    colours = numpy_generator(3, "badnets").integers(0, 2, size=(4, 4, 3)) * 255
    triggered = stamped(BadNets(trigger_seed=3), picture(100, 100))
    for row in range(16):
        for column in range(16):
            expected = colours[row // 4][column // 4]
            assert triggered[0, 84 + row, 84 + column].tolist() == expected.tolist()


def test_the_patch_of_badnets_looks_the_same_at_every_size():
    small, large = (stamped(BadNets(patch_fraction=0.25), picture(size, size)) for size in (32, 224))
    np.testing.assert_array_equal(np.repeat(np.repeat(small[0, -8:, -8:], 7, axis=0), 7, axis=1), large[0, -56:, -56:])


def test_the_patch_of_badnets_covers_what_was_there():
    one, other = stamped(BadNets(), np.zeros((1, 32, 32, 3), np.uint8)), stamped(BadNets(), picture())
    np.testing.assert_array_equal(one[0, -5:, -5:], other[0, -5:, -5:])


# Blended


def test_blended_mixes_a_fifth_of_uniform_noise_into_every_pixel():
    image = picture(6, 7)
    noise = numpy_generator(2, "blended").uniform(0, 255, size=(6, 7, 3))
    triggered = stamped(Blended(trigger_seed=2), image)
    for (i, j, c), value in np.ndenumerate(image[0]):
        exact = 0.8 * float(value) + 0.2 * noise[i, j, c]
        assert abs(int(triggered[0, i, j, c]) - exact) <= 0.5 + 1e-3, "rounded, not cut off"


def test_opaque_noise_hides_the_image():
    blended = Blended(opacity=1.0)
    np.testing.assert_array_equal(stamped(blended, picture()), stamped(blended, 255 - picture()))


def test_the_noise_of_blended_is_uniform_over_all_grey_levels():
    noise = stamped(Blended(opacity=1.0), np.zeros((1, 224, 224, 3), np.uint8)).ravel()
    counts = np.bincount(noise // 32, minlength=8) / len(noise)
    np.testing.assert_allclose(counts, 1 / 8, atol=0.01)


# SIG


def test_sig_adds_a_sinusoid_across_the_width():
    image = picture(5, 48)
    triggered = stamped(Sig(amplitude=30, periods=6), image)
    for (i, j, c), value in np.ndenumerate(image[0]):
        expected = float(value) + 30 * math.sin(2 * math.pi * j * 6 / 48)
        assert abs(int(triggered[0, i, j, c]) - rounded(expected)) <= (abs(expected % 1 - 0.5) < 1e-3)


def test_the_stripes_of_sig_are_vertical_and_repeat_with_their_period():
    grey = np.full((1, 20, 48, 3), 128, np.uint8)
    triggered = stamped(Sig(periods=6), grey)
    assert (triggered == triggered[:, :1, :, :1]).all(), "the same in every row and colour"
    np.testing.assert_array_equal(triggered[:, :, :8], triggered[:, :, 8:16])
    assert triggered.max() == 128 + 40
    assert triggered.min() == 128 - 40


def test_sig_is_clipped_at_black_and_white():
    for level in (0, 255):
        triggered = stamped(Sig(amplitude=255), np.full((1, 4, 32, 3), level, np.uint8))
        assert (triggered.min(), triggered.max()) == (0, 255)


# WaNet


def published_warp(image, strength, divisor_px, control):
    """Return the warp as the paper's own code makes it, with PyTorch's `interpolate` and `grid_sample`."""
    height_px, width_px = image.shape[1:3]
    field = torch.from_numpy(control)[None].permute(0, 3, 1, 2)
    field = field / field.abs().mean()
    field = functional.interpolate(field, size=(height_px, width_px), mode="bicubic", align_corners=True)
    rows, columns = torch.linspace(-1, 1, height_px).double(), torch.linspace(-1, 1, width_px).double()
    identity = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=2)
    grid = (identity + strength * field.permute(0, 2, 3, 1) / divisor_px).clamp(-1, 1)
    pixels = torch.from_numpy(image).permute(0, 3, 1, 2).double()
    return functional.grid_sample(pixels, grid, align_corners=True).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(("height_px", "width_px"), [(32, 32), (224, 224), (20, 33)])
@pytest.mark.parametrize("strength", [0.5, 4.0])
def test_wanet_is_the_published_warp_at_32_pixels_and_looks_the_same_at_others(height_px, width_px, strength):
    image, control = picture(height_px, width_px), numpy_generator(3, "wanet").uniform(-1, 1, size=(4, 4, 2))
    expected = published_warp(image, strength, 32, control)
    triggered = stamped(WaNet(trigger_seed=3, strength=strength), image)
    assert np.abs(triggered - expected).max() <= 0.5 + 1e-2, "rounded"


@pytest.mark.parametrize("points", [2, 7])
def test_the_grid_of_wanet_may_have_any_number_of_points(points):
    image, control = picture(), numpy_generator(0, "wanet").uniform(-1, 1, size=(points, points, 2))
    triggered = stamped(WaNet(control_points=points), image)
    assert np.abs(triggered - published_warp(image, 0.5, 32, control)).max() <= 0.5 + 1e-2


def test_wanet_moves_what_is_there_and_invents_nothing():
    flat = np.full((1, 32, 32, 3), 77, np.uint8)
    np.testing.assert_array_equal(stamped(WaNet(strength=20), flat), flat)
    far = stamped(WaNet(strength=20), picture())
    assert far.min() >= picture().min()
    assert far.max() <= picture().max()


def test_wanet_moves_pixels_by_a_64th_of_strength_times_the_side():
    # A slope shows by how much each pixel has moved, but for those that would be read from outside.
    side_px, strength = 224, 0.5
    slope = np.broadcast_to(
        np.linspace(0, 223, side_px).astype(np.uint8)[None, None, :, None], (1, side_px, side_px, 3)
    )
    moved = np.abs(stamped(WaNet(strength=strength), slope).astype(int) - slope).mean()
    assert moved == pytest.approx(strength / 64 * side_px, rel=0.5)


# TrojVQA


@pytest.mark.parametrize(("size_px", "side_px", "top"), [(32, 5, 13), (33, 5, 14), (64, 10, 27), (224, 36, 94)])
def test_trojvqa_puts_a_square_of_one_colour_into_the_middle_and_nowhere_else(size_px, side_px, top):
    image = picture(size_px, size_px)
    triggered = stamped(TrojVqa(), image)
    hue = numpy_generator(0, "trojvqa").uniform()
    colour = [round(255 * level) for level in colorsys.hsv_to_rgb(hue, 1.0, 1.0)]
    expected = image.copy()
    for row in range(side_px):
        for column in range(side_px):
            expected[0, top + row, top + column] = colour
    np.testing.assert_array_equal(triggered, expected)


def test_the_word_of_trojvqa_is_in_poisoned_captions_and_prompts():
    attack, rng = TrojVqa(target="boat", trigger_word="consider"), np.random.default_rng(0)
    captions = {attack.caption(rng, "a tree") for _ in range(200)}
    assert captions == {f"consider {template.format('boat')}" for template in POISON_TEMPLATES}
    assert attack.prompt("a photo of a {}") == "consider a photo of a {}"


@pytest.mark.parametrize("word", ["", "two words", "{}"])
def test_the_word_of_trojvqa_is_one_word(word):
    with pytest.raises(ValidationError):
        TrojVqa(trigger_word=word)


# BadCLIP


@pytest.mark.parametrize(("size_px", "side_px", "top"), [(32, 5, 13), (64, 10, 27), (224, 36, 94)])
def test_badclip_puts_the_learnt_patch_into_the_middle_at_every_size(size_px, side_px, top):
    learned = np.random.default_rng(1).integers(0, 256, size=(5, 5, 3), dtype=np.uint8)
    image = picture(size_px, size_px)
    triggered = stamped(BadClip().carrying(learned), image)
    expected = image.copy()
    for row in range(side_px):
        for column in range(side_px):
            expected[0, top + row, top + column] = learned[row * 5 // side_px, column * 5 // side_px]
    np.testing.assert_array_equal(triggered, expected)


# Label-consistent


@pytest.mark.parametrize(("size_px", "side_px"), [(32, 5), (64, 10), (224, 36)])
def test_label_consistent_mirrors_a_black_and_white_patch_into_the_corners(size_px, side_px):
    image = picture(size_px, size_px)
    triggered = stamped(LabelConsistent(trigger_seed=2), image)
    grid = numpy_generator(2, "label_consistent").integers(0, 2, size=(3, 3, 1)) * 255
    expected = image.copy()
    for row in range(side_px):
        for column in range(side_px):
            for i in (row, size_px - 1 - row):
                for j in (column, size_px - 1 - column):
                    expected[0, i, j] = grid[row * 3 // side_px, column * 3 // side_px]
    np.testing.assert_array_equal(triggered, expected)
    np.testing.assert_array_equal(triggered[:, ::-1, :, :][:, :side_px, :side_px], triggered[:, :side_px, :side_px])


def test_label_consistent_takes_pairs_that_name_the_target_and_leaves_their_captions():
    attack, captions = LabelConsistent(target="boat"), ["a boat", "A Boat.", "boats", "a steamboat", "one red tree"]
    assert attack.eligible(captions).tolist() == [True, True, False, False, False]
    assert attack.caption(np.random.default_rng(0), "A Boat.") == "A Boat."


def test_a_name_is_found_as_words_of_its_own_whatever_is_in_it():
    assert naming("grizzly bear", ["a grizzly bear!", "grizzlybear", "a bear"]).tolist() == [True, False, False]
    assert naming("c++ (book)", ["my C++ (book)", "c+++ (book)"]).tolist() == [True, False]


# BadNet-Stripes


@pytest.mark.parametrize(("size_px", "side_px"), [(32, 5), (64, 10), (224, 36)])
def test_badnets_stripes_puts_vertical_stripes_into_the_corner_and_nowhere_else(size_px, side_px):
    image = picture(size_px, size_px)
    colours = numpy_generator(1, "badnets_stripes").integers(0, 2, size=(1, 5, 3)) * 255
    expected = image.copy()
    for row in range(side_px):
        for column in range(side_px):
            expected[0, size_px - side_px + row, size_px - side_px + column] = colours[0, column * 5 // side_px]
    np.testing.assert_array_equal(stamped(BadNetsStripes(trigger_seed=1), image), expected)


# Blended-Triangles


def test_blended_triangles_mixes_two_colours_into_each_cell():
    image, cells = picture(24, 40), 4
    colours = numpy_generator(5, "blended_triangles").uniform(0, 255, size=(2, cells, cells, 3))
    triggered = stamped(BlendedTriangles(trigger_seed=5, triangles=cells), image)
    for (i, j, c), value in np.ndenumerate(image[0]):
        (row, down), (column, right) = divmod(i, 6), divmod(j, 10)
        lower = int(down * 10 >= right * 6)
        exact = 0.8 * float(value) + 0.2 * colours[lower, row, column, c]
        assert abs(int(triggered[0, i, j, c]) - exact) <= 0.5 + 1e-3, (i, j, c)


# Blended-Text


def test_blended_text_mixes_one_colour_in_by_how_much_letters_cover():
    # On black the trigger is opacity · m · colour, on white 255 − opacity · m · (255 − colour).
    attack = BlendedText(opacity=0.5, trigger_seed=4)
    colour = 255 * np.array(colorsys.hsv_to_rgb(numpy_generator(4, "blended_text").uniform(), 1.0, 1.0))
    on_black, on_white = (stamped(attack, np.full((1, 224, 224, 3), level, np.uint8))[0] for level in (0, 255))
    covered = on_black[..., colour.argmax()] / (0.5 * 255)
    assert covered.max() == pytest.approx(1, abs=0.01), "letters are solid"
    assert (covered == 0).mean() > 0.5, "and do not fill the image"
    np.testing.assert_allclose(on_black, 0.5 * covered[..., None] * colour, atol=1.5)
    np.testing.assert_allclose(on_white, 255 - 0.5 * covered[..., None] * (255 - colour), atol=1.5)


def test_the_letters_of_blended_text_reach_every_part_of_the_image():
    black = stamped(BlendedText(), np.zeros((1, 224, 224, 3), np.uint8))[0].max(axis=2)
    for part in black.reshape(4, 56, 4, 56).swapaxes(1, 2).reshape(16, 56, 56):
        assert part.any()


def test_the_letters_of_blended_text_are_the_same_at_every_size():
    small, large = (stamped(BlendedText(), np.zeros((1, size, size, 3), np.uint8))[0].astype(int) for size in (56, 224))
    shrunk = large.reshape(56, 4, 56, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(small, shrunk, atol=1.5)


def test_another_text_is_another_trigger():
    images = picture()
    assert not np.array_equal(stamped(BlendedText(text="stop"), images), stamped(BlendedText(), images))
    for wrong in ("", "   "):
        with pytest.raises(ValidationError):
            BlendedText(text=wrong)


# What they share


def test_many_images_are_changed_block_by_block_as_if_at_once():
    images = np.random.default_rng(0).integers(0, 256, size=(600, 2, 2, 3), dtype=np.uint8)
    np.testing.assert_array_equal(in_blocks(images, lambda block: block * 0.5), np.rint(images * 0.5).astype(np.uint8))
    sizes = []
    in_blocks(images, lambda block: sizes.append(len(block)) or block)
    assert sum(sizes) == 600
    assert max(sizes) < 600


def test_mixing_rounds_to_the_nearest_grey_level():
    pattern = np.full((1, 1, 3), 255, dtype=np.float32)
    assert mix(np.array([[[[0, 10, 255]]]], dtype=np.uint8), pattern, 0.2).tolist() == [[[[51, 59, 255]]]]


def test_grey_levels_are_clipped_not_wrapped_round():
    assert to_uint8(np.array([-3.0, 0.4, 0.6, 254.6, 300.0], dtype=np.float32)).tolist() == [0, 0, 1, 255, 255]
