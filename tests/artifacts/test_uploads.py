"""Uploads beside the computing: whole or not seen, in order, and known where they fail."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping

import pytest
import torch

from ubt.artifacts.codec import encode
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.payloads import Content
from ubt.artifacts.store import ArtifactStore, UnusableStore
from ubt.artifacts.uploads import Uploads
from ubt.common.errors import DamagedArtifact, Problem


class Slow(ArtifactStore):
    """A store at an address that takes nothing before it is let, and refuses what it is to refuse."""

    def __init__(self) -> None:
        super().__init__(f"memory://{uuid.uuid4().hex}")
        self.let = threading.Event()
        self.refused: set[str] = set()
        self.asked: list[str] = []

    def put(self, complete: ArtifactManifest, payloads: Mapping[str, Content]) -> None:
        assert self.let.wait(30)
        self.asked.append(complete.key)
        if complete.key in self.refused:
            raise UnusableStore(Problem("store", "cannot be written: 503"))
        super().put(complete, payloads)


@pytest.fixture
def store() -> Iterator[Slow]:
    made = Slow()
    yield made
    made.let.set()


def described(key: str) -> ArtifactManifest:
    return ArtifactManifest(stage="overfit", key=key, version=1, seed=0, settings={}, inputs={})


def test_what_is_uploaded_is_described_at_once_and_seen_by_others_when_it_is_whole(store: Slow) -> None:
    uploads = Uploads(store)
    complete = uploads.publish(described("a"), {"tensors": b"abc"})
    assert complete.payloads["tensors"].size_bytes == 3
    assert (store.has("overfit", "a"), uploads.pending()) == (False, {"a": complete})
    store.let.set()
    uploads.settle()
    assert (store.manifest("overfit", "a"), uploads.pending()) == (complete, {})
    assert store.read(complete, "tensors") == b"abc"


def test_artifacts_and_what_follows_them_come_in_order(store: Slow) -> None:
    uploads, reported = Uploads(store), []
    for key in ("victim", "overfitted", "unlearnt"):
        uploads.publish(described(key), {})
        uploads.then(lambda published, key=key: reported.append((key, published, store.has("overfit", key))))
    assert reported == []
    store.let.set()
    uploads.settle()
    assert store.asked == ["victim", "overfitted", "unlearnt"]
    assert reported == [(key, True, True) for key in store.asked]
    uploads.then(lambda published: reported.append(("idle", published, True)))
    assert reported[-1] == ("idle", True, True), "with nothing under way it is called at once"


def test_one_that_fails_takes_those_behind_it_along_and_is_reported_once(store: Slow) -> None:
    uploads, reported = Uploads(store), []
    store.refused = {"overfitted"}
    for key in ("victim", "overfitted", "unlearnt"):
        uploads.publish(described(key), {})
        uploads.then(lambda published, key=key: reported.append((key, published)))
    store.let.set()
    with pytest.raises(UnusableStore, match="503"):
        uploads.settle()
    assert reported == [("victim", True), ("overfitted", False), ("unlearnt", False)]
    assert store.keys("overfit") == {"victim"}
    assert (uploads.lost(), uploads.lost()) == (["overfitted", "unlearnt"], [])
    store.refused = set()
    uploads.publish(described("again"), {})
    uploads.settle()
    assert store.has("overfit", "again")


def test_tensors_that_change_meanwhile_are_not_published(store: Slow) -> None:
    uploads, weights = Uploads(store), torch.ones(4)
    uploads.publish(described("a"), {"model": encode({"weight": weights})})
    weights += 1
    store.let.set()
    with pytest.raises(DamagedArtifact, match="model was changed before it was published"):
        uploads.settle()
    assert not store.has("overfit", "a")


def test_what_waits_in_memory_is_bounded(store: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ubt.artifacts.uploads._MOST_BYTES", 5)
    uploads = Uploads(store)
    uploads.publish(described("a"), {"tensors": b"abcdef"})
    threading.Timer(0.1, store.let.set).start()
    uploads.publish(described("b"), {"tensors": b"abcdef"})
    assert store.has("overfit", "a"), "the second one waited for the first"
    uploads.settle()


def test_no_thread_leads_to_the_store(store: Slow) -> None:
    before = set(threading.enumerate())
    Uploads(store).publish(described("a"), {"tensors": b"abc"})
    assert set(threading.enumerate()) == before
