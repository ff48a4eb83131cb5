"""The comparison of a run's defenses: defenses × victims, each the mean over seeds on the test split.

What came of the configurations that stand for each defense, on every victim.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from analysis.comparison.members import Member, has_several, members
from analysis.findings import Findings
from analysis.formatting import defense_name, victim_key, victim_names
from analysis.points.configurations import Configuration, Estimate, Outcome
from ubt.trials.record import TrialRecord

VICTIM, METHOD, BOUND = "none", "ubt", "oracle"
"""Kinds that are no baselines: the poisoned model as it is, the method itself, and training without the poison."""


@dataclass(frozen=True)
class AttackResult:
    """One defense on one victim."""

    outcome: Outcome | None
    """On the test split; None if no trial is done."""
    seeds: int
    """How many were measured, …"""
    tried: int
    """… of how many."""
    seconds: float | None
    """Seconds of the defense's own stages from nothing, mean over seeds: without evaluation and publishing."""


@dataclass(frozen=True)
class Row:
    """One defense on every victim."""

    name: str
    kind: str
    results: tuple[AttackResult, ...]
    common: tuple[int, ...]
    """The columns that every defense was measured on: means and worst cases are of these alone."""
    choices: int = 1
    """How many settings the defense was chosen from."""
    note: str = ""
    """What a reader of the row should know."""

    @property
    def is_baseline(self) -> bool:
        """Return whether the method is to be compared with this row."""
        return self.kind not in {VICTIM, METHOD, BOUND}

    @property
    def is_defense(self) -> bool:
        """Return whether the row is the method or a baseline."""
        return self.kind not in {VICTIM, BOUND}

    @cached_property
    def mean(self) -> Outcome | None:
        """Return the mean over victims. Its interval is the mean of theirs: as if all errors had one cause."""
        found = self._outcomes
        if not found:
            return None
        attacked = _attacked(found)
        return Outcome(_mean(attacked) if attacked else None, _mean([outcome.ca for outcome in found]))

    @cached_property
    def worst(self) -> Outcome | None:
        """Return the highest ASR and the lowest CA, each over the victims."""
        found = self._outcomes
        if not found:
            return None
        highest = max(_attacked(found), key=lambda rate: rate.mean, default=None)
        return Outcome(highest, min((outcome.ca for outcome in found), key=lambda rate: rate.mean))

    @property
    def seconds(self) -> float | None:
        """Return the seconds of a defense, the mean over all its victims."""
        known = [result.seconds for result in self.results if result.seconds is not None]
        return fmean(known) if known else None

    @property
    def _outcomes(self) -> list[Outcome]:
        return [outcome for column in self.common if (outcome := self.results[column].outcome)]


@dataclass(frozen=True)
class Comparison:
    """Defenses over victims."""

    victims: tuple[str, ...]
    """What each column is called: its attack."""
    rows: tuple[Row, ...]
    """The victim as it is first, then the baselines, the method, and the oracle."""
    ca_floor: float
    """How much clean accuracy, as a fraction, a defense may lose."""
    weak: tuple[tuple[str, tuple[int, ...]], ...]
    """Victims whose implant failed, each with the seeds it failed for."""
    stopped: tuple[tuple[str, str], ...] = ()
    """Victims that some other gate stopped trials of, each with the reason."""
    unseen: tuple[int, ...] = ()
    """Columns of attacks that no defense's settings were chosen on, where settings were chosen on others."""

    @property
    def victim(self) -> Row:
        """Return the row of the poisoned models as they are."""
        return self.rows[0]

    @property
    def method(self) -> Row | None:
        """Return the row of the method: the one of its name, of several with other settings that a study compares."""
        rows = [row for row in self.rows if row.kind == METHOD]
        return next((row for row in rows if row.name == defense_name(METHOD)), rows[0] if rows else None)


def _attacked(outcomes: Sequence[Outcome]) -> list[Estimate]:
    """Return the ASRs; none, unless the attack on every victim is known: rows are compared over equal victims."""
    known = [outcome.asr for outcome in outcomes if outcome.asr]
    return known if len(known) == len(outcomes) else []


def _mean(rates: Sequence[Estimate]) -> Estimate:
    mean, low, high = (fmean(getattr(r, part) for r in rates) for part in ("mean", "low", "high"))
    return Estimate(mean, low, high)


ORDER = {METHOD: 1, BOUND: 2}
"""Rows of a comparison: baselines as the study has them, then the method, then the bound."""


