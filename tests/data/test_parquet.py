import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from photographs import photo
from PIL import Image

from ubt.common.errors import UserError
from ubt.data.decode import decode_image
from ubt.data.parquet import ParquetFiles
from ubt.testing import check_data_source

CAPTIONS = [f"number {seed}" for seed in range(6)]
STORED = {
    "bytes": photo,
    "Hugging Face's images": lambda seed: {"bytes": photo(seed), "path": f"{seed}.png"},
    "paths": lambda seed: f"images/{seed}.png",
}


def problems_of(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture
def build(photos):
    def build(images, captions=CAPTIONS, names=("image", "caption"), **settings):
        path = photos.folder / "pairs.parquet"
        pq.write_table(pa.table({names[0]: images, names[1]: captions}), path, row_group_size=4)
        return ParquetFiles.model_validate({"pairs": str(path), **photos.settings, **settings})

    return build


def test_it_keeps_the_contract(build):
    check_data_source(build([photo(seed) for seed in range(6)]))


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("names", [("image", "caption"), ("filepath", "TEXT"), ("jpg", "text")])
def test_pairs_come_in_the_order_of_the_rows(build, tmp_path, stored, names):
    source = build([STORED[stored](seed) for seed in range(6)], names=names)
    data = source.load(24, tmp_path / "cache")
    assert list(data.train.captions) == CAPTIONS
    for seed in range(6):
        np.testing.assert_array_equal(data.train.images[seed], decode_image(photo(seed), 24))


def test_files_are_joined_and_the_first_pairs_used(build, photos, tmp_path):
    build([photo(seed) for seed in range(6)])
    for part in "ab":
        (photos.folder / f"pairs-{part}.parquet").write_bytes((photos.folder / "pairs.parquet").read_bytes())
    pairs = f"{photos.folder}/pairs-{{a,b}}.parquet"
    source = ParquetFiles.model_validate({"pairs": pairs, "max_pairs": 8, **photos.settings})
    assert list(source.load(24, tmp_path / "cache").train.captions) == CAPTIONS + CAPTIONS[:2]


def test_an_image_that_a_path_names_is_part_of_the_key(build, photos):
    source = build([f"images/{seed}.png" for seed in range(6)])
    before = source.compute_key()
    (photos.folder / "images/3.png").write_bytes(photo(99))
    assert source.compute_key() != before


def test_missing_paths_are_told_with_their_rows_or_skipped(build, photos, tmp_path):
    (photos.folder / "images/3.png").unlink()
    paths = [f"images/{seed}.png" for seed in range(6)]
    (problem,) = problems_of(build(paths).content_key)
    assert "pairs.parquet: row 4: no such image" in problem
    data = build(paths, on_broken="skip", max_broken=0.2).load(24, tmp_path / "cache")
    assert list(data.train.captions) == [*CAPTIONS[:3], *CAPTIONS[4:]]


def test_rows_that_lack_something_are_told_with_their_numbers(build, tmp_path):
    source = build([photo(0), None, photo(2)[:100]], ["a", "b", None])
    problems = problems_of(source.load, 24, tmp_path / "cache")
    assert ["row 2: has no image" in problems[0], "row 3: has no caption" in problems[1]] == [True, True]


def test_deep_images_have_a_key_of_their_own(build, tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0x80FF, dtype=np.uint16)).save(stream, "PNG")
    data = build([stream.getvalue()], ["grey"]).load(8, tmp_path / "cache")
    assert np.unique(data.train.images) == 0x80


@pytest.mark.parametrize(
    ("images", "captions", "message"),
    [
        ([1, 2], ["a", "b"], "column `image` holds int64; needs bytes, Hugging Face's images, or paths"),
        ([b"x", b"y"], [1, 2], "column `caption` holds int64; needs text"),
        ([b"x", b"y"], [["a"], ["b"]], "column `caption` holds list"),
    ],
)
def test_columns_of_another_kind_are_refused(build, tmp_path, images, captions, message):
    assert any(message in problem for problem in problems_of(build(images, captions).load, 24, tmp_path / "cache"))


def test_addresses_are_refused_with_what_to_do(build, tmp_path):
    source = build(["https://a.org/b.png"], ["x"], names=("URL", "TEXT"))
    assert "img2dataset" in problems_of(source.load, 24, tmp_path / "cache")[0]


def test_what_is_no_parquet_file_is_told(build, photos, tmp_path):
    source = build([photo(0)], ["x"])
    (photos.folder / "pairs.parquet").write_bytes(b"PAR1 or not")
    assert any("cannot be read" in problem for problem in problems_of(source.load, 24, tmp_path / "cache"))
