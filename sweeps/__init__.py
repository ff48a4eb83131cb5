"""Sweeps of UBT: studies, search, the scheduler that shares stages, Ray Tune, tracking, and the `ubt` command.

What programs may use is named here; nothing heavy is imported before it is called for:

    import sweeps

    study = sweeps.load_study("demo", ["seeds=[0, 1]"])
    print(sweeps.plan_study(study, workers=8).wall_seconds)
    end = sweeps.sweep(study, "runs")
    sweeps.export(end.run.path, "cleaned.safetensors")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ubt.lazy import lazily

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

__getattr__ = lazily(__name__, _MODULES)


def __dir__() -> list[str]:
    return __all__
