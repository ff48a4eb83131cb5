"""Two nodes have other data under the same path: the first row that differs is found, for every kind of data."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from photographs import photo, write_shard, write_table

from ubt.data import digests
from ubt.data.coco import CocoCaptions
from ubt.data.content import index
from ubt.data.content.compare import first_difference
from ubt.data.content.index import Entry, decoded, encoded
from ubt.data.parquet import ParquetFiles
from ubt.data.scenes import Scenes
from ubt.data.webdataset import WebDataset


def csv_files(photos):
    return photos.source()


def coco(photos):
    images = [{"id": seed, "file_name": f"images/{seed}.png"} for seed in range(12)]
    captions = [{"image_id": seed, "caption": f"a photo, number {seed}"} for seed in range(12)]
    (photos.folder / "pairs.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return CocoCaptions.model_validate({"pairs": photos.folder / "pairs.json", **photos.settings})


def webdataset(photos):
    for number in range(2):
        members = {f"{number}.png": photo(number), f"{number}.txt": b"a photo"}
        write_shard(photos.folder / f"train-{number}.tar", members)
    return WebDataset.model_validate({"pairs": f"{photos.folder}/train-{{0..1}}.tar", **photos.settings})


def parquet(photos):
    rows = pa.table({"image": [f"images/{seed}.png" for seed in range(12)], "caption": ["a photo"] * 12})
    pq.write_table(rows, photos.folder / "pairs.parquet")
    return ParquetFiles.model_validate({"pairs": f"{photos.folder}/pairs.parquet", **photos.settings})


KINDS = [csv_files, coco, webdataset, parquet]


def differ(source, spoil):
    """Return the first difference once a node's files are spoilt."""
    index = encoded(source.contents())
    spoil()
    return first_difference(decoded(index), source.contents())


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_not_changed_does_not_differ(photos, kind):
    assert differ(kind(photos), lambda: None) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spoil", "study", "here"),
    [
        (lambda path: path.unlink(), "bytes, SHA-256", "none that can be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "bytes", "bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"), "SHA-256", "SHA-256"),
    ],
    ids=["missing", "other size", "other content"],
)
def test_an_image_that_differs_is_named_with_its_row(photos, kind, spoil, study, here):
    image = photos.folder / "images/17.png"
    found = differ(kind(photos), lambda: spoil(image))
    assert (found.where, found.file) == (f"{photos.folder}/labels.csv: row 7", str(image))
    assert study in found.study
    assert here in found.here
    assert found.study != found.here


def captioned(photos, count, changed=None):
    captions = [[f"images/{seed % 12}.png", f"a photo, number {seed}"] for seed in range(count)]
    if changed is not None:
        captions[changed][1] = "another one"
    write_table(photos.folder / "pairs.csv", ["image", "caption"], *captions)


def test_another_caption_is_named_with_its_row(photos):
    found = differ(photos.source(), lambda: captioned(photos, 12, changed=5))
    assert str(found) == (
        f"{photos.folder}/pairs.csv: row 7, {photos.folder}/images/5.png: "
        "the study has 'a photo, number 5', this node has 'another one'"
    )


def test_a_list_that_is_shorter_is_told(photos):
    found = differ(photos.source(), lambda: captioned(photos, 11))
    assert found.where == f"{photos.folder}/pairs.csv: row 13"
    assert found.here == f"{photos.folder}/labels.csv: row 2 in its place"


def test_a_list_that_is_longer_is_told(photos):
    found = differ(photos.source(), lambda: captioned(photos, 13))
    assert found.where == f"{photos.folder}/labels.csv: row 2"
    assert found.here == f"{photos.folder}/pairs.csv: row 14 in its place"


def test_what_is_missing_or_too_much_at_the_end_is_told(photos):
    study = list(photos.source().contents())
    assert first_difference(study, study[:-1]).here == "nothing more"
    assert first_difference(study[:-1], study).study == "nothing more"


def test_a_list_that_is_missing_is_told_by_its_first_row(photos):
    found = differ(photos.source(), (photos.folder / "pairs.csv").unlink)
    assert found.where == f"{photos.folder}/pairs.csv: row 2"


