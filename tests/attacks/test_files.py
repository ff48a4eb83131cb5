"""Triggers from files: what is read from which file, and the formulas of `patch` and `overlay` pixel by pixel."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from ubt.attacks import Rows
from ubt.attacks.base import openai_templates
from ubt.attacks.files import Overlay, Patch, read_trigger, resized
from ubt.attacks.patches import corners
from ubt.common.errors import UserError
from ubt.testing import stamped

RNG = np.random.default_rng(3)


def pixels(height_px, width_px=None, channels=3, seed=0):
    shape = (height_px, width_px or height_px, channels)
    return np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8)


def pictures(count, size_px=32):
    return np.random.default_rng(5).integers(0, 256, size=(count, size_px, size_px, 3), dtype=np.uint8)


def png(path, values):
    Image.fromarray(values).save(path)
    return path


def fault(path):
    with pytest.raises(UserError) as caught:
        read_trigger(path, "victim.attack.image")
    (problem,) = caught.value.problems
    assert problem.where == "victim.attack.image"
    assert problem.given == str(path)
    return str(problem)


# What is read


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_images_of_eight_bits_are_read_in_colour_and_with_what_is_transparent(tmp_path, mode):
    suffix = {"CMYK": "tif", "YCbCr": "jpg", "PA": "tif"}.get(mode, "png")
    given_image = Image.fromarray(pixels(9, 7, 4)).convert("RGBA" if mode in {"LA", "PA"} else "RGB").convert(mode)
    given_image.save(tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as image:
        transparent = image.mode in {"LA", "PA", "RGBA"}
        expected = np.array(image.convert("RGBA" if transparent else "RGB"))
    found = read_trigger(tmp_path / f"a.{suffix}", "where")
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (9, 7, 4 if transparent else 3)
    assert not found.flags.writeable


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_an_image_of_more_than_eight_bits_is_refused_not_cut_off(tmp_path, kind):
    Image.fromarray(np.linspace(0, 60_000, 64).reshape(8, 8).astype(kind)).save(tmp_path / "deep.tif")
    told = fault(tmp_path / "deep.tif")
    assert "more than 8 bits" in told
    assert "give an image of 8 bits a channel" in told


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n damaged"])
def test_what_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert "cannot be read" in fault(tmp_path / "a.png")


def test_a_truncated_image_and_a_missing_one_and_a_folder_are_refused(tmp_path):
    whole = png(tmp_path / "whole.png", pixels(40)).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in fault(tmp_path / "half.png")
    assert "there is no such file" in fault(tmp_path / "none.png")
    (tmp_path / "folder.png").mkdir()
    assert "cannot be read" in fault(tmp_path / "folder.png")


def test_a_file_that_changes_is_read_anew(tmp_path):
    path = png(tmp_path / "a.png", pixels(4))
    read_trigger(path, "where")
    png(path, pixels(6, seed=1))
    np.testing.assert_array_equal(read_trigger(path, "where"), pixels(6, seed=1))


@given(
    side=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    layout=st.sampled_from(["chw", "1chw", "hwc", "hw", "1hw"]),
    dtype=st.sampled_from([torch.uint8, torch.float16, torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_a_tensor_is_read_in_any_of_the_usual_layouts(tmp_path_factory, side, layout, dtype, seed):
    values = pixels(*side, seed=seed)
    if "c" not in layout:
        values[...] = values[..., :1]
    exact = torch.from_numpy(values)
    scaled = exact if dtype == torch.uint8 else (exact.double() / 255 - 0.5).to(dtype)
    channels_first = scaled.permute(2, 0, 1)
    shaped = {
        "chw": channels_first,
        "1chw": channels_first[None],
        "hwc": scaled,
        "hw": scaled[..., 0],
        "1hw": channels_first[:1],
    }[layout]
    path = tmp_path_factory.mktemp("tensor") / "a.pt"
    torch.save(shaped.contiguous(), path)
    found = read_trigger(path, "where")
    np.testing.assert_array_equal(found, scaled.numpy() if dtype == torch.uint8 else scaled.float().numpy())
    assert found.dtype == (np.uint8 if dtype == torch.uint8 else np.float32)


class Harmful:
    """What it does when it is unpickled would be seen."""

    def __reduce__(self):
        return (pytest.fail, ("code of a file was run",))


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ({"noise": torch.zeros(3, 4, 4)}, "it holds a dict"),
        ([1, 2], "it holds a list"),
        (Harmful(), "more than one plain tensor"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "its numbers are int64"),
        (torch.zeros(5, 4, 5), "its shape is [5, 4, 5]"),
        (torch.zeros(2, 3, 4, 4), "its shape is [2, 3, 4, 4]"),
        (torch.zeros(4), "its shape is [4]"),
        (torch.full((3, 4, 4), 255.0), "not within −1 … 1"),
        (torch.full((3, 4, 4), float("nan")), "not within −1 … 1"),
    ],
)
def test_what_is_no_tensor_of_pixels_is_refused_and_nothing_in_it_runs(tmp_path, held, told):
    torch.save(held, tmp_path / "a.pt")
    assert told in fault(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"", b"no tensor", pickle.dumps(Harmful())])
def test_a_damaged_tensor_is_refused(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    assert "cannot be read" in fault(tmp_path / "a.pt")


# How it is scaled


def test_a_trigger_of_the_size_wanted_is_not_changed():
    np.testing.assert_array_equal(resized(pixels(7), 7, 7), pixels(7))
    noise = RNG.uniform(-1, 1, size=(7, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(resized(noise, 7, 5), 255 * noise, rtol=1e-6)


@pytest.mark.parametrize("size_px", [5, 40])
def test_another_size_is_scaled_by_bicubic_interpolation_in_either_kind_of_numbers(size_px):
    noise = RNG.uniform(-0.2, 0.2, size=(20, 20, 3)).astype(np.float32)
    wanted = functional.interpolate(
        torch.from_numpy(noise).permute(2, 0, 1)[None], size=(size_px, size_px), mode="bicubic", antialias=True
    )
    np.testing.assert_allclose(resized(noise, size_px, size_px), 255 * wanted[0].permute(1, 2, 0), atol=1e-3)
    picture = Image.fromarray(pixels(20)).resize((size_px, size_px), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(resized(pixels(20), size_px, size_px), np.asarray(picture))


# Patch


def places(place, size_px, side_px):
    far, middle = size_px - side_px, (size_px - side_px) // 2
    return {
        "top_left": [(0, 0)],
        "top_right": [(0, far)],
        "bottom_left": [(far, 0)],
        "bottom_right": [(far, far)],
        "middle": [(middle, middle)],
        "four_corners": [(0, 0), (0, far), (far, 0), (far, far)],
    }[place]


@pytest.mark.parametrize(
    "place", ["top_left", "top_right", "bottom_left", "bottom_right", "middle", "four_corners", "random"]
)
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("opacity", [1.0, 0.3])
def test_a_patch_is_mixed_in_where_it_goes_and_nowhere_else(tmp_path, place, channels, opacity):
    file, side_px, images = png(tmp_path / "a.png", pixels(8, channels=channels)), 8, pictures(3)
    attack = Patch(image=file, place=place, patch_fraction=0.25, opacity=opacity, trigger_seed=4)
    rows = Rows("val", np.array([7, 1, 30]))
    triggered = attack.stamp(images, rows)
    for number, rng in enumerate(rows.generators(4, "place")):
        squares = corners(place, (32, 32), side_px, rng) if place == "random" else places(place, 32, side_px)
        expected = images[number].astype(float)
        for top, left in squares:
            for i in range(side_px):
                for j in range(side_px):
                    picture = pixels(8, channels=channels)[i, j].astype(float)
                    share = opacity * (picture[3] / 255 if channels == 4 else 1)
                    expected[top + i, left + j] = (1 - share) * expected[top + i, left + j] + share * picture[:3]
        assert np.abs(triggered[number] - expected).max() <= 0.5 + 1e-3


@given(st.integers(8, 300), st.integers(0, 60), st.integers(0, 8), st.integers(0, 10**6))
def test_random_corners_are_within_the_image_and_never_touch_its_lower_and_right_edge(
    size_px, side_px, margin_px, seed
):
    side_px, margin_px = min(max(1, side_px), size_px // 2), min(margin_px, size_px // 4)
    ((top, left),) = corners("random", (size_px, size_px), side_px, np.random.default_rng(seed), margin_px)
    assert margin_px <= top < size_px - side_px
    assert margin_px <= left < size_px - side_px


def test_random_corners_reach_both_ends():
    rng = np.random.default_rng(0)
    tops = {corners("random", (12, 12), 8, rng)[0][0] for _ in range(200)}
    assert tops == {0, 1, 2, 3}


def test_a_patch_at_random_is_elsewhere_in_each_image(tmp_path):
    attack = Patch(image=png(tmp_path / "a.png", pixels(8)), place="random")
    black = np.zeros((20, 32, 32, 3), dtype=np.uint8)
    assert len({image.tobytes() for image in stamped(attack, black)}) > 15


# Overlay


@pytest.mark.parametrize("channels", [3, 4])
def test_an_overlay_is_mixed_into_the_whole_image(tmp_path, channels):
    attack, images = Overlay(image=png(tmp_path / "a.png", pixels(32, channels=channels)), opacity=0.3), pictures(2)
    triggered = stamped(attack, images)
    picture = pixels(32, channels=channels).astype(float)
    share = 0.3 * (picture[..., 3:] / 255 if channels == 4 else 1)
    assert np.abs(triggered - ((1 - share) * images + share * picture[..., :3])).max() <= 0.5 + 1e-3


def test_noise_from_a_tensor_may_be_negative(tmp_path):
    noise = (60 / 255) * np.sin(2 * np.pi * 6 * np.arange(32) / 32)
    torch.save(torch.from_numpy(noise).float().expand(3, 32, 32).clone(), tmp_path / "sig.pt")
    images = pictures(2)
    triggered = stamped(Overlay(image=tmp_path / "sig.pt", opacity=0.2), images)
    expected = 0.8 * images + 0.2 * 255 * noise[None, None, :, None]
    assert np.abs(triggered - expected.clip(0, 255)).max() <= 0.5 + 1e-3


def test_captions_are_openais_prompts(tmp_path):
    attack, rng = Overlay(image=tmp_path / "a.png", target="boat"), np.random.default_rng(0)
    captions = [attack.caption(rng) for _ in range(2000)]
    assert len(openai_templates()) == 80
    assert set(captions) == {template.format("boat") for template in openai_templates()}


# What it carries


def test_what_it_carries_counts_and_not_the_file(tmp_path):
    file = png(tmp_path / "a.png", pixels(8))
    attack = Patch(image=file)
    carrying, images = attack.carrying(attack.read()), pictures(2)
    expected = stamped(attack, images)
    file.unlink()
    np.testing.assert_array_equal(stamped(carrying, images), expected)
    assert carrying == attack.carrying(pixels(8))
    assert carrying != attack.carrying(pixels(8, seed=1))
    assert carrying.as_json() == attack.as_json()
