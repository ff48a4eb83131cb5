"""Measure what one unit of each kind of work takes here, by a few batches of made-up pairs: no data is read.

What is measured are the functions that stages call, in the batches that they use; where a whole batch takes longer, in
as many pairs of one as take a second.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import numpy as np
import torch
from torch import Tensor

from ubt.artifacts.codec import MODEL, changed, encode
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.payloads import Content
from ubt.artifacts.store import ArtifactStore
from ubt.common.hashing import numpy_generator
from ubt.data.base import Pairs
from ubt.engine.poisoning import Feed
from ubt.engine.work import CALIBRATION, Calibrated, cpu_name, setup_of
from ubt.methods.augmentation import augment_images
from ubt.methods.losses import clip_loss
from ubt.methods.neighbours import nearest_neighbours
from ubt.methods.training import Optimizer, token_embeddings
from ubt.models.build import build_clip
from ubt.models.clip import (
    Clip,
    State,
    check_finite,
    embed_images,
    embed_tokens,
    peak_memory_bytes,
    pick_device,
    reset_peak_memory,
    use_threads,
)
from ubt.models.settings import ModelSettings

_LONG_ENOUGH_SECONDS = 1.0
_PAIRS = 256
"""Made-up pairs; so many are embedded at a time, too."""
_AUGMENTED, _POINTS, _NEIGHBOURS = 32, 1000, 16
_WORDS = ("red", "small", "old", "large", "blue", "quiet", "broken", "wet", "green", "dark")


def calibrate(model: ModelSettings, threads: int, gpus: float, batch_size: int, store: str) -> Calibrated:
    """Return what a unit of each kind of work takes with a model on this machine, in a trial of so many threads.

    Trains batches of `batch_size` pairs, and writes into the store what it removes again.

    Raises:
        UserError: if there is no GPU where one is asked for, or the model cannot be made.
        UnusableStore: if the store cannot be written.
    """
    use_threads(threads)
    device = pick_device(gpus)
    reset_peak_memory(device)
    clip = build_clip(model, seed=0, device=device, weights=False)
    bench = _Bench(clip, batch_size, ArtifactStore(store))
    builds = bench.seconds(lambda: build_clip(model, seed=0, device=device, weights=False))
    costs, sizes = bench.embedding() | bench.training() | {"builds": builds}, bench.sizes()
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return Calibrated(
        setup=setup_of(model, hardware, threads, gpus),
        costs=costs | bench.storing(sizes),
        sizes=sizes,
        peak_memory_bytes=peak_memory_bytes(device),
    )


class _Bench:
    """Made-up pairs, and a model to try on them."""

    def __init__(self, clip: Clip, batch_size: int, store: ArtifactStore) -> None:
        rng = numpy_generator(0, "calibration")
        size_px = clip.image_size_px
        self._clip, self._store, self._batch_size = clip, store, batch_size
        self._images = rng.integers(0, 256, size=(_PAIRS, size_px, size_px, 3), dtype=np.uint8)
        words = rng.choice(_WORDS, size=(_PAIRS, 3))
        self._captions = [f"a photo of a {' '.join(row)} thing number {at}" for at, row in enumerate(words)]
        self._feed = Feed(Pairs(self._images, self._captions))
        self._tokens = clip.tokenize(self._captions)
        self._embeddings = rng.normal(size=(_POINTS, clip.encode_tokens(self._tokens[:1]).shape[1]))

    def seconds(self, run: Callable[[], object]) -> float:
        """Return what one call takes."""
        self._wait()
        began = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - began

    def embedding(self) -> dict[str, float]:
        """Return what embedding takes, and what goes with it."""
        clip, points = self._clip, torch.from_numpy(self._embeddings).float().to(self._clip.device)
        return {
            "images": self._each(lambda count: embed_images(clip, self._taken(count)), _PAIRS),
            "captions": self._each(lambda count: embed_tokens(clip, self._tokens[:count]), _PAIRS),
            "tokens": self._each(lambda count: clip.tokenize(self._captions[:count]), _PAIRS),
            "augmented": self._each(lambda count: augment_images(self._images[:count], "auto", 0), _AUGMENTED),
            "distances": self.seconds(lambda: nearest_neighbours(points, _NEIGHBOURS)) * 1e6 / _POINTS**2,
        }

    def training(self) -> dict[str, float]:
        """Return what it takes to train."""
        clip = self._clip.with_state(self._clip.state())
        optimizer = Optimizer(clip.net, learning_rate=1e-8)
        clip.net.train()

        def back(loss: Tensor) -> None:
            clip.net.zero_grad(set_to_none=True)
            loss.sum().backward()  # type: ignore[no-untyped-call]

        most = self._batch_size
        found = {
            "trained_images": self._each(lambda count: back(clip.encode_images(self._taken(count))), most),
            "trained_captions": self._each(lambda count: back(clip.encode_tokens(self._some_tokens(count))), most),
        }
        few = min(8, most)
        back(clip_loss(clip.encode_images(self._taken(few)), clip.encode_tokens(self._tokens[:few]), clip.logit_scale))
        found["steps"] = self._often(optimizer.update)
        for name, weight in clip.net.named_parameters():
            weight.requires_grad_(name.startswith("visual."))
        image_alone = Optimizer(clip.net, learning_rate=1e-8, train_token_embedding=False)
        back(clip.encode_images(self._taken(few)))
        found["image_steps"] = self._often(image_alone.update)
        return found

    def sizes(self) -> dict[str, int]:
        """Return how many bytes a model takes in the store, whole and in part."""
        state = self._clip.state()
        apart = {id(embedding.weight) for embedding in token_embeddings(self._clip.net)}
        embedded = [name for name, weight in self._clip.net.named_parameters() if id(weight) in apart]
        return {
            "models": _bytes(state),
            "bodies": _bytes({name: value for name, value in state.items() if name not in embedded}),
            "image_towers": _bytes({name: value for name, value in state.items() if name.startswith("visual.")}),
        }

    def storing(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Return what it takes to copy a model, and to store it or a part of it."""
        clip = self._clip
        base = clip.state()
        moved = {name: value + 1e-3 if value.is_floating_point() else value for name, value in base.items()}

        def compared() -> State:
            check_finite(clip.state(), clip.net, "the model")
            return changed(moved, base)

        comparing = self.seconds(compared)
        writing = self.seconds(lambda: self._publish({MODEL: encode(moved)}))
        return {
            "stages": self._often(partial(self._publish, {})),
            "copies": self._often(lambda: clip.with_state(base)),
            **{kind: comparing + writing * size / sizes["models"] for kind, size in sizes.items()},
        }

    def _publish(self, payloads: Mapping[str, Content]) -> None:
        key = f"try-{uuid.uuid4().hex}"
        tried = ArtifactManifest(stage=CALIBRATION, key=key, version=1, seed=None, settings={}, inputs={})
        self._store.remove(self._store.publish(tried, payloads))

    def _taken(self, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """Return the images of so many pairs, in no order, as batches are."""
        return self._feed.take(np.arange(count)[::-1] % _PAIRS)

    def _some_tokens(self, count: int) -> Tensor:
        return self._tokens[torch.arange(count) % _PAIRS]

    def _each(self, run: Callable[[int], object], most: int) -> float:
        """Return the seconds for one of many: of `most` at a time, or of as many as take long enough."""
        count = min(2, most)
        run(count)  # what only the first call does
        while (took := self.seconds(partial(run, count))) < _LONG_ENOUGH_SECONDS and count < most:
            count = min(most, 2 * count)
        if took >= _LONG_ENOUGH_SECONDS:
            return took / count
        return self._often(partial(run, count)) / count

    def _often(self, run: Callable[[], object]) -> float:
        """Return the median of calls that take long enough together."""
        run()
        found = [self.seconds(run)]
        while sum(found) < _LONG_ENOUGH_SECONDS:
            found.append(self.seconds(run))
        return median(found)

    def _wait(self) -> None:
        """Wait for a GPU, which works while the program goes on."""
        if self._clip.device.type == "cuda":
            torch.cuda.synchronize(self._clip.device)


def _bytes(state: State) -> int:
    return sum(value.numel() * value.element_size() for value in state.values())
