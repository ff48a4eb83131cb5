"""What each run has chosen, how that differs from the first run's choice, and what each adds to a common front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.effects import Difference
from analysis.effects.contrasts import Contrast, Term
from analysis.effects.estimates import Split, effect_of
from analysis.findings import validation_points
from analysis.formatting import changes_text
from analysis.points.configurations import Configuration
from analysis.points.geometry import Points, hypervolume, non_dominated
from analysis.side_by_side.sides import Group, Side, groups


@dataclass(frozen=True)
class Against:
    """How a run's choice differs from that of the first run of the same victim."""

    run: str
    """The first run."""
    split: Split
    seeds: int
    """How many both choices were measured under."""
    asr: Difference | None
    ca: Difference | None


@dataclass(frozen=True)
class Row:
    """One run, as the table of runs has it."""

    side: Side
    group: int
    """Number of its victim, from 1 in the order in which they occur."""
    against: Against | None
    """None for the first run of a victim, and where either has chosen nothing, or no seed is shared."""
    on_common_front: int | None
    """How many of the points on the common front of all runs of the victim are this run's; None of a run by itself."""
    common: float | None
    """Hypervolume of that common front."""

    @property
    def chosen(self) -> Configuration | None:
        """Return the configuration that the run has chosen."""
        return self.side.findings.chosen

    @property
    def settings(self) -> tuple[str, ...]:
        """Return the choice's searched and changed settings, each as `name = value`."""
        chosen = self.side.summary.chosen
        return changes_text(chosen.config, self.side.findings.run.setting_names) if chosen else ()


def rows(sides: Sequence[Side]) -> tuple[Row, ...]:
    """Return a row for each run, in their order."""
    found: dict[str, Row] = {}
    for number, group in enumerate(groups(sides), start=1):
        shares, common = _common_front(group)
        for side, share in zip(group, shares, strict=True):
            against = None if side is group[0] else _against(group[0], side)
            found[side.name] = Row(side, number, against, share, common)
    return tuple(found[side.name] for side in sides)


def _against(first: Side, other: Side) -> Against | None:
    """Return the differences of two choices, paired by seed: a seed's victim is the same in both runs."""
    here, there = first.findings.chosen, other.findings.chosen
    if here is None or there is None:
        return None
    shared = {trial.seed for trial in here.measured} & {trial.seed for trial in there.measured}
    split: Split = "test" if all(one.rates("test").keys() >= shared for one in (here, there)) else "val"
    found = effect_of(Contrast(other.name, (), "", "", (Term((there,), (here,)),)), split)
    if not found.seeds:
        return None
    return Against(first.name, split, len(found.seeds), found.asr, found.ca)


def _common_front(group: Group) -> tuple[list[int | None], float | None]:
    """Return how many points each run has on the front of all of them, and its hypervolume. Equal points all count."""
    points: list[Points] = [validation_points(side.findings.front) for side in group]
    if len(group) < 2 or not any(map(len, points)):
        return [None] * len(group), None
    every = np.vstack(points)
    kept = non_dominated(every)
    ends = np.cumsum([len(one) for one in points])
    shares = [int(kept[end - len(one) : end].sum()) for one, end in zip(points, ends, strict=True)]
    return list(shares), hypervolume(every[kept])
