"""What the page shows of a trial that is clicked on: rates, settings, epochs, stages, classes, and why it failed."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import JsonValue

from analysis.findings import Findings
from analysis.formatting import changes_text, tenths
from ubt.trials.rates import Rates
from ubt.trials.record import TrialRecord

MOST_CLASSES = 20
"""Of more classes the page has no counts: those of ImageNet's thousand would be most of it. `run.classes` has them."""
REASON_LETTERS = 600

SPLITS = {
    "test": "test",
    "val": "validation",
    "poisoned_test": "poisoned model, test",
    "poisoned_val": "poisoned model, validation",
}


def details(findings: Findings) -> dict[str, JsonValue]:
    """Return what is shown of each trial, in the order of the table, as JSON with short names.

    `stages` and `classes` are names that trials refer to by their place.
    """
    records = findings.run.records
    stages = {name: at for at, name in enumerate(dict.fromkeys(s.stage for r in records for s in r.stages))}
    shown_as = {
        trial.trial: configuration.first.trial
        for configuration in findings.configurations
        for trial in configuration.trials
    }
    classes = next((record.classes for record in records if record.classes), ())
    counted = 0 < len(classes) <= MOST_CLASSES
    return {
        "stages": list(stages),
        "classes": list(classes) if counted else [],
        "splits": list(SPLITS.values()),
        "trials": [_detail(record, findings, stages, shown_as[record.trial], counted) for record in records],
    }


def _detail(
    record: TrialRecord, findings: Findings, stages: dict[str, int], shown_as: str, counted: bool
) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {
        "rates": [_rates(getattr(record, split)) for split in SPLITS],
        "epochs": _epochs(record),
        "stages": [[stages[s.stage], round(s.seconds, 1), round(s.spent_seconds, 1)] for s in record.stages],
    }
    others = {path: value for path, value in record.changes.items() if path not in findings.run.space}
    if others or not findings.run.space:  # of what is searched the table has every value
        found["change"] = list(changes_text(others, findings.run.setting_names))
    if record.reason:
        found["reason"] = record.reason[:REASON_LETTERS]
    if shown_as != record.trial:
        found["as"] = shown_as
    if counted and record.test and record.test.per_class:
        counts = record.test.per_class
        found["classes"] = [_shares(counts.hits, counts.triggered), _shares(counts.correct, counts.images)]
    return found


def _rates(rates: Rates | None) -> JsonValue:
    """Return ASR with its interval, then CA with its, in tenths of a percent."""
    if rates is None:
        return None
    numbers = (rates.asr, rates.asr_low, rates.asr_high, rates.ca, rates.ca_low, rates.ca_high)
    return [None if number is None else tenths(number) for number in numbers]


def _epochs(record: TrialRecord) -> JsonValue:
    """Return ASR and CA on validation of the poisoned model and after each judged epoch, in tenths of a percent."""
    judged = [epoch.val for _, epoch in record.epochs if epoch.val]
    course = [rates for rates in (record.poisoned_val, *judged) if rates]
    if not judged:
        return None
    asr = [None if rates.asr is None else tenths(rates.asr) for rates in course]
    return [list[JsonValue](asr), [tenths(rates.ca) for rates in course], int(record.poisoned_val is None)]


def _shares(part: Iterable[int] | None, whole: Iterable[int] | None) -> JsonValue:
    """Return percentages, class by class; None of a class that has no such image."""
    if part is None or whole is None:
        return None
    return [round(100 * some / of, 1) if of else None for some, of in zip(part, whole, strict=True)]
