"""The wheel, installed alone into a new environment, runs the smallest study from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str | Path, **options: object) -> str:
    ended = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)
    assert ended.returncode == 0, f"{words}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}"
    return ended.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A virtual environment with the wheel and what the lock file pins for it, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist", cwd=ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")
    uv = (sys.executable, "-m", "uv")
    run(*uv, "venv", "--quiet", "--python", sys.executable, folder / "venv")
    python, lock = folder / "venv" / "bin" / "python", ROOT / "requirements.lock"
    run(*uv, "pip", "install", "--quiet", "--python", python, "--constraint", lock, wheel)
    return folder / "venv"


def test_the_smallest_study_runs_from_any_folder(environment, tmp_path):
    ours = {"PYTHONPATH", "UBT_STORE", "UBT_CACHE", "PYTHONDONTWRITEBYTECODE"}  # workers read what the sweep compiled
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    printed = run(
        environment / "bin" / "ubt",
        "sweep",
        "smoke",
        "--set",
        "search.n_trials=1",
        cwd=tmp_path,
        env={**clean, "HOME": str(tmp_path)},
    )
    assert "smoke: 1 DONE" in printed
    assert (tmp_path / "runs" / "smoke" / "report" / "index.html").is_file()
