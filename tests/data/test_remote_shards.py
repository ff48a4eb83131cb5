"""Shards in a cloud, as the moto server plays S3."""

import sys

import numpy as np
import pytest
from photographs import photo, write_shard
from s3_server import s3_server

from ubt.artifacts.store import ArtifactStore
from ubt.common.atomic_files import NotMadeYet, only_what_is_there
from ubt.common.errors import UserError
from ubt.data.addresses import clouds, streamed
from ubt.data.addresses.fetched import downloaded
from ubt.data.content.known import forget_lists
from ubt.data.webdataset import WebDataset
from ubt.engine.same_content import share_facts

BOTH = "s3://shards/cc/{00000..00001}.tar"


@pytest.fixture(scope="module")
def s3():
    """Set the environment of an S3 server with a bucket, as a user would."""
    with s3_server("shards") as client:
        yield client


@pytest.fixture
def put(s3, tmp_path):
    """Return what puts a shard into the bucket, and beside the others on disk."""

    def written(number, members):
        path = write_shard(tmp_path / f"{number:05}.tar", members)
        s3.put_object(Bucket="shards", Key=f"cc/{number:05}.tar", Body=path.read_bytes())
        forget_lists()

    return written


@pytest.fixture
def shards(put, tmp_path):
    for at in range(2):
        members = {f"{2 * at + one}.{kind}": held for one in range(2) for kind, held in pair(2 * at + one).items()}
        put(at, members)
    return tmp_path


@pytest.fixture
def reads(monkeypatch):
    """Return the addresses of shards in the order in which they are read."""
    found = []
    copy = clouds.copy_into
    monkeypatch.setattr(streamed, "copy_into", lambda file, stream: found.append(file.address) or copy(file, stream))
    return found


def pair(number):
    return {"png": photo(number), "txt": f"number {number}".encode()}


def source(photos, pairs, **changes):
    return WebDataset.model_validate({"pairs": pairs, **photos.settings, **changes})


def problems_of(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("changes", [{}, {"max_pairs": 3}, {"max_pairs": 1}, {"jpeg": "draft"}, {"on_broken": "skip"}])
def test_they_give_what_copies_on_disk_give(photos, shards, tmp_path, changes):
    remote, local = source(photos, BOTH, **changes), source(photos, f"{shards}/{{00000..00001}}.tar", **changes)
    found, expected = remote.load(24, tmp_path / "cache"), local.load(24, tmp_path / "other")
    assert list(found.train.captions) == list(expected.train.captions)
    np.testing.assert_array_equal(found.train.images, expected.train.images)
    assert remote.content_key() == local.content_key()
    files = {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir()}
    assert all(one.same(other) for one, other in zip(remote.contents(), local.contents(), strict=True))


def test_each_is_read_once_and_no_copy_stays(photos, shards, own_cache, tmp_path, reads):
    remote = source(photos, BOTH)
    remote.load(24, tmp_path / "cache")
    remote.content_key()
    assert reads == ["s3://shards/cc/00000.tar", "s3://shards/cc/00001.tar"]
    assert not list((own_cache / "shards").iterdir())
    forget_lists()
    again = source(photos, BOTH)
    assert list(again.load(24, tmp_path / "cache").train.captions) == [f"number {at}" for at in range(4)]
    assert again.sizes(tmp_path / "cache").train == 4
    assert len(reads) == 2


def test_a_key_that_is_asked_for_first_takes_a_reading_of_its_own(photos, shards, tmp_path, reads):
    remote = source(photos, BOTH)
    assert remote.sizes(tmp_path / "cache") is None
    assert not reads
    remote.content_key()
    remote.load(24, tmp_path / "cache")
    assert sorted(reads) == ["s3://shards/cc/00000.tar"] * 2 + ["s3://shards/cc/00001.tar"] * 2
    remote.load(16, tmp_path / "cache")  # images of another size
    assert len(reads) == 6


def test_more_of_them_than_are_read_ahead_come_in_order(photos, put, tmp_path):
    for at in range(7):
        put(at, {f"{at}.{kind}": held for kind, held in pair(at).items()})
    loaded = source(photos, "s3://shards/cc/{00000..00006}.tar").load(24, tmp_path / "cache")
    assert list(loaded.train.captions) == [f"number {at}" for at in range(7)]


def test_those_on_disk_may_be_among_them(photos, shards, tmp_path):
    mixed = source(photos, f"s3://shards/cc/00000.tar::{shards}/00001.tar")
    local = source(photos, f"{shards}/{{00000..00001}}.tar")
    assert list(mixed.load(24, tmp_path / "cache").train.captions) == [f"number {at}" for at in range(4)]
    assert mixed.content_key() == local.content_key()


def test_deep_images_are_noticed(photos, put, shards):
    from io import BytesIO

    from PIL import Image

    deep = BytesIO()
    Image.fromarray(np.full((8, 8), 4096, dtype=np.uint16)).save(deep, "PNG")
    put(1, {"2.png": deep.getvalue(), "2.txt": b"number 2"})
    local = source(photos, f"{shards}/{{00000..00001}}.tar")
    assert source(photos, BOTH).content_key() == local.content_key()
    assert streamed.recalled(streamed.in_cloud(source(photos, BOTH)._find([]))).deep


def test_one_that_is_written_anew_is_another(photos, shards, put, tmp_path):
    remote = source(photos, BOTH)
    before = remote.load(24, tmp_path / "cache"), remote.content_key()
    put(1, {"2.png": photo(9), "2.txt": b"another"})
    after = remote.load(24, tmp_path / "cache"), remote.content_key()
    assert before[1] != after[1]
    assert list(before[0].train.captions) == [f"number {at}" for at in range(4)]
    assert list(after[0].train.captions) == ["number 0", "number 1", "another"]


def test_one_that_changes_while_it_is_read_is_refused(photos, shards, put, tmp_path, monkeypatch):
    remote = source(photos, BOTH)
    remote.stamps()
    looked = clouds.look
    monkeypatch.setattr(clouds, "look", lambda address: looked(address.replace("00001", "00000")))
    (problem,) = problems_of(remote.load, 24, tmp_path / "cache")
    assert "s3://shards/cc/00001.tar: cannot be fetched: it has changed while it was read" in problem
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith((".images", "captions"))]


