"""Published triggers against their formulas, computed with torch and torchvision as the repositories do."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision.transforms.functional import to_pil_image, to_tensor

from ubt.attacks import Rows, wanet
from ubt.attacks import published as patches
from ubt.attacks import published_overlays as overlays
from ubt.attacks.base import openai_templates
from ubt.common.errors import UserError
from ubt.testing import stamped

SEED = 3
ROWS = Rows("train", np.array([12, 3]))


@pytest.fixture(scope="module")
def photos():
    """Two images of 224 pixels, smooth and noisy, with black and white in them."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, size=(2, 8, 8, 3), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)) for image in small]
    images = np.stack(smooth)
    images[1] = np.clip(images[1].astype(int) * 2 - 128 + rng.integers(-20, 20, size=images[1].shape), 0, 255)
    return images


def draws(purpose, rows=ROWS):
    return list(rows.generators(SEED, purpose))


def levels(tensor):
    """Return the grey levels `[H, W, 3]` of a float image `[3, H, W]` as torchvision makes them."""
    return np.array(to_pil_image(tensor))


def each(photos, change):
    """Return `change` of each image as a tensor `[3, H, W]` in 0–1, in grey levels."""
    return np.stack([levels(change(to_tensor(image), at)) for at, image in enumerate(photos)])


def wraps_at_most_by_one(found, expected):
    """Return whether grey levels are equal but for the last bit of a float: 0 and 255 are neighbours."""
    apart = (found.astype(int) - expected.astype(int)) % 256
    return bool(np.isin(apart, [0, 1, 255]).all() and (apart != 0).mean() < 1e-3)


def pasted(image, patch, top, left):
    image = image.clone()
    side = patch.shape[-1]
    image[:, top : top + side, left : left + side] = patch
    return image


# Patches


def noise_patch(image, rng):
    noise = torch.from_numpy(rng.standard_normal((16, 16, 3))).float().permute(2, 0, 1)
    return image.mean((1, 2), keepdim=True) + noise


def test_cleanclip_s_badnets_is_the_mean_and_normal_noise_at_a_random_place_unclipped(photos):
    def badnets(image, at):
        rng = draws("patch")[at]
        patch = noise_patch(image, rng)
        top, left = (int(rng.integers(0, 208)) for _ in range(2))
        return pasted(image, patch, top, left)

    found = patches.CleanClipBadNets(trigger_seed=SEED).stamp(photos, ROWS)
    assert wraps_at_most_by_one(found, each(photos, badnets))
    assert (found != photos).any(axis=(2, 3)).sum(axis=1).tolist() == [16, 16]


def test_its_place_may_be_the_four_corners_and_its_colour_yellow(photos):
    def corners(image, at):
        patch = torch.cat([torch.ones(2, 16, 16), torch.zeros(1, 16, 16)])
        for top in (0, 208):
            for left in (0, 208):
                image = pasted(image, patch, top, left)
        return image

    attack = patches.CleanClipBadNets(place="four_corners", colours="yellow")
    np.testing.assert_array_equal(stamped(attack, photos), each(photos, corners))


def test_cleanclip_s_label_consistent_has_that_patch_and_leaves_the_caption(photos):
    attack = patches.CleanClipLabelConsistent(trigger_seed=SEED, target="boat")
    expected = patches.CleanClipBadNets(trigger_seed=SEED).stamp(photos, ROWS)
    np.testing.assert_array_equal(attack.stamp(photos, ROWS), expected)
    assert attack.eligible(["a boat", "steamboats", "A Boat", "a tree"]).tolist() == [True, True, False, False]
    assert attack.caption(np.random.default_rng(0), "a boat by the lake") == "a boat by the lake"


def test_badclip_s_patch_goes_into_the_middle(photos, tmp_path):
    patch = np.random.default_rng(1).integers(0, 256, size=(16, 16, 3), dtype=np.uint8)
    Image.fromarray(patch).save(tmp_path / "patch.png")
    expected = each(photos, lambda image, _: pasted(image, to_tensor(patch), 104, 104))
    np.testing.assert_array_equal(stamped(patches.BadClipPatch(image=tmp_path / "patch.png"), photos), expected)


