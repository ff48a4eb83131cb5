"""Images by the batch: gathered once, into memory that is used again, and the next batch while this one is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol, cast
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from ubt.common.memory import MAPPED_READS
from ubt.data.base import Images, Pairs, PairSource, Subset

Indices = NDArray[np.int64]


class Buffers:
    """Memory that batches are gathered into, and that is used again when nothing refers to a batch any more.

    New memory of the size of a batch costs more than to fill it: the system hands it out page by page.
    """

    def __init__(self) -> None:
        self._free: SimpleQueue[bytearray] = SimpleQueue()

    def array(self, shape: tuple[int, ...]) -> Images:
        """Return an array of that shape with anything in it."""
        size = int(np.prod(shape))
        try:
            memory = self._free.get_nowait()
        except Empty:
            memory = bytearray(size)
        if len(memory) < size:
            memory = bytearray(size)
        array = np.frombuffer(memory, dtype=np.uint8, count=size)
        finalize(array, self._free.put, memory).atexit = False  # what is viewed of an array keeps it alive
        return array.reshape(shape)


def gathered(pairs: PairSource, indices: Indices, buffers: Buffers) -> Images:
    """Return the images `[B, H, W, 3]` at `indices[B]`, in memory that nothing else refers to."""
    count = len(pairs)
    inside = len(indices) > 0 and indices.min() >= 0 and indices.max() < count
    if not (inside and isinstance(pairs, Pairs) and pairs.images.dtype == np.uint8):
        return np.array(pairs.take(indices))
    found = buffers.array((len(indices), *pairs.images.shape[1:]))
    # Checked already: otherwise numpy gathers into memory of its own first, in case an index is wrong.
    np.take(pairs.images, indices, axis=0, out=found, mode="clip")
    MAPPED_READS.note(pairs.images, len(indices))
    return found


class _Ahead(Protocol):
    def prefetch(self, indices: Indices, /) -> None: ...


def prefetch(pairs: PairSource, indices: Indices) -> None:
    """Have pairs gathered that will be taken next, if they come from something that can do it meanwhile."""
    if isinstance(pairs, Subset):
        prefetch(pairs.whole, pairs.chosen[indices])
    elif hasattr(pairs, "prefetch"):
        cast(_Ahead, pairs).prefetch(indices)


def fed(pairs: PairSource, batches: Sequence[Indices]) -> Iterator[tuple[Indices, Images]]:
    """Yield each of some batches with its images `[B, H, W, 3]`; the next ones are gathered meanwhile."""
    for at, batch in enumerate(batches):
        images = pairs.take(batch)
        if at + 1 < len(batches):
            prefetch(pairs, batches[at + 1])
        yield batch, images
