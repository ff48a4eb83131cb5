import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweeps.cli.app import app
from ubt.artifacts.leases import Leases
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore, UnfinishedStore
from ubt.artifacts.upkeep.housekeeping import LEFTOVER_AGE, damaged, parse_age, remains, removable, usage
from ubt.common.errors import UserError

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def meta(key, stage="overfit", days_old=0, base=None, **fields):
    made = (NOW - timedelta(days=days_old)).isoformat()
    return ArtifactManifest(
        stage=stage, key=key, version=1, seed=0, settings={}, inputs={}, base=base, created_at=made, **fields
    )


@pytest.fixture
def store(tmp_path):
    store = ArtifactStore(tmp_path / "store")
    for key in ("a", "b"):
        store.publish(meta(key, days_old=10, seconds=2.0), {"tensors": key.encode() * 100})
    return store


def test_usage_adds_up_by_stage_and_names_the_largest_first(store):
    store.publish(meta("c", stage="implant"), {"model": b"x" * 1000})
    rows = usage(store.manifests())
    assert [(row.stage, row.artifacts, row.size_bytes, row.seconds) for row in rows] == [
        ("implant", 1, 1000, 0.0),
        ("overfit", 2, 200, 4.0),
    ]


def test_what_is_younger_than_the_given_age_stays():
    metas = [meta("old", days_old=40), meta("young", days_old=5)]
    assert [m.key for m in removable(metas, NOW - timedelta(days=30), frozenset())] == ["old"]


def test_what_a_kept_run_names_stays_with_all_that_it_is_a_difference_from():
    metas = [
        meta("victim", stage="implant", days_old=90),
        meta("middle", days_old=90, base="implant/victim"),
        meta("kept", days_old=90, base="overfit/middle"),
        meta("lost", days_old=90),
    ]
    assert [m.key for m in removable(metas, NOW, frozenset({"kept"}))] == ["lost"]


def test_an_altered_artifact_is_named_and_not_found_again(store, tmp_path):
    payload = next((tmp_path / "store" / "artifacts" / "overfit" / "a").glob("*.bin"))
    payload.write_bytes(b"altered")
    lines = damaged(store, list(store.manifests()))
    assert len(lines) == 1
    assert "overfit a" in lines[0]
    assert store.keys("overfit") == {"b"}


@pytest.mark.parametrize(
    ("text", "span"), [("12h", timedelta(hours=12)), ("30d", timedelta(days=30)), ("2w", timedelta(weeks=2))]
)
def test_ages_are_written_as_a_number_and_a_unit(text, span):
    assert parse_age(text) == span


@pytest.mark.parametrize("text", ["", "30", "d", "-3d", "3 months"])
def test_other_ages_are_refused(text):
    with pytest.raises(UserError, match="older-than"):
        parse_age(text)


class Beside:
    """What lies beside the artifacts of a store: of each kind a file of now and one that is two days old."""

    IMAGES = ("images-0a-v1-32px.npy", "scenes-0a-train-32px.npy", "captions-0a.json")
    LEFTOVERS = (
        "images/.images-0a-v1-32px.npy.5ea17bdf46bd424bb97e6724bb95de8d",
        "images/.scenes-0a-val-32px.npy.lock",
        "artifacts/overfit/lost/tensors-0123456789abcdef.bin",
        "artifacts/overfit/a/.meta.json.1203.456",
        "artifacts/overfit/b/meta.json.damaged-01234567",
    )
    OTHERS = ("images/0.npy", "images/images-0.txt", "artifacts/overfit/a/notes0.txt", "notes0.txt")

    def __init__(self, root):
        self.root = root
        for path in (*(f"images/{name}" for name in self.IMAGES), *self.LEFTOVERS, *self.OTHERS):
            for name, days in ((path, 0), (path.replace("0", "1", 1), 2)):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(b"x" * 1000)
                made = time.time() - days * 86400
                os.utime(root / name, (made, made))

    def left(self):
        files = {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}
        return {path for path in files if not re.fullmatch(r"artifacts/overfit/[ab]/(meta\.json|tensors-.*)", path)}


@pytest.fixture
def beside(store):
    return Beside(Path(store.root))


