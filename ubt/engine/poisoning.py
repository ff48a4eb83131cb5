"""The poisoned training set D: a view of the clean pairs in which some are replaced, and the list of which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Lock, Thread
from typing import cast
from weakref import finalize

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue, TypeAdapter

from ubt.artifacts.codec import Artifact
from ubt.attacks import Attack, AttackConfig, Images
from ubt.data.base import PairSource

LEARNED, DECOYS = "learned", "decoys"
"""Names of the tensors with an attack's learnt trigger, `[S, S, 3]` uint8, and its decoys, `[Q]` int64."""

_attack: TypeAdapter[Attack] = TypeAdapter(AttackConfig)


@dataclass(frozen=True)
class PoisonManifest:
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
    def of(cls, poison: Artifact) -> PoisonManifest:
        """Return the manifest in a `poison` artifact."""
        return cls.read(poison.tensors, poison.manifest.facts)

    @classmethod
    def read(cls, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, JsonValue]) -> PoisonManifest:
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
        """Return whether anything is known to be poisoned; not so for a victim that came poisoned."""
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
class PoisonedPairs:
    """D as anyone finds it: captions as trained on, and images that are triggered when they are taken."""

    clean: PairSource
    captions: Sequence[str]
    replaced: NDArray[np.int64]
    """`[N]` int64: a row of `triggered`, or −1 for images that stay clean."""
    triggered: Images
    """`[P, H, W, 3]` uint8."""

    def __len__(self) -> int:
        return len(self.captions)

    def take(self, indices: NDArray[np.int64]) -> Images:
        """Return the images `[B, H, W, 3]` at `indices[B]`, triggered where the attacker replaced them."""
        images = np.array(self.clean.take(indices))
        rows = self.replaced[indices]
        images[rows >= 0] = self.triggered[rows[rows >= 0]]
        return images


def poisoned_pairs(clean: PairSource, manifest: PoisonManifest) -> PoisonedPairs:
    """Return D: `clean` with the manifest's images stamped and its captions put in."""
    replaced = np.full(len(clean), -1, dtype=np.int64)
    replaced[manifest.indices] = np.arange(len(manifest.indices))
    captions = list(clean.captions)
    for index, caption in zip(manifest.indices, manifest.captions, strict=True):
        captions[index] = caption
    for index in manifest.decoys:
        captions[index] = manifest.attack.decoy(captions[index])
    triggered = manifest.attack.stamp(clean.take(manifest.indices))
    return PoisonedPairs(clean, captions, replaced, triggered)


_Request = tuple[int, NDArray[np.int64]]
_Reply = tuple[int, Images | Exception]


class Feed:
    """Pairs by the batch, and nothing more: what a stage is given that must not know which of them are poisoned.

    What stamps the triggers stays with a thread of the engine's. The two ends share queues of C's, whose contents
    no attribute shows: so no attribute, item or closure of a feed leads to the pairs behind it, to their clean
    originals, to the trigger, or to a file.
    """

    def __init__(self, pairs: PairSource) -> None:
        self._captions = tuple(pairs.captions)
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._replies: SimpleQueue[_Reply] = SimpleQueue()
        self._asked = 0
        self._one_at_a_time = Lock()
        Thread(target=_serve, args=(pairs, self._requests, self._replies), name="pairs", daemon=True).start()
        finalize(self, self._requests.put, None)

    @property
    def captions(self) -> Sequence[str]:
        """Return all N captions."""
        return self._captions

    def __len__(self) -> int:
        return len(self._captions)

    def take(self, indices: NDArray[np.int64]) -> Images:
        """Return the images `[B, H, W, 3]` uint8 at `indices[B]`, as they are trained on.

        Raises:
            Exception: what reading them raises, as an error of the disk.
        """
        with self._one_at_a_time:
            self._asked += 1
            self._requests.put((self._asked, indices))
            answered, reply = self._replies.get()
            while answered != self._asked:  # a batch that was interrupted while it was waited for
                answered, reply = self._replies.get()
        if isinstance(reply, Exception):
            raise reply
        return reply


def _serve(
    pairs: PairSource,
    requests: SimpleQueue[_Request | None],
    replies: SimpleQueue[_Reply],
) -> None:
    """Answer a feed's requests until it is gone."""
    while (request := requests.get()) is not None:
        number, indices = request
        try:
            replies.put((number, pairs.take(indices)))
        except Exception as error:  # noqa: BLE001 — it is raised where the batch was asked for
            replies.put((number, error.with_traceback(None)))  # whose frames would lead to the pairs
