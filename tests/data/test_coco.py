import json

import numpy as np
import pytest
from photographs import photo

from ubt.common.errors import UserError
from ubt.data.coco import CocoCaptions
from ubt.testing import check_data_source


def problems_of(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture
def coco(photos):
    """Three images with two captions each, as COCO writes them."""
    images = [{"id": 100 + seed, "file_name": f"{seed}.png", "height": 1, "license": 3} for seed in range(3)]
    annotations = [
        {"id": at, "image_id": 100 + seed, "caption": f"caption {at}, of {seed}\n"}
        for at, seed in enumerate([2, 0, 1, 0, 2, 1])
    ]
    content = {"info": {}, "images": images, "annotations": annotations}
    path = photos.folder / "captions.json"

    def build(change=lambda content: content, **settings):
        path.write_text(json.dumps(change(content)))
        own = {"pairs": path, "images": photos.folder / "images", **photos.settings}
        return CocoCaptions.model_validate({**own, **settings})

    return build


def test_it_keeps_the_contract(coco):
    check_data_source(coco())


def test_every_caption_is_a_pair_with_its_image(coco, tmp_path):
    data = coco().load(24, tmp_path / "cache")
    assert list(data.train.captions) == [f"caption {at}, of {seed}" for at, seed in enumerate([2, 0, 1, 0, 2, 1])]
    for image, seed in zip(data.train.images, [2, 0, 1, 0, 2, 1], strict=True):
        np.testing.assert_array_equal(image, np.asarray(data.train.images[[2, 0, 1, 0, 2, 1].index(seed)]))
    assert not np.array_equal(data.train.images[0], data.train.images[1])


def test_the_first_captions_of_each_image_are_used_if_so_many_are_asked_for(coco, tmp_path):
    data = coco(captions_per_image=1).load(24, tmp_path / "cache")
    assert list(data.train.captions) == ["caption 0, of 2", "caption 1, of 0", "caption 2, of 1"]


def test_the_same_pairs_in_a_csv_have_the_same_key(coco, photos):
    rows = "".join(f'images/{seed}.png,"caption {at}, of {seed}"\n' for at, seed in enumerate([2, 0, 1, 0, 2, 1]))
    (photos.folder / "pairs.csv").write_text(f"image,caption\n{rows}")
    assert coco().content_key() == photos.source().content_key()


def test_clean_pairs_may_be_given_likewise(coco, photos, tmp_path):
    source = coco(pretrain=photos.folder / "captions.json")
    assert source.has_pretrain
    assert len(source.load(24, tmp_path / "cache").pretrain) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["images"], "is not of that form: Input should be an object"),
        (lambda content: {"images": []}, "is not of that form: annotations: Field required"),
        (lambda content: {**content, "annotations": []}, "has no captions"),
        (lambda content: {**content, "images": content["images"][:2]}, "annotation 1: is of no image in the file"),
        (lambda content: {**content, "images": content["images"] * 2}, "has 2 images of this id (given: 100)"),
        (lambda content: {**content, "annotations": [{"image_id": 100, "caption": " "}]}, "caption must not be empty"),
    ],
)
def test_a_spoilt_file_is_explained(coco, change, message):
    assert any(message in problem for problem in problems_of(coco(change).content_key))


def test_an_image_that_is_missing_is_named_with_its_annotation(coco, photos):
    (photos.folder / "images/1.png").unlink()
    problems = problems_of(coco().content_key)
    assert [problem.partition(": no such")[0].rpartition("/")[2] for problem in problems] == [
        "captions.json: annotation 3",
        "captions.json: annotation 6",
    ]


def test_no_file_and_no_json_are_explained(coco, photos, tmp_path):
    assert "No such file" in problems_of(coco(pairs=tmp_path / "no.json").content_key)[0]
    source = coco()
    (photos.folder / "captions.json").write_bytes(photo(0))
    assert "it must be a JSON file of COCO's captions" in problems_of(source.content_key)[0]
