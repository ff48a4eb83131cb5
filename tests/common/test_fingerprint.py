import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubt.common.hashing import digest_bytes, digest_file, fingerprint

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


def turned_round(value):
    """Return the same JSON value with the keys of every object in reverse order."""
    if isinstance(value, dict):
        return {key: turned_round(value[key]) for key in reversed(value)}
    return [turned_round(item) for item in value] if isinstance(value, list) else value


@given(JSON)
def test_the_order_of_keys_does_not_matter(value):
    assert fingerprint(value) == fingerprint(turned_round(value))


def test_the_fingerprint_is_a_sha_256_of_canonical_json():
    assert (
        fingerprint({"b": [1.5, None], "a": "ä"}) == hashlib.sha256(b'{"a":"\\u00e4","b":[1.5,null]}').hexdigest()[:32]
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        (1, True),
        (0, False),
        (None, "null"),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({}, []),
        ({"a": None}, {}),
        (0.1, 0.1 + 1e-16 * 2),
    ],
)
def test_different_values_have_different_fingerprints(one, other):
    assert one is not other
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_no_form_for_are_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        fingerprint({"a": [value]})


def test_the_digest_of_bytes_is_sha_256():
    # FIPS 180-2, appendix B.1
    assert digest_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (2 << 20) + 5])
def test_a_file_has_the_digest_of_its_bytes_wherever_its_blocks_end(tmp_path, size):
    payload = bytes(range(256)) * (size // 256 + 1)
    path = tmp_path / "file"
    path.write_bytes(payload[:size])
    assert digest_file(path) == digest_bytes(payload[:size])
