"""The poisoned training set D: a view of the clean pairs in which some are replaced, and the list of which."""

from __future__ import annotations

from _thread import start_new_thread
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Lock
from typing import cast
from weakref import finalize

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue, TypeAdapter

from ubt.artifacts.codec import Artifact
from ubt.attacks import Attack, AttackConfig, Images, Rows
from ubt.attacks.base import Trigger
from ubt.common.errors import DamagedArtifact, Problem, StageFault, UserError
from ubt.data.base import PairSource
from ubt.methods.feeding import Buffers, gathered
from ubt.methods.stamping import Stamper

LEARNED, DECOYS = "learned", "decoys"
"""Names of the tensors with the trigger that an attack learnt or read, `[H, W, C]`, and its decoys, `[Q]` int64."""

_attack: TypeAdapter[Attack] = TypeAdapter(AttackConfig)


@dataclass(frozen=True)
class PoisonManifest:
    """Which pairs are poisoned, with what: known to the attacker and to metrics, never to a defense."""

    indices: NDArray[np.int64]
    """`[P]`, sorted: the poisoned ones of N pairs."""
    captions: Sequence[str]
    """Their P captions."""
    attack: Attack | None
    """With its trigger, if that was learnt or read; None if no attack is known."""
    decoys: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """`[Q]`, sorted: pairs with clean images whose captions the attacker changed without naming the target."""
    trigger: Trigger | None = None
    """What the attack learnt or read: `[H, W, C]` uint8 or float32."""
    given: bool = False
    """The pairs came poisoned: nothing is put into them."""

    @classmethod
    def of(cls, poison: Artifact) -> PoisonManifest:
        """Return the manifest in a `poison` artifact."""
        return cls.read(poison.tensors, poison.manifest.facts)

    @classmethod
    def read(cls, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, JsonValue]) -> PoisonManifest:
        """Return the manifest in what the `poison` stage puts out."""
        attack = None if facts["attack"] is None else _attack.validate_python(facts["attack"])
        trigger = tensors[LEARNED].numpy() if LEARNED in tensors else None
        decoys = {"decoys": tensors[DECOYS].numpy()} if DECOYS in tensors else {}
        return cls(
            indices=tensors["indices"].numpy(),
            captions=cast("list[str]", facts["captions"]),
            attack=attack if attack is None or trigger is None else attack.carrying(trigger),
            trigger=trigger,
            given=bool(facts.get("given", False)),
            **decoys,
        )

    @property
    def known(self) -> bool:
        """Return whether anything is known to be poisoned; not so for pairs that came poisoned without a list."""
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
    poisoned: NDArray[np.bool_]
    """`[N]`: whose images the attacker replaced."""
    stamp: Callable[[Images, Rows], Images] | None
    """Puts the trigger on; None if nothing is replaced."""
    buffers: Buffers = field(default_factory=Buffers)

    def __len__(self) -> int:
        return len(self.captions)

    def take(self, indices: NDArray[np.int64]) -> Images:
        """Return the images `[B, H, W, 3]` at `indices[B]`, triggered where the attacker replaced them."""
        images = gathered(self.clean, indices, self.buffers)
        marked = self.poisoned[indices]
        if self.stamp is not None and marked.any():
            images[marked] = self.stamp(images[marked], Rows("train", indices[marked]))
        return images


def poisoned_pairs(clean: PairSource, manifest: PoisonManifest) -> PoisonedPairs:
    """Return D: `clean` with the manifest's images stamped and its captions put in; as it is if it came poisoned.

    Images are stamped when they are taken: none is kept.
    """
    poisoned = np.zeros(len(clean), dtype=np.bool_)
    if manifest.given or manifest.attack is None:
        return PoisonedPairs(clean, clean.captions, poisoned, None)
    poisoned[manifest.indices] = True
    captions = list(clean.captions)
    for index, caption in zip(manifest.indices, manifest.captions, strict=True):
        captions[index] = caption
    for index in manifest.decoys:
        captions[index] = manifest.attack.decoy(captions[index])
    return PoisonedPairs(clean, captions, poisoned, Stamper(manifest.attack, torch.device("cpu")).on)


