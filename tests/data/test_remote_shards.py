"""Shards in a cloud, as the moto server plays S3."""

import sys

import pytest
from photographs import photo, write_shard
from s3_server import s3_server

from ubt.common.errors import UserError
from ubt.data.webdataset import WebDataset


@pytest.fixture(scope="module")
def s3():
    """Set the environment of an S3 server with a bucket, as a user would."""
    with s3_server("shards") as client:
        yield client


@pytest.fixture
def shards(s3, tmp_path):
    for at in range(2):
        members = {f"{at}.png": photo(at), f"{at}.txt": f"number {at}".encode()}
        path = write_shard(tmp_path / f"{at:05}.tar", members)
        s3.put_object(Bucket="shards", Key=f"cc/{at:05}.tar", Body=path.read_bytes())
    return tmp_path


def source(photos, pairs):
    return WebDataset.model_validate({"pairs": pairs, **photos.settings})


def test_they_are_fetched_once_and_have_the_key_of_their_content(photos, shards, s3, tmp_path):
    remote = source(photos, "s3://shards/cc/{00000..00001}.tar")
    key = remote.content_key()
    assert key == source(photos, f"{shards}/{{00000..00001}}.tar").content_key()
    for at in range(2):
        s3.delete_object(Bucket="shards", Key=f"cc/{at:05}.tar")
    assert list(remote.load(24, tmp_path / "cache").train.captions) == ["number 0", "number 1"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://shards/cc/{00000..00002}.tar", "s3://shards/cc/00002.tar: cannot be fetched: there is no such file"),
        ("s3://no-such-bucket/a.tar", "s3://no-such-bucket/a.tar: cannot be fetched"),
    ],
)
def test_what_is_not_there_is_told(photos, shards, own_cache, address, message):
    with pytest.raises(UserError) as caught:
        source(photos, address).content_key()
    (problem,) = caught.value.problems
    assert message in str(problem)
    assert not list((own_cache / "shards").glob(".*"))


def test_without_the_package_it_says_what_to_install(photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match="install gcsfs"):
        source(photos, "gs://shards/00000.tar").content_key()
