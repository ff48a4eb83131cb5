"""Which configurations a comparison is made of: for each defense one choice of settings, on every victim."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from analysis.findings import Findings
from analysis.names import kind_at, victim_key
from analysis.replicates import Configuration
from ubt.labels import cell_of
from ubt.metrics import keeps_accuracy
from ubt.records import TrialRecord

Choice = list[Configuration]
"""The configurations that ran one choice of settings, one a victim."""


@dataclass(frozen=True)
class Member:
    """One row of a comparison: a defense with the settings that stand for it."""

    name: str
    """What the study calls it; its kind, where the study gives no names."""
    kind: str
    configurations: Mapping[str, Configuration]
    """Victim (as JSON) → the configuration that ran these settings on it, with all its seeds."""
    choices: int
    """How many settings of the defense the run tried."""
    note: str = ""
    """What a reader of the row should know."""


def members(findings: Findings) -> tuple[Member, ...]:
    """Return the defenses of a run in the order of their first trials, each with one choice of settings.

    In a comparison these are what its table was run with: nothing while a defense is still being searched. In a run
    of any other design it is the study's own rule that chooses: the lowest validation ASR, averaged over victims,
    that keeps clean accuracy.
    """
    groups: dict[str, dict[str, list[Configuration]]] = {}
    for configuration in findings.configurations:
        settings = json.dumps(configuration.first.config.get("defense"), sort_keys=True)
        for name in dict.fromkeys(map(_row_name, configuration.trials)):
            groups.setdefault(name, {}).setdefault(settings, []).append(configuration)
    choose = _in_table if findings.run.compared else partial(_best, findings.run.ca_floor)
    return tuple(_member(name, list(choices.values()), choose) for name, choices in groups.items())


def is_for_table(record: TrialRecord) -> bool:
    """Tell whether a trial was run for a comparison's table, and not for anything else, as a search."""
    cell = cell_of(record.label)
    return cell is not None and cell.phase == "table"


def _row_name(record: TrialRecord) -> str:
    cell = cell_of(record.label)
    return cell.defense if cell else kind_at(record.config, "defense")


def _member(name: str, choices: list[Choice], choose: Callable[[list[Choice]], Choice]) -> Member:
    chosen = choose(choices)
    return Member(
        name=name,
        kind=kind_at(choices[0][0].first.config, "defense"),
        configurations={victim_key(configuration.first): configuration for configuration in chosen},
        choices=len(choices),
        note=next((cell.note for c in chosen for t in c.trials if (cell := cell_of(t.label)) and cell.note), ""),
    )


def _in_table(choices: list[Choice]) -> Choice:
    """Return what a table's row was run with; the newest, if the study was extended and its choice has changed."""
    tables = [[c for c in choice if any(map(is_for_table, c.trials))] for choice in choices]
    return max(filter(None, tables), key=lambda table: max(c.trials[-1].number for c in table), default=[])


def _best(ca_floor: float, choices: list[Choice]) -> Choice:
    return min(choices, key=lambda choice: _rank(choice, ca_floor))


def _rank(group: Choice, ca_floor: float) -> tuple[float, ...]:
    """Return what choices of settings are sorted by: victims measured, accuracy kept, then the rates themselves."""
    measured = [c for c in group if c.val and c.poisoned_val]
    if not measured:
        return (0, 0, 0, 0, group[0].number)
    asr = float(np.mean([c.val.asr.mean for c in measured if c.val]))
    ca = float(np.mean([c.val.ca.mean for c in measured if c.val]))
    lost = float(np.mean([c.poisoned_val.ca.mean for c in measured if c.poisoned_val])) - ca
    kept = keeps_accuracy(lost, ca_floor)
    return (-len(measured), not kept, asr if kept else lost, -ca, group[0].number)