def test_other_content_than_was_known_is_refused(photos, shards, tmp_path):
    remote = source(photos, BOTH)
    remote.content_key()
    known = remote.shared_facts()
    first, second = streamed.recalled(streamed.in_cloud(remote._find([]))).digests
    known.write_text(known.read_text().replace(second, first))
    forget_lists()
    (problem,) = problems_of(source(photos, BOTH).load, 24, tmp_path / "cache")
    assert "s3://shards/cc/00001.tar: has other content than its cloud says" in problem
    assert known.name in problem


def test_what_a_machine_knows_spares_others_that_share_its_store_the_reading(
    photos, shards, tmp_path, reads, monkeypatch
):
    remote, store = source(photos, BOTH), ArtifactStore(tmp_path / "store")
    share_facts(store, remote)
    key = remote.content_key()
    share_facts(store, remote)
    assert len(reads) == 2
    monkeypatch.setenv("UBT_CACHE", str(tmp_path / "another-machine"))
    forget_lists()
    share_facts(store, remote)
    assert remote.content_key() == key
    assert len(reads) == 2
    remote.load(24, tmp_path / "cache")
    assert len(reads) == 4


def test_what_is_not_there_is_told_by_those_who_only_look(photos, shards, tmp_path, reads):
    with only_what_is_there(), pytest.raises(NotMadeYet):
        source(photos, BOTH).load(24, tmp_path / "cache")
    assert not reads


def test_a_copy_that_is_there_is_used(photos, shards, s3, tmp_path, reads):
    for at in range(2):
        downloaded(f"s3://shards/cc/{at:05}.tar")
        s3.delete_object(Bucket="shards", Key=f"cc/{at:05}.tar")
    remote = source(photos, BOTH)
    assert len(remote.load(24, tmp_path / "cache").train) == 4
    assert remote.content_key() == source(photos, f"{shards}/{{00000..00001}}.tar").content_key()
    assert not reads


def test_a_cloud_that_says_nothing_of_content_has_its_files_copied(photos, shards, own_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(clouds, "_CONTENT", ())
    assert len(source(photos, BOTH).load(24, tmp_path / "cache").train) == 4
    assert len([path for path in (own_cache / "shards").iterdir() if path.suffix == ".tar"]) == 2


@pytest.mark.parametrize(
    ("members", "messages"),
    [
        ({"7.png": b"none", "7.txt": b"a"}, ["sample 7: the image cannot be decoded: it is none of"]),
        ({"7.png": photo(7), "8.txt": b"a"}, ["sample 7: has no caption", "sample 8: has no image"]),
        ({"7.png": photo(7), "7.txt": b"\xff"}, ["sample 7: the caption is not UTF-8"]),
    ],
)
def test_what_is_wrong_in_them_is_told_with_the_address(photos, put, shards, tmp_path, members, messages):
    put(1, members)
    found = problems_of(source(photos, BOTH).load, 24, tmp_path / "cache")
    assert len(found) == len(messages)
    assert all(f"s3://shards/cc/00001.tar: {message}" in one for one, message in zip(found, messages, strict=True))


def test_a_damaged_one_and_an_empty_one_are_told(photos, shards, s3, put, tmp_path):
    s3.put_object(Bucket="shards", Key="cc/00001.tar", Body=b"no tar")
    forget_lists()
    (problem,) = problems_of(source(photos, BOTH).load, 24, tmp_path / "cache")
    assert "s3://shards/cc/00001.tar: cannot be read" in problem
    put(0, {"README": b"nothing"})
    (problem,) = problems_of(source(photos, "s3://shards/cc/00000.tar").load, 24, tmp_path / "cache")
    assert "the shards hold no samples" in problem


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://shards/none/00000.tar", "s3://shards/none/00000.tar: cannot be fetched: there is no such file"),
        ("s3://no-such-bucket/a.tar", "s3://no-such-bucket/a.tar: cannot be fetched"),
    ],
)
def test_what_is_not_there_is_told(photos, shards, own_cache, address, message):
    problems = problems_of(source(photos, address).content_key)
    assert message in problems[-1]
    assert not list((own_cache / "shards").glob(".*"))


def test_without_the_package_it_says_what_to_install(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match="install gcsfs"):
        source(photos, "gs://shards/00000.tar").content_key()
