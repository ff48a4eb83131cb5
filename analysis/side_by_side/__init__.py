"""Several runs in one report: their fronts and choices, hypervolume against device time, effects, and what differs."""

from analysis.side_by_side.compared import ComparedRuns, compare_runs

__all__ = ["ComparedRuns", "compare_runs"]
