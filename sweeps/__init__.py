"""Sweeps of UBT: studies, search, the scheduler that shares stages, Ray Tune, tracking, and the `ubt` command.

What programs may use is named here; nothing heavy is imported before it is called for:

    import sweeps

    study = sweeps.load_study("demo", ["seeds=[0, 1]"])
    print(sweeps.plan_study(study, workers=8).wall_seconds)
    end = sweeps.sweep(study, "runs")
    sweeps.export(end.run.path, "cleaned.safetensors")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.detached.launch import launch
    from sweeps.planning.plan import plan_study
    from sweeps.replaying.compute import replay
    from sweeps.run.export import export
    from sweeps.run.launch import sweep
    from sweeps.study.loading import load_study

__all__ = ["export", "launch", "load_study", "plan_study", "replay", "sweep"]

_MODULES = {
    "export": "sweeps.run.export",
    "launch": "sweeps.detached.launch",
    "load_study": "sweeps.study.loading",
    "plan_study": "sweeps.planning.plan",
    "replay": "sweeps.replaying.compute",
    "sweep": "sweeps.run.launch",
}


def __getattr__(name: str) -> object:
    """Import a function of `__all__` when it is first asked for: `sweep` needs pandas, and Ray when it runs."""
    if name not in _MODULES:
        raise AttributeError(f"module `sweeps` has no attribute `{name}`; it has {', '.join(__all__)}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
