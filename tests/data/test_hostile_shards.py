"""Shards that were made to do harm: they fill memory, or lead out of their folder."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from photographs import photo

from ubt.data import shards
from ubt.data.shards import find_shards, has_deep_images, read_samples

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch):
    monkeypatch.setattr(shards, "_MOST_IMAGE_BYTES", MIB)


def member(name, content=b"", **fields):
    found = tarfile.TarInfo(name)
    found.size = len(content)
    for field, value in fields.items():
        setattr(found, field, value)
    return found, io.BytesIO(content)


def written(path, *members, compressed=False, form=tarfile.GNU_FORMAT):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for info, content in members:
            tar.addfile(info, content)
    path.write_bytes(gzip.compress(stream.getvalue()) if compressed else stream.getvalue())
    return path


def read(path):
    """Return the samples of a shard, and what is wrong with it."""
    problems = []
    samples = list(read_samples([path], problems))
    return samples, [problem.message for problem in problems]


@pytest.mark.parametrize("name", ["0.png", "0.txt"])
def test_a_member_that_unpacks_to_more_than_an_image_or_a_caption_takes_is_refused(tmp_path, name):
    other = member("0.txt", b"a caption") if name == "0.png" else member("0.png", photo(0))
    path = written(tmp_path / "bomb.tar.gz", member(name, bytes(8 * MIB)), other, compressed=True)
    assert path.stat().st_size < MIB / 10
    assert read(path) == ([], [f"cannot be read: {name} is larger than 1 MiB"])
    assert not has_deep_images(path)


def test_a_sparse_member_is_as_large_as_it_says(tmp_path):
    sparse = {"GNU.sparse.size": str(1 << 50), "GNU.sparse.numblocks": "0", "GNU.sparse.map": "0,0"}
    members = member("0.png", pax_headers=sparse), member("0.txt", b"a caption")
    path = written(tmp_path / "sparse.tar", *members, form=tarfile.PAX_FORMAT)
    assert read(path) == ([], ["cannot be read: 0.png is larger than 1 MiB"])


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_a_name_of_megabytes_is_refused(tmp_path, form):
    path = written(tmp_path / "name.tar", member("n" * (2 * MIB) + ".png", photo(0)), form=form)
    assert read(path) == ([], ["cannot be read: a header in it is larger than 1 MiB"])


@pytest.mark.parametrize("folder", ["../../", "/etc/", "a/../../../", "./", "C:\\", "~/"])
def test_names_that_lead_out_of_the_shard_are_names_and_nothing_more(tmp_path, folder):
    inside = tmp_path / "data"
    inside.mkdir()
    path = written(inside / "names.tar", member(f"{folder}x.png", photo(0)), member(f"{folder}x.txt", b"a caption"))
    samples, problems = read(path)
    assert problems == []
    # A part that begins with a dot makes a name a hidden one.
    assert [sample.caption for sample in samples] == ([] if ".." in folder else ["a caption"])
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["data", "names.tar"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_devices_are_not_followed(tmp_path, kind):
    (tmp_path / "secret.txt").write_text("a secret")
    link = member("0.txt", type=kind, linkname=str(tmp_path / "secret.txt"), devmajor=1, devminor=5)
    (sample,), _ = read(written(tmp_path / "links.tar", member("0.png", photo(0)), link))
    assert sample.caption == ""
    assert sample.troubles


@pytest.mark.parametrize("pattern", ["pipe:cat /etc/passwd", "file:///etc/passwd", "ftp://host/a.tar"])
def test_an_address_that_is_more_than_a_file_is_refused(pattern):
    problems = []
    assert find_shards(pattern, problems) == []
    assert "refused" in problems[0].message
