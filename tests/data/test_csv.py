import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from photographs import CLASSES, Photos, photo, write_shard, write_table

from ubt.common.errors import UserError
from ubt.data import images as image_cache
from ubt.data.csv import CsvFiles
from ubt.data.decode import decode_image
from ubt.data.webdataset import WebDataset


def problems_of(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return [str(problem) for problem in caught.value.problems]


def test_pairs_and_labelled_images_come_in_the_order_of_their_csv_files(photos, tmp_path):
    data = photos.source().load(24, tmp_path / "cache")
    assert list(data.train.captions) == [f"a photo, number {seed}" for seed in range(12)]
    for seed in (0, 5, 11):
        np.testing.assert_array_equal(data.train.images[seed], decode_image(photo(seed), 24))
    assert data.pretrain is None
    assert tuple(data.classes) == CLASSES
    assert len(data.templates) == 80


def test_every_labelled_image_lands_in_one_split_with_its_own_label(photos, tmp_path):
    data = photos.source(val_fraction=0.25).load(24, tmp_path / "cache")
    assert (len(data.val), len(data.test)) == (3, 9)
    label_of = {decode_image(photo(seed), 24).tobytes(): seed % 3 for seed in range(12, 24)}
    for split in (data.val, data.test):
        for image, label in zip(split.images, split.labels, strict=True):
            assert label_of.pop(image.tobytes()) == label
    assert not label_of


def test_a_label_is_a_class_name_or_an_index(photos, tmp_path):
    by_index = photos.source().load(24, tmp_path / "cache")
    rows = [[f"images/{seed}.png", CLASSES[seed % 3]] for seed in range(12, 24)]
    write_table(photos.folder / "labels.csv", ["image", "label"], *rows)
    by_name = photos.source().load(24, tmp_path / "cache")
    np.testing.assert_array_equal(by_index.val.labels, by_name.val.labels)
    np.testing.assert_array_equal(by_index.test.labels, by_name.test.labels)


def test_pairs_for_pretraining_are_optional_and_separate(photos, tmp_path):
    pretrain = write_table(photos.folder / "more.csv", ["caption", "image"], ["a clean one", "images/3.png"])
    data = photos.source(pretrain=pretrain).load(24, tmp_path / "cache")
    assert list(data.pretrain.captions) == ["a clean one"]
    np.testing.assert_array_equal(data.pretrain.images[0], data.train.images[3])


def test_a_byte_order_mark_blank_lines_and_line_breaks_in_captions_are_read(photos, tmp_path):
    text = '\ufeff image , caption\r\n\r\nimages/1.png,"two\r\nlines"\r\n\r\nimages/2.png,Füße\r\n'
    (photos.folder / "pairs.csv").write_bytes(text.encode())
    data = photos.source().load(24, tmp_path / "cache")
    assert [caption.split() for caption in data.train.captions] == [["two", "lines"], ["Füße"]]


def test_names_of_open_clip_stand_for_its_lists(photos):
    source = photos.source(classes="imagenet", templates="simple")
    assert len(source.class_names()) == 1000
    assert source.class_names()[1] == "goldfish"
    assert source.content_key() != photos.source(classes="imagenet").content_key()


KEYS = {
    "csv": "54faa026369b7ce596197d8413e3b119",
    "csv with pretrain": "e202d392f487f3e8728be48883f72ae3",
    "shard": "179796176c15998516d3c0887b657239",
    "one pair of a shard": "9e67759c3bd8ab38d1015cd4689ad891",
}
"""As version 0.1 computed them: what it stored is found again."""


def test_data_that_was_known_keeps_its_key(tmp_path):
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(f"image {number}".encode())
    pairs = write_table(tmp_path / "pairs.csv", ["image", "caption"], *([f"{n}.png", f"photo {n}"] for n in range(4)))
    labels = write_table(tmp_path / "labels.csv", ["image", "label"], *([f"{n}.png", n % 2] for n in range(4, 8)))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "prompts.txt").write_text("a {}\n")
    members = {f"{n}.{suffix}": f"{suffix} {n}".encode() for n in range(2) for suffix in ("png", "txt")}
    shard = str(write_shard(tmp_path / "a.tar", members))
    common = {"labels": labels, "classes": tmp_path / "classes.txt", "templates": tmp_path / "prompts.txt"}
    settings = {name: str(path) for name, path in common.items()}
    sources = {
        "csv": CsvFiles(pairs=pairs, **settings),
        "csv with pretrain": CsvFiles(pairs=pairs, pretrain=pairs, **settings),
        "shard": WebDataset(pairs=shard, **settings),
        "one pair of a shard": WebDataset(pairs=shard, max_pairs=1, **settings),
    }
    assert {name: source.content_key() for name, source in sources.items()} == KEYS