def compare(findings: Findings) -> Comparison | None:
    """Return the comparison that a run holds; None if it has a single defense, or no trial of its table yet."""
    if not has_several(findings):
        return None  # before the best of thousands of settings is looked for
    found = members(findings)
    victims = tuple(dict.fromkeys(victim for member in found for victim in member.configurations))
    if len(found) < 2 or not victims:
        return None
    defenses = sorted((m for m in found if m.kind != VICTIM), key=lambda m: ORDER.get(m.kind, 0))
    undefended = _undefended(findings, victims)
    results = [tuple(_result(member.configurations.get(victim)) for victim in victims) for member in defenses]
    common = _common([undefended, *results])
    rows = [
        Row(_row_title(member), member.kind, own, common, member.choices, member.note)
        for member, own in zip(defenses, results, strict=True)
    ]
    names = victim_names(findings.run.records)
    return Comparison(
        victims=tuple(names[victim] for victim in victims),
        rows=(Row(defense_name(VICTIM), VICTIM, undefended, common), *rows),
        ca_floor=findings.run.ca_floor,
        weak=_weak(findings.run.records, names),
        stopped=_stopped(findings.run.records, names),
        unseen=_unseen(findings.run.records, victims),
    )


def _unseen(records: Iterable[TrialRecord], victims: Sequence[str]) -> tuple[int, ...]:
    """Return the columns that no search has met; none if nothing was searched. Victims by attack: seeds differ."""
    attacks: dict[str, str] = {}
    searched: set[str] = set()
    for record in records:
        if cell := record.label.cell:
            attacks[victim_key(record)] = cell.attack
            searched |= {cell.attack} if cell.phase == "search" else set()
    if not searched:
        return ()
    return tuple(at for at, victim in enumerate(victims) if attacks.get(victim) not in searched)


def seconds_of_defense(record: TrialRecord) -> float:
    """Return the seconds of a trial's own defense: the own work of all stages between `implant` and `evaluate`."""
    names = [stage.stage for stage in record.stages]
    first = names.index("implant") + 1 if "implant" in names else 0
    last = names.index("evaluate") if "evaluate" in names else len(names)
    return sum(stage.work_seconds for stage in record.stages[first:last])


def _row_title(member: Member) -> str:
    """Return what a row is called: `abl` and `abl-as-published` are ABL and "ABL as published"."""
    words = member.name.replace("_", " ").replace("-", " ")
    return defense_name(member.kind) + words.removeprefix(member.kind) if _is_named_by_kind(member) else words


def _is_named_by_kind(member: Member) -> bool:
    return member.name == member.kind or member.name.startswith((f"{member.kind}-", f"{member.kind}_"))


def _result(configuration: Configuration | None) -> AttackResult:
    if configuration is None:
        return AttackResult(None, 0, 0, None)
    done = configuration.measured
    seconds = fmean(map(seconds_of_defense, done)) if done else None
    return AttackResult(configuration.test, len(done), configuration.seeds, seconds)


def _undefended(findings: Findings, victims: Iterable[str]) -> tuple[AttackResult, ...]:
    """Return the results of the poisoned models as they are: every trial measures its own before it defends it."""
    most: dict[str, Configuration] = {}
    for configuration in sorted(findings.configurations, key=lambda configuration: len(configuration.measured)):
        if configuration.poisoned_test:
            most[victim_key(configuration.first)] = configuration
    return tuple(_poisoned(most.get(victim)) for victim in victims)


def _poisoned(configuration: Configuration | None) -> AttackResult:
    if configuration is None:
        return AttackResult(None, 0, 0, None)
    seeds = len(configuration.measured or configuration.trials)
    return AttackResult(configuration.poisoned_test, seeds, seeds, 0.0)


def _common(rows: Iterable[Sequence[AttackResult]]) -> tuple[int, ...]:
    """Return the columns that every row with any outcome has an outcome in."""
    measured = [{i for i, result in enumerate(results) if result.outcome} for results in rows]
    return tuple(sorted(set.intersection(*filter(None, measured)))) if any(measured) else ()


def _stopped(records: Iterable[TrialRecord], names: dict[str, str]) -> tuple[tuple[str, str], ...]:
    found = ((record, gate) for record in records if (gate := record.stopped_by) and record.fault != "WeakImplant")
    return tuple(dict.fromkeys((names[victim_key(record)], gate.reason) for record, gate in found))


def _weak(records: Iterable[TrialRecord], names: dict[str, str]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    seeds: dict[str, set[int]] = {}
    for record in records:
        if record.fault == "WeakImplant":
            seeds.setdefault(names[victim_key(record)], set()).add(record.seed)
    return tuple((name, tuple(sorted(found))) for name, found in seeds.items())
