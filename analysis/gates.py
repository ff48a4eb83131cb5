"""What the sanity gates between stages found that did not pass, as the report's page shows it."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.findings import Findings
from analysis.formatting import count
from analysis.page import Cell, PageColumn, PageTable, table_of
from ubt.trials.gates import GateOutcome


def gate_table(findings: Findings) -> PageTable:
    """Return what the sanity gates found that did not pass, each finding once."""
    found: dict[GateOutcome, list[str]] = {}
    for record in findings.run.records:
        for gate in record.gates:
            if gate.outcome != "passed":
                found.setdefault(gate, []).append(record.trial)
    columns: tuple[PageColumn[tuple[GateOutcome, list[str]]], ...] = (
        PageColumn("gate", lambda item: Cell(item[0].gate, item[0].gate), kind="name"),
        PageColumn("behind", lambda item: Cell(item[0].stage, item[0].stage), kind="name"),
        PageColumn("outcome", lambda item: Cell(item[0].outcome, item[0].outcome)),
        PageColumn("trials", lambda item: Cell(_trials(item[1]), len(item[1])), hint="how many, or which"),
        PageColumn("measured", lambda item: _number(item[0].measured), kind="number"),
        PageColumn("threshold", lambda item: _number(item[0].threshold), kind="number"),
        PageColumn("knew", lambda item: Cell(item[0].knew, item[0].knew), hint="what it takes to measure it"),
        PageColumn("why", lambda item: Cell(item[0].reason)),
    )
    return table_of("Sanity gates", columns, tuple(found.items()))


def _trials(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else count(len(names), "trial")


def _number(value: float | None) -> Cell:
    return Cell("–") if value is None else Cell(f"{value:.3g}", value)
