import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import photo
from PIL import Image

from ubt.data.decode import decode_image, decode_images


def encoded(image, kind="PNG"):
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("size", [(40, 32), (32, 41), (37, 37), (24, 24), (300, 31), (13, 90)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pixels_are_those_of_open_clips_evaluation_transform(size, kind):
    from open_clip import image_transform

    content = photo(seed=1, size=size, kind=kind)
    transform = image_transform(24, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    expected = transform(Image.open(io.BytesIO(content))).mul(255).round().byte().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(decode_image(content, 24), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    pixels = decode_image(encoded(Image.open(io.BytesIO(photo(2))).convert(mode), kind), 16)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_an_error_and_not_a_grey_half(kind):
    content = photo(3, size=(200, 200), kind=kind)
    (reason,) = decode_images([content[: len(content) // 2]], 24)
    assert isinstance(reason, str)


def test_an_image_above_pillows_limit_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        reasons = decode_images([photo(0, size=(40, 26)), photo(0, size=(400, 260))], 8)
    assert "exceed Pillow's limit" in reasons[0]
    assert "exceeds limit" in reasons[1]


def test_a_thin_line_that_would_grow_to_gigabytes_is_refused():
    (reason,) = decode_images([encoded(Image.new("RGB", (1, 60_000)))], 224)
    assert "224×13440000" in reason


def test_postscript_is_not_given_to_ghostscript():
    (reason,) = decode_images([b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"], 8)
    assert "it is none of" in reason


def test_an_empty_file_is_an_error():
    assert "it is none of" in decode_images([b""], 8)[0]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_whatever_the_damage_the_answer_is_pixels_or_a_reason(kind, damage):
    content = bytearray(photo(4, kind=kind))
    for position, value in damage:
        content[position % len(content)] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (result,) = decode_images([bytes(content)], 8)
    assert result if isinstance(result, str) else result.shape == (8, 8, 3)
