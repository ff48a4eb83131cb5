"""Where a stage goes on from: an earlier epoch of its chain, or what was saved of it by a process that was ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from ubt.artifacts.codec import OPTIMIZER
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.unfinished import Saved, Unfinished
from ubt.common.errors import DamagedArtifact
from ubt.engine.context import Earlier, Epoch
from ubt.engine.graph import Node
from ubt.engine.workspace import Workspace, plain

_ASKED_ONE_BY_ONE = 4
"""Up to so many earlier epochs are asked for by their keys; of more, the store lists what it has of the stage, once."""
_EPOCHS = "epochs"
"""What an unfinished artifact calls the number of epochs that the stage has in all."""

logger = logging.getLogger(__name__)


class Continuation:
    """What one stage continues from, and what it saves for others to continue from where it is ended."""

    def __init__(self, node: Node, workspace: Workspace, unfinished: Unfinished | None = None) -> None:
        """Look for the latest epoch of a node's work in the store; without `unfinished`, nothing is saved."""
        self._node = node
        self._workspace = workspace
        self._unfinished = unfinished
        self.manifest = self._published()
        """Of the epoch that is continued from; None if the stage starts at its beginning."""
        self.resumed = ""
        """`3 of 5`: the epoch at which the stage goes on where it was ended; empty if it was not."""
        self._saved = self._found()
        if self._saved:
            self.manifest = self._saved.manifest
            self.resumed = f"{self._saved.epoch + 1} of {self.manifest.facts[_EPOCHS]}"
            logger.warning("`%s` resumed at epoch %s", node.spec.name, self.resumed)

    def earlier(self) -> Earlier | None:
        """Return the epoch to continue from, for the stage; asked for once.

        Raises:
            DamagedArtifact: if it is an artifact that has gone, or is no epoch's.
        """
        if self._saved:
            saved, self._saved = self._saved, None  # it takes three times as much memory as the model
            _restore_random(saved.random, self._workspace.device)
            return Earlier(saved.epoch, saved.model, saved.optimizer)
        if self.manifest is None:
            return None
        artifact = self._workspace.load(self.manifest.stage, self.manifest.key)
        if artifact is None:
            raise DamagedArtifact(f"{self.manifest.stage} {self.manifest.key} has gone from the store")
        if not self.manifest.epochs:
            raise self._workspace.damaged(self.manifest, "says of no epoch")
        return Earlier(self.manifest.epochs[-1].epoch, artifact.weights, self._workspace.optimizer(self.manifest))

    def must_save(self, epoch: Epoch) -> bool:
        """Tell whether it is time to save an epoch: one that can be continued from, and is not the last."""
        return (
            self._unfinished is not None
            and epoch.model is not None
            and epoch.optimizer is not None
            and epoch.epochs is not None
            and epoch.number < epoch.epochs
            and self._unfinished.due
        )

    def save(self, epoch: Epoch, described: ArtifactManifest) -> None:
        """Save what continuing from an epoch needs, in place of what was saved before."""
        assert self._unfinished and epoch.model and epoch.optimizer  # noqa: S101 — it must be saved
        manifest = described.model_copy(update={"facts": {_EPOCHS: epoch.epochs}})
        model, optimizer = plain(epoch.model.state()), plain(epoch.optimizer())
        self._unfinished.save(Saved(manifest, model, optimizer, _random_states(self._workspace.device)))

    def discard(self, up_to: int | None, published: bool = True) -> None:
        """Delete what was saved, if it is of an epoch up to that number: nothing continues from there any more.

        Where a result could not be `published`, something will.
        """
        self._saved = None
        if self._unfinished and published:
            self._unfinished.discard(up_to)

    def _published(self) -> ArtifactManifest | None:
        """Return the latest earlier epoch of this chain that can be continued from."""
        store, stage = self._workspace.store, self._node.spec.name
        keys = [self._node.at(epoch).key for epoch in range(self._node.epochs - 1, 0, -1)]
        if len(keys) > _ASKED_ONE_BY_ONE:
            there = store.keys(stage)
            keys = [key for key in keys if key in there]
        found = (store.manifest(stage, key) for key in keys)
        return next((manifest for manifest in found if manifest and OPTIMIZER in manifest.payloads), None)

    def _found(self) -> Saved | None:
        """Return what was saved after a later epoch than the one that is published."""
        if self._unfinished is None:
            return None
        after = self.manifest.epochs[-1].epoch if self.manifest and self.manifest.epochs else 0
        return self._unfinished.found(after, self._node.epochs or None)


def _random_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of the generators that dropout draws from."""
    found = {"cpu": torch.get_rng_state()}
    return found | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _restore_random(states: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
