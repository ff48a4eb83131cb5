"""One suite for every kind of store: a folder, and S3 as the moto server plays it."""

import json
import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from s3_server import s3_server

from ubt.artifacts.manifest import MANIFEST_FILE, ArtifactManifest
from ubt.artifacts.store import ArtifactStore, UnusableStore, default_store, local_cache
from ubt.artifacts.unfinished import Saved, Unfinished
from ubt.common.errors import DamagedArtifact, UserError
from ubt.common.hashing import checksum, digest_bytes
from ubt.common.paths import cache_root
from ubt.trials.record import EpochRecord

KEY, OTHER = "a" * 32, "b" * 32
BUCKET = "lab"


@pytest.fixture(scope="module")
def s3():
    """Set the environment of an S3 server, as a user would; child processes inherit it."""
    with s3_server(BUCKET):
        yield f"s3://{BUCKET}"


@pytest.fixture(params=["folder", "s3"])
def root(request, tmp_path):
    """An empty root of each kind."""
    if request.param == "folder":
        return str(tmp_path / "store")
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


@pytest.fixture
def store(root):
    return ArtifactStore(root)


def described(key=KEY, stage="detect_clean", **fields):
    return ArtifactManifest(
        stage=stage, key=key, version=1, seed=0, settings={"ratio": 0.1}, inputs={"clean": OTHER}, **fields
    )


def files(store):
    """Return path below the root → bytes of everything in a store."""
    system, path = fsspec.url_to_fs(store.root)
    system.invalidate_cache()
    return {
        found.removeprefix(path).lstrip("/"): system.cat_file(found) for found in system.find(path) if "/." not in found
    }


def overwrite(store, path, content):
    system, top = fsspec.url_to_fs(store.root)
    system.makedirs(f"{top}/{path}".rpartition("/")[0], exist_ok=True)
    system.pipe_file(f"{top}/{path}", content)


def test_what_is_published_is_found_and_read(store):
    epoch = EpochRecord(epoch=1, seconds=0.5, loss=2.0)
    given = described(facts={"captions": ["ä"]}, diagnostics={"auroc": 0.7}, epochs=(epoch,), seconds=1.5)
    complete = store.publish(given, {"tensors": b"abc", "model": b"\x00" * 1000})
    assert store.has("detect_clean", KEY)
    assert store.manifest("detect_clean", KEY) == complete
    assert complete.model_copy(update={"payloads": {}}) == given
    assert store.read(complete, "tensors") == b"abc"
    assert store.read(store.manifest("detect_clean", KEY), "model") == b"\x00" * 1000
    assert complete.size_bytes == 1003
    assert complete.payloads["tensors"].xxh3 == xxhash.xxh3_128_hexdigest(b"abc")


def test_a_published_artifact_outlasts_a_loss_of_power(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda opened: synced.append(Path(f"/proc/self/fd/{opened}").readlink().name))
    ArtifactStore(tmp_path).publish(described(), {"model": b"abc"})
    written = [name for name in synced if name.startswith(".")]
    assert [name[:6] for name in written] == [".model", ".meta."], "content first"
    assert synced.count(KEY) == 2, "and the folder, in which each has its name"
    assert synced[-1] == KEY


PARTS = st.sampled_from(["..", ".", "/", "\\", "\0", "\n", "~", "a", "meta.json", "", " ", "…", "C:"])
WAYS_OUT = st.lists(PARTS, max_size=5).map("/".join) | st.text(max_size=8)


@given(WAYS_OUT, WAYS_OUT, WAYS_OUT)
def test_what_others_have_written_into_a_store_leads_to_nothing_outside_of_it(stage, key, file):
    fields = {"stage": stage, "key": key, "base": f"{stage}/{key}", "version": 1, "seed": 0, "settings": {}}
    payloads = {"model": {"file": file, "sha256": "0", "size_bytes": 0}}
    with suppress(ValidationError):
        manifest = ArtifactManifest.model_validate({**fields, "inputs": {"clean": key}, "payloads": payloads})
        root = Path("/store/artifacts")
        for path in (f"{stage}/{key}/{file}", manifest.base):
            found = Path(os.path.normpath(root / path))
            assert found.is_relative_to(root)
            assert len(found.relative_to(root).parts) == path.count("/") + 1


