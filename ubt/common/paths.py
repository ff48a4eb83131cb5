"""Paths as users write them, the cache folder, and what the files of a run folder are called."""

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


def is_file(path: Path) -> bool:
    """Return whether there is a file at a path; False too for what no path can be, as a name of 300 letters."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Return whether there is a folder at a path; False too for what no path can be."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def cache_root() -> Path:
    """Return the folder for what can be computed again, absolute: `$UBT_CACHE`, else `~/.cache/ubt`."""
    return expanded(os.environ.get("UBT_CACHE") or "~/.cache/ubt", "$UBT_CACHE").absolute()


STUDY_FILE = "study.json"
"""The study as it was resolved."""
RECORDS_FOLDER = "records"
"""One JSON document a trial (`ubt.trials.record`)."""
REPORT_FOLDER = "report"
"""The report: a page, tables and the summary."""
FIGURES_FOLDER = "figures"
"""Figures for papers, PNG and PDF."""
