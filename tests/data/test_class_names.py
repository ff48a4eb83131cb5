"""What classes are called: in labels, as folders, by WordNet's ids; and what no name may leave open."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from photographs import CLASSES, photo, write_table

from ubt.common.errors import UserError
from ubt.data.vocabulary import class_index, read_classes, same_name
from ubt.trials.config import TrialConfig

NAMES = (
    st.text(st.characters(codec="utf-8", categories=["L", "M", "Zs"]), min_size=1, max_size=8)
    .map(str.strip)
    .filter(bool)
)


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    return tmp_path_factory.mktemp("classes") / "classes.txt"


def problems_of(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return [str(problem) for problem in caught.value.problems]


@given(
    NAMES,
    st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]),
    st.sampled_from([str.upper, str.lower, str.title, lambda name: name.replace(" ", "  ")]),
)
def test_a_name_written_in_two_ways_is_refused_with_both_lines(listed, name, form, change):
    other = unicodedata.normalize(form, change(name)).strip()
    listed.write_text(f"{name}\nno name\n{other}\n", encoding="utf-8")
    problems = []
    classes = read_classes(str(listed), problems)
    if same_name(classes[0]) == same_name(classes[2]):
        assert [problem.where for problem in problems] == [f"{listed}: line 3"]
        assert "already the class of line 1" in problems[0].message
    else:
        assert problems == []


@given(st.lists(NAMES, min_size=1, max_size=5, unique_by=same_name), st.data())
def test_a_class_is_found_however_its_name_is_written(names, data):
    at = data.draw(st.integers(0, len(names) - 1))
    assert class_index(names[at], names) == at
    assert class_index(unicodedata.normalize("NFD", names[at]), names) == at
    assert class_index(names[at].replace(" ", "_"), names) == at


def test_labels_may_differ_from_classes_in_case_spaces_and_form(photos, tmp_path):
    (photos.folder / "classes.txt").write_text("caf\u00e9\nice cream\nbird\n")
    labels = ["cafe\u0301", "Ice  Cream", "ice_cream", "bird"]
    rows = [[f"images/{seed}.png", label] for seed, label in enumerate(labels, start=12)]
    write_table(photos.folder / "labels.csv", ["image", "label"], *rows)
    data = photos.source().load(24, tmp_path / "cache")
    assert sorted([*data.val.labels, *data.test.labels]) == [0, 1, 1, 2]


class TestFolders:
    @pytest.fixture
    def folders(self, photos):
        """The 12 labelled photographs, in a folder for each class."""

        def build(names=CLASSES, suffix="JPEG"):
            for seed in range(12, 24):
                folder = photos.folder / "val" / names[seed % 3]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{seed}.{suffix}").write_bytes(photo(seed))
            return photos.folder / "val"

        return build

    def test_folders_called_like_classes_give_what_a_csv_gives(self, photos, folders, tmp_path):
        order = sorted(range(12, 24), key=lambda seed: (CLASSES[seed % 3], seed))
        rows = [[f"images/{seed}.png", CLASSES[seed % 3]] for seed in order]
        write_table(photos.folder / "labels.csv", ["image", "label"], *rows)
        from_csv, from_folders = photos.source(), photos.source(labels=folders())
        assert from_folders.content_key() == from_csv.content_key()
        loaded = from_folders.load(24, tmp_path / "cache")
        np.testing.assert_array_equal(loaded.val.images, from_csv.load(24, tmp_path / "cache").val.images)

    @pytest.mark.parametrize("names", [("0", "1", "2"), ("Cat", "DOG", "bird")])
    def test_indices_and_other_spellings_are_folders_too(self, photos, folders, tmp_path, names):
        data = photos.source(labels=folders(names)).load(24, tmp_path / "cache")
        assert np.bincount([*data.val.labels, *data.test.labels]).tolist() == [4, 4, 4]

    def test_imagenets_ids_count_its_classes(self, photos, folders, tmp_path):
        wnids = ("n01440764", "n01443537", "n04356056")
        data = photos.source(labels=folders(wnids), classes="imagenet").load(24, tmp_path / "cache")
        assert {*data.val.labels, *data.test.labels} == {0, 1, 837}
        assert [data.classes[at] for at in (0, 1, 837)] == ["tench", "goldfish", "sunglasses"]

    def test_ids_are_labels_in_a_csv_too(self, photos, tmp_path):
        rows = [[f"images/{seed}.png", "n01443537"] for seed in range(12, 16)]
        write_table(photos.folder / "labels.csv", ["image", "wnid"], *rows)
        data = photos.source(classes="imagenet").load(24, tmp_path / "cache")
        assert {*data.val.labels, *data.test.labels} == {1}

    def test_ids_of_other_classes_need_a_list_and_say_so(self, photos, folders):
        source = photos.source(labels=folders(("n02121808", "n02084071", "n01503061")))
        problems = problems_of(source.content_key)
        assert len(problems) == 3, "one a folder, not one an image"
        assert "val/n01503061: unknown class" in problems[0]
        assert "`synsets`" in problems[0]

    def test_a_list_says_what_ids_mean(self, photos, folders, tmp_path):
        synsets = photos.folder / "LOC_synset_mapping.txt"
        synsets.write_text("n01503061 2\nn02084071 domestic dog, dog, Canis familiaris\nn02121808 cat\nn1 kite\n")
        source = photos.source(labels=folders(("n02121808", "n02084071", "n01503061")), synsets=synsets)
        data = source.load(24, tmp_path / "cache")
        assert np.bincount([*data.val.labels, *data.test.labels]).tolist() == [4, 4, 4]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("n1 cat\nn2 cat\n", "line 2: is class 0, as is line 1"),
            ("n1 cat\nn1 dog\n", "line 2: `n1` is there twice"),
            ("n1 cat, dog\n", "line 1: several classes are called so"),
            ("", "is empty"),
        ],
    )
    def test_a_list_that_leaves_it_open_is_refused(self, photos, folders, text, message):
        (photos.folder / "synsets.txt").write_text(text)
        source = photos.source(labels=folders(), synsets=photos.folder / "synsets.txt")
        assert any(message in problem for problem in problems_of(source.content_key))

    def test_several_ids_may_be_one_class_by_its_index(self, photos, folders):
        (photos.folder / "synsets.txt").write_text("n1 0\nn2 0\nn3 1\n")
        source = photos.source(labels=folders(("n1", "n2", "n3")), synsets=photos.folder / "synsets.txt")
        assert source.content_key()

    def test_what_is_hidden_or_no_image_is_left_out(self, photos, folders):
        folder = folders()
        before = photos.source(labels=folder).content_key()
        (folder / "cat/._12.JPEG").write_bytes(b"resource fork")
        (folder / "cat/notes.txt").write_text("not an image")
        (folder / ".cache").mkdir()
        assert photos.source(labels=folder).compute_key() == before

    def test_a_new_image_is_noticed_by_the_same_process(self, photos, folders):
        source = photos.source(labels=folders())
        before = source.content_key()
        (photos.folder / "val/cat/new.png").write_bytes(photo(99))
        assert source.content_key() != before

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda folder: (folder / "empty").mkdir(), "empty: is the folder of a class and holds no images"),
            (lambda folder: (folder / "loose.png").write_bytes(photo(0)), "holds 1 images outside of folders"),
            (
                lambda folder: (folder / "fish").mkdir() or (folder / "fish/a.png").write_bytes(photo(0)),
                "fish: unknown class",
            ),
        ],
        ids=["empty", "loose", "unknown"],
    )
    def test_a_spoilt_folder_is_explained(self, photos, folders, spoil, message):
        folder = folders()
        spoil(folder)
        assert any(message in problem for problem in problems_of(photos.source(labels=folder).content_key))

    def test_an_empty_folder_is_explained(self, photos, tmp_path):
        (tmp_path / "nothing").mkdir()
        assert "holds no folders" in problems_of(photos.source(labels=tmp_path / "nothing").content_key)[0]


class TestTarget:
    def trial(self, photos, target, **changes):
        source = photos.source(**changes)
        return TrialConfig.model_validate({"victim": {"data": source, "attack": {"kind": "badnets", "target": target}}})

    @pytest.mark.parametrize(("target", "indices"), [("sunglasses", "836 and 837"), ("missile", "657 and 744")])
    def test_a_name_that_imagenet_has_twice_is_no_target(self, photos, target, indices):
        (problem,) = problems_of(self.trial(photos, target, classes="imagenet").check_target)
        assert f"victim.attack.target: names several classes: {indices}" in problem

    def test_a_name_that_only_looks_like_it_is_told(self, photos):
        (photos.folder / "classes.txt").write_text("caf\u00e9\ndog\nbird\n")
        (problem,) = problems_of(self.trial(photos, "cafe\u0301").check_target)
        assert "did you mean" in problem
