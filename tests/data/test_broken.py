"""`on_broken`: broken images end everything, or are skipped within a limit, listed, counted and part of the key."""

import csv
import json
import logging
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from photographs import Photos, photo, write_shard, write_table

from ubt.common.errors import UserError
from ubt.data import broken as broken_module
from ubt.data.decode import decode_image
from ubt.data.webdataset import WebDataset
from ubt.engine.given_poison import located
from ubt.trials.poison import GivenPoison

SPOILT = {
    "missing": lambda path: path.unlink(),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "empty": lambda path: path.write_bytes(b""),
    "a page in its place": lambda path: path.write_text("<html>404</html>"),
}


def problems_of(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture
def spoilt(photos):
    """The photographs with four of the twelve pairs broken, each in its way, and one labelled image."""
    for seed, spoil in enumerate(SPOILT.values(), start=2):
        spoil(photos.folder / f"images/{seed}.png")
    (photos.folder / "images/20.png").write_bytes(b"")
    return photos


def skipping(photos, **changes):
    return photos.source(on_broken="skip", max_broken=0.5, **changes)


def test_they_are_skipped_counted_and_listed(spoilt, tmp_path, own_cache, caplog):
    with caplog.at_level(logging.WARNING, "ubt"):
        data = skipping(spoilt).load(24, tmp_path / "cache")
    left = [seed for seed in range(12) if seed not in {2, 3, 4, 5}]
    assert list(data.train.captions) == [f"a photo, number {seed}" for seed in left]
    for position, seed in enumerate(left):
        np.testing.assert_array_equal(data.train.images[position], decode_image(photo(seed), 24))
    assert len(data.val) + len(data.test) == 11
    assert data.skipped == {"pairs": 4, "labels": 1}
    assert "pairs.csv: 4 of 12 images are broken and skipped; they are listed in " in caplog.text
    lists = [list(csv.reader(path.open())) for path in sorted((own_cache / "skipped").iterdir())]
    pairs = next(rows for rows in lists if len(rows) == 5)
    assert pairs[0] == ["where", "reason"]
    assert [row[0].rpartition("/")[2] for row in pairs[1:]] == [f"pairs.csv: row {seed + 2}" for seed in (2, 3, 4, 5)]
    assert "no such image" in pairs[1][1]
    assert all("cannot be decoded" in row[1] for row in pairs[2:])


def test_without_them_the_data_is_that_of_a_list_without_them(spoilt, tmp_path):
    rows = [[f"images/{seed}.png", f"a photo, number {seed}"] for seed in range(12) if seed not in {2, 3, 4, 5}]
    labels = [[f"images/{seed}.png", seed % 3] for seed in range(12, 24) if seed != 20]
    key = skipping(spoilt).content_key()
    write_table(spoilt.folder / "pairs.csv", ["image", "caption"], *rows)
    write_table(spoilt.folder / "labels.csv", ["image", "label"], *labels)
    assert spoilt.source().content_key() == key


def test_where_none_is_broken_nothing_is_other(photos):
    assert skipping(photos).content_key() == photos.source().content_key()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sets(st.integers(0, 11), max_size=5), min_size=2, max_size=2, unique_by=frozenset))
def test_two_nodes_with_other_broken_files_have_other_keys(tmp_path_factory, broken):
    keys = set()
    for seeds in broken:
        photos = Photos(tmp_path_factory.mktemp("node") / "photos").write()
        for seed in seeds:
            (photos.folder / f"images/{seed}.png").unlink()
        keys.add(skipping(photos).content_key())
    assert len(keys) == 2


def test_more_than_the_limit_is_refused_with_all_of_them(spoilt, tmp_path):
    problems = problems_of(spoilt.source(on_broken="skip", max_broken=0.3).content_key)
    assert "pairs.csv: 4 of 12 images are broken" in problems[0]
    assert "`max_broken` allows the fraction 0.3" in problems[0]
    assert len(problems) == 5
    assert "labels.csv" not in "".join(problems), "of those, few enough are broken"


def test_a_list_of_nothing_but_broken_images_is_refused(photos):
    for seed in range(12):
        (photos.folder / f"images/{seed}.png").unlink()
    assert "12 of 12" in problems_of(photos.source(on_broken="skip", max_broken=1).content_key)[0]


