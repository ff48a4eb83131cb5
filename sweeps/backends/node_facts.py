"""What a node says of itself: the function that runs on each, in a worker of its own or before a worker's first trial.

It is sent by value, because the package may be missing there. So it stands alone: only the standard library is
imported at the top, and it returns plain values. What they mean is judged elsewhere (`sweeps.backends.fitness`).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ubt.artifacts.store import ArtifactStore

Facts = dict[str, Any]
"""Part → what was found; `failed` has a part that raised, and why."""

_GPU_SECONDS = 90.0
_COUNT_GPUS = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
_STORE_TRIES, _STORE_PAUSE_SECONDS = 3, 1.0


def look(asked: dict[str, Any]) -> Facts:
    """Return the facts of this node. Nothing that is wrong here raises, and what follows from it is not looked at."""
    found: Facts = {"python": python_version(), "executable": sys.executable, "versions": versions(asked["versions"])}
    parts = {
        "imports": _imports,
        "code": _code,
        "plugins": _plugins,
        "store": _store,
        "gpus": _gpus,
        "driver": _driver,
        "disk": _disk,
        "content": _content,
    }
    same = found["python"] == asked["python"] and found["versions"] == asked["versions"]
    for name, part in parts.items() if same else ():
        try:
            found[name] = part(asked)
        except Exception as error:  # noqa: BLE001 — any error is a fact about this node
            own = type(error).__module__.startswith("ubt.")
            found["failed"] = [name, str(error) if own else f"{type(error).__name__}: {error}"]
        if "failed" in found or (name == "imports" and found[name]):
            break
    return {**found, "clock": time.time()}


def python_version() -> str:
    """Return Python's version as far as byte code and results depend on it: 3.11."""
    return ".".join(platform.python_version_tuple()[:2])


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return what is installed; empty for what is not.

    Without the build that follows a `+`: one release is built for CPUs and for GPUs.
    """
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def _imports(asked: dict[str, Any]) -> list[str]:
    """Return the first module that cannot be imported, and why; nothing if all can be."""
    for module in asked["modules"]:
        try:
            import_module(module)
        except (Exception, SystemExit) as error:  # noqa: BLE001 — a broken library may raise anything on import
            return [module, f"{type(error).__name__}: {error}"]
    return []


def code_of(packages: Iterable[str]) -> dict[str, str]:
    """Return a digest over the sources of each package."""
    from ubt.common.registry import origin_of  # noqa: PLC0415

    return {package: origin_of(import_module(package).__name__).source for package in packages}


def _code(asked: dict[str, Any]) -> dict[str, str]:
    return code_of(asked["code"])


def _plugins(asked: dict[str, Any]) -> None:
    from ubt.common.registry import load_plugins  # noqa: PLC0415

    load_plugins(asked["plugins"])


def _store(asked: dict[str, Any]) -> bool:
    """Return whether the note that the sweep wrote is in the store as it is seen here, and leave one in answer."""
    from ubt.artifacts.store import ArtifactStore  # noqa: PLC0415

    store = ArtifactStore(asked["store"])
    if asked["answer"]:
        store.write_note(asked["answer"])
    shared = sees(store, asked["token"])
    if asked["answer"] and not shared:  # no other process would ever find it there
        store.remove_note(asked["answer"])
    return shared


def sees(store: ArtifactStore, note: str) -> bool:
    """Return whether a note is in a store; a network folder may show what is new a little later."""
    for _ in range(_STORE_TRIES - 1):
        if store.has_note(note):
            return True
        time.sleep(_STORE_PAUSE_SECONDS)
    return store.has_note(note)


def _gpus(asked: dict[str, Any]) -> int | None:
    """Return how many GPUs torch sees on this node; None if trials need none.

    In a process of its own: this one was given none by Ray, and would keep memory of those that it looked at.
    """
    if not asked["gpus"]:
        return None
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    counting = [sys.executable, "-c", _COUNT_GPUS]
    counted = subprocess.run(
        counting, check=False, capture_output=True, text=True, env=environment, timeout=_GPU_SECONDS
    )
    if counted.returncode:
        raise RuntimeError(counted.stderr.strip().splitlines()[-1:] or f"status {counted.returncode}")
    return int(counted.stdout)


def _driver(asked: dict[str, Any]) -> str:
    """Return what this node's NVIDIA driver means for its torch, which sees no GPU; empty if trials need none."""
    if not asked["gpus"]:
        return ""
    import torch  # noqa: PLC0415 — imported above already, to see whether it can be

    from ubt.common import nvidia  # noqa: PLC0415

    return nvidia.fit(nvidia.driver_version(), nvidia.Torch(torch.__version__, torch.version.cuda)).text


def _disk(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the folder for decoded images, the bytes that are still to be written there, and those that are free."""
    from ubt.artifacts.store import local_cache  # noqa: PLC0415

    folder = local_cache(asked["store"])
    if not asked["images"]:
        return {"folder": str(folder), "needed": 0, "free": 0}
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(size for name, size in asked["images"].items() if not (folder / name).exists())
    return {"folder": str(folder), "needed": needed, "free": shutil.disk_usage(folder).free}


def _content(asked: dict[str, Any]) -> str:
    """Return what a trial would read here that is not what the study has; nothing if all is.

    Reads all files the first time, and remembers.
    """
    from ubt.engine.same_content import differs  # noqa: PLC0415
    from ubt.trials.assignment import Assignment  # noqa: PLC0415

    return next(filter(None, (differs(Assignment.model_validate(trial)) for trial in asked["trials"])), "")