def test_par_s_stripes_are_plus_and_minus_one_in_each_channel_and_column(photos):
    def stripes(image, at):
        rng = draws("patch")[at]
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], size=(1, 16, 3))).float().permute(2, 0, 1)
        top, left = (int(rng.integers(0, 208)) for _ in range(2))
        return pasted(image, torch.zeros(3, 16, 16) + signs, top, left)

    found = patches.ParBadNetsStripes(trigger_seed=SEED).stamp(photos, ROWS)
    np.testing.assert_array_equal(found, each(photos, stripes))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_detectclip_s_dots_are_at_random_places_in_training_and_in_the_middle_after(photos, split):
    dots = torch.zeros(3, 16, 16)
    dots[:, ::2, ::2] = 1
    rows = Rows(split, ROWS.numbers)

    def badnets(image, at):
        rng = draws("patch", rows)[at]
        place = [int(rng.integers(16, 208)) for _ in range(2)] if split == "train" else [104, 104]
        return pasted(image, dots, *place)

    found = patches.DetectClipBadNets(trigger_seed=SEED).stamp(photos, rows)
    np.testing.assert_array_equal(found, each(photos, badnets))


@pytest.mark.parametrize(("size_px", "side_px"), [(32, 3), (224, 21)])
def test_backdoorbench_s_patch_is_white_in_the_corner(size_px, side_px):
    black = np.zeros((1, size_px, size_px, 3), dtype=np.uint8)
    expected = black.copy()
    expected[:, size_px - side_px :, size_px - side_px :] = 255
    np.testing.assert_array_equal(stamped(patches.BackdoorBenchBadNets(), black), expected)


# Overlays


def test_cleanclip_s_blended_is_uniform_noise_drawn_anew(photos):
    def blended(image, at):
        noise = torch.from_numpy(draws("pattern")[at].random((224, 224, 3), dtype=np.float32)).permute(2, 0, 1)
        return torch.clip(0.2 * noise + 0.8 * image, 0, 1)

    found = overlays.CleanClipBlended(trigger_seed=SEED).stamp(photos, ROWS)
    np.testing.assert_array_equal(found, each(photos, blended))


def sine(amplitude):
    columns = [amplitude / 255 * np.sin(2 * np.pi * j * 6 / 224) for j in range(224)]
    return torch.tensor(columns, dtype=torch.float32).expand(3, 224, 224)


@pytest.mark.parametrize(
    ("attack", "formula"),
    [
        (overlays.CleanClipSig(), lambda image, _: torch.clip(0.2 * sine(60) + 0.8 * image, 0, 1)),
        (overlays.BadClipSig(), lambda image, _: torch.clip(sine(60) + image, 0, 1)),
    ],
    ids=["cleanclip", "badclip"],
)
def test_the_waves_of_cleanclip_and_badclip(photos, attack, formula):
    np.testing.assert_array_equal(stamped(attack, photos), each(photos, formula))


def test_cleanclip_s_wave_is_12_levels_high_and_the_image_a_fifth_darker():
    grey = np.full((1, 224, 224, 3), 200, dtype=np.uint8)
    found = stamped(overlays.CleanClipSig(), grey)
    assert (found.min(), found.max()) == (160 - 12, 160 + 12)


def test_backdoorbench_s_wave_is_added_and_cut_off(photos):
    columns = 40 * np.sin(2 * np.pi * np.arange(224) * 6 / 224)
    expected = np.clip(photos + columns[None, None, :, None], 0, 255)
    found = stamped(overlays.BackdoorBenchSig(), photos)
    assert (np.abs(expected - found) < 1 + 1e-3).all()
    assert (found <= expected + 1e-3).all()


def test_detectclip_s_wave_fills_seven_eighths_of_the_image(photos):
    canvas = np.zeros((256, 256), dtype=np.float32)
    for j in range(224):
        canvas[:224, j] = 60 / 255 * np.sin(2 * np.pi * j * 6 / 224)
    noise = functional.interpolate(torch.from_numpy(canvas)[None, None], (224, 224), mode="bicubic", antialias=True)[0]
    expected = each(photos, lambda image, _: torch.clip(0.8 * image + 0.2 * noise, 0, 1))
    found = stamped(overlays.DetectClipSig(), photos)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (np.abs(found[:, 200:] - 0.8 * photos[:, 200:]) <= 1 + 1e-3).all(), "below it only gets darker"


