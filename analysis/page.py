"""Tables of the report's page, cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal

from pydantic import JsonValue

from analysis.findings import Findings
from analysis.formatting import (
    changes_text,
    percent,
    setting_text,
    short_names,
)
from analysis.points.configurations import Estimate, Outcome
from analysis.records import RunRecords
from analysis.summary import FAILED_BY
from analysis.tables import Item, as_scalar, setting
from ubt.common.formatting import duration
from ubt.trials.rates import Rates
from ubt.trials.record import State, TrialRecord

MOST_KNOBS = 8
"""At most this many searched settings have a column each; more share one."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table on the page. Nothing in it is HTML yet."""

    text: str
    order: float | str = ""
    """What the column is sorted by; an empty string sorts last."""
    remark: str = ""
    tag: str = ""
    """A word that is set off, as `chosen`."""


@dataclass(frozen=True)
class PageColumn(Generic[Item]):
    """One column of a table on the page."""

    title: str
    cell: Callable[[Item], Cell]
    kind: Literal["text", "name", "number"] = "text"
    hint: str = ""
    """The full name, where the title is short."""


@dataclass(frozen=True)
class PageTable:
    """A table ready for the template."""

    caption: str
    columns: tuple[PageColumn[Any], ...]
    rows: tuple[tuple[Cell, ...], ...]


def trial_table(findings: Findings) -> PageTable:
    """Return every trial with its searched settings, rates and times."""
    run = findings.run
    before: tuple[PageColumn[TrialRecord], ...] = (
        PageColumn("#", lambda record: Cell(str(record.number), record.number), kind="number", hint="number"),
        PageColumn("trial", lambda record: _name(record, findings), kind="name"),
        PageColumn("state", lambda record: Cell(record.state.lower(), record.state)),
    )
    after: tuple[PageColumn[TrialRecord], ...] = (
        PageColumn("val ASR", lambda record: _rate(record.val, "asr"), kind="number"),
        PageColumn("val CA", lambda record: _rate(record.val, "ca"), kind="number"),
        PageColumn("test ASR", lambda record: _rate(record.test, "asr"), kind="number"),
        PageColumn("test CA", lambda record: _rate(record.test, "ca"), kind="number"),
        PageColumn("time", lambda record: Cell(duration(record.seconds), record.seconds), kind="number"),
        PageColumn("reused", _reused, kind="number", hint="stages found in the store, of all"),
    )
    if len({record.seed for record in run.records}) > 1:
        before += (PageColumn("seed", lambda record: Cell(str(record.seed), record.seed), kind="number"),)
    return table_of("All trials", (*before, *_knobs(run), *after), run.records)


NAMED = 5
"""At most this many trials that ended by the same reason are named."""


@dataclass(frozen=True)
class Reason:
    """Trials that failed or were pruned by the same reason."""

    said: str
    reason: str
    trials: tuple[str, ...]
    more: int
    """How many others there are."""


def unfinished(findings: Findings) -> tuple[TrialRecord, ...]:
    """Return the trials that failed or were pruned."""
    return tuple(record for record in findings.run.records if record.state in {State.FAILED, State.PRUNED})


def reasons(findings: Findings) -> tuple[Reason, ...]:
    """Return why trials failed or were pruned, each reason once, in the order of their first trials."""
    groups: dict[tuple[str, str], list[str]] = {}
    for record in unfinished(findings):
        by = f" by {FAILED_BY[record.failed_by]}" if record.failed_by else ""
        again = f" after {len(record.attempts)} attempts" if len(record.attempts) > 1 else ""
        groups.setdefault((f"{record.state.lower()}{by}{again}", record.reason), []).append(record.trial)
    return tuple(
        Reason(said, reason, tuple(trials[:NAMED]), max(0, len(trials) - NAMED))
        for (said, reason), trials in groups.items()
    )


def table_of(caption: str, columns: tuple[PageColumn[Item], ...], items: Sequence[Item]) -> PageTable:
    """Return a table with a row for each item."""
    cells = tuple(tuple(column.cell(item) for column in columns) for item in items)
    return PageTable(caption, columns, cells)


def _name(record: TrialRecord, findings: Findings) -> Cell:
    return Cell(record.trial, record.trial, tag=findings.roles.get(record.trial, ""))


def changes_cell(changes: Mapping[str, JsonValue], run: RunRecords) -> Cell:
    """Return what a configuration changes of the base."""
    text = ", ".join(changes_text(changes, run.setting_names))
    return Cell(text, text)


def _knobs(run: RunRecords) -> tuple[PageColumn[TrialRecord], ...]:
    """Return a column for each searched setting; one for all of them if there are many, or if none was searched."""
    names = short_names(run.space)
    if not 0 < len(names) <= MOST_KNOBS:
        return (PageColumn("changes to the base", lambda record: changes_cell(record.changes, run)),)
    return tuple(_setting(run, path, title) for path, title in names.items())


def _setting(run: RunRecords, path: str, title: str) -> PageColumn[TrialRecord]:
    def cell(record: TrialRecord) -> Cell:
        value = setting(record, path)
        order = as_scalar(value)
        return Cell(setting_text(value), "" if order is None else order)

    words = any(isinstance(as_scalar(setting(record, path)), str) for record in run.records)
    return PageColumn(title, cell, kind="text" if words else "number", hint=path)


def estimate_cell(outcome: Outcome | None, rate: str) -> Cell:
    """Return a rate with its interval."""
    estimate: Estimate | None = getattr(outcome, rate, None)
    return Cell(percent(estimate.mean), estimate.mean, estimate.interval) if estimate else Cell("–")


def _rate(rates: Rates | None, field: str) -> Cell:
    rate: float | None = getattr(rates, field, None)
    return Cell("–") if rate is None else Cell(percent(rate), rate)


def _reused(record: TrialRecord) -> Cell:
    reused = sum(stage.reused for stage in record.stages)
    return Cell(f"{reused}/{len(record.stages)}", reused)