class Feed:
    """Pairs by the batch, and nothing more: what a stage is given that must not know which of them are poisoned.

    What stamps the triggers stays with a thread of the engine's, of which `threading` knows nothing. The two ends share
    queues of C's, whose contents no attribute shows. Requests cross as bytes; what comes back is a plain array that
    nothing else refers to, or an error made anew from its words. So no attribute, item, closure or traceback of a feed,
    of a batch, of an error or of a thread's object leads to the pairs behind it, to their clean originals, or to the
    trigger. Frames of running threads (`sys._current_frames`) and the collector's lists (`gc`) still do, as they do for
    everything in this process; and the words of an error may name a file, for people to mend it.
    """

    __slots__ = ("__weakref__", "_asked", "_captions", "_coming", "_one_at_a_time", "_replies", "_requests")

    def __init__(self, pairs: PairSource) -> None:
        self._captions = tuple(pairs.captions)
        self._requests: SimpleQueue[bytes | None] = SimpleQueue()
        self._replies: SimpleQueue[tuple[int, Images | Exception]] = SimpleQueue()
        self._asked = 0
        self._coming: bytes | None = None
        self._one_at_a_time = Lock()
        start_new_thread(_serve, (pairs, self._requests, self._replies))  # an object of `Thread` would hold the pairs
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
            TypeError: if `indices` are no integers in one dimension.
            Exception: what reading them raises, as an error of the disk: its kind and its words.
        """
        wanted = _plain(indices).tobytes()
        with self._one_at_a_time:
            if self._coming != wanted:
                self._ask(wanted)
            self._coming = None
            answered, reply = self._replies.get()
            while answered != self._asked:  # a batch that was interrupted while it was waited for
                answered, reply = self._replies.get()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def prefetch(self, indices: NDArray[np.int64]) -> None:
        """Have the images at `indices[B]` made ready, which are taken next; if others are, these are dropped."""
        with self._one_at_a_time:
            self._coming = _plain(indices).tobytes()
            self._ask(self._coming)

    def _ask(self, wanted: bytes) -> None:
        self._asked += 1
        self._requests.put(self._asked.to_bytes(8, "little") + wanted)


def _plain(indices: object) -> NDArray[np.int64]:
    """Return `indices[B]` as int64; `TypeError` if they are anything else: slices, masks, fractions, one number."""
    given = np.asarray(indices)
    if given.ndim != 1 or (given.dtype.kind not in "iu" and len(given)):
        raise TypeError(
            f"pairs are taken at integers `[B]`, not at {type(indices).__name__} {given.dtype}{given.shape}"
        )
    return given.astype(np.int64)


def _serve(
    pairs: PairSource,
    requests: SimpleQueue[bytes | None],
    replies: SimpleQueue[tuple[int, Images | Exception]],
) -> None:
    """Answer a feed's requests until it is gone."""
    while type(request := requests.get()) is bytes:
        number = 0
        reply: Images | Exception
        try:  # the request too: an error that ends a thread is printed, with the frames that hold the pairs
            number, indices = int.from_bytes(request[:8], "little"), np.frombuffer(request[8:], dtype=np.int64)
            found = pairs.take(indices)
            # A copy, unless it is one: no map of a file, no view of more.
            reply = found if isinstance(pairs, PoisonedPairs) else np.array(found)
            del found
        except BaseException as error:  # noqa: BLE001 — it is raised where the batch was asked for
            reply = _rebuilt(error)
        replies.put((number, reply))
        del reply  # it is the asker's alone


_REBUILT = (DamagedArtifact, OSError, MemoryError, torch.OutOfMemoryError, IndexError, ValueError, TypeError)
"""Kinds of errors that are made of their words; those that say nothing of a trial (`runner`) among them."""


def _rebuilt(error: BaseException) -> Exception:
    """Return an error of the same kind and words, which leads to no frame, no other error, and no file."""
    name = type(error).__name__
    try:
        words = str(error)
        if isinstance(error, UserError):
            return UserError([Problem(p.where, str(p).removeprefix(f"{p.where}: ")) for p in error.problems])
    except Exception:  # noqa: BLE001 — a plug-in's error may not even say what it is
        return RuntimeError(name)
    if isinstance(error, StageFault):
        return StageFault(words)
    kind = type(error)
    if kind in _REBUILT or (kind.__module__ == "builtins" and issubclass(kind, OSError)):
        return cast("type[Exception]", kind)(words)
    base = next((known for known in _REBUILT if isinstance(error, known)), RuntimeError)
    return base(f"{name}: {words}")
