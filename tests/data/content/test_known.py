"""What the lists of a data set say is remembered: other processes have the data set without parsing them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from photographs import photo, write_table

from ubt.data.content.known import Known, forget_lists
from ubt.data.csv import CsvFiles

texts = st.lists(st.text(max_size=8), max_size=4)


@given(
    captions=texts, files=texts, pretrain=st.none() | texts, labels=st.lists(st.integers(0, 9), max_size=4), names=texts
)
def test_what_is_written_down_is_read_back(captions, files, pretrain, labels, names):
    known = Known("key", captions, files, pretrain, {"train": "0a"}, {"train": 3}, labels, labels, names, names, {})
    assert Known.of(known.as_text()) == known


@pytest.fixture
def load(photos, tmp_path, monkeypatch):
    """Return a function that loads the data as a new process does, and says whether lists were parsed."""
    parsed = []
    read = CsvFiles.read_pairs
    monkeypatch.setattr(CsvFiles, "read_pairs", lambda *given: parsed.append(1) or read(*given))

    def loaded(**changes):
        forget_lists()
        parsed.clear()
        return photos.source(**changes).load(24, tmp_path / "cache"), bool(parsed)

    return loaded


def test_another_process_has_the_same_data_and_parses_nothing(load, photos):
    (photos.folder / "images/30.png").write_bytes(photo(30))
    clean = write_table(photos.folder / "clean.csv", ["image", "caption"], ["images/30.png", "Füße,\nzwei"])
    first, parsed = load(pretrain=clean)
    assert parsed
    again, parsed = load(pretrain=clean)
    assert not parsed
    assert list(again.train.captions) == list(first.train.captions)
    assert list(again.train.files) == list(first.train.files) == [f"images/{at}.png" for at in range(12)]
    assert list(again.pretrain.captions) == ["Füße,\nzwei"]
    assert (again.classes, again.templates) == (list(first.classes), list(first.templates))
    for one, other in ((first.val, again.val), (first.test, again.test)):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_images_that_are_not_decoded_any_more_are_decoded_again(load, tmp_path):
    first, _ = load()
    for path in (tmp_path / "cache").glob("images-*"):
        path.unlink()
    again, parsed = load()
    assert parsed
    np.testing.assert_array_equal(first.train.images, again.train.images)


def test_a_caption_that_changes_is_read(load, photos):
    load()
    table = photos.folder / "pairs.csv"
    table.write_text(table.read_text().replace("number 3", "number three"))
    again, parsed = load()
    assert parsed
    assert again.train.captions[3] == "a photo, number three"


def test_sizes_are_known_without_parsing(load, photos, tmp_path):
    load()
    forget_lists()
    sizes = photos.source().sizes(tmp_path / "cache")
    assert (sizes.train, sizes.val + sizes.test, sizes.classes) == (12, 12, 3)
    _, parsed = load()
    assert not parsed