@pytest.mark.parametrize(
    "said", [{"stage": "unlearn"}, {"key": OTHER}, {"stage": "../.."}, {"key": ".."}, {"key": "/"}]
)
def test_a_description_that_leads_elsewhere_is_set_aside_and_nothing_else_touched(tmp_path, said):
    store = ArtifactStore(tmp_path / "store")
    elsewhere = store.publish(described(OTHER, "unlearn"), {"model": b"abc"})
    store.publish(described(), {"model": b"abc"})
    forged = tmp_path / "store" / "artifacts" / "detect_clean" / KEY / MANIFEST_FILE
    forged.write_text(json.dumps({**json.loads(forged.read_text()), **said}))
    for manifest in store.manifests():
        assert manifest == elsewhere
    assert not forged.exists()
    assert store.read(elsewhere, "model") == b"abc"


def test_an_artifact_lies_under_its_stage_and_key(store):
    store.publish(described(), {"tensors": b"abc"})
    assert set(files(store)) == {
        f"artifacts/detect_clean/{KEY}/tensors-{checksum(b'abc')[:16]}.bin",
        f"artifacts/detect_clean/{KEY}/meta.json",
    }


def test_nothing_is_found_where_nothing_was_published(store):
    assert not store.has("detect_clean", KEY)
    assert store.manifest("detect_clean", KEY) is None
    assert store.keys("detect_clean") == set()
    assert list(store.manifests()) == []
    store.publish(described(), {})
    assert not store.has("detect_clean", OTHER)
    assert store.manifest("detect_clean", OTHER) is None
    assert store.keys("suspect") == set()
    assert store.manifest("suspect", KEY) is None


def test_keys_are_listed_by_stage_and_manifests_all(store):
    for stage, key in (("detect_clean", KEY), ("detect_clean", OTHER), ("suspect", KEY)):
        store.publish(described(key, stage), {"tensors": stage.encode()})
    assert store.keys("detect_clean") == {KEY, OTHER}
    assert store.keys("suspect") == {KEY}
    assert sorted((each.stage, each.key) for each in store.manifests()) == [
        ("detect_clean", KEY),
        ("detect_clean", OTHER),
        ("suspect", KEY),
    ]


def test_payloads_without_a_manifest_are_no_artifact(store, monkeypatch):
    write = ArtifactStore._write

    def fails_at_the_manifest(self, path, content):
        if path.endswith(MANIFEST_FILE):
            raise OSError("no space left on device")
        write(self, path, content)

    monkeypatch.setattr(ArtifactStore, "_write", fails_at_the_manifest)
    with pytest.raises(OSError, match="no space left"):
        store.publish(described(), {"tensors": b"abc", "model": b"def"})
    assert len(files(store)) == 2, "the payloads were written before it"
    assert not store.has("detect_clean", KEY)
    assert store.manifest("detect_clean", KEY) is None
    assert store.keys("detect_clean") == set()
    monkeypatch.undo()
    assert store.read(store.publish(described(), {"tensors": b"abc"}), "tensors") == b"abc"


@pytest.mark.parametrize("content", [b"abd", b"ab", b"", None], ids=["altered", "truncated", "emptied", "removed"])
def test_a_damaged_payload_is_detected_and_set_aside(store, content):
    complete = store.publish(described(), {"tensors": b"abc", "model": b"def"})
    path = f"artifacts/detect_clean/{KEY}/{complete.payloads['tensors'].file}"
    if content is None:
        system, top = fsspec.url_to_fs(store.root)
        system.rm_file(f"{top}/{path}")
    else:
        overwrite(store, path, content)
    with pytest.raises(DamagedArtifact, match=f"detect_clean {KEY}"):
        store.read(complete, "tensors")
    assert not store.has("detect_clean", KEY)
    assert store.manifest("detect_clean", KEY) is None
    assert store.keys("detect_clean") == set()
    assert any("damaged" in path for path in files(store)), "kept for a look at what happened"


