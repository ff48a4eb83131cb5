"""A toy study and runs of it, begun and not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeps.run.folder import RunFolder, new_run
from sweeps.study.config import StudyConfig

RATIO = "defense.suspicious_ratio"


def study(**fields: Any) -> StudyConfig:
    return StudyConfig.model_validate({"name": "toy", "search": {"design": "grid", "space": {RATIO: [0.1]}}, **fields})


def begin(out: Path, given: StudyConfig | None = None, name: str = "toy") -> RunFolder:
    run = new_run(out, name)
    run.write_study(given or study())
    return run
