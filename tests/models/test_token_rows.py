"""Tokens by the batch: int64 where they are used, as few bytes as hold them where they are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ubt.data.content.tokens import kept_tokens
from ubt.models.tokens import ChosenTokens, TokenRows, small_tokens

WHOLE = torch.arange(24).view(6, 4)
CHOICES = [
    torch.tensor([4, 0, 4]),
    np.array([5, -1, 2]),
    torch.tensor([True, False] * 3),
    slice(1, 4),
    slice(None),
    3,
    torch.zeros(0, dtype=torch.int64),
]


@pytest.mark.parametrize("rows", CHOICES)
def test_they_are_taken_as_those_of_a_tensor_are(rows: object) -> None:
    found = small_tokens(["a"] * 6, lambda _: WHOLE)[rows]
    assert found.dtype == torch.int64
    assert torch.equal(found, WHOLE[rows])  # type: ignore[index]


@pytest.mark.parametrize("rows", [torch.tensor([1, 0]), np.array([2]), slice(1, 3)])
def test_chosen_ones_are_numbered_from_0(rows: object) -> None:
    chosen = np.array([5, 1, 3])
    some = ChosenTokens(TokenRows(WHOLE.numpy()), chosen)
    assert len(some) == 3
    assert torch.equal(some[rows], WHOLE[chosen][rows])  # type: ignore[index]


def test_what_is_done_with_an_answer_changes_no_other() -> None:
    tokens = small_tokens(["a"] * 6, lambda _: WHOLE)
    tokens[:].zero_()
    assert torch.equal(tokens[:], WHOLE)


@pytest.mark.parametrize(("largest", "dtype"), [(65_535, np.uint16), (65_536, np.int32), (2**40, np.int64)])
def test_changed_ones_take_a_larger_type_only_if_they_need_it(tmp_path: Path, largest: int, dtype: type) -> None:
    kept = kept_tokens(["a"] * 6, lambda some: WHOLE[: len(some)].numpy(), "", tmp_path)
    new = torch.tensor([[largest, 0, 1, 2]])
    changed = TokenRows(kept).with_changed([2], new)
    expected = WHOLE.clone()
    expected[2] = new
    assert torch.equal(changed[:], expected)
    assert changed._kept.dtype == dtype