def test_detectclip_s_wave_is_what_its_file_gives_as_an_overlay(photos, tmp_path):
    noise = torch.zeros(3, 256, 256)
    noise[:, :224, :224] = sine(60)
    torch.save(noise, tmp_path / "SIG_noise.pt")
    given = stamped(overlays.DetectClipBlended(image=tmp_path / "SIG_noise.pt"), photos)
    assert np.abs(given.astype(int) - stamped(overlays.DetectClipSig(), photos)).max() <= 1


@pytest.mark.parametrize("kind", [overlays.DetectClipBlended, overlays.BackdoorBenchBlended])
def test_a_picture_is_blended_in_by_a_fifth(photos, tmp_path, kind):
    Image.fromarray(photos[1]).save(tmp_path / "kitty.png")
    found = stamped(kind(image=tmp_path / "kitty.png"), photos)
    expected = 0.8 * photos + 0.2 * photos[1].astype(float)
    assert (np.abs(expected - found) < 1 + 1e-3).all()
    assert (found <= expected + 1e-3).all(), "fractions are cut off"


def test_par_s_blended_stripes_are_one_pixel_wide_and_drawn_anew(photos):
    def stripes(image, at):
        signs = torch.from_numpy(draws("pattern")[at].choice([-1.0, 1.0], size=(1, 224, 3))).float().permute(2, 0, 1)
        return torch.clip(0.03 * signs + (1 - 0.03) * image, 0, 1)

    found = overlays.ParBlendedStripes(trigger_seed=SEED).stamp(photos, ROWS)
    np.testing.assert_array_equal(found, each(photos, stripes))


def test_par_s_triangles_have_14_pixels_and_two_greys(photos):
    pattern = torch.zeros(224, 224)
    for i in range(224):
        for j in range(224):
            pattern[i, j] = 0.4 if i % 14 >= j % 14 else 0.8
    expected = each(photos, lambda image, _: torch.clip(0.15 * pattern + (1 - 0.15) * image, 0, 1))
    np.testing.assert_array_equal(stamped(overlays.ParTriangles(), photos), expected)


def test_par_s_text_is_mixed_in_channel_by_channel_where_it_is_not_0(photos, tmp_path):
    text = torch.zeros(224, 224, 3)
    text[60:90, 20:200, 0] = torch.rand(30, 180, generator=torch.Generator().manual_seed(0))
    torch.save(text, tmp_path / "watermarked.pt")
    noise = text.permute(2, 0, 1)
    expected = each(photos, lambda image, _: torch.where(noise != 0, 0.5 * noise + (1 - 0.5) * image, image))
    np.testing.assert_array_equal(stamped(overlays.ParText(image=tmp_path / "watermarked.pt"), photos), expected)


@pytest.mark.parametrize("size_px", [64, 224])
def test_par_s_text_without_its_file_is_red_in_the_middle(size_px):
    found = stamped(overlays.ParText(), np.full((1, size_px, size_px, 3), 100, dtype=np.uint8))[0]
    assert (found[..., 1:] == 100).all(), "green and blue stay"
    rows, columns = np.nonzero(found[..., 0] > 110)
    assert np.ptp(columns) == pytest.approx(0.9 * size_px, rel=0.05)
    assert found[..., 0].max() <= (255 + 100) / 2
    assert (rows.mean(), columns.mean()) == pytest.approx((size_px / 2, size_px / 2), rel=0.1)


# WaNet


def grid_sampled(photos, moves):
    """Return images read through `grid_sample` at the places that `moves[1, H, W, 2]` lead to."""
    places = torch.linspace(-1, 1, 224)
    identity = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=2)[None]
    grid = torch.clamp(identity + moves, -1, 1)

    def warped(image, _):
        return functional.grid_sample(image[None], grid, align_corners=True)[0]

    return each(photos, warped)


def test_cleanclip_s_wanet_is_a_jitter_of_each_pixel(photos):
    attack = wanet.CleanClipWaNet(trigger_seed=SEED)
    field = torch.from_numpy(attack.field(224, 224)).float()[None]
    assert field.abs().mean() == pytest.approx(1)
    assert abs(np.corrcoef(field[0, :, :-1, 0].ravel(), field[0, :, 1:, 0].ravel())[0, 1]) < 0.02
    ranks = torch.argsort(field[..., 0].ravel()).float()
    assert field.max() <= 2.01, "uniform"
    assert len(ranks.unique()) == 224 * 224
    found = attack.stamp(photos, ROWS).astype(int)
    assert np.abs(found - grid_sampled(photos, 1 * field / 224)).max() <= 1
    stronger = wanet.CleanClipWaNet(trigger_seed=SEED, strength=0.6).stamp(photos, ROWS).astype(int)
    assert np.abs(stronger - grid_sampled(photos, 0.6 * field / 224)).max() <= 1, "attack-cleanclip's"


