"""The tokens of many captions by the batch: kept in as few bytes as hold them, int64 where they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ubt.data.content.tokens import Tokens, small


class TokenSource(Protocol):
    """Tokens of N captions: all that training and embedding need of them. A tensor `[N, L]` int64 is one."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, rows: Any, /) -> Tensor:  # noqa: ANN401 — what tensors may be indexed with
        """Return the tokens `[B, L]` int64 of some."""


class TokenRows:
    """Tokens of N captions in their own small type, usually mapped from a file that all workers of a node share.

    Each answer is a tensor of its own: what is done with it does not change them. No attribute names the file.
    """

    __slots__ = ("_kept",)

    def __init__(self, kept: Tokens) -> None:
        """Hand out `kept[N, L]`."""
        self._kept = kept

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, rows: Any, /) -> Tensor:  # noqa: ANN401 — as of a tensor
        """Return the tokens `[B, L]` int64 at `rows`: integers `[B]`, a mask `[N]` or a slice; of one row `[L]`."""
        wanted = rows.cpu().numpy() if isinstance(rows, Tensor) else rows
        return torch.from_numpy(self._kept[wanted].astype(np.int64))

    def with_changed(self, rows: Sequence[int], tokens: Tensor) -> TokenRows:
        """Return them with those at `rows[C]` replaced by `tokens[C, L]` int64, in the same memory if they fit in.

        What these were is then to be used no more. Of a mapped file only the pages that hold them become this
        process's own.
        """
        new = small(tokens.numpy())
        kept = self._kept.astype(np.promote_types(self._kept.dtype, new.dtype), copy=False)
        kept[list(rows)] = new
        return TokenRows(kept)


class ChosenTokens:
    """The tokens of some captions, numbered from 0: a view, so they stay where they are."""

    def __init__(self, whole: TokenSource, chosen: NDArray[np.int64]) -> None:
        """Hand out those at `chosen[S]` of `whole`."""
        self._whole, self._chosen = whole, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, rows: Any, /) -> Tensor:  # noqa: ANN401 — as of a tensor
        """Return the tokens `[B, L]` int64 at `rows`, which count the chosen captions."""
        return self._whole[self._chosen[rows.cpu().numpy() if isinstance(rows, Tensor) else rows]]


def small_tokens(captions: Sequence[str], tokenize: Callable[[Sequence[str]], Tensor]) -> TokenRows:
    """Return the tokens of N captions that are kept in no file, in the smallest type that holds them."""
    return TokenRows(small(tokenize(captions).numpy()))