def test_damage_that_two_meet_at_once_is_set_aside_once(store):
    complete = store.publish(described(), {"tensors": b"abc"})
    overwrite(store, f"artifacts/detect_clean/{KEY}/{complete.payloads['tensors'].file}", b"abd")
    for _ in range(2):
        with pytest.raises(DamagedArtifact):
            store.read(complete, "tensors")
    assert sum("damaged" in path for path in files(store)) == 1


def test_what_was_set_aside_can_be_published_again(store):
    complete = store.publish(described(), {"tensors": b"abc"})
    overwrite(store, f"artifacts/detect_clean/{KEY}/{complete.payloads['tensors'].file}", b"xyz")
    with pytest.raises(DamagedArtifact):
        store.read(complete, "tensors")
    again = store.publish(described(), {"tensors": b"abc"})
    assert store.read(again, "tensors") == b"abc"
    assert store.keys("detect_clean") == {KEY}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"stage": "detect_clean"}', b"[]"])
def test_a_manifest_that_cannot_be_read_counts_as_no_artifact(store, content):
    store.publish(described(), {"tensors": b"abc"})
    overwrite(store, f"artifacts/detect_clean/{KEY}/meta.json", content)
    assert store.manifest("detect_clean", KEY) is None
    assert not store.has("detect_clean", KEY)
    store.publish(described(), {"tensors": b"abc"})
    assert store.manifest("detect_clean", KEY) is not None


@pytest.mark.parametrize("payloads", [{}, {"tensors": b"abc", "model": b"d"}])
def test_what_is_removed_is_gone_and_nothing_else(store, payloads):
    kept = store.publish(described(OTHER), {"tensors": b"abc"})
    gone = store.publish(described(), payloads)
    store.remove(gone)
    assert store.keys("detect_clean") == {OTHER}
    assert not any(KEY in path for path in files(store))
    assert store.read(kept, "tensors") == b"abc"
    store.remove(gone)  # by somebody who saw it a moment ago


def test_publishing_again_replaces_the_manifest_and_older_readers_still_find_their_payload(store):
    old = store.publish(described(), {"tensors": b"old"})
    new = store.publish(described(), {"tensors": b"new"})
    assert store.manifest("detect_clean", KEY) == new
    assert store.read(old, "tensors") == b"old"
    assert store.read(new, "tensors") == b"new"


PUBLISHER = """
    import sys
    from ubt.artifacts.store import ArtifactStore, ArtifactManifest
    root, name, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
    store = ArtifactStore(root)
    for number in range(times):
        facts = {"by": name, "number": number}
        named = {"stage": "detect_clean", "key": "a" * 32, "version": 1, "seed": 0}
        described = ArtifactManifest(**named, settings={}, inputs={}, facts=facts)
        one, two = (f"{name} {number} {payload}".encode() for payload in ("one", "two"))
        store.publish(described, {"one": one * 999, "two": two * 9})
    assert "torch" not in sys.modules
"""


def publisher(root, name, times):
    repository = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PUBLISHER), root, name, str(times)],
        env={**os.environ, "PYTHONPATH": repository},
    )


def test_readers_see_whole_artifacts_while_two_processes_publish_one_key(store, root):
    processes = [publisher(root, name, 12) for name in ("first", "second")]
    seen = set()
    while any(process.poll() is None for process in processes):
        if found := store.manifest("detect_clean", KEY):
            by, number = found.facts["by"], found.facts["number"]
            assert store.read(found, "one") == f"{by} {number} one".encode() * 999
            assert store.read(found, "two") == f"{by} {number} two".encode() * 9
            seen.add((by, number))
    assert [process.wait() for process in processes] == [0, 0]
    assert seen
    assert store.manifest("detect_clean", KEY).facts["number"] == 11, "one of the two came last, whole"


