"""From trial records to tables, the front, the choice, figures and the report.

Reads run folders and, for figures of pairs, the artifacts that the run left in its store: neither torch, ray nor mlflow
is needed, or loaded; optuna is where knobs are weighed.

Example:
    >>> import analysis
    >>> run = analysis.load_run("runs/demo")  # doctest: +SKIP
    >>> run.configurations.nsmallest(3, "val_asr")  # doctest: +SKIP
    >>> run.figure("front")  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ubt.lazy import lazily

if TYPE_CHECKING:
    from analysis.paper import write_figures
    from analysis.report import Report, write_report
    from analysis.run import Run, load_run
    from analysis.side_by_side import ComparedRuns, compare_runs
    from analysis.summary import Summary

__all__ = ["ComparedRuns", "Report", "Run", "Summary", "compare_runs", "load_run", "write_figures", "write_report"]

_MODULES = {
    "ComparedRuns": "analysis.side_by_side",
    "Report": "analysis.report",
    "Run": "analysis.run",
    "Summary": "analysis.summary",
    "compare_runs": "analysis.side_by_side",
    "load_run": "analysis.run",
    "write_figures": "analysis.paper",
    "write_report": "analysis.report",
}

__getattr__ = lazily(__name__, _MODULES)


def __dir__() -> list[str]:
    return __all__
