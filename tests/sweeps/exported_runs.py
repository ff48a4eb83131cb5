"""Run folders of the tiny trial, to export from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ubt.common.atomic_files import write_whole
from ubt.testing import TINY
from ubt.trials.record import TrialRecord, write_record


def run_folder(folder: Path, store: Path, *records: TrialRecord, ca_floor: float = 1.0, **parts: Any) -> Path:
    """Return a run folder of the tiny study with these records."""
    study = {"name": "tiny", **TINY, "store": str(store), "objectives": {"ca_floor": ca_floor}, **parts}
    write_whole(folder / "study.json", json.dumps(study))
    for record in records:
        write_record(folder / "records", record)
    return folder