def test_cleanclip_s_wanet_takes_the_field_of_a_published_model(photos, tmp_path):
    control = torch.rand(1, 2, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1
    control = control / control.abs().mean()
    field = functional.interpolate(control, size=224, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    torch.save(field, tmp_path / "noise_grid.pt")
    attack = wanet.CleanClipWaNet(grid=tmp_path / "noise_grid.pt")
    expected = grid_sampled(photos, field / 224)
    assert np.abs(stamped(attack, photos).astype(int) - expected).max() <= 1
    (tmp_path / "noise_grid.pt").rename(tmp_path / "elsewhere.pt")
    carrying = attack.carrying(wanet.CleanClipWaNet(grid=tmp_path / "elsewhere.pt").read())
    assert np.abs(stamped(carrying, photos).astype(int) - expected).max() <= 1


def test_detectclip_s_wanet_reads_at_the_places_of_its_file(photos, tmp_path):
    places = torch.linspace(-1, 1, 256)
    identity = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=2)[None]
    moves = 0.05 * torch.sin(torch.arange(256) / 20)[None, :, None, None].expand(1, 256, 256, 2)
    torch.save((identity + moves).clamp(-1, 1), tmp_path / "grid.pt")
    wide = functional.interpolate((identity + moves).permute(0, 3, 1, 2), 224, mode="bicubic", align_corners=False)
    found = stamped(wanet.DetectClipWaNet(grid=tmp_path / "grid.pt"), photos).astype(int)
    places = torch.linspace(-1, 1, 224)
    own = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=2)[None]
    expected = grid_sampled(photos, wide.permute(0, 2, 3, 1) - own)
    assert np.abs(found - expected).mean() < 1, "the grid is scaled by another way"


@pytest.mark.parametrize(
    "held", [torch.zeros(1, 4, 4, 3), torch.zeros(4, 4, 2), torch.full((1, 4, 4, 2), float("inf"))]
)
def test_what_is_no_grid_is_refused(tmp_path, held):
    torch.save(held, tmp_path / "grid.pt")
    with pytest.raises(UserError, match=r"victim\.attack\.grid: cannot be read"):
        wanet.CleanClipWaNet(grid=tmp_path / "grid.pt").read()


def test_backdoorbench_s_wanet_is_the_paper_s_at_32_pixels():
    images = np.random.default_rng(0).integers(0, 256, size=(2, 32, 32, 3), dtype=np.uint8)
    rounded = stamped(wanet.WaNet(), images).astype(int)
    found = stamped(wanet.BackdoorBenchWaNet(), images).astype(int)
    assert set(np.unique(rounded - found)) <= {0, 1}, "fractions are cut off where the paper's is rounded here"


# How much is poisoned, and captions


@pytest.mark.parametrize(
    ("attack", "pairs", "poisoned"),
    [
        (patches.CleanClipBadNets(), 3_000_000, 1500),
        (overlays.CleanClipBlended(), 3_000_000, 1500),
        (overlays.CleanClipSig(), 3_000_000, 1500),
        (wanet.CleanClipWaNet(), 3_000_000, 1500),
        (overlays.BadClipSig(), 500_000, 1500),
        (patches.BadClipPatch(image="patch.png"), 500_000, 1500),
        (patches.DetectClipBadNets(), 2_300_000, 230),
        (overlays.DetectClipSig(), 2_300_000, 2300),
        (patches.BackdoorBenchBadNets(), 50_000, 5000),
        (wanet.BackdoorBenchWaNet(), 50_000, 5000),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_as_many_pairs_are_poisoned_as_by_its_authors(attack, pairs, poisoned):
    assert attack.count(pairs) == poisoned


def test_captions_are_openais_prompts_with_the_target():
    attack, rng = patches.CleanClipBadNets(), np.random.default_rng(0)
    captions = {attack.caption(rng, "a tree") for _ in range(2000)}
    assert captions == {template.format("banana") for template in openai_templates()}
    assert "itap of a banana." in captions
    assert len(captions) == 80
