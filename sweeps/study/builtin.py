"""The studies that come with the package, by name. Loads nothing, as the help of commands names them."""

from __future__ import annotations

from pathlib import Path


def builtin_studies() -> dict[str, Path]:
    """Return name → file."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "studies").glob("*.yaml"))}
