"""Which of given pairs are poisoned: lists in every form that is read, found again among the data's pairs."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ubt.common.errors import UserError
from ubt.data.base import Pairs
from ubt.engine.given_poison import Located, located
from ubt.trials.poison import GivenPoison

COUNT = 12
CAPTIONS = [f"caption, {row}" for row in range(COUNT)]
FILES = [f"{'backdoor' if row % 4 == 1 else 'plain'}/{row // 4}/img_{row % 4}_{row}.png" for row in range(COUNT)]


def pairs(files: bool = True, count: int = COUNT) -> Pairs:
    images = np.zeros((count, 2, 2, 3), dtype=np.uint8)
    return Pairs(images, CAPTIONS[:count], FILES[:count] if files else None)


def found(path: Path, text: str, files: bool = True) -> Located:
    path.write_text(text, encoding="utf-8")
    listed = located(GivenPoison(manifest=path), pairs(files))
    assert listed is not None
    return listed


def refused(path: Path, text: str, files: bool = True) -> str:
    with pytest.raises(UserError) as caught:
        found(path, text, files)
    return str(caught.value)


def written(rows: list[int], form: str, by: str, flagged: bool) -> str:
    """Return a list of the poisoned `rows` in one of the forms that are read."""
    every = range(COUNT) if flagged else rows
    said = {"index": lambda row: row, "image": lambda row: FILES[row]}[by]
    if form == "json":
        return json.dumps([said(row) for row in rows])
    if form == "lines":
        return "".join(f"{said(row)}\n" for row in rows)
    separator = {"csv": ",", "tsv": "\t", "semicolons": ";"}[form]
    header = separator.join([by, "is_backdoor"][: 1 + flagged])
    lines = [separator.join([str(said(row)), str(int(row in rows))][: 1 + flagged]) for row in every]
    return "\n".join([header, *lines])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.sets(st.integers(0, COUNT - 1), min_size=1, max_size=COUNT - 1),
    st.sampled_from(["json", "lines", "csv", "tsv", "semicolons"]),
    st.sampled_from(["index", "image"]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_a_list_is_read_in_every_form(
    tmp_path: Path, rows: set[int], form: str, by: str, flagged: bool, random: random.Random
) -> None:
    order = list(rows)
    random.shuffle(order)
    flagged = flagged and form not in {"json", "lines"}
    assert found(tmp_path / "list", written(order, form, by, flagged)).indices.tolist() == sorted(rows)


def test_a_flag_for_every_pair_needs_neither_row_nor_image(tmp_path: Path) -> None:
    text = "caption,is_backdoor\n" + "".join(f'"{CAPTIONS[row]}",{row in (2, 5)}\n' for row in range(COUNT))
    assert found(tmp_path / "list.csv", text, files=False).indices.tolist() == [2, 5]
    assert "lists some of 11 pairs, and the data has 12" in refused(
        tmp_path / "list.csv", text.rsplit("\n", 2)[0] + "\n", files=False
    )


@pytest.mark.parametrize("name", ["img_1_5.png", "1/img_1_5.png", "/data/mine/backdoor/1/img_1_5.png"])
def test_as_much_of_a_path_is_said_as_is_needed(tmp_path: Path, name: str) -> None:
    assert found(tmp_path / "list.json", json.dumps([name])).indices.tolist() == [5]


def test_an_image_of_several_pairs_is_poisoned_in_all_of_them() -> None:
    twice = Pairs(np.zeros((3, 2, 2, 3), dtype=np.uint8), ["a", "b", "c"], ["x.png", "y.png", "x.png"])
    listed = located(GivenPoison(image_pattern="x*"), twice)
    assert listed is not None
    assert listed.indices.tolist() == [0, 2]


def test_an_image_with_several_captions_is_poisoned_where_the_caption_is_the_listed_one(tmp_path: Path) -> None:
    of_coco = Pairs(np.zeros((4, 2, 2, 3), dtype=np.uint8), ["a", "b", "c", "a"], ["x.png", "x.png", "y.png", "x.png"])
    for text, expected in (("image,caption\nx.png,b", [1]), ("index,image,caption\n3,x.png,a", [3])):
        (tmp_path / "list.csv").write_text(text)
        listed = located(GivenPoison(manifest=tmp_path / "list.csv"), of_coco)
        assert listed is not None
        assert listed.indices.tolist() == expected


def test_an_image_that_was_left_out_as_broken_may_be_listed(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps([FILES[1], "broken.png"]))
    skipping = replace(pairs(), skipped=1)
    listed = located(GivenPoison(manifest=tmp_path / "list.json"), skipping)
    assert listed is not None
    assert listed.indices.tolist() == [1]
    (tmp_path / "list.json").write_text(json.dumps([FILES[1], "broken.png", "another.png"]))
    with pytest.raises(UserError, match="entry 2: is the image of no pair"):
        located(GivenPoison(manifest=tmp_path / "list.json"), skipping)


def test_images_are_told_apart_by_what_they_are_called() -> None:
    listed = located(GivenPoison(image_pattern="*backdoor*"), pairs())
    assert listed is not None
    assert listed.indices.tolist() == [1, 5, 9]
    assert located(GivenPoison(), pairs()) is None


@pytest.mark.parametrize(
    ("pattern", "files", "message"),
    [
        ("*troj*", True, r"no image is called so; the first is plain/0/img_0_0.png"),
        ("*.png", True, r"says that all 12 pairs are poisoned"),
        ("*", False, r"the data's images are no files with names"),
    ],
)
def test_a_pattern_that_tells_nothing_apart_is_refused(pattern: str, files: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        located(GivenPoison(image_pattern=pattern), pairs(files))


@pytest.mark.parametrize(
    ("text", "files", "message"),
    [
        ("[12]", True, "entry 0: is no row of the data; its 12 pairs are 0 to 11"),
        ('["a.png"]', True, "entry 0: is the image of no pair of the data"),
        ('["a.png"]', False, "the data's images are no files with names"),
        ("[true]", True, "is neither a row from 0 nor an image file"),
        ("[-1]", True, "is neither a row from 0 nor an image file"),
        ("[]", True, "lists no poisoned pair"),
        ("", True, "lists no poisoned pair"),
        ("{}", True, "is no list of poisoned pairs: study: Field required"),
        ("[" * 5000, True, "is no list of poisoned pairs"),
        ("index,is_backdoor\n3,maybe", True, "row 2: says neither 1 nor 0 whether the pair is poisoned"),
        ("index,is_backdoor\n3", True, "row 2: has 1 cells where the header has 2"),
        ("index\n-3", True, "row 2: the row of a pair is a whole number from 0"),
        ("index\n" + "9" * 5000, True, "row 2: the row of a pair is a whole number from 0"),
        ('image\n"' + "a" * 200_000 + '"', True, "is no valid CSV: field larger than field limit"),
        ("url,label\na,b", True, "has no column `index` or `image`; found: url, label"),
        ("index,caption\n3,a boat", True, "row 2: the caption differs from that of the data's pair 3: 'caption, 3'"),
        ("index\n" + "\n".join(map(str, range(COUNT))), True, "says that all 12 pairs are poisoned"),
    ],
)
def test_a_list_of_other_pairs_is_refused(tmp_path: Path, text: str, files: bool, message: str) -> None:
    assert message in refused(tmp_path / "list", text, files)


def test_a_name_that_several_images_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('["x.png"]')
    several = Pairs(np.zeros((2, 2, 2, 3), dtype=np.uint8), ["a", "b"], ["1/x.png", "2/x.png"])
    with pytest.raises(UserError, match="2 images are called so; say more of the path"):
        located(GivenPoison(manifest=tmp_path / "list.json"), several)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="cannot be read"):
        located(GivenPoison(manifest=tmp_path / "list.json"), pairs())


def manifest(rows: list[int], **fields: Any) -> str:
    listed = [{"index": row, "image": FILES[row], "caption": CAPTIONS[row], "original_caption": "x"} for row in rows]
    described = {"study": "s", "seed": 0, "attack": {"kind": "badnets"}, "image_size_px": 2, "pairs": COUNT}
    return json.dumps({**described, "poisoned": listed, "decoys": [], **fields})


def test_the_manifest_of_ubt_poison_is_read(tmp_path: Path) -> None:
    text = manifest([7, 3], decoys=[4])
    for files in (True, False):
        listed = found(tmp_path / "manifest.json", text, files)
        assert (listed.indices.tolist(), listed.decoys.tolist()) == ([3, 7], [4])
    assert "decoys: is no row of the data" in refused(tmp_path / "manifest.json", manifest([7], decoys=[12]))
    assert "lists some of 13 pairs" in refused(tmp_path / "manifest.json", manifest([7], pairs=13), files=False)


def test_images_say_more_than_rows(tmp_path: Path) -> None:
    """Where some pairs were skipped, rows are counted otherwise; the images are the same."""
    (tmp_path / "manifest.json").write_text(manifest([7, 3]))
    without_the_first = Pairs(np.zeros((COUNT - 1, 2, 2, 3), dtype=np.uint8), CAPTIONS[1:], FILES[1:])
    listed = located(GivenPoison(manifest=tmp_path / "manifest.json"), without_the_first)
    assert listed is not None
    assert listed.indices.tolist() == [2, 6]


def test_a_learnt_trigger_that_was_exchanged_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trigger.png").write_bytes(b"another")
    text = manifest([7], trigger="trigger.png", trigger_sha256="0" * 64)
    assert "another picture than that was written" in refused(tmp_path / "manifest.json", text)
    assert "the learnt trigger cannot be read" in refused(
        tmp_path / "manifest.json", manifest([7], trigger="none.png", trigger_sha256="0" * 64)
    )
