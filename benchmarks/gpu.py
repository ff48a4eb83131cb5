"""How much of a GPU the stages use: images a second beside the bare model's, FLOPS beside a matrix product's, memory.

    python benchmarks/gpu.py                                   # with CUDA: RN50 and ViT-B/32, 100,000 pairs of 224 px
    python benchmarks/gpu.py --models tiny-rn --pairs 256 --judged 48 --batch-size 32     # anywhere, in half a minute

A trial of UBT with random weights runs as in a sweep, in this process. `share of the bare model` sets the seconds that
its images and captions take in a plain loop, on pixels that lie on the device already, against the stage's seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from sweeps.run.launch import run_once
from sweeps.study.config import StudyConfig
from ubt.artifacts.store import ArtifactStore
from ubt.common.atomic_files import write_whole
from ubt.common.hashing import fingerprint
from ubt.config.load import validate
from ubt.data import DATA_SOURCES
from ubt.data.base import DataSet, DataSource, Labelled, Pairs
from ubt.data.images import cached_images
from ubt.models.build import build_clip
from ubt.models.clip import Clip, autocast
from ubt.trials.record import State, TrialRecord

_NOISE = 1024
"""Distinct pictures: they repeat, so that a hundred thousand of them are written in seconds."""
_FEW_CLASSES = ("banana", "apple", "tree", "house", "car", "star", "heart", "fish")
STAGES = {"detect_clean": "score", "overfit": "overfit", "unlearn": "unlearn", "evaluate": "judge"}
"""Stages of which the GPU is to be busy, and what they do in words."""
_BUSY_GOAL = 0.9
_EMBEDDED = 256
"""Images or captions that are embedded at a time."""


class Noise(DataSource):
    """Pictures of noise with captions; the time that they take does not depend on what is on them."""

    kind: Literal["noise"] = "noise"
    pairs: int = 1024
    judged: int = 256
    prompts: int = 8

    def content_key(self) -> str:
        """Return the fingerprint of the settings."""
        return fingerprint(self.as_json())

    def class_names(self) -> Sequence[str]:
        """Return some words."""
        return _FEW_CLASSES

    def load(self, image_size_px: int, cache: Path) -> DataSet:
        """Return the data set."""

        def fill(images: np.ndarray) -> None:
            some = np.random.default_rng(0).integers(0, 256, size=(_NOISE, *images.shape[1:]), dtype=np.uint8)
            for start in range(0, len(images), _NOISE):
                images[start : start + _NOISE] = some[: len(images) - start]

        count = self.pairs + 2 * self.judged
        images = cached_images(cache / f"images-noise-{count}-{image_size_px}px.npy", count, image_size_px, fill)
        captions = [f"a photo of a {_FEW_CLASSES[at % 8]} number {at} on the table" for at in range(self.pairs)]
        labels = np.arange(self.judged, dtype=np.int64) % len(_FEW_CLASSES)
        val, test = images[self.pairs : self.pairs + self.judged], images[self.pairs + self.judged :]
        templates = [f"a photo, number {at}, of a {{}}" for at in range(self.prompts)]
        train = Pairs(images[: self.pairs], captions)
        return DataSet(train, Labelled(val, labels), Labelled(test, labels), _FEW_CLASSES, templates)


@dataclass(frozen=True)
class Asked:
    """How much is run."""

    models: Sequence[str] = ("RN50", "ViT-B-32")
    pairs: int = 100_000
    judged: int = 10_000
    batch_size: int = 128
    gpus: float = 1.0

    @property
    def device(self) -> torch.device:
        """Return what computes."""
        return torch.device("cuda" if self.gpus else "cpu")


def measure(asked: Asked, folder: Path) -> list[dict[str, object]]:
    """Return a row for each stage that computes, of each model."""
    if "noise" not in DATA_SOURCES:
        DATA_SOURCES.add(Noise)
    peak = matmul_flops(asked.device)
    return [row for name in asked.models for row in _of_model(name, asked, folder, peak)]


def matmul_flops(device: torch.device, seconds: float = 1.0) -> float:
    """Return the floating-point operations a second of square matrix products in bfloat16."""
    size = 8192 if device.type == "cuda" else 512
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / _seconds(lambda: one @ other, device, seconds)


def _of_model(name: str, asked: Asked, folder: Path, peak_flops: float) -> Iterator[dict[str, object]]:
    study = _study(name, asked, folder)
    with busy(asked.device) as seen:
        record = run_once(study, folder / "runs")
    if record.state != State.DONE:
        raise SystemExit(f"{name}: {record.state}: {record.reason}")
    model = study.trial({}).victim.model
    clip = build_clip(model, seed=0, device=asked.device)
    costs, flops = bare_costs(clip, asked.batch_size), flops_of_one(clip)
    for stage, seconds, counts, peak_bytes, times in _stages(record, ArtifactStore(str(study.store))):
        images = counts.get("images", 0.0) + counts.get("trained_images", 0.0)
        captions = counts.get("captions", 0.0) + counts.get("trained_captions", 0.0)
        if not images + captions:
            continue
        alone = sum(counts.get(kind, 0.0) * costs[kind] for kind in costs)
        done = sum(counts.get(kind, 0.0) * flops[kind] for kind in flops)
        yield {
            "model": name,
            "stage": STAGES.get(stage, stage),
            "seconds": round(seconds, 2),
            "images": round(images),
            "images_per_second": round(images / seconds, 1),
            "share_of_bare_model": round(alone / seconds, 3),
            "share_of_matmul": round(done / seconds / peak_flops, 4),
            "peak_memory_gb": round(peak_bytes / 1e9, 2),
            "gpu_busy": seen.share(*times),
            "bare_images_per_second": round(1 / costs["images"], 1),
            "matmul_tflops": round(peak_flops / 1e12, 2),
        }


def _study(name: str, asked: Asked, folder: Path) -> StudyConfig:
    precision = "bfloat16" if asked.gpus else "float32"
    tree = {
        "name": "gpu",
        "victim": {
            "data": {"kind": "noise", "pairs": asked.pairs, "judged": asked.judged},
            "model": {"name": name, "random_weights": True, "precision": precision, "text_positions": "used"},
            "attack": {"kind": "badnets", "target": "banana", "poison_rate": 0.02},
            "implant": {"epochs": 1, "batch_size": asked.batch_size, "min_asr": 0, "learning_rate": 1e-6},
        },
        "defense": {"kind": "ubt", "suspicious_ratio": 0.05, "overfit_epochs": 2, "unlearn_epochs": 4},
        "judging": {"images": min(1000, asked.judged)},
        "gates": {"clean_accuracy": {"act": "report"}},
        "tracking": {"enabled": False},
        "resources": {"gpus_per_trial": asked.gpus},
        "store": str(folder / "store"),
    }
    return validate(StudyConfig, tree, "benchmarks/gpu.py")


def _stages(
    record: TrialRecord, store: ArtifactStore
) -> Iterator[tuple[str, float, Mapping[str, float], int, tuple[float, float]]]:
    for stage in record.stages:
        manifest = store.manifest(stage.stage, stage.key)
        if manifest is not None and not stage.reused:
            times = datetime.fromisoformat(stage.started_at).timestamp(), _ended(stage.ended_at)
            yield stage.stage, max(stage.seconds, 1e-6), manifest.work, stage.peak_memory_bytes, times


def _ended(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# The bare model


def bare_costs(clip: Clip, batch_size: int) -> dict[str, float]:
    """Return the seconds that one image or caption takes, embedded and trained on, of batches already on the device."""
    size_px, device = clip.image_size_px, clip.device

    def pixels(count: int) -> torch.Tensor:
        return torch.rand(count, 3, size_px, size_px, device=device).to(memory_format=torch.channels_last)

    def tokens(count: int) -> torch.Tensor:
        return clip.tokenize([f"a photo of a thing number {at} on the table" for at in range(count)]).to(device)

    found = {}
    embedded = min(_EMBEDDED, 2 * batch_size)
    images, captions = pixels(embedded), tokens(embedded)
    with torch.no_grad():
        found["images"] = _seconds(lambda: _images(clip, images), device) / embedded
        found["captions"] = _seconds(lambda: clip.encode_tokens(captions), device) / embedded
    images, captions = pixels(batch_size), tokens(batch_size)
    found["trained_images"] = _seconds(lambda: _back(_images(clip, images)), device) / batch_size
    found["trained_captions"] = _seconds(lambda: _back(clip.encode_tokens(captions)), device) / batch_size
    return found


def _images(clip: Clip, pixels: torch.Tensor) -> torch.Tensor:
    with autocast(clip.device, clip.precision):
        found: torch.Tensor = clip.net.encode_image(pixels)
    return found.float()


def _back(embeddings: torch.Tensor) -> None:
    embeddings.square().sum().backward()


def flops_of_one(clip: Clip) -> dict[str, float]:
    """Return the floating-point operations of one image and one caption, embedded and trained on (three times that)."""
    pixels = torch.zeros(1, 3, clip.image_size_px, clip.image_size_px, device=clip.device)
    tokens = clip.tokenize(["a photo of a thing number 12345 on the table"])
    found = {}
    with torch.no_grad():
        for name, run in (("images", lambda: _images(clip, pixels)), ("captions", lambda: clip.encode_tokens(tokens))):
            with FlopCounterMode(display=False) as counter:
                run()
            found[name], found[f"trained_{name}"] = counter.get_total_flops(), 3 * counter.get_total_flops()
    return found


def _seconds(run: Callable[[], object], device: torch.device, least_seconds: float = 0.5) -> float:
    """Return the mean of what calls take, after a first one."""
    run()
    _wait(device)
    began, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - began < least_seconds:
        for _ in range(4 if device.type == "cuda" else 1):
            run()
            calls += 1
        _wait(device)
    return (time.perf_counter() - began) / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# How busy the GPU is


@dataclass
class Seen:
    """What nvidia-smi said: moments and the share of time, in percent, in which something ran on the GPU."""

    moments: list[tuple[float, float]] = field(default_factory=list)

    def share(self, began: float, ended: float) -> float | None:
        """Return the mean share between two moments, in [0, 1]; None if it was not looked at in between."""
        found = [percent for moment, percent in self.moments if began <= moment <= ended]
        return round(sum(found) / len(found) / 100, 3) if found else None


@contextmanager
def busy(device: torch.device) -> Iterator[Seen]:
    """Have nvidia-smi look at the GPU ten times a second, where there is one."""
    seen = Seen()
    if device.type != "cuda":
        yield seen
        return
    asked = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    asked += ["-i", str(torch.cuda.get_device_properties(device).uuid) if _has_uuid(device) else "0"]
    try:
        process = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        yield seen
        return

    def note() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().isdigit():
                seen.moments.append((time.time(), float(line)))

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        process.terminate()
        thread.join(5)


def _has_uuid(device: torch.device) -> bool:
    return str(getattr(torch.cuda.get_device_properties(device), "uuid", "")).startswith("GPU-")


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the rows as Markdown."""
    names = {
        "model": "model",
        "stage": "stage",
        "images_per_second": "images/s",
        "share_of_bare_model": "of the bare model",
        "share_of_matmul": "of a bf16 matrix product",
        "peak_memory_gb": "peak, GB",
        "gpu_busy": f"GPU busy (goal {_BUSY_GOAL})",
    }
    lines = [" | ".join(["", *names.values(), ""]).strip(), "|" + "---|" * len(names)]
    lines += [" | ".join(["", *(_cell(row[name]) for name in names), ""]).strip() for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(Asked.models))
    parser.add_argument("--pairs", type=int, default=Asked.pairs)
    parser.add_argument("--judged", type=int, default=Asked.judged, help="images of each of both splits")
    parser.add_argument("--batch-size", type=int, default=Asked.batch_size)
    parser.add_argument("--folder", type=Path, help="where pictures and artifacts lie; 17 GB at full size")
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    given = parser.parse_args()
    gpus = float(torch.cuda.is_available())
    asked = Asked(given.models, given.pairs, given.judged, given.batch_size, gpus)
    print(torch.cuda.get_device_name() if gpus else "no GPU: on the CPU", flush=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        rows = measure(asked, Path(folder))
    if given.out:
        write_whole(given.out, json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
