"""Which commit the code is at, as records say it."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

_CODE = (":/ubt", ":/sweeps", ":/analysis")


def commit_of_code(folder: Path = Path(__file__).parent) -> str:
    """Return the commit that the code in a folder is at, with a `+` if it was changed; "" if nothing says it.

    A node of a cluster may have a part of the checkout: what is missing beside the code is no change. A container has
    none, and says it by `$UBT_COMMIT`.
    """
    git = partial(subprocess.run, cwd=folder, capture_output=True, text=True, check=True)
    try:
        head = git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        changed = git(["git", "status", "--porcelain", "--untracked-files=no", "--", *_CODE]).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("UBT_COMMIT", "")
    return head + ("+" if changed else "")
