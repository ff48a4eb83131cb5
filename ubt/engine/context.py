"""What a stage is given and what it returns.

A stage of a defense gets a `StageContext`. Nothing in it leads to what is poisoned: pairs come by the batch from a
`Feed`, of other stages' artifacts it sees tensors and weights alone, of the trial only its own settings. A stage marked
`sees_poison`, which builds or evaluates the victim, gets a `PrivilegedContext`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, TypeVar

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from ubt.artifacts.codec import Artifact
from ubt.common.errors import StageFault
from ubt.common.hashing import numpy_generator
from ubt.config import Config
from ubt.data.base import DataSet, PairSource, Subset, subset
from ubt.engine.graph import Node
from ubt.engine.poisoning import PoisonManifest
from ubt.engine.spec import MANIFEST, PAIRS
from ubt.engine.workspace import Workspace
from ubt.methods.evaluation import Evaluator
from ubt.models.clip import Clip, State
from ubt.models.tokens import TokenSource
from ubt.trials.rates import Rates

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
    """Small results that are no tensors."""


@dataclass(frozen=True)
class Epoch:
    """One finished epoch of a stage that works by epochs. The last one's snapshot is the stage's output."""

    number: int
    snapshot: Callable[[], Output]
    loss: float | None = None
    model: Clip | None = None
    """The model as it is now, for others to evaluate."""
    optimizer: Callable[[], Mapping[str, Tensor]] | None = None
    """What continuing from here needs beside the model."""
    epochs: int | None = None
    """How many the stage has in all; None if it does not say."""


@dataclass(frozen=True)
class Earlier:
    """An earlier epoch of the same chain, or of the same stage where it was ended, in the store, to continue from."""

    epoch: int
    model: State
    optimizer: Mapping[str, Tensor]


@dataclass(frozen=True)
class StageInput:
    """What a stage is given of another's artifact: not its manifest, whose diagnostics and settings know more."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    model: State | None = None

    @property
    def weights(self) -> State:
        """Return the model's weights; `ValueError` if the artifact is no model."""
        if self.model is None:
            raise ValueError("this artifact is no model")
        return self.model


StageFunction = Callable[["StageContext"], "Output | Iterator[Epoch]"]
ObserveFunction = Callable[[Clip], dict[str, float]]
DiagnoseFunction = Callable[["StageContext", Output, PoisonManifest], dict[str, float]]


class StageContext:
    """The inputs of one stage of a defense."""

    def __init__(
        self,
        name: str,
        seed: int,
        settings: Mapping[str, JsonValue],
        inputs: Mapping[str, StageInput],
        model: Clip,
        pairs: PairSource | None = None,
        pair_tokens: TokenSource | None = None,
        clean: PairSource | None = None,
        earlier: Earlier | None = None,
    ) -> None:
        self.name = name
        """Name of the stage."""
        self.seed = seed
        """The trial's seed (0 for stages that do not depend on it)."""
        self.earlier = earlier
        """An epoch to continue from, for stages that work by epochs."""
        self._settings = settings
        self._inputs = inputs
        self._model = model
        self._pairs = pairs
        self._pair_tokens = pair_tokens
        self._clean = clean

    @property
    def device(self) -> torch.device:
        """Return the device that the trial computes on."""
        return self._model.device

    @property
    def pairs(self) -> PairSource:
        """Return the training pairs D as a defender finds them: poisoned, and not marked.

        Raises:
            KeyError: if the stage does not say that it needs them.
        """
        if self._pairs is None:
            raise KeyError(PAIRS)
        return self._pairs

    @property
    def pair_tokens(self) -> TokenSource:
        """Return the tokens of D's captions: `pair_tokens[indices]` are `[B, L]` int64; `KeyError` as for `pairs`."""
        if self._pair_tokens is None:
            raise KeyError(PAIRS)
        return self._pair_tokens

    def clean_pairs(self, count: int) -> tuple[Subset, Tensor]:
        """Return `count` clean pairs that the defender has, or all if there are fewer, and their tokens `[S, L]`.

        The same for all stages of a seed, and fewer are some of more: defenses are compared on equal pairs.

        Raises:
            StageFault: if the data has none.
        """
        if self._clean is None:
            raise StageFault("the data has no `pretrain` pairs, from which a defender's clean pairs are drawn")
        chosen = numpy_generator(self.seed, "clean pairs").permutation(len(self._clean))[:count]
        pairs = subset(self._clean, chosen)
        return pairs, self._model.tokenize(pairs.captions)

    def settings(self, model: type[Settings], part: str | None = None) -> Settings:
        """Return the stage's own settings, or the part of them under one name, as a typed model."""
        tree = self._settings
        names = [name for name in model.model_fields if name in tree or not model.may_lack(name)]
        return model.model_validate(tree[part] if part else {name: tree[name] for name in names})

    def artifact(self, role: str) -> StageInput:
        """Return what fills a role; `KeyError` if the stage does not say it needs it."""
        return self._inputs[role]

    def clip(self, role: str) -> Clip:
        """Return an independent copy of the model that fills a role, in evaluation mode."""
        return self._model.with_state(self.artifact(role).weights)

    def tokenize(self, captions: list[str]) -> Tensor:
        """Return captions as tokens `[N, L]` int64."""
        return self._model.tokenize(captions)

    def words(self, tokens: Tensor) -> Tensor:
        """Return which of `tokens[N, L]` are words of their captions, `[N, L]` bool."""
        return self._model.words(tokens)

    @property
    def padding(self) -> int:
        """Return the token that captions are filled up with."""
        return self._model.padding

    def token_text(self, token: int) -> str:
        """Return the text of a token; in open_clip's own vocabulary it ends with a blank where a word ends."""
        return self._model.token_text(token)

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """Return a generator derived from the seed, the stage and a purpose."""
        return numpy_generator(self.seed, self.name, *purpose)


