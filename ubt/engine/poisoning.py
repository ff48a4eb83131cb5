"""The poisoned training set D: a view of the clean pairs in which some are replaced, and the list of which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue, TypeAdapter

from ubt.artifacts.codec import Artifact
from ubt.attacks import Attack, AttackConfig, Images
from ubt.data.base import Pairs

LEARNED, DECOYS = "learned", "decoys"
"""Names of the tensors with an attack's learnt trigger, `[S, S, 3]` uint8, and its decoys, `[Q]` int64."""

_attack: TypeAdapter[Attack] = TypeAdapter(AttackConfig)


@dataclass(frozen=True)
class Manifest:
    """Which pairs are poisoned, with what: known to the attacker and to metrics, never to a defense."""

    indices: NDArray[np.int64]
    """`[P]`, sorted: the poisoned ones of N pairs."""
    captions: Sequence[str]
    """Their P captions."""
    attack: Attack
    """With its trigger, if that was learnt."""
    decoys: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """`[Q]`, sorted: pairs with clean images whose captions the attacker changed without naming the target."""

    @classmethod
    def of(cls, poison: Artifact) -> Manifest:
        """Return the manifest in a `poison` artifact."""
        return cls.read(poison.tensors, poison.meta.facts)

    @classmethod
    def read(cls, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, JsonValue]) -> Manifest:
        """Return the manifest in what the `poison` stage puts out."""
        attack, learned = _attack.validate_python(facts["attack"]), tensors.get(LEARNED)
        decoys = {"decoys": tensors[DECOYS].numpy()} if DECOYS in tensors else {}
        return cls(
            indices=tensors["indices"].numpy(),
            captions=cast("list[str]", facts["captions"]),
            attack=attack if learned is None else attack.carrying(learned.numpy()),
            **decoys,
        )

    @property
    def known(self) -> bool:
        """Tell whether anything is known to be poisoned; not so for a victim that came poisoned."""
        return len(self.indices) > 0

    def marks(self, indices: torch.Tensor) -> NDArray[np.bool_]:
        """Return for each of `indices[S]` whether that pair is poisoned, `[S]` bool."""
        return np.isin(indices.numpy(), self.indices)

    def found_in(self, indices: torch.Tensor) -> dict[str, float]:
        """Return what a choice of `indices[S]` found: how many `pairs`, and their `recall` and `precision` of poison.

        The number alone if nothing is known to be poisoned.
        """
        marks = self.marks(indices)
        if not self.known:
            return {"pairs": float(len(marks))}
        recall = float(marks.sum() / len(self.indices))
        return {"pairs": float(len(marks)), "recall": recall, "precision": float(marks.mean())}


@dataclass(frozen=True)
class PoisonedPairs(Pairs):
    """D as anyone finds it. `replaced[N]` int64 is a row of `triggered[P, H, W, 3]`, or −1 for clean images."""

    replaced: NDArray[np.int64]
    triggered: Images

    def take(self, indices: NDArray[np.int64]) -> Images:
        """Return the images `[B, H, W, 3]` at `indices[B]`, triggered where the attacker replaced them."""
        images = np.array(self.images[indices])
        rows = self.replaced[indices]
        images[rows >= 0] = self.triggered[rows[rows >= 0]]
        return images


def poisoned_pairs(clean: Pairs, manifest: Manifest) -> PoisonedPairs:
    """Return D: `clean` with the manifest's images stamped and its captions put in."""
    replaced = np.full(len(clean), -1, dtype=np.int64)
    replaced[manifest.indices] = np.arange(len(manifest.indices))
    captions = list(clean.captions)
    for index, caption in zip(manifest.indices, manifest.captions, strict=True):
        captions[index] = caption
    for index in manifest.decoys:
        captions[index] = manifest.attack.decoy(captions[index])
    triggered = manifest.attack.stamp(clean.take(manifest.indices))
    return PoisonedPairs(clean.images, captions, replaced, triggered)
