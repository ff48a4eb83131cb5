"""Data sets with damage anywhere: read, or refused with every reason; never anything else."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photographs import CLASSES, Photos, photo, write_shard

from ubt.common.errors import UserError
from ubt.data import DATA_SOURCES

LISTS = {"csv": "pairs.csv", "coco": "captions.json", "parquet": "pairs.parquet", "webdataset": "pairs.tar"}
OTHERS = ["labels.csv", "classes.txt", "images/3.png", "images/15.png", "val/cat/0.png"]
PIECES = [
    b",",
    b"\t",
    b'"',
    b"\n",
    b"\0",
    b";",
    b"\xff",
    b"{",
    b"n01440764",
    b"image,caption\n",
    b"../",
    b"/",
    b" ",
    b"9",
]
EDITS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 12), st.sampled_from(PIECES)), max_size=5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The photographs, with their pairs in a list of every kind and labelled ones in folders."""
    photos = Photos(tmp_path_factory.mktemp("mutations") / "whole").write()
    images = [{"id": seed, "file_name": f"images/{seed}.png"} for seed in range(12)]
    captions = [{"image_id": seed, "caption": f"number {seed}"} for seed in range(12)]
    (photos.folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    table = {"image": [photo(seed) for seed in range(12)], "caption": [f"number {seed}" for seed in range(12)]}
    pq.write_table(pa.table(table), photos.folder / "pairs.parquet")
    members = {
        f"{seed}.{suffix}": content for seed in range(12) for suffix, content in (("png", photo(seed)), ("txt", b"x"))
    }
    write_shard(photos.folder / "pairs.tar", members)
    for at, name in enumerate(CLASSES):
        (photos.folder / "val" / name).mkdir(parents=True)
        for seed in range(2):
            (photos.folder / "val" / name / f"{seed}.png").write_bytes(photo(50 + 2 * at + seed))
    return photos.folder


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(list(LISTS)),
    other=st.sampled_from(OTHERS),
    edits=EDITS,
    edits_of_other=EDITS,
    labels=st.sampled_from(["labels.csv", "val", "images"]),
    classes=st.sampled_from(["classes.txt", "imagenet"]),
    on_broken=st.sampled_from(["fail", "skip"]),
    max_broken=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_damaged_data_is_read_or_refused(
    whole, kind, other, edits, edits_of_other, labels, classes, on_broken, max_broken
):
    folder, cache = whole.with_name("damaged"), whole.with_name("cache")
    for each in (folder, cache):
        shutil.rmtree(each, ignore_errors=True)
    shutil.copytree(whole, folder)
    for name, changes in ((LISTS[kind], edits), (other, edits_of_other)):
        (folder / name).write_bytes(edited((folder / name).read_bytes(), changes))
    source = DATA_SOURCES.get(kind).model_validate(
        {
            "pairs": str(folder / LISTS[kind]),
            "labels": folder / labels,
            "classes": classes if classes == "imagenet" else str(folder / classes),
            "templates": "simple",
            "on_broken": on_broken,
            "max_broken": max_broken,
        }
    )
    try:
        key = source.compute_key()
        data = source.load(16, cache)
    except UserError as error:
        assert error.problems
        assert all(len(str(problem)) < 6000 for problem in error.problems)
    else:
        assert source.compute_key() == key
        assert len(data.train) == len(data.train.images)
        assert on_broken == "skip" or not data.skipped


def edited(content: bytes, edits) -> bytes:
    """Return the content with, at each place, some bytes replaced by a piece."""
    for place, cut, piece in edits:
        at = place % (len(content) + 1)
        content = content[:at] + piece + content[at + cut :]
    return content
