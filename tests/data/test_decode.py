import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import photo
from PIL import Image

from ubt.data.decode import broken_reasons, decode_image, decode_images, is_deep


def encoded(image, kind="PNG"):
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def png_of_16_bits(pixels):
    """Return `[H, W, C]` uint16 (with alpha, RGB, or both) as a PNG, which Pillow does not write."""
    height, width, channels = pixels.shape
    kind_of_colour = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, kind_of_colour, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(pixels, bits, width=4, height=4, photometric=1, order="<"):
    """Return an uncompressed grey TIFF of `bits` a pixel."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(pixels)}
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, 3 if tag in {258, 259, 262, 277} else 4, 1)
        + (struct.pack(f"{order}HH", value, 0) if tag in {258, 259, 262, 277} else struct.pack(f"{order}I", value))
        for tag, value in tags.items()
    )
    start = 8 + len(pixels)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    return head + pixels + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)


def grey_png(grey):
    return encoded(Image.fromarray(grey)), 16


def grey_tiff(grey):
    return tiff(grey.astype("<u2").tobytes(), 16, *grey.T.shape), 16


def grey_tiff_of_a_big_endian(grey):
    return tiff(grey.astype(">u2").tobytes(), 16, *grey.T.shape, order=">"), 16


def grey_tiff_of_12_bits(grey):
    rows = []
    for row in grey >> 4:
        padded = np.append(row, np.zeros(len(row) % 2, dtype=row.dtype)).reshape(-1, 2).astype(int)
        first, second = padded.T
        three = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8).ravel()
        rows.append(three[: (12 * len(row) + 7) // 8].tobytes())
    return tiff(b"".join(rows), 12, *grey.T.shape), 12


def grey_pgm(grey):
    return encoded(Image.fromarray(grey), "PPM"), 16


GREYS = [grey_png, grey_tiff, grey_tiff_of_a_big_endian, grey_tiff_of_12_bits, grey_pgm]


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


class TestDepth:
    """More than 8 bits: scaled, or refused; never cut off."""

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**16), st.sampled_from(GREYS))
    def test_grey_of_more_bits_is_scaled_to_8(self, width, height, seed, write):
        grey = np.random.default_rng(seed).integers(0, 2**16, (height, width), dtype=np.uint16)
        content, bits = write(grey)
        expected = (grey >> (16 - bits) >> (bits - 8)).astype(np.uint8)
        wanted = decode_image(encoded(Image.fromarray(expected)), 8)
        np.testing.assert_array_equal(decode_image(content, 8), wanted)
        assert is_deep(content)

    def test_grey_of_16_bits_is_as_bright_as_rgb_of_16_bits(self):
        grey = np.random.default_rng(0).integers(0, 2**16, (16, 16), dtype=np.uint16)
        rgb = decode_image(png_of_16_bits(np.stack([grey] * 3, axis=-1)), 16)
        np.testing.assert_array_equal(decode_image(encoded(Image.fromarray(grey)), 16), rgb)

    @pytest.mark.parametrize(("channels", "mode"), [(2, "LA"), (3, "RGB"), (4, "RGBA")])
    def test_with_alpha_or_colours_the_higher_bits_are_taken(self, channels, mode):
        pixels = np.random.default_rng(0).integers(0, 2**16, (16, 16, channels), dtype=np.uint16)
        expected = decode_image(encoded(Image.fromarray((pixels >> 8).astype(np.uint8), mode)), 16)
        np.testing.assert_array_equal(decode_image(png_of_16_bits(pixels), 16), expected)

    @pytest.mark.parametrize("highest", [256, 1000, 4095])
    @pytest.mark.parametrize("kind", [b"P5", b"P6"])
    def test_a_range_that_the_file_states_is_scaled(self, highest, kind):
        grey = np.repeat(np.array([[0, highest // 2, highest]], dtype=">u2").T, 3, axis=1)
        values = grey if kind == b"P5" else np.stack([grey] * 3, axis=-1)
        head = b"%s %d %d %d\n" % (kind, 3, 3, highest)
        pixels = decode_image(head + values.astype(">u2").tobytes(), 3)
        assert (pixels[0].max(), pixels[2].min()) == (0, 255)
        assert np.isin(pixels[1], (126, 127, 128)).all()

    @pytest.mark.parametrize("photometric", [0, 1])
    @pytest.mark.parametrize("bits", [8, 16])
    def test_where_zero_is_white_it_stays_white(self, photometric, bits):
        black = 0 if photometric else 2**bits - 1
        grey = np.full((4, 4), black, dtype=f"<u{bits // 8}")
        assert decode_image(tiff(grey.tobytes(), bits, photometric=photometric), 4).max() == 0

    @pytest.mark.parametrize("dtype", [np.float32, np.int32], ids=["floating-point", "32 bits"])
    @pytest.mark.parametrize("kind", ["TIFF", "PFM"])
    def test_a_range_that_nobody_knows_is_refused(self, dtype, kind):
        image = Image.fromarray(np.ones((4, 4), dtype=dtype))
        content = encoded(image if kind == "TIFF" else image.convert("F"), "TIFF" if kind == "TIFF" else "PPM")
        (reason,) = decode_images([content], 4)
        assert "no file says what range they have" in reason
        assert is_deep(content)
        assert broken_reasons([content]) == [reason]

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
    def test_what_has_8_bits_is_not_deep(self, kind, tmp_path):
        (tmp_path / "file").write_bytes(photo(1, kind=kind))
        assert not is_deep(tmp_path / "file")
        assert not is_deep(photo(1, kind=kind))

    def test_rgb_of_16_bits_is_not_deep_for_its_pixels_never_changed(self):
        assert not is_deep(png_of_16_bits(np.zeros((2, 2, 3), dtype=np.uint16)))

    def test_no_file_is_not_deep(self, tmp_path):
        assert not is_deep(tmp_path / "nothing")


HELD = {
    "PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B"],
    "PPM": ["1", "L", "RGB", "I;16"],
    "BMP": ["1", "L", "P", "RGB"],
    "GIF": ["1", "L", "P"],
    "WEBP": ["L", "RGB", "RGBA"],
    "JPEG": ["L", "RGB", "CMYK"],
}
"""The modes that Pillow writes in each format without changing them."""


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in HELD.items() for mode in modes])
def test_a_grey_ramp_is_the_same_ramp_in_every_mode(kind, mode):
    ramp = np.tile(np.arange(0, 256, 16, dtype=np.uint8), (16, 1))
    if mode == "1":
        ramp = np.where(ramp < 128, 0, 255).astype(np.uint8)
    grey = Image.fromarray(ramp)
    if mode.startswith("I;16"):
        image = Image.fromarray((ramp.astype(np.uint16) << 8).astype(">u2" if mode == "I;16B" else "<u2"))
    else:
        image = (grey if mode in {"1", "L", "LA", "P"} else grey.convert("RGB")).convert(mode)
    pixels = decode_image(encoded(image, kind), 16).astype(int)
    assert abs(pixels - ramp[..., None]).max() <= (8 if kind in {"WEBP", "JPEG"} else 1)


def test_orientation_is_left_as_open_clip_leaves_it():
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    picture.save(stream, "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(stream.getvalue(), 16), decode_image(encoded(picture), 16))


def test_what_is_broken_at_some_size_is_broken():
    assert broken_reasons([photo(0), encoded(Image.new("RGB", (1, 60_000))), photo(0)[:200], b""])[0] == ""
    assert all(broken_reasons([encoded(Image.new("RGB", (1, 60_000))), photo(0)[:200], b""]))


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


def large_jpeg(seed=0, size=(800, 600)):
    return photo(seed, size, "JPEG")


def test_a_draft_is_nearly_the_picture_and_not_the_same():
    exact, draft = (decode_image(large_jpeg(), 32, draft).astype(int) for draft in (False, True))
    assert 0 < np.abs(exact - draft).mean() < 2


@pytest.mark.parametrize("content", [photo(0, (800, 600)), large_jpeg(size=(100, 75))], ids=["PNG", "small JPEG"])
def test_what_is_no_large_jpeg_file_is_decoded_as_ever(content):
    np.testing.assert_array_equal(decode_image(content, 32), decode_image(content, 32, draft=True))


@given(width=st.integers(1, 700), height=st.integers(1, 700))
@settings(max_examples=30)
def test_drafts_of_any_shape_fill_the_square(width, height):
    assert decode_images([photo(1, (width, height), "JPEG")], 16, True)[0].shape == (16, 16, 3)