def test_by_default_all_are_problems_and_none_is_skipped(spoilt, tmp_path):
    assert len(problems_of(spoilt.source().content_key)) == 1, "one is missing, the others are found by decoding"
    photo_again = spoilt.folder / "images/2.png"
    photo_again.write_bytes(photo(2))
    assert len(problems_of(spoilt.source().load, 24, tmp_path / "cache")) == 4


def test_which_are_broken_is_remembered_until_a_file_changes(spoilt, monkeypatch):
    source = skipping(spoilt)
    key = source.compute_key()
    monkeypatch.setattr(broken_module.Decoders, "broken_reasons", lambda *_, **__: pytest.fail("decoded again"))
    assert source.compute_key() == key
    monkeypatch.undo()
    (spoilt.folder / "images/3.png").write_bytes(photo(3))
    os.utime(spoilt.folder / "images/3.png", ns=(1, 1))
    assert source.compute_key() != key


@pytest.mark.parametrize("damage", [lambda texts: texts[:-1], lambda texts: [1] * len(texts), lambda _: "no list"])
def test_a_damaged_memo_is_computed_again(spoilt, own_cache, damage):
    key = skipping(spoilt).compute_key()
    for memo in (own_cache / "digests").glob("*.json"):
        known = json.loads(memo.read_text())
        memo.write_text(
            json.dumps({name: damage(value) if isinstance(value, list) else value for name, value in known.items()})
        )
    assert skipping(spoilt).compute_key() == key


class TestGivenPoison:
    def locate(self, photos, rows, tmp_path):
        listed = tmp_path / "poison.csv"
        listed.write_text(rows)
        data = skipping(photos).load(24, tmp_path / "cache")
        return located(GivenPoison.model_validate({"kind": "given", "manifest": listed}), data.train)

    def test_a_list_of_images_still_tells_which_pairs_are_poisoned(self, spoilt, tmp_path):
        found = self.locate(spoilt, "image\nimages/1.png\nimages/6.png\n", tmp_path)
        assert found.indices.tolist() == [1, 2]

    def test_a_list_of_rows_is_refused_for_they_count_otherwise(self, spoilt, tmp_path):
        (problem,) = problems_of(self.locate, spoilt, "index\n1\n6\n", tmp_path)
        assert "4 broken pairs of the data are left out: its rows count otherwise" in problem


class TestShards:
    @pytest.fixture
    def source(self, photos, tmp_path):
        members = {}
        for seed in range(8):
            members |= {f"{seed}.png": photo(seed), f"{seed}.txt": f"number {seed}".encode()}
        del members["1.txt"], members["2.png"]
        members |= {"3.png": photo(3)[:100], "4.txt": "ä".encode("latin-1")}
        path = write_shard(tmp_path / "a.tar", members)

        def build(**changes):
            return WebDataset.model_validate({"pairs": str(path), **photos.settings, **changes})

        return build

    def test_samples_without_image_or_caption_are_skipped_too(self, source, tmp_path, caplog):
        with caplog.at_level(logging.WARNING, "ubt"):
            data = source(on_broken="skip", max_broken=0.5).load(24, tmp_path / "cache")
        assert list(data.train.captions) == ["number 0", "number 5", "number 6", "number 7"]
        np.testing.assert_array_equal(data.train.images[1], decode_image(photo(5), 24))
        assert data.skipped == {"pairs": 4}
        assert "a.tar: 4 of 8 pairs are broken and skipped" in caplog.text

    def test_they_are_part_of_the_key(self, source):
        skipping, all_of_them = source(on_broken="skip", max_broken=0.5), source()
        assert skipping.content_key() != all_of_them.content_key()

    def test_of_the_first_pairs_those_are_skipped(self, source, tmp_path):
        data = source(on_broken="skip", max_broken=0.7, max_pairs=6).load(24, tmp_path / "cache")
        assert list(data.train.captions) == ["number 0", "number 5"]
        assert data.skipped == {"pairs": 4}

    def test_more_than_the_limit_is_refused(self, source):
        problems = problems_of(source(on_broken="skip").content_key)
        assert "4 of 8 pairs are broken" in problems[0]
        assert [problem.partition(": sample ")[2][:1] for problem in problems[1:]] == ["1", "2", "3", "4"]

    def test_a_shard_that_cannot_be_read_is_never_skipped(self, source, tmp_path):
        whole = (tmp_path / "a.tar").read_bytes()
        (tmp_path / "a.tar").write_bytes(whole[:3000])
        assert "cannot be read" in problems_of(source(on_broken="skip", max_broken=1).content_key)[0]
