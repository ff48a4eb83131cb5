import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

from ubt.data.cache import cached_images

COUNT, SIZE_PX = 20, 8
EXPECTED = np.broadcast_to(np.arange(COUNT, dtype=np.uint8)[:, None, None, None], (COUNT, SIZE_PX, SIZE_PX, 3))


def fill_slowly(images):
    for index in range(COUNT):
        images[index] = index
        time.sleep(0.01)


def images_of(path):
    return np.array(cached_images(path, COUNT, SIZE_PX, fill_slowly))


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


def test_two_processes_that_fill_at_once_agree(tmp_path):
    context = multiprocessing.get_context("spawn")
    for images in both_at_once(ProcessPoolExecutor(2, mp_context=context), tmp_path / "images.npy"):
        np.testing.assert_array_equal(images, EXPECTED)
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]


def test_two_threads_that_fill_at_once_agree(tmp_path):
    for images in both_at_once(ThreadPoolExecutor(2), tmp_path / "images.npy"):
        np.testing.assert_array_equal(images, EXPECTED)
    assert [path.name for path in tmp_path.iterdir()] == ["images.npy"]
