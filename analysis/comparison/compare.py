"""The comparison of a run's defenses, worked out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from analysis.comparison.members import Member, members
from analysis.comparison.model import BOUND, METHOD, VICTIM, Cell, Comparison, Row
from analysis.findings import Findings
from analysis.names import defense_name, victim_key, victim_names
from analysis.replicates import Configuration
from ubt.records import TrialRecord

ORDER = {METHOD: 1, BOUND: 2}
"""Rows of a comparison: baselines as the study has them, then the method, then the bound."""


def compare(findings: Findings) -> Comparison | None:
    """Return the comparison that a run holds; None if it has a single defense, or no trial of its table yet."""
    found = members(findings)
    victims = tuple(dict.fromkeys(victim for member in found for victim in member.configurations))
    if len(found) < 2 or not victims:
        return None
    defenses = sorted((m for m in found if m.kind != VICTIM), key=lambda m: ORDER.get(m.kind, 0))
    undefended = _undefended(findings, victims)
    cells = [tuple(_cell(member.configurations.get(victim)) for victim in victims) for member in defenses]
    common = _common([undefended, *cells])
    rows = [
        Row(_told(member), member.kind, own, common, member.choices, member.note)
        for member, own in zip(defenses, cells, strict=True)
    ]
    names = victim_names(findings.run.records)
    return Comparison(
        victims=tuple(names[victim] for victim in victims),
        rows=(Row(defense_name(VICTIM), VICTIM, undefended, common), *rows),
        ca_floor=findings.run.ca_floor,
        weak=_weak(findings.run.records, names),
    )


def seconds_of_defense(record: TrialRecord) -> float:
    """Return the seconds of a trial's own defense: the own work of all stages between `implant` and `evaluate`."""
    names = [stage.stage for stage in record.stages]
    first = names.index("implant") + 1 if "implant" in names else 0
    last = names.index("evaluate") if "evaluate" in names else len(names)
    return sum(stage.work_seconds for stage in record.stages[first:last])


def _told(member: Member) -> str:
    """Return what a row is called: `abl` and `abl-as-published` are ABL and "ABL as published"."""
    words = member.name.replace("_", " ").replace("-", " ")
    return defense_name(member.kind) + words.removeprefix(member.kind) if _is_named_by_kind(member) else words


def _is_named_by_kind(member: Member) -> bool:
    return member.name == member.kind or member.name.startswith((f"{member.kind}-", f"{member.kind}_"))


def _cell(configuration: Configuration | None) -> Cell:
    if configuration is None:
        return Cell(None, 0, 0, None)
    done = configuration.measured
    seconds = float(np.mean([seconds_of_defense(record) for record in done])) if done else None
    return Cell(configuration.test, len(done), configuration.seeds, seconds)


def _undefended(findings: Findings, victims: Iterable[str]) -> tuple[Cell, ...]:
    """Return the cells of the poisoned models as they are: every trial measures its own before it defends it."""
    most: dict[str, Configuration] = {}
    for configuration in sorted(findings.configurations, key=lambda configuration: len(configuration.measured)):
        if configuration.poisoned_test:
            most[victim_key(configuration.first)] = configuration
    return tuple(_poisoned(most.get(victim)) for victim in victims)


def _poisoned(configuration: Configuration | None) -> Cell:
    if configuration is None:
        return Cell(None, 0, 0, None)
    seeds = len(configuration.measured or configuration.trials)
    return Cell(configuration.poisoned_test, seeds, seeds, 0.0)


def _common(rows: Iterable[Sequence[Cell]]) -> tuple[int, ...]:
    """Return the columns that every row with any outcome has an outcome in."""
    measured = [{i for i, cell in enumerate(cells) if cell.outcome} for cells in rows]
    return tuple(sorted(set.intersection(*filter(None, measured)))) if any(measured) else ()


def _weak(records: Iterable[TrialRecord], names: dict[str, str]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    seeds: dict[str, set[int]] = {}
    for record in records:
        if record.fault == "WeakImplant":
            seeds.setdefault(names[victim_key(record)], set()).add(record.seed)
    return tuple((name, tuple(sorted(found))) for name, found in seeds.items())