def test_a_shard_that_differs_is_named(photos):
    shard = photos.folder / "train-1.tar"
    found = differ(webdataset(photos), lambda: write_shard(shard, {"1.png": photo(99), "1.txt": b"a photo"}))
    assert found.where == str(shard)


@pytest.mark.parametrize("file", ["classes", "templates", "synsets"])
def test_words_that_differ_are_named_with_their_line(photos, file):
    words = {"classes": "cat\ndog\nbird\n", "templates": "a {}\nthe {}\n{} bird\n", "synsets": "a cat\nb dog\nc bird\n"}
    for name, text in words.items():
        (photos.folder / f"{name}.txt").write_text(text)
    source = photos.source(**{name: str(photos.folder / f"{name}.txt") for name in words})
    found = differ(source, lambda: (photos.folder / f"{file}.txt").write_text(words[file].replace("bird", "crow")))
    assert found.where == f"{photos.folder}/{file}.txt: line 3"
    assert "bird" in found.study
    assert "crow" in found.here


def test_generated_scenes_have_nothing_to_be_compared():
    assert encoded(Scenes().contents()) == b""


def test_an_image_that_was_read_before_is_not_read_again(photos, monkeypatch):
    source = photos.source()
    source.compute_key()
    for module in ("ubt.data.digests", "ubt.data.content.index"):
        monkeypatch.setattr(f"{module}.digest_file", lambda path: pytest.fail(f"{path} was read"))
    assert len(list(source.contents())) == 24 + 3


def test_of_images_that_changed_only_those_are_read(photos, monkeypatch):
    photos.source().compute_key()
    changed = photos.folder / "images/3.png"
    changed.write_bytes(photo(99))
    read = []
    digest_file = digests.digest_file
    monkeypatch.setattr(digests, "digest_file", lambda path: read.append(path) or digest_file(path))
    photos.source().compute_key()
    assert read == [changed]


def test_of_two_that_want_to_know_the_same_at_once_one_reads(photos, monkeypatch):
    read, digest_file = [], digests.digest_file

    def slowly(path):
        time.sleep(0.01)
        read.append(path)
        return digest_file(path)

    monkeypatch.setattr(digests, "digest_file", slowly)
    with ThreadPoolExecutor(2) as threads:
        keys = set(threads.map(lambda _: photos.source().compute_key(), range(2)))
    assert len(keys) == 1
    assert len(read) == len(set(read)) == 24


def test_another_file_of_the_same_size_and_time_of_writing_is_noticed(photos):
    """As where a tool has copied two versions of a data set to two nodes that share a cache."""
    before = photos.source().compute_key()
    image = photos.folder / "images/3.png"
    times = image.stat()
    image.write_bytes(image.read_bytes()[:-1] + b"!")
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert image.stat().st_size == times.st_size
    assert photos.source().compute_key() != before


def test_an_index_that_is_damaged_says_so(photos):
    content = encoded(photos.source().contents())
    for damaged in (content[:-20], b"no index", content[:10] + b"!!!!" + content[14:]):
        with pytest.raises(ValueError, match=r"damaged|Invalid JSON"):
            list(decoded(damaged))


def test_an_index_that_was_made_to_fill_the_memory_is_none(monkeypatch):
    monkeypatch.setattr(index, "_MOST_BYTES", 100)
    with pytest.raises(ValueError, match="Invalid JSON"):
        list(decoded(encoded([Entry("row", text="x" * 10_000)])))


ENTRIES = st.lists(
    st.builds(Entry, st.just("row"), st.sampled_from(["a", "b"]), st.integers(0, 2), st.sampled_from("xy"), st.text()),
    max_size=6,
)


@given(ENTRIES, ENTRIES)
def test_there_is_a_difference_exactly_where_contents_differ(study, here):
    found = first_difference(study, here)
    same = len(study) == len(here) and all(one.same(other) for one, other in zip(study, here, strict=True))
    assert (found is None) == same
    assert found is None or found.study != found.here


@given(ENTRIES)
def test_an_index_is_read_as_it_was_written(entries):
    assert list(decoded(encoded(entries))) == entries if entries else encoded(entries) == b""
