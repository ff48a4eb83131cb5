import numpy as np
import pytest

from analysis.paper.artifacts import Artifacts, Unreadable
from ubt.artifacts.store import default_store


def payload(toy, stage):
    (file,) = (toy.root / "store" / "artifacts" / stage / f"{stage}-0").glob("tensors-*.bin")
    return file


def test_tensors_and_facts_come_as_they_were_published(toy):
    record = toy.add_ubt()
    artifacts = Artifacts.of(toy.findings().run)
    np.testing.assert_array_equal(artifacts.read(record, "suspect").tensor("indices"), np.arange(0, 200, 4))
    assert artifacts.read(record, "attribute").fact("captions")[0][1] == ["banana", 0.95]


def test_an_altered_artifact_is_set_aside_as_everywhere(toy):
    record = toy.add_ubt()
    payload(toy, "overfit").write_bytes(b"other bits")
    artifacts = Artifacts.of(toy.findings().run)
    with pytest.raises(Unreadable, match=r"`overfit` of trial-0 .* is damaged and was set aside"):
        artifacts.read(record, "overfit")
    assert toy.store.manifest("overfit", "overfit-0") is None
    with pytest.raises(Unreadable, match="is not in the store"):
        artifacts.read(record, "overfit")


def test_a_payload_that_is_no_safetensors_file_is_set_aside(toy):
    record = toy.add_ubt()
    meta = toy.store.manifest("suspect", "suspect-0")
    toy.store.publish(meta, {"tensors": b"whole, and yet nonsense"})
    with pytest.raises(Unreadable, match="damaged"):
        Artifacts.of(toy.findings().run).read(record, "suspect")


def test_what_is_missing_is_named(toy):
    record = toy.add_ubt()
    artifacts = Artifacts.of(toy.findings().run)
    with pytest.raises(Unreadable, match="no tensor `all_similarities`"):
        artifacts.read(record, "overfit").tensor("all_similarities")
    with pytest.raises(Unreadable, match="trial-0 has no finished stage `isolate`"):
        artifacts.read(record, "isolate")
    with pytest.raises(Unreadable, match="is not in the store"):
        artifacts.read(record, "evaluate")


def test_a_store_that_cannot_be_reached_is_told(toy):
    record = toy.add_ubt()
    with pytest.raises(Unreadable, match="cannot be read"):
        Artifacts("nowhere://bucket").read(record, "suspect")
    (toy.root / "file").write_text("no folder")
    with pytest.raises(Unreadable, match="store"):
        Artifacts(str(toy.root / "file")).read(record, "suspect")


def test_a_run_that_names_no_store_used_the_default_one(loaded, trial):
    assert Artifacts.of(loaded(trial(0))).root == default_store()
