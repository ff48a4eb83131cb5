import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubt.data.content import tokens
from ubt.data.content.tokens import kept_tokens
from ubt.data.images import KEPT

LARGEST = 2**40


def lengths_of(captions):
    return np.array([[len(caption), ord(caption[0]) if caption else 0] for caption in captions], dtype=np.int64)


@pytest.mark.parametrize(
    ("largest", "dtype"), [(65535, np.uint16), (65536, np.int32), (LARGEST, np.int64), (-1, np.int64)]
)
def test_tokens_are_kept_in_a_type_that_holds_them(tmp_path, monkeypatch, largest, dtype):
    monkeypatch.setattr(tokens, "_AT_A_TIME", 2)
    numbers = iter([[1, 2], [3, 4], [largest, 0]])
    found = kept_tokens("abc", lambda some: np.array([next(numbers) for _ in some], dtype=np.int64), "", tmp_path)
    assert found.dtype == dtype
    assert found.tolist() == [[1, 2], [3, 4], [largest, 0]]


@given(st.lists(st.text(max_size=4), min_size=1, max_size=9))
def test_tokens_are_those_of_each_caption(tmp_path_factory, captions):
    found = kept_tokens(captions, lengths_of, "lengths", tmp_path_factory.mktemp("cache"))
    np.testing.assert_array_equal(found, lengths_of(captions))


def test_tokens_are_worked_out_once_and_mapped(tmp_path):
    kept_tokens(["a", "bc"], lengths_of, "lengths", tmp_path)
    found = kept_tokens(["a", "bc"], lambda _: pytest.fail("again"), "lengths", tmp_path)
    assert not found.flags.owndata
    assert all(KEPT.fullmatch(path.name) for path in tmp_path.iterdir() if path.suffix == ".npy")


def test_what_is_written_to_tokens_stays_with_who_writes_it(tmp_path):
    found, another = (kept_tokens(["a", "bc"], lengths_of, "lengths", tmp_path) for _ in range(2))
    found[0] = 7
    for other in (another, kept_tokens(["a", "bc"], lengths_of, "lengths", tmp_path)):
        np.testing.assert_array_equal(other, lengths_of(["a", "bc"]))


@pytest.mark.parametrize(("captions", "tokenizer"), [(["ab", "c"], "lengths"), (["a", "bc"], "others")])
def test_other_captions_and_other_tokenizers_have_their_own(tmp_path, captions, tokenizer):
    kept_tokens(["a", "bc"], lengths_of, "lengths", tmp_path)
    found = kept_tokens(captions, lambda some: lengths_of(some) + 1, tokenizer, tmp_path)
    np.testing.assert_array_equal(found, lengths_of(captions) + 1)
