"""Tokens of captions, worked out once a machine and mapped from disk: half a million captions take as many seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from mmap import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ubt.common.atomic_files import made_once
from ubt.common.hashing import digest_bytes, fingerprint

FEW = 4096
"""Captions that take less than a second are not kept."""
_AT_A_TIME = 8192

Tokens = NDArray[np.unsignedinteger | np.signedinteger]


def kept_tokens(
    captions: Sequence[str], tokenize: Callable[[Sequence[str]], NDArray[np.int64]], tokenizer: str, cache: Path
) -> Tokens:
    """Return the tokens of N captions, `[N, L]`, mapped from a file below `cache`: uint16 if they fit.

    What is written to them stays in this process. Nothing about them names the file.

    Args:
        captions: what is tokenised where there is no file.
        tokenize: returns `[B, L]` of some of them.
        tokenizer: what equal captions' tokens depend on beside them.
        cache: made by one process while others that want the same wait.

    Raises:
        OSError: if the file cannot be written.
    """
    content = digest_bytes(*(caption.encode(errors="surrogatepass") + b"\0" for caption in captions))
    path = cache / f"captions-{fingerprint([content, tokenizer])}.npy"

    def make(unfinished: Path) -> None:
        parts = (tokenize(captions[at : at + _AT_A_TIME]) for at in range(0, len(captions), _AT_A_TIME))
        tokens = np.concatenate([small(part) for part in parts])
        with unfinished.open("wb") as stream:
            np.save(stream, tokens, allow_pickle=False)

    made_once(path, make)
    mapped: np.memmap = np.load(path, mmap_mode="c", allow_pickle=False)
    plain: Tokens = np.frombuffer(_memory(mapped), mapped.dtype, mapped.size, mapped.offset).reshape(mapped.shape)
    return plain


def _memory(mapped: np.memmap) -> mmap:
    """Return what an array is mapped with, from the beginning of its file: unlike the array, it has no name."""
    memory: mmap = mapped._mmap  # type: ignore[attr-defined]  # private: there is no public way
    return memory


def small(tokens: NDArray[np.int64]) -> Tokens:
    """Return tokens `[N, L]` in the smallest type that holds them; of parts, the larger type holds the whole."""
    if tokens.size and (tokens.min() < 0 or tokens.max() > np.iinfo(np.int32).max):
        return tokens
    return tokens.astype(np.int32 if tokens.size and tokens.max() > np.iinfo(np.uint16).max else np.uint16)
