"""Configurations on their way to trials, and who proposes them: all at once, or as outcomes come in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import JsonValue

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
    first: int = 0
    """Of these, leave out so many that it has run with before."""
    asked_as: str = ""
    """Its place in a search that learns from results, SEARCH/NUMBER; empty if it was known beforehand."""


@dataclass(frozen=True)
class Outcome:
    """What came of a configuration: its objectives on the validation split, or None if it failed."""

    values: tuple[float, ...] | None
    """ASR and CA; where configurations are chosen without the trigger, how alike selected pairs are (`Seen.alike`)
    stands for ASR: a search must not learn from what its rule does not know."""
    ca_lost: float | None = None
    """Clean accuracy lost against the poisoned model, for searches that look at which configurations qualify."""
    held_lost: float | None = None
    """Similarity lost of held pairs, where configurations are chosen without the trigger."""
    ruled_out: bool = False
    """There are no values, and that is a result: the configuration failed by the method, or was stopped before anything
    was measured. (What a fault or a mistake ended says nothing of its configuration.)"""
    epochs: tuple[tuple[int, float, float], ...] = ()
    """Each judged epoch that every seed has measured, with both values after it: for samplers that learn from it."""


@dataclass(frozen=True)
class Earlier:
    """What another run has found out about a configuration of the same space."""

    changes: Changes
    outcome: Outcome
    source: str
    """The first trial of it, RUN/TRIAL."""


class Proposer(Protocol):
    """Where configurations come from."""

    @property
    def exhausted(self) -> bool:
        """Tell whether there will be no further proposal."""

    def propose(self) -> Proposal | None:
        """Return the next configuration, or None if none can be named before more outcomes are known."""

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Take note of what came of a proposal: once for each, in any order."""

    def finish(self) -> None:
        """Settle what is open, when the last trial has ended."""


class DesignProposer:
    """Proposes configurations one after the other; they depend on no outcome."""

    def __init__(self, proposals: Sequence[Proposal]) -> None:
        self._proposals = proposals
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
