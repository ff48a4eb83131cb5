"""How durations, sizes and tables read as text."""

import pytest

from ubt.common.formatting import describe, duration, size, text_table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (3600 * 1234, "1,234 h 00 min"),
    ],
)
def test_durations_are_in_the_units_that_suit_them(seconds, text):
    assert duration(seconds) == text


def test_changes_read_by_the_last_part_of_their_path_and_parts_by_their_kind():
    changes = {"defense.detector": {"kind": "knn", "neighbours": 16}, "defense.ratio": 0.1, "a.b": {"kind": "gain"}}
    assert describe(changes) == "detector=knn (neighbours 16), ratio=0.1, b=gain"
    assert describe({}) == "base"


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (16_200, "16.2 kB")]
)
def test_sizes_are_in_decimal_units(size_bytes, text):
    assert size(size_bytes) == text


def test_a_table_is_as_wide_as_it_needs_and_takes_names_as_they_are():
    long = "x" * 300
    text = text_table({"name": "left", "n": "right"}, [("[red]a[/red]", "1"), (long, "1,000")])
    heading, *rows = text.splitlines()
    assert heading.split() == ["name", "n"]
    assert [row.split() for row in rows] == [["[red]a[/red]", "1"], [long, "1,000"]]
    assert len({len(line) for line in (heading, *rows)}) == 1, "the last column is aligned to the right"
