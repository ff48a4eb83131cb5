"""How much work a stage is, counted before it runs, and what its speed depends on. Loads no torch.

A stage's row names a function of the trial and of how much data there is that counts it (`StageSpec.work`). The same
function counts it when a plan is made and when the stage runs, so seconds that were measured can be set against it.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError

from ubt.artifacts.manifest import ArtifactManifest, Setup, utc_now
from ubt.common.hashing import fingerprint
from ubt.config import Config
from ubt.data.base import DataSizes
from ubt.engine.graph import Node
from ubt.engine.spec import imported
from ubt.models.settings import HF_HUB, LOCAL_DIR, ModelSettings, image_size_px, model_config
from ubt.trials.config import TrialConfig

Kind = Literal[
    "stages",  # what every stage is beside the others: its context, its lease, its description
    "images",  # images embedded without gradients
    "captions",  # captions embedded without gradients
    "trained_images",  # images through the model and back
    "trained_captions",  # captions through the model and back
    "steps",  # optimizer's updates of both towers
    "image_steps",  # updates of the image tower alone
    "tokens",  # captions turned into tokens
    "augmented",  # images changed at random before they are trained on
    "distances",  # millions of distances between embeddings
    "fits",  # linear classifiers fitted
    "builds",  # networks made from nothing
    "copies",  # networks copied, with other weights put in
    "models",  # whole models compared, packed and stored
    "bodies",  # models stored without their token embedding
    "image_towers",  # image towers stored
]
KINDS: tuple[Kind, ...] = get_args(Kind)
_KNOWN = frozenset[str](KINDS)
STORED: tuple[Kind, ...] = ("models", "bodies", "image_towers")
"""Kinds that take disk in the store."""


_CAPTIONS = 16_384
"""Pairs among which equal captions are embedded once (`ubt.models.clip`)."""
UNCOUNTED = "data."
"""Begins what stands for the work of a stage that does not say how much it is."""


@dataclass(frozen=True)
class Work:
    """An amount of work: so many of each kind."""

    counts: Mapping[Kind, float] = field(default_factory=dict)

    def __add__(self, other: Work) -> Work:
        counts = dict(self.counts)
        for kind, count in other.counts.items():
            counts[kind] = counts.get(kind, 0.0) + count
        return Work(counts)

    def __mul__(self, times: float) -> Work:
        return Work({kind: count * times for kind, count in self.counts.items()})

    def seconds(self, costs: Mapping[str, float]) -> float | None:
        """Return what it takes at so many seconds for one of each kind; None if that of a kind is not known."""
        needed = {kind: count for kind, count in self.counts.items() if count}
        if not needed.keys() <= costs.keys():
            return None
        return sum(count * costs[kind] for kind, count in needed.items())

    @property
    def uncounted(self) -> bool:
        """Return whether the stage does not say how much work it is."""
        return any(kind.startswith(UNCOUNTED) for kind in self.counts)

    def as_json(self) -> dict[str, float]:
        """Return it as plain values."""
        return {kind: float(count) for kind, count in self.counts.items() if count}

    @classmethod
    def of(cls, given: Mapping[str, float]) -> Work:
        """Return it from plain values; kinds of other versions are kept, though unknown here."""
        return cls(dict(given))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Effort:
    """What a stage's seconds will be set against."""

    setup: Setup | None = None
    """What it is computed on."""
    work: Callable[[Node], Work | None] = lambda node: None
    """How much work the node is, which may end at an earlier epoch; None if that is not known."""

    def work_at(self, node: Node) -> dict[str, float]:
        """Return the work as plain values; {} if it is not known."""
        work = self.work(node)
        return {} if work is None else work.as_json()


def work(**counts: float) -> Work:
    """Return an amount of work by kinds; `TypeError` if there is no such kind."""
    if unknown := counts.keys() - _KNOWN:
        raise TypeError(f"no kinds of work: {', '.join(sorted(unknown))}")
    return Work.of(counts)


def used(count: int, batch_size: int) -> int:
    """Return how many of `count` an epoch trains on: a last odd batch is dropped; fewer than a batch are one."""
    return count - count % batch_size if count >= batch_size else count


