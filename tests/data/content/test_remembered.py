"""A data set's key is remembered for as long as no file changes, and found out anew when one does."""

import os

import pytest
from photographs import photo

from ubt.data import csv
from ubt.data.content.known import forget_lists
from ubt.data.csv import CsvFiles


@pytest.fixture
def ask(photos, monkeypatch):
    """Return a function that asks for the key as a new process does: it returns that, and whether lists were parsed."""
    parsed = []
    read = CsvFiles.read_lists
    monkeypatch.setattr(CsvFiles, "read_lists", lambda self: parsed.append(1) or read(self))

    def asked(**changes):
        forget_lists()
        parsed.clear()
        return photos.source(**changes).content_key(), bool(parsed)

    return asked


def test_lists_are_parsed_once(ask, photos):
    key, parsed = ask()
    assert parsed
    assert ask() == (key, False)
    assert key == photos.source().compute_key()


def changed_image(photos):
    (photos.folder / "images/3.png").write_bytes(photo(99))


def changed_image_with_the_times_it_had(photos):
    path = photos.folder / "images/3.png"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def changed_label(photos):
    path = photos.folder / "labels.csv"
    path.write_text(path.read_text().replace("12.png,0", "12.png,1"))


def changed_class(photos):
    path = photos.folder / "classes.txt"
    path.write_text(path.read_text().replace("cat", "cow"))


@pytest.mark.parametrize(
    "change",
    [changed_image, changed_image_with_the_times_it_had, changed_label, changed_class],
    ids=lambda f: f.__name__,
)
def test_what_changes_is_noticed(ask, photos, change):
    before, _ = ask()
    change(photos)
    after, parsed = ask()
    assert parsed
    assert after != before
    assert after == photos.source().compute_key()


def test_an_image_that_goes_is_missed(ask, photos):
    ask()
    (photos.folder / "images/3.png").unlink()
    with pytest.raises(Exception, match="no such image"):
        ask()


def test_an_image_that_changes_while_it_is_read_is_read_again(ask, photos, monkeypatch):
    digest = csv.image_digest

    def changes_behind(rows, label, draft):
        found = digest(rows, label, draft)
        if label == "train":
            changed_image(photos)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(csv, "image_digest", changes_behind)
        ask()
    key, parsed = ask()
    assert parsed
    assert key == photos.source().compute_key()


def test_other_settings_have_a_key_of_their_own(ask):
    assert ask()[0] != ask(val_fraction=0.25)[0]


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_bytes(path.read_bytes()[:-3]), lambda path: path.write_bytes(b"")]
)
def test_what_is_remembered_and_damaged_is_found_out_again(ask, own_cache, spoil):
    key, _ = ask()
    (memo,) = own_cache.glob("data/*.known")
    spoil(memo)
    assert ask() == (key, True)


def test_broken_images_that_are_skipped_are_looked_for_each_time(ask, photos):
    (photos.folder / "images/3.png").unlink()
    key, _ = ask(on_broken="skip", max_broken=0.5)
    (photos.folder / "images/3.png").write_bytes(photo(3))
    assert ask(on_broken="skip", max_broken=0.5)[0] != key


def test_of_each_data_set_one_answer_is_kept(ask, photos, own_cache):
    ask()
    ask(val_fraction=0.25)
    changed_label(photos)
    ask()
    assert len(list(own_cache.glob("data/*.known"))) == 2
