"""Effects of several runs beside each other: does what a component is worth in one study hold in the others?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis.effects import Difference, Effect
from analysis.side_by_side.sides import Side


@dataclass(frozen=True)
class EffectRow:
    """One change, in every run that has tried it."""

    name: str
    effects: tuple[Effect | None, ...]
    """For each run that holds effects; None where it has not tried the change."""

    @property
    def apart(self) -> tuple[str, ...]:
        """Return the rates on which the 95 % intervals of two runs have nothing in common."""
        rates: dict[str, Callable[[Effect], Difference | None]] = {"ASR": lambda e: e.asr, "CA": lambda e: e.ca}
        return tuple(name for name, rate in rates.items() if self._is_apart(rate))

    def _is_apart(self, rate: Callable[[Effect], Difference | None]) -> bool:
        found = [known for effect in self.effects if effect and (known := rate(effect))]
        return any(one.high < other.low or other.high < one.low for one, other in itertools.combinations(found, 2))


@dataclass(frozen=True)
class EffectRows:
    """All changes, in the order in which runs hold them."""

    sides: tuple[Side, ...]
    """The runs that hold effects."""
    rows: tuple[EffectRow, ...]

    def __bool__(self) -> bool:
        return len(self.sides) > 1


def effect_rows(sides: Sequence[Side]) -> EffectRows:
    """Return the effects side by side; without rows unless two runs hold any."""
    having = tuple(side for side in sides if side.effects)
    if len(having) < 2:
        return EffectRows(having, ())
    by_name = [{effect.contrast.name: effect for effect in side.effects.effects} for side in having]
    names = dict.fromkeys(name for effects in by_name for name in effects)
    return EffectRows(having, tuple(EffectRow(name, tuple(e.get(name) for e in by_name)) for name in names))