def test_what_another_process_publishes_is_seen_by_a_store_that_has_looked_before(store, root):
    store.publish(described(OTHER), {})
    assert store.keys("detect_clean") == {OTHER}
    assert [each.key for each in store.manifests()] == [OTHER]
    assert not store.has("detect_clean", KEY)
    assert publisher(root, "another", 1).wait() == 0
    assert store.has("detect_clean", KEY)
    assert store.keys("detect_clean") == {KEY, OTHER}
    assert [each.key for each in store.manifests()] == [KEY, OTHER]


def test_a_store_that_can_be_written_says_nothing_and_keeps_nothing(store):
    store.check_writable()
    assert files(store) == {}


def test_the_manifest_is_json_that_people_can_read(store):
    store.publish(described(facts={"note": "x"}), {})
    tree = json.loads(files(store)[f"artifacts/detect_clean/{KEY}/meta.json"])
    assert tree["settings"] == {"ratio": 0.1}
    assert tree["inputs"] == {"clean": OTHER}
    assert tree["created_at"].endswith("+00:00")


# Roots that cannot be used


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(UserError, match="cannot be written") as caught:
            ArtifactStore(root).check_writable()
        assert str(root) in str(caught.value)
        assert "$UBT_STORE" in str(caught.value)


def test_a_bucket_that_does_not_exist_is_a_user_error(s3):
    with pytest.raises(UserError, match="cannot be written"):
        ArtifactStore("s3://no-such-bucket/store").check_writable()


@pytest.fixture
def refused(s3, monkeypatch, tmp_path):
    """A store on S3 for which there are no credentials."""
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    yield ArtifactStore(f"{s3}/store")
    s3fs.S3FileSystem.clear_instance_cache()


