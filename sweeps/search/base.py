"""What a search is: a space, conditions, the configurations it lays out, and how they are proposed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import Field, JsonValue

from sweeps.search.space import Space
from ubt.config import Config
from ubt.trials.labels import NO_LABEL, TrialLabel

Changes = dict[str, JsonValue]
"""Dotted path → value, where a configuration differs from the study's base. {} is the base itself."""


@dataclass(frozen=True)
class Proposal:
    """One configuration to try."""

    number: int
    changes: Changes = field(default_factory=dict)
    label: TrialLabel = NO_LABEL
    """What the design calls it; configurations of different labels are different trials."""
    replicates: int | None = None
    """Run it with this many of the study's seeds, the first ones; with all if None."""


@dataclass(frozen=True)
class Outcome:
    """What came of a configuration: its objectives on the validation split, or None if it failed."""

    values: tuple[float, ...] | None
    ca_lost: float | None = None
    """Clean accuracy lost against the poisoned model, for searches that are told which configurations qualify."""


class Proposer(Protocol):
    """Where configurations come from."""

    @property
    def exhausted(self) -> bool:
        """Tell whether there will be no further proposal."""

    def propose(self) -> Proposal | None:
        """Return the next configuration, or None if none can be named before more outcomes are told."""

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Take note of what came of a proposal; each is told once, in any order."""

    def finish(self) -> None:
        """Settle what is open, when the last trial has ended."""


class DesignProposer:
    """Proposes configurations one after the other; they depend on no outcome."""

    def __init__(self, layout: Sequence[Changes], labels: Sequence[TrialLabel] = ()) -> None:
        named = zip(layout, labels or [NO_LABEL] * len(layout), strict=True)
        self._proposals = [Proposal(number, changes, label) for number, (changes, label) in enumerate(named)]
        self._next = 0

    @property
    def exhausted(self) -> bool:
        """Tell whether all have been proposed."""
        return self._next >= len(self._proposals)

    def propose(self) -> Proposal | None:
        """Return the next configuration of the design."""
        if self.exhausted:
            return None
        self._next += 1
        return self._proposals[self._next - 1]

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """A design learns nothing."""

    def finish(self) -> None:
        """Nothing is open."""


Condition = dict[str, JsonValue]
"""Dotted path → the value, or the list of values, that it must have."""


class Search(Config):
    """How a study looks for configurations."""

    space: Space = Field(default_factory=dict)
    """Dotted path → a list of values, or a range (`low`, `high`, `log`, `step`)."""
    when: dict[str, Condition] = Field(default_factory=dict)
    """Searched path → what must hold for it to exist: where it does not, the path keeps its base value and
    configurations that differ in nothing else are one."""

    def layout(self) -> list[Changes]:
        """Return the configurations in order; `ValueError` if they cannot be laid out."""
        raise NotImplementedError

    def label(self, changes: Changes) -> TrialLabel:
        """Return what the design calls a configuration of its layout; an empty label if it has no names for them."""
        return NO_LABEL
