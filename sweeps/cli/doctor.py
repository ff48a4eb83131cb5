"""`ubt doctor`: is everything there, and does it work?"""

from __future__ import annotations

import os
import platform
import tempfile
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sweeps.backends.connection import INLINE, LOCAL
from sweeps.backends.nodes import Nodes
from sweeps.study.config import StudyConfig
from ubt.artifacts.store import ArtifactStore, default_store
from ubt.common import nvidia
from ubt.common.atomic_files import write_whole
from ubt.common.errors import UserError
from ubt.common.paths import STUDY_FILE

PACKAGES = ("ray", "torch", "torchvision", "open_clip_torch", "optuna", "mlflow", "pandas")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    well: bool
    text: str
    nodes: tuple[dict[str, str], ...] = ()
    """What is wrong with nodes of a cluster: `node`, `what`, `advice`."""


def diagnose(store: str | None, address: str = LOCAL, study: StudyConfig | None = None) -> list[Finding]:
    """Look at each thing in turn; what does not work becomes a finding, not an error.

    Of a cluster's nodes, each is asked; for a study also whether they have its data, plug-ins and files.
    """
    where = store or (study.store if study else None) or default_store()
    checks: tuple[Callable[[], Finding], ...] = (
        _python,
        _packages,
        _devices,
        _driver,
        _ray if address in (LOCAL, INLINE) else lambda: _cluster(address, where, study),
        _mlflow,
        lambda: _store(where),
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


def _driver() -> Finding:
    """Look whether the NVIDIA driver runs what is installed."""
    driver = nvidia.driver_version()
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Finding("driver", True, f"{driver or 'none'}; CUDA_VISIBLE_DEVICES hides all GPUs")
    try:
        import torch  # noqa: PLC0415
    except (ImportError, RuntimeError):
        return Finding("driver", True, f"{driver or 'none'}; what it runs, torch would have to say")
    with warnings.catch_warnings(action="ignore"):  # torch's own, which say less
        usable = torch.cuda.is_available()
    gpus = range(torch.cuda.device_count()) if usable else ()
    found = nvidia.Torch(
        torch.__version__,
        torch.version.cuda,
        usable,
        torch.cuda.get_arch_list() if usable else (),
        [(torch.cuda.get_device_name(gpu), torch.cuda.get_device_capability(gpu)) for gpu in gpus],
    )
    fit = nvidia.fit(driver, found)
    return Finding("driver", fit.well, fit.text)


def _ray() -> Finding:
    from sweeps.backends.connection import start_ray  # noqa: PLC0415
    from sweeps.backends.lifetime import stop_ray  # noqa: PLC0415
    from sweeps.study.config import Resources  # noqa: PLC0415

    try:
        concurrent = start_ray("local", Resources())
    except UserError as error:
        return Finding("ray", False, error.problems[0].message)
    stop_ray()
    return Finding("ray", True, f"starts; {concurrent} trials at a time on this machine")


def _cluster(address: str, store: str, study: StudyConfig | None) -> Finding:
    from sweeps.backends.connection import check_address, start_ray  # noqa: PLC0415
    from sweeps.backends.fitness import Expected  # noqa: PLC0415
    from sweeps.backends.lifetime import stop_ray  # noqa: PLC0415
    from sweeps.backends.node_tasks import RayCluster  # noqa: PLC0415
    from sweeps.run.preflight import decode_on_a_node, expected_of, prepare  # noqa: PLC0415
    from sweeps.study.config import Resources  # noqa: PLC0415

    resources = study.resources if study else Resources()
    try:
        check_address(address)
        start_ray(address, resources)
        try:
            images = prepare(study, store, decode_on_a_node if "://" in store else None) if study else {}
            cluster = RayCluster()
            gpus = any(node.resources.get("GPU") for node in cluster.nodes())
            expected = expected_of(study, store, images) if study else Expected(store, gpus=gpus)
            with closing(Nodes(expected, resources, cluster)) as nodes:
                nodes.ask()
                return _of_nodes(nodes, f"the data, plug-ins and files of {study.name}" if study else "")
        finally:
            stop_ray()
    except UserError as error:
        return Finding("nodes", False, "; ".join(map(str, error.problems)))


def _of_nodes(nodes: Nodes, more: str) -> Finding:
    if nodes.findings:
        wrong = tuple({"node": p.where, "what": p.message, "advice": p.advice} for p in nodes.problems())
        return Finding("nodes", False, nodes.table(nodes.findings), wrong)
    if not nodes.count:
        return Finding("nodes", False, "the cluster has no node that a trial fits on")
    alike = ", ".join(filter(None, ("the same Python, packages, code", more, "and the store")))
    which = "the node is well" if nodes.count == 1 else f"all {nodes.count} nodes are well"
    return Finding("nodes", True, f"{which}: {alike}")


def _mlflow() -> Finding:
    from sweeps.tracking import Tracker, TrackingSettings  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "doctor"
        write_whole(run / STUDY_FILE, "{}")
        tracker = Tracker(TrackingSettings(), run)
        tracker.finished(complete=True)
        left = tracker.close()
    lacks = f"cannot write a database: {left.reason or 'it takes too long'}"
    return Finding("mlflow", not left.runs, lacks if left.runs else "a database can be made and written")


def _store(store: str) -> Finding:
    try:
        ArtifactStore(store).check_writable()
    except UserError as error:
        return Finding("store", False, str(error))
    return Finding("store", True, f"{store} can be written")
