"""What the report's page shows: its opening, which says the result in words, and its tables, cell by cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal

from pydantic import JsonValue

from analysis.findings import Findings
from analysis.formatting import (
    changes_text,
    count,
    listed,
    movement,
    percent,
    points,
    setting_text,
    short_names,
)
from analysis.points.configurations import Configuration, Estimate, Outcome
from analysis.records import RunRecords
from analysis.summary import Summary, earlier_text, failures_of, failures_text, stopped_of, stopped_text
from analysis.tables import Item, as_scalar, setting
from ubt.common.choice import KNOWS, RuleName
from ubt.common.formatting import duration
from ubt.trials.rates import Rates
from ubt.trials.record import State, TrialRecord

COMPARISON = (
    "Each defense takes part with settings that its own search chose on the validation split; the table is measured "
    "on the test split."
)


NO_ATTACK = (
    "Nothing can be triggered, so there is no attack success rate, and without one neither a front nor a choice. The "
    "table of trials has the clean accuracy of each."
)


@dataclass(frozen=True)
class Change:
    """One rate, of the poisoned model and of the chosen one."""

    name: str
    before: Estimate
    after: Estimate


@dataclass(frozen=True)
class Opening:
    """What the page opens with: the title, how it came about, and the numbers behind it (none without a choice)."""

    title: str
    detail: str
    changes: tuple[Change, ...]
    effort: str


def opening(findings: Findings, summary: Summary) -> Opening:
    """Return the result of a run in words."""
    effort = f"{states_text(findings)} {time_text(summary)}{findings.run.budget_text}"
    if not findings.measured:
        return Opening("No trial is done yet", "The rates of the trials will stand here.", (), effort)
    if findings.run.compared:
        return Opening(findings.run.compared, COMPARISON, (), effort)
    found = compared(findings.chosen)
    if not findings.attacked and findings.run.rule == "lowest_asr":
        return Opening("No attack is known", NO_ATTACK, (), effort)
    if found is None:
        title = "No trial keeps clean accuracy" if findings.run.rule == "lowest_asr" else "No trial qualifies"
        return Opening(title, _no_choice(findings), (), effort)
    split, before, after = found
    changes = [Change("clean accuracy", before.ca, after.ca)]
    if before.asr and after.asr:
        changes.insert(0, Change("attack success rate", before.asr, after.asr))
    moved = ", ".join(
        f"{change.name.removesuffix(' rate')} {movement(change.before.mean, change.after.mean)}" for change in changes
    )
    return Opening(moved[0].upper() + moved[1:], _choice(findings, split), tuple(changes), effort)


def compared(chosen: Configuration | None) -> tuple[str, Outcome, Outcome] | None:
    """Return the split to report (test, if measured), and its rates before and after the defense."""
    if chosen and chosen.poisoned_test and chosen.test:
        return "test", chosen.poisoned_test, chosen.test
    if chosen and chosen.poisoned_val and chosen.val:
        return "validation", chosen.poisoned_val, chosen.val
    return None


def states_text(findings: Findings) -> str:
    """Say how many trials there are, in which states."""
    records = findings.run.records
    states = Counter(record.state for record in records)
    earlier = earlier_text(sum(bool(record.label.epoch_of) for record in records))
    more = {State.FAILED: failures_text(failures_of(records)), State.PRUNED: stopped_text(stopped_of(records))}
    named = {state: f"{state.lower()}{more.get(state, '')}" for state in State}
    if len(states) == 1:
        return f"{count(len(records), 'trial')}{earlier}, {'all ' if records[1:] else ''}{named[records[0].state]}."
    parts = listed(f"{states[state]:,} {named[state]}" for state in State if states[state])
    return f"{count(len(records), 'trial')}{earlier}: {parts}."


def time_text(summary: Summary) -> str:
    """Say what the run took and what sharing stages saved."""
    seconds = summary.seconds
    if summary.stages.computed + summary.stages.reused == 0:
        return "No stage is finished yet."
    if summary.stages.reused == 0:
        return f"The stages took {duration(seconds.computed)} to compute; none was shared."
    whole = seconds.computed + seconds.saved
    share = f", {percent(seconds.saved / whole)} of the work" if whole else ""
    return (
        f"The stages took {duration(seconds.computed)} to compute; sharing "
        f"{summary.stages.reused:,} of {summary.stages.computed + summary.stages.reused:,} saved "
        f"{duration(seconds.saved)}{share}."
    )


def _choice(findings: Findings, split: str) -> str:
    return (
        f"Measured on the {split} split. Chosen on the validation split: {_RULES[findings.run.rule]} that "
        f"keeps clean accuracy within {points(findings.run.ca_floor)} of the poisoned model. The choice knew "
        f"{KNOWS[findings.run.rule]}.{_epochs(findings)}{_otherwise(findings)}"
    )


def _epochs(findings: Findings) -> str:
    """Say that models after every epoch were candidates, where they were, and of which trial the chosen one is."""
    chosen = findings.chosen
    if not findings.run.every_epoch or chosen is None:
        return ""
    said = f" Candidates were all {len(findings.candidates):,} models that were judged after an epoch"
    if chosen.at:
        later = "no trial has judged it on the test split yet, going on with the sweep (--resume) does"
        return f"{said}; {chosen.name} is an earlier epoch: {later}."
    trial, _, epoch = chosen.epoch_of.partition("@")
    return f"{said}; {chosen.name} is {trial} after epoch {epoch}." if epoch else f"{said}."


_RULES: dict[RuleName, str] = {
    "lowest_asr": "the lowest attack success rate",
    "trigger_free": "of those whose selected pairs are no longer alike, the one that loses least",
}


def _otherwise(findings: Findings) -> str:
    """Say what the other rule would have chosen of the same trials; nothing where it has nothing to look at."""
    others = {rule: choice for rule, choice in findings.choices.items() if rule != findings.run.rule}
    return "".join(f" {_RULE_NAMES[rule]} {_of_other(choice, findings)}" for rule, choice in others.items())


_RULE_NAMES: dict[RuleName, str] = {
    "lowest_asr": "By the lowest attack success rate",
    "trigger_free": "Without the trigger",
}


def _of_other(choice: Configuration | None, findings: Findings) -> str:
    if choice is None:
        return "none would have been chosen."
    if choice is findings.chosen:
        return "the same would have been chosen."
    found = choice.test or choice.val
    asr = f"attack success {percent(found.asr.mean)} at " if found and found.asr else ""
    rates = f", {asr}clean accuracy {percent(found.ca.mean)}" if found else ""
    return f"{choice.name} would have been chosen{rates}."


def _no_choice(findings: Findings) -> str:
    if findings.run.rule == "trigger_free":
        return (
            "On validation none whose selected pairs are no longer alike is within "
            f"{points(findings.run.ca_floor)} of the poisoned model’s clean accuracy. So none is chosen; unlearn "
            "longer or faster, or allow a larger loss (objectives.ca_floor)."
        )
    best = max(findings.measured, key=lambda configuration: configuration.val.ca.mean if configuration.val else 0)
    highest = f"; the highest, {best.name}, reaches {percent(best.val.ca.mean)}" if best.val else ""
    poisoned = best.poisoned_val
    model = f"the poisoned model’s {percent(poisoned.ca.mean)}" if poisoned else "a poisoned model that was measured"
    return (
        f"On validation none is within {points(findings.run.ca_floor)} of {model}{highest}. So none is chosen, "
        "and the front below is to be read with care."
    )


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


def unfinished(findings: Findings) -> tuple[TrialRecord, ...]:
    """Return the trials that failed or were pruned."""
    return tuple(record for record in findings.run.records if record.state in {State.FAILED, State.PRUNED})


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