class PrivilegedContext(StageContext):
    """The inputs of a stage that builds or evaluates the victim: it knows the data, and what is poisoned in it."""

    def __init__(
        self, node: Node, workspace: Workspace, artifacts: Mapping[str, Artifact], earlier: Earlier | None = None
    ) -> None:
        super().__init__(**_given(node, workspace, artifacts, earlier, lent=False))
        self.node = node
        self._workspace = workspace
        self._artifacts = artifacts

    @property
    def data(self) -> DataSet:
        """Return the data set of the trial."""
        return self._workspace.data

    @property
    def manifest(self) -> PoisonManifest:
        """Return what is poisoned; `KeyError` if the stage does not say that it needs it."""
        return PoisonManifest.of(self._artifacts[MANIFEST])

    @property
    def evaluator(self) -> Evaluator:
        """Return the evaluator of models, which stamps triggers; `KeyError` as for `manifest`."""
        return self._workspace.evaluator(self._artifacts[MANIFEST])

    def judged(self, role: str) -> Rates | None:
        """Return what the model that fills a role is worth on validation, if that is known from its last epoch."""
        return self._workspace.judged(self._artifacts[role].manifest.key)

    def facts(self, role: str) -> Mapping[str, JsonValue]:
        """Return the facts of the artifact that fills a role."""
        return self._artifacts[role].manifest.facts

    def file(self, name: str) -> Path | None:
        """Return the place of a file that the stage reads; None if the trial names none."""
        return self.node.files.get(name)


def context_of(
    node: Node,
    workspace: Workspace,
    artifacts: Mapping[str, Artifact],
    earlier: Earlier | None = None,
    lent: bool = True,
) -> StageContext:
    """Return what a stage is given. `artifacts` are those of the roles that it needs, and no others.

    Only for a stage marked `sees_poison` does it hold more than a defender has. Not `lent`, it is made of objects that
    no stage of a defense ever held: for diagnostics, which know the poison.
    """
    if node.spec.sees_poison:
        return PrivilegedContext(node, workspace, artifacts, earlier)
    return StageContext(**_given(node, workspace, artifacts, earlier, lent))


class _Given(TypedDict):
    """The arguments of `StageContext`."""

    name: str
    seed: int
    settings: Mapping[str, JsonValue]
    inputs: Mapping[str, StageInput]
    model: Clip
    pairs: PairSource | None
    pair_tokens: TokenSource | None
    clean: PairSource | None
    earlier: Earlier | None


def _given(
    node: Node, workspace: Workspace, artifacts: Mapping[str, Artifact], earlier: Earlier | None, lent: bool
) -> _Given:
    poison = artifacts.get(PAIRS)
    return {
        "name": node.spec.name,
        "seed": node.seed or 0,
        "settings": node.settings,
        "inputs": {
            role: StageInput(artifact.tensors, artifact.model)
            for role, artifact in artifacts.items()
            if role not in {PAIRS, MANIFEST}
        },
        "model": workspace.lent_clip if lent else workspace.clip,
        "pairs": workspace.pairs(poison, lent) if poison else None,
        "pair_tokens": workspace.pair_tokens(poison) if poison else None,
        "clean": workspace.clean_pairs,
        "earlier": earlier,
    }
