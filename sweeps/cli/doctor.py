"""`ubt doctor`: is everything there, and does it work?"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ubt.artifacts.store import ArtifactStore, default_store
from ubt.common.errors import UserError

PACKAGES = ("ray", "torch", "torchvision", "open_clip_torch", "optuna", "mlflow", "pandas")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    well: bool
    text: str


def diagnose(store: str | None) -> list[Finding]:
    """Look at each thing in turn; what does not work becomes a finding, not an error."""
    checks: tuple[Callable[[], Finding], ...] = (
        _python,
        _packages,
        _devices,
        _ray,
        _mlflow,
        lambda: _store(store or default_store()),
    )
    return [check() for check in checks]


def _python() -> Finding:
    return Finding("python", True, f"{platform.python_version()} on {platform.platform()}")


def _packages() -> Finding:
    try:
        return Finding("packages", True, ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    except PackageNotFoundError as error:
        return Finding("packages", False, f"{error.name} is not installed; run `make install`")


def _devices() -> Finding:
    try:
        import open_clip  # noqa: F401, PLC0415 — the import is the check: it needs a torchvision that fits torch
        import torch  # noqa: PLC0415
    except (ImportError, RuntimeError) as error:
        advice = "install torch and torchvision from the same registry: `make install`"
        return Finding("torch", False, f"torch and open_clip cannot be loaded ({error}); {advice}")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Finding(
        "torch",
        True,
        f"{', '.join(gpus) or 'no GPU: trials run on the CPU'}; {torch.get_num_threads()} CPU threads",
    )


def _ray() -> Finding:
    from sweeps.backends.connection import start_ray, stop_ray  # noqa: PLC0415
    from sweeps.study.config import Resources  # noqa: PLC0415

    try:
        concurrent = start_ray("local", Resources())
    except UserError as error:
        return Finding("ray", False, error.problems[0].message)
    stop_ray()
    return Finding("ray", True, f"starts; {concurrent} trials at a time on this machine")


def _mlflow() -> Finding:
    from sweeps.tracking import Tracker, TrackingSettings  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        tracker = Tracker(TrackingSettings(), Path(folder) / "run", "doctor", {})
        tracker.started()
        waiting = tracker.close()
    return Finding(
        "mlflow", not waiting, "cannot write a database" if waiting else "a database can be made and written"
    )


def _store(store: str) -> Finding:
    try:
        ArtifactStore(store).check_writable()
    except UserError as error:
        return Finding("store", False, str(error))
    return Finding("store", True, f"{store} can be written")