USES = {
    "check_writable": lambda store: store.check_writable(),
    "keys": lambda store: store.keys("detect_clean"),
    "manifest": lambda store: store.manifest("detect_clean", KEY),
    "manifests": lambda store: list(store.manifests()),
    "strays": lambda store: store.strays(()),
    "publish": lambda store: store.publish(described(), {"tensors": b"abc"}),
    "remove": lambda store: store.remove(described()),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_s3_without_credentials_is_a_user_error(refused, use):
    with pytest.raises(UnusableStore, match=rf"store {refused.root}: cannot be (read|written): .*credentials"):
        use(refused)


@pytest.mark.parametrize("name", ["manifest", "publish"])
def test_a_folder_that_fails_is_a_mistake_for_commands_and_a_fault_of_the_disk_for_trials(tmp_path, name):
    (tmp_path / "file").touch()
    for kind in (UserError, OSError):
        with pytest.raises(kind, match=f"store {tmp_path}/file: cannot be"):
            USES[name](ArtifactStore(tmp_path / "file"))


def test_a_home_of_nobody_is_a_user_error(monkeypatch):
    for use in (ArtifactStore, local_cache):
        with pytest.raises(UserError, match="store ~no-such-user/x: begins with a home folder that does not exist"):
            use("~no-such-user/x")
    for name, use in (("UBT_STORE", default_store), ("UBT_CACHE", cache_root)):
        monkeypatch.setenv(name, "~no-such-user/x")
        with pytest.raises(UserError, match=name):
            use()


def test_an_address_of_an_unknown_kind_is_a_user_error():
    with pytest.raises(UserError, match="nope://store: cannot be used"):
        ArtifactStore("nope://store")


def test_a_package_that_is_not_installed_is_a_user_error(monkeypatch):
    described = {"class": "not_there.Files", "err": "Install it"}
    monkeypatch.setitem(sys.modules["fsspec.registry"].known_implementations, "wanting", described)
    with pytest.raises(UserError, match="Install it"):
        ArtifactStore("wanting://store")


# Where stores lie


@pytest.mark.parametrize("name", ["store [1]", "st*re", "a?b", "ünï"])
def test_characters_that_patterns_are_made_of_may_be_in_the_root(tmp_path, name):
    store = ArtifactStore(tmp_path / name)
    store.publish(described(), {"tensors": b"abc"})
    assert store.keys("detect_clean") == {KEY}
    assert [each.key for each in store.manifests()] == [KEY]


def test_a_relative_root_and_a_home_are_resolved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    ArtifactStore("here").publish(described(), {})
    ArtifactStore("~/there").publish(described(), {})
    assert (tmp_path / "here" / "artifacts" / "detect_clean" / KEY / MANIFEST_FILE).is_file()
    assert (tmp_path / "home" / "there" / "artifacts" / "detect_clean" / KEY / MANIFEST_FILE).is_file()


def test_the_default_store_is_the_environments_or_the_cache(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("UBT_STORE", raising=False)
    monkeypatch.delenv("UBT_CACHE", raising=False)
    assert default_store() == "/home/somebody/.cache/ubt"
    monkeypatch.setenv("UBT_CACHE", "~/big")
    assert default_store() == "/home/somebody/big"
    monkeypatch.setenv("UBT_STORE", "s3://bucket/store")
    assert default_store() == "s3://bucket/store"


def test_decoded_images_lie_in_a_local_store_or_else_in_the_cache(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("UBT_CACHE", raising=False)
    assert local_cache("/data/store") == Path("/data/store/images")
    assert local_cache("~/store") == Path("/home/somebody/store/images")
    assert local_cache("s3://bucket/store") == Path("/home/somebody/.cache/ubt/images")
    monkeypatch.setenv("UBT_CACHE", "/big")
    assert local_cache("s3://bucket/store") == Path("/big/images")


def test_the_cache_is_absolute(monkeypatch, tmp_path):
    """Workers run in folders of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UBT_CACHE", "cache")
    assert cache_root() == tmp_path / "cache"


# What belongs to no artifact


def strays(store):
    return sorted(Path(stray.path).name for stray in store.strays(store.manifests()))


def test_whole_artifacts_have_no_strays(store):
    assert strays(store) == []
    store.publish(described(), {"tensors": b"abc", "model": b"d"})
    store.publish(described(OTHER), {})
    assert strays(store) == []


def test_artifacts_of_before_are_checked_by_the_checksum_that_they_have(store):
    old = {"file": "tensors-0123456789abcdef.bin", "sha256": digest_bytes(b"abc"), "size_bytes": 3}
    text = described().model_dump_json(exclude={"base_checksum"})
    before = {**json.loads(text), "base_sha256": "12", "payloads": {"tensors": old}}
    overwrite(store, f"artifacts/detect_clean/{KEY}/{old['file']}", b"abc")
    overwrite(store, f"artifacts/detect_clean/{KEY}/{MANIFEST_FILE}", json.dumps(before).encode())
    found = store.manifest("detect_clean", KEY)
    assert (found.base_checksum, found.payloads["tensors"].checksum) == ("12", digest_bytes(b"abc"))
    assert store.read(found, "tensors") == b"abc"
    overwrite(store, f"artifacts/detect_clean/{KEY}/{old['file']}", b"abd")
    with pytest.raises(DamagedArtifact):
        store.read(found, "tensors")


def test_what_killed_writers_damage_and_replacement_leave_is_stray(store):
    left = f"tensors-{checksum(b'left')[:16]}.bin"
    overwrite(store, f"artifacts/detect_clean/{OTHER}/{left}", b"left")  # the manifest never came
    overwrite(store, f"artifacts/detect_clean/{KEY}/.meta.json.123.456", b"{")
    old = store.publish(described(), {"tensors": b"old"})
    store.publish(described(), {"tensors": b"new"})
    damaged = store.publish(described(stage="suspect"), {"tensors": b"bad"})
    store.set_aside(damaged)
    found = {Path(stray.path).name: stray for stray in store.strays(store.manifests())}
    bad, replaced = damaged.payloads["tensors"].file, old.payloads["tensors"].file
    (aside,) = (name for name in found if name.startswith("meta.json.damaged-"))
    assert set(found) == {left, ".meta.json.123.456", replaced, bad, aside}
    assert found[left].size_bytes == 4
    age = datetime.now(UTC) - found[left].modified
    assert abs(age) < timedelta(minutes=5)


def test_files_of_others_are_no_strays(store):
    store.publish(described(), {})
    for path in (f"score/{KEY}/notes.txt", "detect_clean/model.bin", "1/f00/artifacts/model/MLmodel", "meta.json"):
        overwrite(store, f"artifacts/{path}", b"mine")
    assert strays(store) == []


def test_a_probe_that_was_cut_off_is_stray(store, monkeypatch):
    monkeypatch.setattr(store._files, "rm_file", lambda _: None)
    store.check_writable()
    monkeypatch.undo()
    assert [name.rpartition("-")[0] for name in strays(store)] == [".writable"]


def test_a_stray_is_removed_with_its_folder_if_nothing_else_is_there(store):
    kept = store.publish(described(), {"tensors": b"abc"})
    for key in (KEY, OTHER):
        overwrite(store, f"artifacts/detect_clean/{key}/.meta.json.0123", b"{")
    for stray in store.strays([kept]):
        store.remove_stray(stray)
        store.remove_stray(stray)  # by somebody who saw it a moment ago
    assert strays(store) == []
    assert not any(OTHER in path for path in files(store))
    assert store.read(kept, "tensors") == b"abc"
    if "://" not in store.root:
        assert not (Path(store.root) / "artifacts" / "detect_clean" / OTHER).exists()


def epochs(count):
    return tuple(EpochRecord(epoch=at, seconds=1.0) for at in range(1, count + 1))


def state(count):
    """What is saved after so many epochs."""
    tensors = {"weight": torch.full((3,), float(count))}
    return Saved(described(stage="implant", epochs=epochs(count), facts={"epochs": 9}), tensors, tensors, tensors)


def test_what_is_saved_of_a_stage_is_found_by_others_and_is_no_artifact(store):
    mine, others = (Unfinished(store, "implant", KEY, 0.0) for _ in range(2))
    assert mine.found(after=0, before=None) is None
    mine.save(state(1))
    mine.save(state(2))
    found = others.found(after=1, before=None)
    assert (found.epoch, found.manifest.facts["epochs"]) == (2, 9)
    assert torch.equal(found.model["weight"], torch.full((3,), 2.0))
    assert (store.has("implant", KEY), list(store.manifests())) == (False, [])
    assert len(files(store)) == 4, "the first epoch has been replaced"
    others.discard()
    assert files(store) == {}


@pytest.mark.parametrize("root", ["folder"], indirect=True)
class TestUnfinished:
    def test_an_epoch_that_is_published_is_not_looked_for(self, store):
        Unfinished(store, "implant", KEY, 0.0).save(state(2))
        assert Unfinished(store, "implant", KEY, 0.0).found(after=2, before=None) is None

    def test_a_shorter_chain_neither_uses_nor_replaces_nor_deletes_what_a_longer_one_has_left(self, store):
        Unfinished(store, "implant", KEY, 0.0).save(state(5))
        shorter = Unfinished(store, "implant", KEY, 0.0)
        assert shorter.found(after=0, before=3) is None
        shorter.save(state(2))
        shorter.discard(up_to=3)
        assert Unfinished(store, "implant", KEY, 0.0).found(after=0, before=9).epoch == 5

    def test_what_other_versions_have_saved_is_passed_over_and_replaced(self, store, monkeypatch, caplog):
        with monkeypatch.context() as patched:
            patched.setattr("ubt.artifacts.unfinished.version", lambda name: "0.0")
            Unfinished(store, "implant", KEY, 0.0).save(state(5))
        later = Unfinished(store, "implant", KEY, 0.0)
        assert later.found(after=0, before=None) is None
        assert "after epoch 5 is not used: other versions" in caplog.text
        later.save(state(1))
        assert Unfinished(store, "implant", KEY, 0.0).found(after=0, before=None).epoch == 1

    def test_it_is_due_after_a_while_and_after_a_multiple_of_what_saving_took(self, store):
        now = iter([0.0, 299.0, 300.0, 300.0, 330.0, 900.0, 930.0])
        unfinished = Unfinished(store, "implant", KEY, 300.0, clock=lambda: next(now))
        assert [unfinished.due, unfinished.due] == [False, True]
        unfinished.save(state(1))  # takes 30 s
        assert [unfinished.due, unfinished.due] == [False, True], "20 x 30 s later"
