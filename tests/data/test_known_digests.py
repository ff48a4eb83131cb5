"""What is remembered of single files: by their stamps, the newest word counting, in a file that others read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubt.common.hashing import digest_bytes, digest_lines, fingerprint, fingerprint_of_list
from ubt.data.digests import KnownDigests, Stamp

PATHS = ["/data/a.jpg", "/data/b.jpg"]


def stamp(number: int) -> Stamp:
    return f"/data/{number}.jpg", number, 7, 8


def digest(number: int) -> str:
    return digest_bytes(str(number).encode())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UBT_CACHE", str(tmp_path))


def test_nothing_is_known_at_first() -> None:
    assert KnownDigests(PATHS).of([stamp(1), stamp(2)]) == ["", ""]
    assert KnownDigests(PATHS).of([]) == []
    assert KnownDigests([]).of([]) == []


def test_what_was_read_is_known_to_others_and_what_was_not_is_not() -> None:
    numbers = range(0, 1000, 3)
    KnownDigests(PATHS).remember({stamp(number): digest(number) for number in numbers})
    found = KnownDigests(PATHS).of([stamp(number) for number in range(1000)])
    assert found == [digest(number) if number in numbers else "" for number in range(1000)]


def test_what_is_said_later_counts_and_the_rest_stays() -> None:
    first, second = KnownDigests(PATHS), KnownDigests(PATHS)
    first.remember({stamp(1): digest(1), stamp(2): digest(2)})
    second.remember({stamp(2): digest(22), stamp(3): digest(3)})
    assert KnownDigests(PATHS).of([stamp(1), stamp(2), stamp(3)]) == [digest(1), digest(22), digest(3)]
    assert second.of([stamp(2)]) == [digest(22)]


def test_a_file_that_is_cut_is_as_none(tmp_path: Path) -> None:
    KnownDigests(PATHS).remember({stamp(1): digest(1)})
    (file,) = (tmp_path / "digests").glob("*.bin")
    file.write_bytes(file.read_bytes()[:-1])
    assert KnownDigests(PATHS).of([stamp(1)]) == [""]


def test_the_file_has_sixteen_bytes_of_the_stamp_and_the_digest(tmp_path: Path) -> None:
    """As it was before this was read into arrays: caches that exist stay good."""
    KnownDigests(PATHS).remember({stamp(1): digest(1)})
    (file,) = (tmp_path / "digests").glob("*.bin")
    assert file.read_bytes() == bytes.fromhex(fingerprint(list(stamp(1)))) + bytes.fromhex(digest(1))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
)


@given(st.lists(VALUES))
def test_the_fingerprint_of_a_list_is_that_of_its_values_one_by_one(values: list) -> None:
    assert fingerprint_of_list(iter(values)) == fingerprint(values)


@given(st.lists(st.text(alphabet="abc é")))
def test_the_digest_of_lines_is_that_of_the_whole_text(texts: list[str]) -> None:
    assert digest_lines(iter(texts)) == digest_bytes("\n".join(texts).encode())
