"""Unfinished artifacts: what continuing a stage needs, saved while it trains, for who takes its lease next.

They lie in a tree of their own in the store, one for each piece of work that a lease is taken of (`STAGE/SLOT`), and
are no results: no key leads to them. One is replaced by that of a later epoch, and deleted when the stage's artifact is
published. To save is never worth a failure: what cannot be written is said, and tried again at the next epoch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version

from torch import Tensor

from ubt.artifacts.codec import MODEL, OPTIMIZER, TENSORS, decode, encode
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore, UnfinishedStore, UnusableStore
from ubt.common.errors import DamagedArtifact
from ubt.models.clip import State

_SHARE = 20
"""Training goes on for at least so many times as long as the last saving took, before anything is saved again."""
_MADE_WITH = "made_with"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """A stage's state after an epoch."""

    manifest: ArtifactManifest
    """Its epochs, and what they took, as an artifact's."""
    model: State
    optimizer: Mapping[str, Tensor]
    """What the optimizer remembers."""
    random: Mapping[str, Tensor]
    """The states of torch's generators."""

    @property
    def epoch(self) -> int:
        """Return the number of the epoch that had ended."""
        return self.manifest.epochs[-1].epoch


class Unfinished:
    """What is saved of one stage while it is computed."""

    def __init__(
        self,
        store: ArtifactStore,
        stage: str,
        slot: str,
        every_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Save at most every so many seconds; 0 saves each epoch. Only reading has patience: training would wait."""
        self._read_from = UnfinishedStore(store.root, store.patience_seconds)
        self._written_to = UnfinishedStore(store.root)
        self._stage = stage
        self._slot = slot
        self._every_seconds = self._pause_seconds = every_seconds
        self._clock = clock
        self._saved_at = clock()
        self._there: ArtifactManifest | None = None
        self._later = 0
        """The epoch of what a longer chain has left there, which an earlier epoch does not replace."""

    def found(self, after: int, before: int | None) -> Saved | None:
        """Return what was saved after an epoch between two numbers, if it can be continued from.

        What is damaged, or was saved by other versions of torch or of this package, is passed over with a word.
        """
        self._there = manifest = self._read_from.manifest(self._stage, self._slot)
        if manifest is None or not manifest.epochs:
            return None
        epoch = manifest.epochs[-1].epoch
        self._later = epoch if before is not None and epoch >= before else 0
        if epoch <= after or self._later:
            return None
        if manifest.facts.get(_MADE_WITH) != _versions():
            logger.warning("what was saved of `%s` after epoch %d is not used: other versions", self._stage, epoch)
            return None
        try:
            parts = [decode(self._read_from, manifest, name) for name in (MODEL, OPTIMIZER, TENSORS)]
        except DamagedArtifact as damage:
            self._there = None
            logger.warning("what was saved of `%s` after epoch %d is not used: %s", self._stage, epoch, damage)
            return None
        return Saved(manifest, *parts)

    @property
    def due(self) -> bool:
        """Tell whether it is time to save again."""
        return self._clock() - self._saved_at >= self._pause_seconds

    def save(self, state: Saved) -> None:
        """Put a state in the place of an earlier one; that of a later epoch stays, which a longer chain has left."""
        began = self._clock()
        known = self._there
        if state.epoch <= self._later:
            return
        facts = {**state.manifest.facts, _MADE_WITH: _versions()}
        manifest = state.manifest.model_copy(update={"stage": self._stage, "key": self._slot, "facts": facts})
        parts = {MODEL: encode(state.model), OPTIMIZER: encode(state.optimizer), TENSORS: encode(state.random)}
        try:
            self._there = self._written_to.publish(manifest, parts)
            if known is not None:
                self._written_to.remove_files(known, kept=self._there)
        except UnusableStore as error:
            logger.warning("`%s` trains on, and what it needs to be continued cannot be saved: %s", self._stage, error)
        self._saved_at = self._clock()
        if self._every_seconds:
            self._pause_seconds = max(self._every_seconds, _SHARE * (self._saved_at - began))

    def discard(self, up_to: int | None = None) -> None:
        """Delete what is there, if it is of an epoch up to that number: a longer chain may go on from a later one."""
        there = self._there
        if there is None or (up_to is not None and there.epochs and there.epochs[-1].epoch > up_to):
            return
        try:
            self._written_to.remove(there)
            self._there = None
        except UnusableStore as error:
            logger.warning("what was saved of `%s` cannot be deleted: %s", self._stage, error)


def _versions() -> str:
    return " ".join(f"{name} {version(name)}" for name in ("torch", "ubt-sweeper"))
