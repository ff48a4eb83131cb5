"""The runs that are held against each other: what they are called, and which of them have the same victim.

Rates of two runs can be compared only if both defend the same poisoned model. The key of the stage that makes it says
so, also where the data lies under other paths: it is a fingerprint of data, code, settings and seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from analysis.effects import Effects, find_effects
from analysis.figures.growth import Grown, growth
from analysis.findings import Findings, find
from analysis.formatting import listed, victim_key, victim_names
from analysis.records import read_run
from analysis.summary import Summary, summarise
from ubt.artifacts.remote_folder import shown
from ubt.common.errors import Problem, UserError
from ubt.trials.rates import Rates
from ubt.trials.record import TrialRecord

VICTIM_STAGE = "implant"
"""The stage whose result is the poisoned model."""


@dataclass(frozen=True)
class Side:
    """One of the runs."""

    name: str
    """What tables call it."""
    place: str
    """Its folder or address."""
    findings: Findings

    @cached_property
    def summary(self) -> Summary:
        """Return the run in a few numbers."""
        return summarise(self.findings)

    @cached_property
    def effects(self) -> Effects:
        """Return what the run says of causes; none of a search by results."""
        return find_effects(self.findings)

    @cached_property
    def growth(self) -> tuple[Grown, ...]:
        """Return its hypervolume trial by trial."""
        return growth(self.findings)

    @cached_property
    def victim(self) -> str:
        """Return the victim as configured, as JSON; "" if nothing is measured, or the run has several."""
        found = {victim_key(configuration.first) for configuration in self.findings.measured}
        return found.pop() if len(found) == 1 and not self.findings.run.compared else ""

    @cached_property
    def victims(self) -> dict[int, TrialRecord]:
        """Return seed → a trial that has the victim's rates, of a run with a single victim."""
        records = [record for record in self.findings.run.records if record.poisoned_val and self.victim]
        return {record.seed: record for record in reversed(records)}

    def same_victim(self, other: Side) -> bool:
        """Return whether both runs defend the same poisoned models, going by stage keys where seeds are shared."""
        if not self.victim or not other.victim:
            return False
        shared = [
            (_key(self.victims[seed]), _key(other.victims[seed])) for seed in self.victims if seed in other.victims
        ]
        known = [(one, another) for one, another in shared if one and another]
        return all(one == another for one, another in known) if known else self.victim == other.victim

    @cached_property
    def shared_seeds(self) -> frozenset[int]:
        """Return the seeds under which its victim was measured."""
        return frozenset(self.victims)


def _key(record: TrialRecord) -> str:
    return next((stage.key for stage in record.stages if stage.stage == VICTIM_STAGE and stage.complete), "")


Group = tuple[Side, ...]
"""Runs of one victim."""


def read_sides(places: Sequence[str]) -> tuple[Side, ...]:
    """Read runs, in the order in which they are given.

    Raises:
        UserError: with what is wrong with each that cannot be read; or if there are not two, or one is there twice.
    """
    problems = [
        Problem("RUN", "is given twice", place, "give each run once")
        for place in dict.fromkeys(places)
        if list(places).count(place) > 1
    ]
    if len(places) < 2:
        given = places[0] if places else None
        problems.append(Problem("RUN", "there is nothing to hold it against", given, "give two runs or more"))
    found: list[Findings] = []
    for place in dict.fromkeys(places):
        try:
            found.append(find(read_run(place)))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    named = names([shown(place) for place in places])
    return tuple(Side(name, shown(place), one) for name, place, one in zip(named, places, found, strict=True))


def names(places: Sequence[str]) -> list[str]:
    """Return for each place the shortest ending of its path that no other one has.

    Example:
        >>> names(["runs/demo", "runs/demo-2", "elsewhere/demo"])
        ['runs/demo', 'demo-2', 'elsewhere/demo']
    """
    parts = [PurePosixPath(place).parts for place in places]
    return [_ending(own, [other for other in parts if other is not own]) for own in parts]


def _ending(own: tuple[str, ...], others: list[tuple[str, ...]]) -> str:
    for length in range(1, len(own) + 1):
        if not any(other[-length:] == own[-length:] for other in others):
            return str(PurePosixPath(*own[-length:]))
    return str(PurePosixPath(*own))


def groups(sides: Iterable[Side]) -> tuple[Group, ...]:
    """Return the runs by victim, in the order of their first ones; a run with several victims is by itself."""
    found: list[list[Side]] = []
    for side in sides:
        group = next((group for group in found if group[0].same_victim(side)), None)
        if group is None:
            found.append([side])
        else:
            group.append(side)
    return tuple(map(tuple, found))


def notes(sides: Sequence[Side]) -> tuple[str, ...]:
    """Return what a reader has to know before any rate of one run is held against that of another."""
    found = groups(sides)
    said = []
    if len(found) > 1:
        called = victim_names(record for side in sides for record in side.findings.run.records)
        each = "; ".join(f"{listed(s.name for s in group)} ({_victim_of(group[0], called)})" for group in found)
        said.append(
            f"These runs do not all have the same victim: {each}. Fronts, choices and hypervolumes can be compared "
            "only within a group."
        )
    for group in found:
        said += _victims_that_differ(group)
        if len({side.shared_seeds for side in group}) > 1:
            each = "; ".join(f"{side.name}: {', '.join(map(str, sorted(side.shared_seeds)))}" for side in group)
            said.append(f"Seeds differ ({each}): means of different seeds are of different poisoned models.")
    rules = {side.findings.run.rule for side in sides}
    if len(rules) > 1:
        said.append("The runs choose by different rules, which know different things: see the settings below.")
    unfinished = [side.name for side in sides if any(not r.state.ended for r in side.findings.run.records)]
    if unfinished:
        said.append(f"Not all trials have ended: {listed(unfinished)}.")
    return tuple(said)


def _victim_of(side: Side, called: dict[str, str]) -> str:
    if side.findings.run.compared:
        return side.findings.run.compared
    if not side.findings.measured:
        return "nothing measured"
    return called.get(side.victim, "") or "several victims"


def _victims_that_differ(group: Group) -> list[str]:
    """Say where equal settings have led to other poisoned models, as on another kind of CPU."""
    first, *others = group
    said = []
    for side in others:
        seeds = sorted(seed for seed in side.victims if seed in first.victims)
        differing = [seed for seed in seeds if _rates(first.victims[seed]) != _rates(side.victims[seed])]
        if differing:
            here, there = (_text(one.victims[differing[0]].poisoned_val) for one in (first, side))
            said.append(
                f"The same victim came out differently: with seed {differing[0]} the poisoned model has {here} in "
                f"{first.name} and {there} in {side.name} on validation. Bits depend on the kind of CPU or GPU, on "
                "the number of threads and on the version of torch; differences between the runs have this in them."
            )
    return said


def _rates(record: TrialRecord) -> tuple[float | None, float] | None:
    return (record.poisoned_val.asr, record.poisoned_val.ca) if record.poisoned_val else None


def _text(rates: Rates | None) -> str:
    return str(rates)