def steps(count: int, batch_size: int) -> int:
    """Return in how many steps."""
    return max(1, count // batch_size) if count else 0


def trained(epochs: int, count: int, batch_size: int, micro_batch_size: int | None = None) -> Work:
    """Return the work of training both towers."""
    pairs = epochs * used(count, batch_size)
    return stepped(pairs, epochs * steps(count, batch_size), min(batch_size, count), micro_batch_size)


def stepped(pairs: float, steps: int, size: int, micro_batch_size: int | None) -> Work:
    """Return the work of so many steps of a size, in which both towers train on so many pairs in all."""
    training = work(trained_images=pairs, trained_captions=pairs, steps=steps)
    return training + embedded_twice(pairs, pairs, size, micro_batch_size)


def embedded_twice(images: float, captions: float, step: int, micro_batch_size: int | None) -> Work:
    """Return what micro-batches add, in steps of a size: each image and caption is embedded once before."""
    return work(images=images, captions=captions) if micro_batch_size and micro_batch_size < step else Work()


def similarities(pairs: int, sizes: DataSizes) -> Work:
    """Return the work of `pair_similarities` of so many of the training pairs."""
    blocks, rest = divmod(pairs, _CAPTIONS)
    captions = blocks * distinct(_CAPTIONS, sizes) + distinct(rest, sizes)
    return work(images=pairs, captions=captions)


def distinct(pairs: int, sizes: DataSizes) -> float:
    """Return how many different captions so many pairs are expected to have, drawn of all, if each is as frequent."""
    share = min(1.0, pairs / sizes.train)
    unseen: float = (1 - share) ** (sizes.train / sizes.captions)
    return sizes.captions * (1 - unseen)


WorkFunction = Callable[[TrialConfig, DataSizes], Work | None]
"""What counts a stage's work in a trial; None if it cannot be known beforehand."""


def work_of(node: Node, trial: TrialConfig, sizes: DataSizes | None) -> Work | None:
    """Return how much work a stage of a trial is; None if it is not known how much data there is.

    A stage need not say it, as one of a plug-in: then the work is how much data there is. The node may end at another
    epoch than the trial's settings say.
    """
    spec = node.spec
    if sizes is None:
        return None
    if spec.work is None:
        return Work.of({f"{UNCOUNTED}{name}": size for name, size in sizes.as_json().items() if isinstance(size, int)})
    if spec.epochs and getattr(trial.defense, spec.epochs, node.epochs) != node.epochs:
        trial = trial.model_copy(update={"defense": trial.defense.model_copy(update={spec.epochs: node.epochs})})
    count: WorkFunction = imported(spec.work)
    return count(trial, sizes)


def setup_of(model: ModelSettings, hardware: str, threads: int, gpus: float) -> Setup:
    """Return what the speed of a trial's stages depends on."""
    return Setup(
        model=architecture(model),
        image_size_px=image_size_px(model.name),
        precision="float32" if model.precision == "auto" else model.precision,
        hardware=hardware,
        threads=0 if gpus else threads,
        gpus=gpus,
    )


def architecture(model: ModelSettings) -> str:
    """Return what a model's architecture is called: its name; where that names a place, what is found there."""
    if model.name.startswith((LOCAL_DIR, HF_HUB)):
        return f"described-{fingerprint(model_config(model.name))[:12]}"
    return model.name


CALIBRATION = "calibration"
"""Stands for a stage where a store keeps what was measured: so it lies, and is removed, like any artifact."""


class Calibrated(Config):
    """What a unit of each kind of work takes on one setup, measured by a few batches."""

    setup: Setup
    costs: dict[str, float]
    """Kind of work → seconds."""
    sizes: dict[str, int]
    """Kind of work that takes disk in the store → bytes."""
    peak_memory_bytes: int
    """Of the GPU, or of the process on a CPU."""
    at_once: int = 1
    """How many trials computed beside each other."""
    measured_at: str = Field(default_factory=utc_now)

    @classmethod
    def mean(cls, measured: Sequence[Calibrated]) -> Calibrated:
        """Return the mean of what trials on one setup measured beside each other."""
        kinds = [kind for kind in measured[0].costs if all(kind in one.costs for one in measured)]
        return measured[0].model_copy(
            update={
                "costs": {kind: sum(one.costs[kind] for one in measured) / len(measured) for kind in kinds},
                "peak_memory_bytes": max(one.peak_memory_bytes for one in measured),
                "at_once": len(measured),
            }
        )

    def as_artifact(self) -> ArtifactManifest:
        """Return it as a store keeps it: the newest of each setup."""
        key = fingerprint(self.setup.as_json())
        facts, settings = self.as_json(), self.setup.as_json()
        return ArtifactManifest(
            stage=CALIBRATION, key=key, version=1, seed=None, settings=settings, inputs={}, facts=facts
        )

    @classmethod
    def read(cls, manifest: ArtifactManifest) -> Calibrated | None:
        """Return what a store has kept; None if another version of the package wrote it."""
        try:
            return cls.model_validate(manifest.facts)
        except ValidationError:
            return None


@cache
def cpu_name() -> str:
    """Return what this machine's CPU calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine() or "CPU"
