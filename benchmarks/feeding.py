"""How fast images are handed out, and what a training step holds in memory, whole and by micro-batches.

    python benchmarks/feeding.py --part feed
    python benchmarks/feeding.py --part memory

CPU time of one thread; memory is the peak of a process of its own for each size, above the model alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ubt.data.base import Pairs
from ubt.engine.poisoning import Feed, PoisonedPairs
from ubt.methods.losses import clip_loss
from ubt.models.build import build_clip
from ubt.models.settings import ModelSettings

SIZE_PX, IMAGES = 224, 3000


def rate(take: Callable[[np.ndarray], object], batch: int, seconds: float = 2.0) -> int:
    """Return how many images are taken in a second of CPU time."""
    rng = np.random.default_rng(0)
    order = [rng.permutation(IMAGES)[:batch] for _ in range(8)]
    take(order[0])
    taken, began = 0, time.process_time()
    while (spent := time.process_time() - began) < seconds:
        take(order[taken // batch % 8])
        taken += batch
    return round(taken / spent)


def feed(folder: Path) -> None:
    """Print images a second: to a buffer that is used again, as stages are fed, and as they were."""
    path = folder / "images.npy"
    np.lib.format.open_memmap(path, "w+", dtype=np.uint8, shape=(IMAGES, SIZE_PX, SIZE_PX, 3))[:] = 7
    images = np.load(path, mmap_mode="r")
    pairs = Pairs(images, ["x"] * IMAGES)
    poisoned = PoisonedPairs(pairs, pairs.captions, np.zeros(IMAGES, dtype=np.bool_), None)
    fed = Feed(poisoned)
    for batch in (64, 128, 256):
        buffer = np.empty((batch, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
        # Before: gathered, copied by the poisoned pairs, by the feed, and by the model.
        measured = {
            "batch": batch,
            "a reused buffer": rate(lambda i, out=buffer: np.take(images, i, axis=0, out=out, mode="clip"), batch),
            "as stages are fed": rate(lambda i: torch.from_numpy(fed.take(i)), batch),
            "as they were": rate(lambda i: np.array(np.array(np.array(pairs.take(i)))), batch),
        }
        print(json.dumps(measured), flush=True)


def step(batch: int, part: int) -> None:
    """Print the peak memory of one step of ViT-B/32, above the model's own with its gradients, in MB."""
    torch.set_num_threads(1)
    clip = build_clip(ModelSettings(name="ViT-B-32", random_weights=True), seed=0, device=torch.device("cpu"))
    images = np.zeros((batch, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    tokens = clip.tokenize(["a photo of a banana"] * batch)
    clip.net.train()
    for weight in clip.net.parameters():
        weight.grad = torch.zeros_like(weight)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clip = replace(clip, micro_batch_size=part or None)
    clip_loss(clip.encode_images(images), clip.encode_tokens(tokens), clip.logit_scale).backward()
    print(round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def memory(_folder: Path) -> None:
    """Print peak memory by batch size, whole and by parts."""
    for batch, part in ((16, 0), (32, 0), (64, 0), (32, 16), (64, 16), (128, 16)):
        command = [sys.executable, __file__, "--part", "step", "--batch", str(batch), "--micro-batch", str(part)]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        print(json.dumps({"batch": batch, "micro-batch": part or batch, "MB": int(found.stdout)}), flush=True)


def main() -> None:
    """Measure one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["feed", "memory", "step"], default="feed")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=0)
    given = parser.parse_args()
    if given.part == "step":
        step(given.batch, given.micro_batch)
        return
    with tempfile.TemporaryDirectory() as folder:
        {"feed": feed, "memory": memory}[given.part](Path(folder))


if __name__ == "__main__":
    main()