def test_a_configuration_of_before_is_written_as_before(photos):
    fields = {
        "kind",
        "pairs",
        "pretrain",
        "labels",
        "classes",
        "templates",
        "val_fraction",
        "split_seed",
        "decode_workers",
    }
    assert photos.source().as_json().keys() == fields
    source = photos.source(on_broken="skip", image_column="image")
    assert source.as_json().keys() == {*fields, "on_broken", "image_column"}
    assert CsvFiles.model_validate(source.as_json()) == source


class TestContentKey:
    def test_it_does_not_depend_on_where_the_files_lie(self, photos, tmp_path):
        shutil.copytree(photos.folder, tmp_path / "elsewhere")
        assert Photos(tmp_path / "elsewhere").source().content_key() == photos.source().content_key()

    def test_settings_that_change_no_content_do_not_matter(self, photos):
        assert photos.source(decode_workers=3).content_key() == photos.source().content_key()

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda folder: (folder / "images/3.png").write_bytes(photo(99)),
            lambda folder: (folder / "images/20.png").write_bytes(photo(99)),
            lambda folder: (folder / "classes.txt").write_text("cat\ndog\nfish\n"),
            lambda folder: write_table(folder / "pairs.csv", ["image", "caption"], ["images/0.png", "other"]),
        ],
        ids=["training image", "labelled image", "class name", "caption"],
    )
    def test_changed_content_changes_it(self, photos, tmp_path, spoil):
        other = Photos(tmp_path / "other").write()
        spoil(other.folder)
        assert other.source().content_key() != photos.source().content_key()

    def test_the_split_and_the_prompts_change_it(self, photos):
        prompts = photos.folder / "prompts.txt"
        prompts.write_text("a {}\n")
        changes = ({}, {"val_fraction": 0.25}, {"split_seed": 1}, {"templates": str(prompts)})
        assert len({photos.source(**change).content_key() for change in changes}) == len(changes)

    def test_a_changed_list_is_noticed_by_the_same_process(self, photos):
        before = photos.source().content_key()
        write_table(photos.folder / "pairs.csv", ["image", "caption"], ["images/0.png", "another caption"])
        assert photos.source().content_key() != before

    def test_a_second_process_looks_at_the_files_without_reading_them(self, photos, monkeypatch):
        first = photos.source().compute_key()
        monkeypatch.setattr("ubt.data.digests.digest_file", lambda path: pytest.fail(f"{path} was read"))
        assert photos.source().compute_key() == first

    def test_an_overwritten_image_is_noticed_by_its_time(self, photos):
        first = photos.source().compute_key()
        image = photos.folder / "images/0.png"
        image.write_bytes(image.read_bytes()[:-1] + b"!")
        os.utime(image, ns=(1, 1))
        assert photos.source().compute_key() != first

    def test_a_damaged_memo_is_computed_again(self, photos, own_cache):
        first = photos.source().compute_key()
        for memo, text in zip(
            sorted((own_cache / "digests").glob("*.json")), ("", "[]", '{"sha256": "no"}'), strict=True
        ):
            memo.write_text(text)
        assert photos.source().compute_key() == first

    def test_a_cache_that_cannot_be_written_costs_time_only(self, photos, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        expected = photos.source().compute_key()
        monkeypatch.setenv("UBT_CACHE", str(tmp_path / "file" / "below"))
        assert photos.source().compute_key() == expected

    def test_planning_loads_no_torch(self, photos):
        script = (
            "import sys; from ubt.data.csv import CsvFiles\n"
            "source = CsvFiles.model_validate_json(sys.argv[1])\n"
            "source.class_names(), source.content_key(); print('torch' in sys.modules)"
        )
        document = photos.source(classes="imagenet").model_dump_json()
        command = [sys.executable, "-c", script, document]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False\n"


def die(*_):
    os._exit(1)


class TestCache:
    def test_images_are_decoded_once_and_shared_by_equal_content(self, photos, tmp_path, monkeypatch):
        first = photos.source().load(24, tmp_path / "cache")
        shutil.copytree(photos.folder, tmp_path / "elsewhere")
        monkeypatch.setattr(image_cache, "decode_images", lambda *_: pytest.fail("decoded again"))
        again = Photos(tmp_path / "elsewhere").source().load(24, tmp_path / "cache")
        np.testing.assert_array_equal(first.train.images, again.train.images)
        assert isinstance(again.train.images, np.memmap)

    def test_another_size_is_another_file(self, photos, tmp_path):
        photos.source().load(24, tmp_path / "cache")
        assert photos.source().load(16, tmp_path / "cache").train.images.shape == (12, 16, 16, 3)

    def test_many_images_are_decoded_by_processes_to_the_same_pixels(self, photos, tmp_path):
        rows = [[f"images/{seed % 24}.png", f"caption {seed}"] for seed in range(image_cache.FEW + 10)]
        write_table(photos.folder / "pairs.csv", ["image", "caption"], *rows)
        shared = photos.source(decode_workers=2).load(24, tmp_path / "two").train.images
        alone = photos.source(decode_workers=1).load(24, tmp_path / "one").train.images
        np.testing.assert_array_equal(shared, alone)

    def test_a_decoding_process_that_dies_is_reported_with_advice(self, photos, tmp_path, monkeypatch):
        monkeypatch.setattr(image_cache, "FEW", 0)
        monkeypatch.setattr(image_cache, "decode_images", die)
        problems = problems_of(photos.source(decode_workers=2).load, 24, tmp_path / "cache")
        assert "a process died" in problems[0]
        assert "decode_workers" in problems[0]
        assert not list((tmp_path / "cache").iterdir())


class TestMistakes:
    def test_a_file_that_is_missing_or_not_utf_8_is_named(self, photos, tmp_path):
        (photos.folder / "labels.csv").write_bytes("image,label\nä.png,0".encode("latin-1"))
        source = photos.source(pairs=tmp_path / "no.csv", classes=str(tmp_path / "no.txt"))
        problems = problems_of(source.content_key)
        assert [str(name) in text for name, text in zip(("no.txt", "labels.csv"), problems[1:], strict=True)]
        assert "no.csv: there is no such file" in problems[0]
        assert "UTF-8" in problems[2]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is empty"),
            ("image,caption\n", "has a header but no rows"),
            ("where\ttitle\na.png\tb\n", "has no column `image`; found: where, title"),
            ("image,notes\na.png,b\n", "has no column `caption`; found: image, notes"),
            ("URL,TEXT\nhttps://a.org/b.png,c\n", "img2dataset"),
            ("image,caption,caption\nimages/0.png,a,b\n", "has 2 columns `caption`; leave one, or rename"),
            ("image,caption\nimages/0.png,\n", "row 2: caption must not be empty"),
            ("image,caption\n\nimages/0.png,a cat, sitting\n", "row 3: has 3 cells where the header has 2"),
            ("image,caption\nimages/0.png\n", "row 2: has 1 cells where the header has 2"),
            ('image,caption\nimages/0.png,"never closed\nimages/1.png,x\n', "row 2: is not valid CSV"),
            ("image,caption\nimages/0.png,fine\n\nimages/77.png,gone\n", "row 4: no such image"),
            ("image,caption\nimages,a folder\n", "row 2: no such image"),
            ("image,caption\n" + "x" * 5000 + ",too long a name\n", "row 2: no such image"),
        ],
    )
    def test_a_spoilt_list_of_pairs_is_explained(self, photos, text, message):
        (photos.folder / "pairs.csv").write_text(text)
        assert any(message in problem for problem in problems_of(photos.source().content_key))

    @pytest.mark.parametrize(
        ("label", "message"),
        [
            ("3", "row 2: class index out of range; 3 classes are 0 to 2 (given: 3)"),
            ("-1", "row 2: class index out of range"),
            ("brid", "row 2: unknown class (given: 'brid')\n    → did you mean `bird`?"),
            ("1.0", "row 2: unknown class (given: '1.0')"),
            ("", "row 2: label must not be empty"),
        ],
    )
    def test_a_label_that_means_nothing_is_explained(self, photos, label, message):
        rows = [["images/12.png", label], ["images/13.png", 1], ["images/14.png", 2]]
        write_table(photos.folder / "labels.csv", ["image", "label"], *rows)
        assert any(message in problem for problem in problems_of(photos.source().content_key))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is empty"),
            ("cat\n\ndog\nbird\n", "line 2: is empty"),
            ("cat\ndog\ncat\n", "line 3: `cat` is already the class of line 1"),
            ("polar bear\ndog\nPolar  Bear\n", "line 3: `Polar  Bear` is already the class of line 1, written 'polar"),
            ("caf\u00e9\ndog\ncafe\u0301\n", "line 1, written 'caf\\xe9': nobody could tell them apart"),
            ("1\n2\n3\n", "line 1: `1` as the name of class 0 could be taken for an index"),
        ],
    )
    def test_a_spoilt_list_of_classes_is_explained(self, photos, text, message):
        (photos.folder / "classes.txt").write_text(text)
        assert any(message in problem for problem in problems_of(photos.source().class_names))

    def test_digits_may_be_their_own_names(self, photos):
        (photos.folder / "classes.txt").write_text("0\n1\n2\n")
        assert photos.source().class_names() == ("0", "1", "2")

    def test_a_name_that_imagenet_has_twice_needs_the_index(self, photos):
        rows = [["images/12.png", "missile"], ["images/13.png", "goldfish"], ["images/14.png", "744"]]
        write_table(photos.folder / "labels.csv", ["image", "label"], *rows)
        (problem,) = problems_of(photos.source(classes="imagenet").content_key)
        assert "row 2: several classes have this name" in problem

    @pytest.mark.parametrize("prompt", ["a photo", "{} and {}", "a {name}", "a {}}"])
    def test_a_prompt_needs_one_place_for_the_class(self, photos, prompt):
        prompts = photos.folder / "prompts.txt"
        prompts.write_text(f"a {{}}\n{prompt}\n")
        (problem,) = problems_of(photos.source(templates=str(prompts)).content_key)
        assert "prompts.txt: line 2" in problem

    def test_a_split_without_images_is_refused(self, photos):
        write_table(photos.folder / "labels.csv", ["image", "label"], ["images/12.png", 0])
        assert "0 for the test" in problems_of(photos.source().content_key)[0]

    def test_all_mistakes_of_all_files_are_reported_at_once(self, photos):
        (photos.folder / "classes.txt").write_text("cat\ncat\ndog\n")
        (photos.folder / "images/2.png").unlink()
        (photos.folder / "images/15.png").unlink()
        problems = problems_of(photos.source(templates="nowhere.txt").load, 24, photos.folder / "cache")
        for part in ("pairs.csv: row 4", "classes.txt: line 2", "nowhere.txt", "labels.csv: row 5"):
            assert any(part in problem for problem in problems), part

    def test_every_missing_image_is_a_problem(self, photos):
        rows = [[f"gone/{row}.png", "x"] for row in range(33)]
        write_table(photos.folder / "pairs.csv", ["image", "caption"], *rows)
        problems = problems_of(photos.source().content_key)
        assert len(problems) == 33
        assert "row 34: no such image" in problems[-1]


