"""What the stages of a study cost: each distinct one with the seconds that its work takes, and its result's size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cache

from sweeps.planning.speeds import Speeds, weight_of
from sweeps.planning.trials import shared_epochs
from sweeps.planning.wall import Task
from sweeps.study.config import Resources, StudyConfig
from ubt.artifacts.manifest import Setup
from ubt.artifacts.store import ArtifactStore, local_cache
from ubt.common.errors import UserError
from ubt.data.base import DataSizes, DataSource
from ubt.data.labelled import LabelledFiles
from ubt.data.vocabulary import read_templates
from ubt.engine.graph import Node, Pipeline
from ubt.engine.work import STORED, Work, setup_of, work_of
from ubt.models.settings import ModelSettings
from ubt.trials.config import TrialConfig

SizesOf = Callable[[DataSource], DataSizes | None]
_KEPT_EPOCH = 3
"""An epoch that others continue from is stored with the optimizer's two moments of each weight."""


@dataclass(frozen=True)
class Piece:
    """One distinct stage of a study."""

    node: Node
    setup: Setup
    seconds: float | None
    """From nothing, however many epochs it is; None if it is unknown."""
    weight: float
    """How much work it is beside others of its kind, where its seconds are unknown."""
    artifacts: int
    """From how many of the store the seconds were read; 0: from a calibration, or unknown."""
    size_bytes: float | None
    """Of its artifact, with those of epochs on the way; None if it is unknown."""


class CostModel:
    """Works out what stages of one study cost; the same for a plan and for the time that is left of a sweep."""

    def __init__(self, study: StudyConfig, store: str, sizes: SizesOf, speeds: Speeds | None = None) -> None:
        self._resources: Resources = study.resources
        self._sizes = cache(sizes)
        self._keep = shared_epochs(study)
        self._store = ArtifactStore(store)
        self._given = speeds
        self._setups: dict[int, tuple[ModelSettings, Setup]] = {}
        """By the number of a model's object, which is kept, so that no other one gets its number."""
        self.pieces: dict[str, Piece] = {}
        """Key → distinct stage, of the trials that were priced."""

    def price(self, trials: Iterable[tuple[TrialConfig, Pipeline]]) -> None:
        """Work out what the stages of trials cost."""
        new = [(trial, node) for trial, pipeline in trials for node in pipeline if node.key not in self.pieces]
        speeds = self._speeds(node.spec.name for _, node in new)
        for trial, node in new:
            if node.key not in self.pieces:
                self.pieces[node.key] = self._piece(trial, node, speeds)

    def _speeds(self, stages: Iterable[str]) -> Speeds:
        if self._given is None:
            self._given = Speeds(self._store, stages)
        return self._given

    @property
    def speeds(self) -> Speeds:
        """Return what is known of the stages that were priced."""
        return self._speeds(())

    def _piece(self, trial: TrialConfig, node: Node, speeds: Speeds) -> Piece:
        data = trial.victim.data
        setup = self._setup(trial.victim.model, speeds)
        work = work_of(node, trial, self._sizes(data))
        found = speeds.estimate(node, work, setup)
        on_the_way = self._on_the_way(node, work)
        seconds, artifacts = (found.seconds, found.artifacts) if found else (None, 0)
        calibrated = speeds.calibrated(setup)
        if seconds is not None and calibrated and not artifacts:
            seconds += on_the_way.seconds(calibrated.costs) or 0.0
        own = speeds.size_bytes(node, work, setup)
        return Piece(
            node=node,
            setup=setup,
            seconds=seconds,
            weight=weight_of(node, work),
            artifacts=artifacts,
            size_bytes=None if own is None else own * (1 + self._kept(node) * _KEPT_EPOCH),
        )

    def _setup(self, model: ModelSettings, speeds: Speeds) -> Setup:
        """Return what a model's stages are computed on, worked out once for each model."""
        if id(model) not in self._setups:
            wanted = setup_of(model, "", self._resources.cpus_per_trial, self._resources.gpus_per_trial)
            self._setups[id(model)] = model, speeds.setup(wanted)
        return self._setups[id(model)][1]

    def _kept(self, node: Node) -> int:
        """Return how many epochs before its last are stored, too."""
        return sum(epoch < node.epochs for epoch in self._keep.get(node.spec.name, ())) if node.spec.epochs else 0

    def _on_the_way(self, node: Node, work: Work | None) -> Work:
        counts = {kind: count for kind, count in work.counts.items() if kind in STORED} if work else {}
        return Work(counts) * (_KEPT_EPOCH * self._kept(node))


def tasks_of(pieces: Iterable[Piece], stored: Collection[str]) -> dict[str, Task]:
    """Return what is left to do as tasks, each behind those that it needs; what is unknown takes no time.

    A chain of epochs is walked once: an artifact at a later epoch goes on from the one before it.
    """
    pieces = list(pieces)
    by_key = {piece.node.key: piece for piece in pieces}

    @cache
    def depth(key: str) -> int:
        return 1 + max((depth(before) for before in by_key[key].node.inputs.values() if before in by_key), default=0)

    tasks: dict[str, Task] = {}
    walked: dict[str, tuple[str, float]] = {}
    """Chain → the key and the seconds of its furthest epoch so far."""
    for piece in sorted(pieces, key=lambda one: (depth(one.node.key), one.node.epochs)):
        node, seconds = piece.node, piece.seconds or 0.0
        before, reached = walked.get(node.chain, ("", 0.0))
        walked[node.chain] = (node.key, max(seconds, reached))
        if node.key not in stored:
            needs = [key for key in (*node.inputs.values(), before) if key and key not in stored]
            tasks[node.key] = Task(max(0.0, seconds - reached), tuple(needs))
    return tasks


def chained_seconds(pieces: Iterable[Piece], stored: Collection[str] = ()) -> float | None:
    """Return the seconds of what is not stored, each chain of epochs walked once; None if those of one are unknown."""
    pieces = list(pieces)
    if any(piece.seconds is None for piece in pieces if piece.node.key not in stored):
        return None
    reached: defaultdict[str, float] = defaultdict(float)
    total = 0.0
    for piece in sorted(pieces, key=lambda one: one.node.epochs):
        seconds, chain = piece.seconds or 0.0, piece.node.chain
        if piece.node.key not in stored:
            total += max(0.0, seconds - reached[chain])
        reached[chain] = max(seconds, reached[chain])
    return total


def sizes_in(store: str) -> SizesOf:
    """Return what says how much data there is, as far as it is known without decoding it."""

    def sizes(data: DataSource) -> DataSizes | None:
        try:
            return data.sizes(local_cache(store))
        except UserError:  # which the plan notes where it asks for the data's key
            return None

    return sizes


def assumed(pairs: int, images: int) -> SizesOf:
    """Return the same for data that is not here: so many training pairs, and labelled images over both splits."""

    def sizes(data: DataSource) -> DataSizes | None:
        try:
            classes = len(data.class_names())
        except UserError:
            return None
        prompts = len(read_templates(data.templates, [])) if isinstance(data, LabelledFiles) else 1
        return DataSizes(
            train=pairs,
            pretrain=pairs if data.has_pretrain else 0,
            captions=pairs,
            val=max(1, images // 2),
            test=max(1, images - images // 2),
            classes=classes,
            templates=max(1, prompts),
        )

    return sizes
