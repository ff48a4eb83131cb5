"""Which configurations stand for each defense of a comparison: those of its table, or the choice of its settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from analysis.findings import Findings
from analysis.formatting import kind_at, victim_key
from analysis.points.configurations import Configuration
from ubt.common.choice import Candidate, RuleName, choose, mean_candidate, nearest
from ubt.trials.record import TrialRecord

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
        for name in _row_names(configuration):
            groups.setdefault(name, {}).setdefault(settings, []).append(configuration)
    run = findings.run
    settle = _in_table if run.compared else partial(_best, run.ca_floor, run.rule)
    return tuple(_member(name, list(choices.values()), settle) for name, choices in groups.items())


def has_several(findings: Findings) -> bool:
    """Return whether the run has trials of more than one defense."""
    return len({name for configuration in findings.configurations for name in _row_names(configuration)}) > 1


def _row_names(configuration: Configuration) -> dict[str, None]:
    return dict.fromkeys(map(_row_name, configuration.trials))


def is_for_table(record: TrialRecord) -> bool:
    """Return whether a trial was run for a comparison's table, and not for anything else, as a search."""
    cell = record.label.cell
    return cell is not None and cell.phase == "table"


def _row_name(record: TrialRecord) -> str:
    cell = record.label.cell
    return cell.defense if cell else kind_at(record.config, "defense")


def _member(name: str, choices: list[Choice], settle: Callable[[list[Choice]], Choice]) -> Member:
    chosen = settle(choices)
    return Member(
        name=name,
        kind=kind_at(choices[0][0].first.config, "defense"),
        configurations={victim_key(configuration.first): configuration for configuration in chosen},
        choices=len(choices),
        note=next((cell.note for c in chosen for t in c.trials if (cell := t.label.cell) and cell.note), ""),
    )


def _in_table(choices: list[Choice]) -> Choice:
    """Return what a table's row was run with; the newest, if the study was extended and its choice has changed."""
    tables = [[c for c in choice if any(map(is_for_table, c.trials))] for choice in choices]
    return max(filter(None, tables), key=lambda table: max(c.trials[-1].number for c in table), default=[])


def _best(ca_floor: float, rule: RuleName, choices: list[Choice]) -> Choice:
    """Return the choice of settings measured on most victims; of several, that of the rule, else the nearest."""
    measured = [(_measured(choice, rule), choice) for choice in choices]
    most = max(len(found) for found, _ in measured)
    if not most:
        return min(choices, key=lambda choice: choice[0].number)
    candidates = {mean_candidate(found): choice for found, choice in measured if len(found) == most}
    chosen = choose(candidates, ca_floor, rule) or nearest(candidates, rule)
    assert chosen is not None  # noqa: S101 — each is measured
    return candidates[chosen]


def _measured(choice: Choice, rule: RuleName) -> list[Candidate]:
    """Return what the rule looks at, on each victim that the choice was measured on."""
    return [one for configuration in choice if (one := configuration.candidate) and one.measured(rule)]
