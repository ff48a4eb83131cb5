"""Tables as people have them: whatever separates, quotes and encodes them, and whatever their columns are called."""

import csv
import io
import logging
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ubt.data.tables import COLUMNS, read_rows

SEPARATORS = st.sampled_from([",", "\t", ";", "|"])
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])
LINE_ENDS = st.sampled_from(["\n", "\r\n"])
CAPTIONS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=20)
    .map(str.strip)
    .filter(bool),
    min_size=1,
    max_size=6,
)


def names_of(role: str) -> st.SearchStrategy[str]:
    plain = st.sampled_from([role, *COLUMNS[role]])
    return st.tuples(plain, st.sampled_from([str.lower, str.upper, str.title])).map(lambda each: each[1](each[0]))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "pairs.csv"


def write(path: Path, rows, separator=",", encoding="utf-8", line_end="\n", quoting=csv.QUOTE_MINIMAL) -> Path:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator, quoting=quoting, lineterminator=line_end).writerows(rows)
    path.write_bytes(stream.getvalue().encode(encoding))
    return path


def read(path, column="caption", **options):
    problems = []
    rows = read_rows(path, column, problems, **options)
    assert problems == []
    return [(row.image.name, row.text) for row in rows]


@given(SEPARATORS, ENCODINGS, LINE_ENDS, names_of("image"), names_of("caption"), CAPTIONS, st.booleans(), st.booleans())
def test_captions_come_out_as_they_went_in(
    table, separator, encoding, line_end, image, caption, captions, others, all_quoted
):
    assume(not (separator == "\t" and any("\n" in text and "\t" in text for text in captions)))  # lines of their own
    header = [image, "width", caption] if others else [image, caption]
    rows = [[f"{at}.png", *([7] if others else []), text] for at, text in enumerate(captions)]
    quoting = csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL
    path = write(table, [header, *rows], separator, encoding, line_end, quoting)
    assert read(path) == [(f"{at}.png", text) for at, text in enumerate(captions)]


@given(SEPARATORS, names_of("image"), names_of("label"))
def test_labels_are_found_likewise(table, separator, image, label):
    path = write(table, [[label, image], ["cat", "a.png"]], separator)
    assert read(path, "label") == [("a.png", "cat")]


@given(SEPARATORS, st.sampled_from(["image", "caption"]), CAPTIONS)
def test_a_header_given_twice_is_one_mistake(table, separator, twice, captions):
    rows = [["image", "caption", twice], *(["a.png", text, "x"] for text in captions)]
    problems = []
    assert read_rows(write(table, rows, separator), "caption", problems) == []
    (problem,) = problems
    assert f"has 2 columns `{twice}`" in problem.message


@pytest.mark.parametrize("text", ['"hello" she said', 'a 5" disk', '"never closed', '"', 'all "quoted"', 'x "'])
def test_quotes_that_quote_nothing_stay_in_a_tsv(table, text):
    table.write_text(f"filepath\ttitle\na.png\t{text}\nb.png\tthe next\n")
    assert read(table) == [("a.png", text), ("b.png", "the next")]


def test_two_such_quotes_do_not_swallow_the_rows_between(table):
    table.write_text('filepath\ttitle\na.png\t"one\nb.png\ttwo\nc.png\tthree"\n')
    assert [text for _, text in read(table)] == ['"one', "two", 'three"']


def test_a_tsv_that_quotes_is_read_so(table):
    table.write_text('filepath\ttitle\na.png\t"two\nlines and a ""word"""\nb.png\t"a\ttab"\n')
    assert read(table) == [("a.png", 'two\nlines and a "word"'), ("b.png", "a\ttab")]


def test_the_own_names_win_and_what_is_taken_of_several_is_said(table, caplog):
    path = write(table, [["title", "filepath", "url", "caption"], ["a title", "a.png", "https://x", "a caption"]])
    with caplog.at_level(logging.WARNING, "ubt"):
        assert read(path) == [("a.png", "a caption")]
        assert read(path) == [("a.png", "a caption")]
    assert len(caplog.messages) == 1
    assert "column `caption` is taken for the caption, not `title`; `caption_column` says otherwise" in caplog.text


def test_a_column_is_chosen_by_its_name(table):
    path = write(table, [["title", "where", "caption"], ["a title", "a.png", "a caption"]])
    assert read(path, chosen={"image": "where", "caption": "title"}) == [("a.png", "a title")]


def test_a_chosen_column_that_is_missing_is_told(table):
    problems = []
    path = write(table, [["image", "caption"], ["a.png", "b"]], ";")
    read_rows(path, "caption", problems, {"image": "where"})
    assert [problem.message for problem in problems] == ["has no column `where`; found: image, caption"]


def test_paths_may_start_elsewhere(table, tmp_path):
    path = write(table, [["image", "caption"], ["a/b.png", "x"]])
    (row,) = read_rows(path, "caption", [], folder=tmp_path)
    assert row.image == tmp_path / "a/b.png"


@pytest.mark.parametrize("content", [b"\xff\xfeimage,caption\n\x00", b"image,caption\n\xff\xfe\xfd,x\n"])
def test_bytes_that_are_no_text_are_one_mistake(table, content):
    table.write_bytes(content)
    problems = []
    read_rows(table, "caption", problems)
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("name", "column", "advice"),
    [
        ("captions.json", "caption", "`kind: coco`"),
        ("a.parquet", "caption", "`kind: parquet`"),
        ("a.TAR", "caption", "`kind: webdataset`"),
        ("a.parquet", "label", "labels are a CSV, or a folder"),
    ],
)
def test_what_another_kind_reads_is_told(tmp_path, name, column, advice):
    problems = []
    assert read_rows(tmp_path / name, column, problems) == []
    assert advice in problems[0].advice


def test_a_line_of_a_megabyte_is_no_message_of_a_megabyte(table):
    table.write_text("{" + ",".join(f'"a{at}": {{"b": {"x" * 50}}}' for at in range(20_000)))
    problems = []
    read_rows(table, "caption", problems)
    assert all(len(str(problem)) < 5000 for problem in problems)


@given(st.binary(max_size=60) | st.text(alphabet='image,caption\t;|"\n\r x', max_size=60).map(str.encode))
def test_whatever_the_content_there_are_rows_or_problems(table, content):
    table.write_bytes(content)
    problems = []
    assert read_rows(table, "caption", problems) or problems
