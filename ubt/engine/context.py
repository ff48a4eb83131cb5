"""What a stage is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from pydantic import JsonValue
from torch import Tensor

from ubt.artifacts.codec import Artifact
from ubt.common.errors import StageFault
from ubt.common.seeding import numpy_generator
from ubt.config import Config
from ubt.data.base import DataSet, Pairs, subset
from ubt.engine.graph import Node
from ubt.engine.poisoning import Manifest, PoisonedPairs
from ubt.engine.workspace import Workspace
from ubt.methods.evaluation import Evaluator
from ubt.models.clip import Clip, State

Settings = TypeVar("Settings", bound=Config)


@dataclass(frozen=True)
class Output:
    """The result of a stage: what its artifact holds."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    model: State | None = None
    """Weights of the model that the stage made, if it made one."""
    base: str | None = None
    """Role of the model that `model` was made from; only what differs from it is stored."""
    facts: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Epoch:
    """One finished epoch of a stage that works by epochs. The last one's snapshot is the stage's output."""

    number: int
    snapshot: Callable[[], Output]
    loss: float | None = None
    model: Clip | None = None
    """The model as it is now, for others to judge."""
    optimizer: Callable[[], Mapping[str, Tensor]] | None = None
    """What continuing from here needs beside the model."""


@dataclass(frozen=True)
class Earlier:
    """An earlier epoch of the same chain, found in the store, to continue from."""

    epoch: int
    model: State
    optimizer: Mapping[str, Tensor]


StageFunction = Callable[["StageContext"], "Output | Iterator[Epoch]"]
MeasureFunction = Callable[["StageContext", Output, Manifest], dict[str, float]]


class StageContext:
    """The inputs of one stage. Which pairs are poisoned is there for stages marked `sees_poison` alone."""

    def __init__(
        self, node: Node, workspace: Workspace, inputs: Mapping[str, Artifact], earlier: Earlier | None
    ) -> None:
        self.node = node
        self.workspace = workspace
        self.earlier = earlier
        self._inputs = inputs

    @property
    def seed(self) -> int:
        """Return the trial's seed (0 for stages that do not depend on it)."""
        return self.node.seed or 0

    @property
    def data(self) -> DataSet:
        """Return the data set of the trial."""
        return self.workspace.data

    @property
    def pairs(self) -> PoisonedPairs:
        """Return the training pairs D as a defender finds them: poisoned, and not marked."""
        return self.workspace.poisoned_pairs(self.artifact("poison"))

    @property
    def pair_tokens(self) -> Tensor:
        """Return the tokens `[N, L]` int64 of D's captions."""
        return self.workspace.pair_tokens(self.artifact("poison"))

    @property
    def manifest(self) -> Manifest:
        """Return what is poisoned.

        Raises:
            PermissionError: for stages that must not know.
        """
        self._only_for_those_who_may_see()
        return Manifest.of(self.artifact("poison"))

    @property
    def evaluator(self) -> Evaluator:
        """Return the judge of models, which stamps triggers.

        Raises:
            PermissionError: for stages that must not know them.
        """
        self._only_for_those_who_may_see()
        return self.workspace.evaluator(self.artifact("poison"))

    def clean_pairs(self, count: int) -> tuple[Pairs, Tensor]:
        """Return `count` clean pairs that the defender has, or all if there are fewer, and their tokens `[S, L]`.

        The same for all stages of a seed, and fewer are some of more: defenses are compared on equal pairs.

        Raises:
            StageFault: if the data has none.
        """
        whole = self.data.pretrain
        if whole is None:
            raise StageFault("the data has no `pretrain` pairs, from which a defender's clean pairs are drawn")
        chosen = numpy_generator(self.seed, "clean pairs").permutation(len(whole))[:count]
        pairs = subset(whole, chosen)
        return pairs, self.workspace.clip.tokenize(pairs.captions)

    def settings(self, model: type[Settings], part: str | None = None) -> Settings:
        """Return the stage's own settings, or the part of them under one name, as a typed model."""
        tree = self.node.settings
        return model.model_validate(tree[part] if part else {name: tree[name] for name in model.model_fields})

    def artifact(self, role: str) -> Artifact:
        """Return the artifact that fills a role; `KeyError` if the stage does not say it needs it."""
        return self._inputs[role]

    def clip(self, role: str) -> Clip:
        """Return an independent copy of the model that fills a role, in evaluation mode."""
        return self.workspace.clip.with_state(self.artifact(role).weights)

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """Return a generator derived from the seed, the stage and a purpose."""
        return numpy_generator(self.seed, self.node.spec.name, *purpose)

    def _only_for_those_who_may_see(self) -> None:
        if not self.node.spec.sees_poison:
            raise PermissionError(f"stage `{self.node.spec.name}` must not know what is poisoned")
