"""What a run was planned to take against what it took, stage by stage, as the report's page shows it."""

from __future__ import annotations

from analysis.page import Cell, PageColumn, PageTable, table_of
from analysis.planned import PlannedTimes, StageTimes
from ubt.common.formatting import duration


def cost_table(times: PlannedTimes | None) -> PageTable:
    """Return the comparison stage by stage; no rows without a plan."""
    columns: tuple[PageColumn[tuple[str, StageTimes]], ...] = (
        PageColumn("stage", lambda item: Cell(item[0], item[0]), kind="name"),
        PageColumn(
            "planned", lambda item: _time(item[1].planned), kind="number", hint="for what the store did not have"
        ),
        PageColumn("took", lambda item: _time(item[1].actual), kind="number"),
        PageColumn("factor", lambda item: _factor(item[1]), kind="number"),
    )
    return table_of("Planned against actual", columns, tuple(times.stages.items()) if times else ())


def _time(seconds: float | None) -> Cell:
    return Cell("unknown") if seconds is None else Cell(duration(seconds), seconds)


def _factor(times: StageTimes) -> Cell:
    if not times.planned:
        return Cell("–")
    return Cell(f"{times.actual / times.planned:.2f}", times.actual / times.planned)