def run(store, *words):
    result = CliRunner().invoke(app, ["store", *words, "--store", store.root], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def aged(*paths):
    return {path.replace("0", "1", 1) for path in paths}


IMAGES = tuple(f"images/{name}" for name in Beside.IMAGES)


def test_prune_alone_removes_only_what_has_been_left_for_a_day(store, beside):
    before = beside.left()
    assert "5 leftovers, 5.0 kB would be removed" in run(store, "prune", "--dry-run")
    assert beside.left() == before
    told = run(store, "prune")
    assert before - beside.left() == aged(*Beside.LEFTOVERS)
    assert store.keys("overfit") == {"a", "b"}
    assert "0 artifacts, 0 bytes removed" in told
    assert "5 leftovers, 5.0 kB removed" in told


def test_decoded_images_go_by_their_age(store, beside):
    run(store, "prune", "--older-than", "3d")
    assert {*IMAGES, *aged(*IMAGES)} <= beside.left()
    assert "3 files of decoded images, 3.0 kB removed" in run(store, "prune", "--older-than", "1d")
    assert set(IMAGES) <= beside.left()
    assert not aged(*IMAGES) & beside.left()


def test_files_of_others_stay_and_so_do_those_that_may_be_written_to(store, beside):
    now = datetime.now(UTC)
    remains(store, store.manifests()).made_before(now - LEFTOVER_AGE, now + LEFTOVER_AGE).remove_from(store)
    assert beside.left() == {*Beside.OTHERS, *aged(*Beside.OTHERS), *Beside.LEFTOVERS}


def test_disk_usage_tells_all_that_is_there(store, beside):
    rows = {line.split()[0]: line.split()[1:5] for line in run(store, "du").splitlines()}
    assert rows["overfit"] == ["2", "artifacts", "200", "bytes"]
    assert rows["images"] == ["6", "files", "6.0", "kB"]
    assert rows["leftovers"] == ["10", "files", "10.0", "kB"]
    assert rows["all"] == ["2", "artifacts", "16.2", "kB"]


def test_images_of_a_store_on_s3_are_those_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("UBT_CACHE", str(tmp_path))
    beside = Beside(tmp_path)
    store = ArtifactStore("memory://store")
    found = remains(store, store.manifests())
    assert {Path(file.path).name for file in found.images} >= set(Beside.IMAGES)
    old = found.made_before(datetime.now(UTC) - LEFTOVER_AGE, datetime.now(UTC) - LEFTOVER_AGE)
    old.remove_from(store)
    assert not aged(*IMAGES) & beside.left()
    assert set(IMAGES) <= beside.left()


def test_a_dry_run_counts_and_removes_nothing_then_prune_removes_it(store):
    words = ["store", "prune", "--store", store.root, "--older-than", "1h"]
    assert "2 artifacts" in CliRunner().invoke(app, [*words, "--dry-run"]).output
    assert store.keys("overfit") == {"a", "b"}
    assert "2 artifacts" in CliRunner().invoke(app, words).output
    assert store.keys("overfit") == set()


def test_what_a_trial_needs_that_computes_just_now_stays_in_the_store(store):
    leases = Leases(store.lease_files())
    leases.take("overfit/c", "study/t0000", keys=["a", "c"])
    assert "1 artifacts" in run(store, "prune", "--older-than", "1h")
    assert store.keys("overfit") == {"a"}
    leases.close()
    assert "1 artifacts" in run(store, "prune", "--older-than", "1h")


def test_leases_of_the_dead_are_leftovers_once_their_heartbeat_is_a_day_old(store):
    files = store.lease_files()
    leases = Leases(files, beats_alone=False)
    held = leases.take("overfit/c", "study/t0000", keys=["a"])
    files.take("overfit/d", "nobody.1.study")  # its process has left no heartbeat
    assert "1 leftovers" in run(store, "prune")
    os.utime(Path(store.root) / "leases" / "alive" / held.process, times=(0, 0))
    assert "2 leftovers" in run(store, "prune", "--dry-run")
    assert "2 leftovers" in run(store, "prune", "--older-than", "1h")
    assert store.keys("overfit") == set()
    assert (files.slots(), files.processes()) == ([], {})


def test_verify_exits_with_one_when_something_is_damaged(store, tmp_path):
    assert CliRunner().invoke(app, ["store", "verify", "--store", store.root]).exit_code == 0
    next((tmp_path / "store").rglob("*.bin")).write_bytes(b"")
    assert CliRunner().invoke(app, ["store", "verify", "--store", store.root]).exit_code == 1


def test_what_stages_that_were_ended_go_on_from_is_counted_and_goes_by_its_age_unless_one_computes(store):
    kept = UnfinishedStore(store.root)
    for key in ("killed", "held"):
        kept.publish(meta(key, stage="implant", days_old=10, seconds=3600.0), {"model": b"x" * 1000})
    leases = Leases(store.lease_files())
    leases.take("implant/held", "demo/t0000")
    assert re.search(r"unfinished +2 stages +2.0 kB +2 h", run(store, "du"))
    assert "unfinished" not in run(store, "prune"), "a sweep may be resumed after days"
    assert "1 unfinished, 1.0 kB removed" in run(store, "prune", "--older-than", "3d")
    assert [one.key for one in kept.manifests()] == ["held"]
    leases.close()


def test_prune_by_a_budget_takes_what_was_used_longest_ago_and_leaves_what_trials_compute_with(store):
    root = Path(store.root)
    for key, days in (("a", 1), ("b", 3), ("c", 2)):
        if key == "c":
            store.publish(meta(key, days_old=10), {"tensors": b"c" * 100})
        at = time.time() - days * 86400
        os.utime(root / "artifacts" / "overfit" / key / "meta.json", (at, at))
    leases = Leases(store.lease_files())
    leases.take("overfit/a", "demo/t0000", ["a"])
    assert "1 artifacts, 100 bytes would be removed" in run(store, "prune", "--budget", "250B", "--dry-run")
    run(store, "prune", "--budget", "250B")
    assert store.keys("overfit") == {"a", "c"}
    printed = run(store, "prune", "--budget", "50B")
    assert store.keys("overfit") == {"a"}
    assert "100 bytes of artifacts stay: trials need them that compute just now" in printed
    leases.close()


def test_a_store_notes_in_a_folder_what_is_used(store):
    old, young = (store.manifest("overfit", key) for key in "ab")
    path = Path(store.root) / "artifacts" / "overfit" / "a" / "meta.json"
    os.utime(path, (1, 1))
    assert store.used_at(old) < store.used_at(young)
    store.note_used(old)
    assert store.used_at(old) >= store.used_at(young)
