import errno
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from photographs import photo

from ubt.data import images as module
from ubt.data.decode import decode_image
from ubt.data.images import KEPT, Decoders, Encoded, cached_images
from ubt.data.scenes import Scenes

COUNT, SIZE_PX = 20, 8
EXPECTED = np.broadcast_to(np.arange(COUNT, dtype=np.uint8)[:, None, None, None], (COUNT, SIZE_PX, SIZE_PX, 3))


def fill_slowly(images):
    for index in range(COUNT):
        images[index] = index
        time.sleep(0.01)


def images_of(path):
    def fill(images):
        with path.with_name("fills").open("a") as stream:
            stream.write("filled ")
        fill_slowly(images)

    return np.array(cached_images(path, COUNT, SIZE_PX, fill))


def test_images_are_filled_once_and_mapped_read_only(tmp_path):
    path = tmp_path / "deep" / "images.npy"
    np.testing.assert_array_equal(cached_images(path, COUNT, SIZE_PX, fill_slowly), EXPECTED)
    mapped = cached_images(path, COUNT, SIZE_PX, lambda _: pytest.fail("filled again"))
    assert isinstance(mapped, np.memmap)
    assert mapped.dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_fill_that_raises_leaves_no_file(tmp_path, error):
    def fail(images):
        images[0] = 1
        raise error("half way")

    with pytest.raises(error, match="half way"):
        cached_images(tmp_path / "images.npy", COUNT, SIZE_PX, fail)
    assert not list(tmp_path.iterdir())


def test_after_a_failure_the_next_call_fills(tmp_path):
    def fail(_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cached_images(tmp_path / "images.npy", COUNT, SIZE_PX, fail)
    np.testing.assert_array_equal(images_of(tmp_path / "images.npy"), EXPECTED)


def both_at_once(executor, path):
    with executor:
        return list(executor.map(images_of, [path, path]))


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_of_two_that_want_the_images_at_once_one_fills(tmp_path, kind):
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(2, mp_context=context) if kind == "processes" else ThreadPoolExecutor(2)
    for images in both_at_once(executor, tmp_path / "images.npy"):
        np.testing.assert_array_equal(images, EXPECTED)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fills", "images.npy"]
    assert (tmp_path / "fills").read_text() == "filled "


def test_the_room_is_taken_before_the_first_image_is_written(tmp_path):
    """A hole in a file that is written through memory is a SIGBUS when the disk is full."""

    def fill(_):
        (unfinished,) = (path for path in tmp_path.iterdir() if path.suffix != ".lock")
        blocks.append(unfinished.stat().st_blocks)

    blocks = []
    cached_images(tmp_path / "images.npy", 100, 64, fill)
    assert blocks[0] * 512 >= 100 * 64 * 64 * 3


def test_a_full_disk_is_an_error_before_anything_is_decoded_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        cached_images(tmp_path / "images.npy", COUNT, SIZE_PX, lambda _: pytest.fail("filled"))
    assert not list(tmp_path.iterdir())


def test_all_that_data_sets_keep_is_known_by_its_name(tmp_path, photos):
    photos.source().load(8, tmp_path / "cache")
    Scenes(pretrain_pairs=4, train_pairs=4, val_images=12, test_images=12).load(8, tmp_path / "cache")
    names = [path.name for path in (tmp_path / "cache").iterdir()]
    assert len(names) == 7
    for name in [*names, "captions-0a.json"]:
        assert KEPT.fullmatch(name)
        assert KEPT.fullmatch(f".{name}.lock")
        assert KEPT.fullmatch(f".{name}.5ea17bdf46bd424bb97e6724bb95de8d")
    assert not KEPT.fullmatch("photo.npy")


def test_what_is_written_on_the_way_is_let_go_and_stays_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_WRITTEN", 4)
    let_go = []
    kept = module.let_go
    monkeypatch.setattr(module, "let_go", lambda array: let_go.append(1) or kept(array))
    photos = [photo(seed) for seed in range(10)]
    encoded = [Encoded(f"photo {seed}", content) for seed, content in enumerate(photos)]
    with Decoders(1) as decoders:
        found = cached_images(
            tmp_path / "images.npy", 10, 16, lambda array: decoders.decode_into(array, encoded, "photos")
        )
    assert len(let_go) == 2
    for image, content in zip(found, photos, strict=True):
        np.testing.assert_array_equal(image, decode_image(content, 16))
