"""What a comparison is: defenses × victims, each cell the means over seeds on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.configurations import Estimate, Outcome
from analysis.formatting import defense_name

VICTIM, METHOD, BOUND = "none", "ubt", "oracle"
"""Kinds that are no baselines: the poisoned model as it is, the method itself, and training without the poison."""


@dataclass(frozen=True)
class Cell:
    """One defense on one victim."""

    outcome: Outcome | None
    """On the test split; None if no trial is done."""
    seeds: int
    """How many were measured, …"""
    tried: int
    """… of how many."""
    seconds: float | None
    """What the own work of the defense's stages takes from nothing, the mean over seeds: no judging, no publishing."""


@dataclass(frozen=True)
class Row:
    """One defense on every victim."""

    name: str
    kind: str
    cells: tuple[Cell, ...]
    common: tuple[int, ...]
    """The columns that every defense was measured on: means and worst cases are of these alone."""
    choices: int = 1
    """How many settings the defense was chosen from."""
    note: str = ""
    """What a reader of the row should know."""

    @property
    def is_baseline(self) -> bool:
        """Tell whether the method is to be held against this row."""
        return self.kind not in {VICTIM, METHOD, BOUND}

    @property
    def is_defense(self) -> bool:
        """Tell whether the row is the method or a baseline."""
        return self.kind not in {VICTIM, BOUND}

    @cached_property
    def mean(self) -> Outcome | None:
        """Return the mean over victims. Its interval is the mean of theirs: as if all erred the same way."""
        found = self._outcomes
        if not found:
            return None
        return Outcome(_mean([outcome.asr for outcome in found]), _mean([outcome.ca for outcome in found]))

    @cached_property
    def worst(self) -> Outcome | None:
        """Return the highest ASR and the lowest CA, each over the victims."""
        found = self._outcomes
        if not found:
            return None
        highest = max((outcome.asr for outcome in found), key=lambda rate: rate.mean)
        return Outcome(highest, min((outcome.ca for outcome in found), key=lambda rate: rate.mean))

    @property
    def seconds(self) -> float | None:
        """Return the seconds of a defense, the mean over all its victims."""
        known = [cell.seconds for cell in self.cells if cell.seconds is not None]
        return float(np.mean(known)) if known else None

    @property
    def _outcomes(self) -> list[Outcome]:
        return [outcome for column in self.common if (outcome := self.cells[column].outcome)]


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

    @property
    def victim(self) -> Row:
        """Return the row of the poisoned models as they are."""
        return self.rows[0]

    @property
    def method(self) -> Row | None:
        """Return the row of the method: the one of its name, of several with other settings that a study compares."""
        rows = [row for row in self.rows if row.kind == METHOD]
        return next((row for row in rows if row.name == defense_name(METHOD)), rows[0] if rows else None)


def _mean(rates: Sequence[Estimate]) -> Estimate:
    mean, low, high = (float(np.mean([getattr(r, part) for r in rates])) for part in ("mean", "low", "high"))
    return Estimate(mean, low, high)