class TestDamagedImages:
    def test_each_is_named_with_its_row_and_nothing_half_written_stays(self, photos, tmp_path):
        whole = (photos.folder / "images/4.png").read_bytes()
        (photos.folder / "images/4.png").write_bytes(whole[: len(whole) // 2])
        (photos.folder / "images/20.png").write_text("not an image")
        problems = problems_of(photos.source().load, 24, tmp_path / "cache")
        assert any("pairs.csv: row 6" in text and "4.png cannot be decoded" in text for text in problems)
        assert any("labels.csv: row 10" in text and "20.png cannot be decoded" in text for text in problems)
        kept = list((tmp_path / "cache").iterdir())
        assert len(kept) == 1, "only the split without damaged images is kept"

    def test_once_repaired_the_data_set_loads(self, photos, tmp_path):
        (photos.folder / "images/4.png").write_bytes(photo(4)[:100])
        problems_of(photos.source().load, 24, tmp_path / "cache")
        (photos.folder / "images/4.png").write_bytes(photo(4))
        images = photos.source().load(24, tmp_path / "cache").train.images
        np.testing.assert_array_equal(images[4], decode_image(photo(4), 24))

    def test_the_processes_report_them_too(self, photos, tmp_path):
        (photos.folder / "images/4.png").write_bytes(photo(4)[:100])
        rows = [[f"images/{seed % 12}.png", "x"] for seed in range(image_cache.FEW)]
        write_table(photos.folder / "pairs.csv", ["image", "caption"], *rows)
        problems = problems_of(photos.source(decode_workers=2).load, 24, tmp_path / "cache")
        assert len(problems) == 21


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="pairz"):
        CsvFiles.model_validate({"pairz": "x", "labels": "x", "classes": "imagenet"})


def test_drafts_are_other_content_and_have_images_of_their_own(photos, tmp_path):
    for seed in range(24):
        (photos.folder / f"images/{seed}.png").write_bytes(photo(seed, (400, 300), "JPEG"))
    exact, draft = photos.source(), photos.source(jpeg="draft")
    assert exact.content_key() != draft.content_key()
    assert "jpeg" not in exact.as_json()
    one, other = (source.load(24, tmp_path / "cache") for source in (exact, draft))
    assert not np.array_equal(one.train.images, other.train.images)
    np.testing.assert_array_equal(other.val.images.shape, one.val.images.shape)
    (tmp_path / "a.jpg").write_bytes(photo(0, (400, 300), "JPEG"))
    np.testing.assert_array_equal(other.train.images[0], decode_image(tmp_path / "a.jpg", 24, draft=True))
