"""What the nodes of a cluster did for a run, as the report's page shows it where more than one took part."""

from __future__ import annotations

from dataclasses import dataclass, field

from analysis.findings import Findings
from analysis.formatting import count
from analysis.page import Cell, PageColumn, PageTable, table_of
from ubt.common.formatting import duration
from ubt.trials.record import State


@dataclass
class _Work:
    """What one node did."""

    ended: int = 0
    done: int = 0
    stages: int = 0
    seconds: float = 0.0
    handed_back: list[str] = field(default_factory=list)
    """Why runs of trials ended there without being an end of the trial."""


def node_table(findings: Findings) -> PageTable:
    """Return what each node did; no rows if there was but one."""
    nodes: dict[str, _Work] = {}
    for record in findings.run.records:
        for attempt in record.attempts[:-1]:
            if attempt.node:
                nodes.setdefault(attempt.node, _Work()).handed_back.append(attempt.ended_by)
        if record.attempts and record.attempts[-1].node:
            last = nodes.setdefault(record.attempts[-1].node, _Work())
            last.ended += record.state.ended
            last.done += record.state is State.DONE
        for stage in record.stages:
            if stage.node and not stage.reused:
                computed = nodes.setdefault(stage.node, _Work())
                computed.stages += 1
                computed.seconds += stage.spent_seconds
    columns: tuple[PageColumn[tuple[str, _Work]], ...] = (
        PageColumn("node", lambda item: Cell(item[0], item[0]), kind="name"),
        PageColumn("trials ended", lambda item: Cell(f"{item[1].ended:,}", item[1].ended), kind="number"),
        PageColumn("done", lambda item: Cell(f"{item[1].done:,}", item[1].done), kind="number"),
        PageColumn("stages computed", lambda item: Cell(f"{item[1].stages:,}", item[1].stages), kind="number"),
        PageColumn("time", lambda item: Cell(duration(item[1].seconds), item[1].seconds), kind="number"),
        PageColumn("handed back", lambda item: _handed_back(item[1]), hint="trials that were run again, and why last"),
    )
    return table_of("Nodes", columns, tuple(sorted(nodes.items())) if len(nodes) > 1 else ())


def _handed_back(work: _Work) -> Cell:
    if not work.handed_back:
        return Cell("–")
    number = len(work.handed_back)
    return Cell(f"{count(number, 'trial')}: {work.handed_back[-1]}", number)
