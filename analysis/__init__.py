"""From trial records to tables, the front, the choice, figures and the report.

Reads run folders and, for figures of pairs, the artifacts that the run left in its store: neither torch, ray, mlflow
nor optuna is needed, or loaded.
"""

from analysis.findings import Findings, find
from analysis.report import Report, write_report
from analysis.run import Run, load_run
from analysis.summary import Summary, summarise
from analysis.tables import trials_table

__all__ = [
    "Findings",
    "Report",
    "Run",
    "Summary",
    "find",
    "load_run",
    "summarise",
    "trials_table",
    "write_report",
]
