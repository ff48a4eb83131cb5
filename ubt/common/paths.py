"""Where things lie: paths as users write them, and the folder for what can be computed again."""

from __future__ import annotations

import os
from pathlib import Path

from ubt.common.errors import Problem, UserError


def expanded(path: str | Path, where: str) -> Path:
    """Return a path with the home folder in the place of `~`; `where` says which setting it is.

    Raises:
        UserError: if there is no such home folder (`~nobody/store`).
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        advice = "write the path out, beginning with /"
        raise UserError(Problem(where, "begins with a home folder that does not exist", str(path), advice)) from error


def cache_root() -> Path:
    """Return the folder for what can be computed again, absolute: `$UBT_CACHE`, else `~/.cache/ubt`."""
    return expanded(os.environ.get("UBT_CACHE") or "~/.cache/ubt", "$UBT_CACHE").absolute()
