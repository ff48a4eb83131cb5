"""Looking at and reading many files at once: on network file systems that is mostly waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_THREADS = 16
_BATCH = 64  # a future for each file would cost ten times what looking at the file does


def in_threads(function: Callable[[Path], Result], paths: Sequence[Path]) -> Iterator[Result]:
    """Yield `function(path)` for each path in order; what it raises is raised here."""

    def batch_results(start: int) -> list[Result]:
        return [function(path) for path in paths[start : start + _BATCH]]

    with ThreadPoolExecutor(_THREADS) as threads:
        for results in threads.map(batch_results, range(0, len(paths), _BATCH)):
            yield from results
