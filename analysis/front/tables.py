"""The front as a table, and every epoch of a run: what was measured after it, and whether front or choice are there."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from analysis.findings import Findings
from analysis.points.candidates import Model, epochs_setting, model_of
from analysis.points.configurations import judged_epochs
from analysis.tables import Column, RateColumns, configurations_table, tabulate
from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord, State, TrialRecord


def members_table(findings: Findings) -> pd.DataFrame:
    """Return one line a member of the front: as of a configuration, its chance, and whether it is like the choice."""
    doubt = findings.doubt
    table = configurations_table(findings, findings.front)
    table["front_chance"] = [doubt.chances.get(member.name) for member in findings.front]
    table["like_chosen"] = [member.name in doubt.alike for member in findings.front]
    return table


@dataclass(frozen=True)
class _Epoch:
    record: TrialRecord
    stage: str
    epoch: EpochRecord
    position: int | None
    model: Model | None
    """None unless its model is the defended one, or would be with so many epochs."""


def epochs_table(findings: Findings) -> pd.DataFrame:
    """Return one line an epoch of a trial: stage, loss, seconds, rates where it was evaluated, and its place.

    The test rates are those of the trial that ends at the epoch with the same seed, this one or another.
    """
    items = [item for record in findings.run.records for item in _epochs_of(record)]
    tested = _tested(findings.run.records)
    front = {model_of(member.first, member.at) for member in findings.front}
    chosen = model_of(findings.chosen.first, findings.chosen.at) if findings.chosen else None

    def test(item: _Epoch) -> Rates | None:
        return tested.get((item.model, item.record.seed)) if item.model else None

    columns: tuple[Column[_Epoch], ...] = (
        Column("number", lambda item: item.record.number),
        Column("trial", lambda item: item.record.trial),
        Column("seed", lambda item: item.record.seed),
        Column("stage", lambda item: item.stage),
        Column("epoch", lambda item: item.epoch.epoch),
        Column("position", lambda item: item.position),
        Column("seconds", lambda item: item.epoch.seconds),
        Column("loss", lambda item: item.epoch.loss),
        Column("front", lambda item: item.model in front),
        Column("chosen", lambda item: item.model is not None and item.model == chosen),
    )
    return tabulate(items, (*columns, RateColumns("val", lambda item: item.epoch.val), RateColumns("test", test)))


def _epochs_of(record: TrialRecord) -> Iterable[_Epoch]:
    evaluated, judged = itertools.count(1), judged_epochs(record)
    models: dict[int, Model] = {}
    if judged:
        same, _ = end = model_of(record)
        models = {number: (same, number) for number in judged} if epochs_setting(record) else {}
        models |= {max(judged): end} if record.state is State.DONE else {}
    for stage in record.stages:
        for epoch in stage.epochs:
            model = models.get(epoch.epoch) if judged.get(epoch.epoch) is epoch else None
            yield _Epoch(record, stage.stage, epoch, next(evaluated) if epoch.val else None, model)


def _tested(records: Iterable[TrialRecord]) -> dict[tuple[Model, int], Rates]:
    """Return what was measured on the test split, by model and seed."""
    done = (record for record in records if record.state is State.DONE and record.test)
    return {(model_of(record), record.seed): record.test for record in done if record.test}
