"""Names of a package that are imported when they are first asked for: torch, pandas and plotly take seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module


def lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Return a package's `__getattr__`, by the module that each of its names is in."""

    def attribute(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module `{package}` has no attribute `{name}`; it has {', '.join(sorted(homes))}")
        return getattr(import_module(homes[name]), name)

    return attribute
