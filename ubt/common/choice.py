"""Which configuration is chosen: lowest attack success rate within the floor of clean accuracy. The one rule.

The report, a comparison's rows, its searches and a sweep's live "best" all choose by it. Needs no library.

Among candidates whose clean accuracy (CA), measured on the validation split, lies at most a floor below that of the
poisoned model, the one of lowest attack success rate (ASR) wins; ties go to the higher CA, then to the earlier one.
Rates are means over seeds (and, in a comparison, over attacks). A candidate below the floor never wins: what to do when
none qualifies is the caller's to decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

CA_FLOOR = 0.02
"""How much CA, as a fraction, a choice may lose unless a study says otherwise."""

_ROUNDING = 1e-9
"""0.82 − 0.80 is not 0.02 in binary: a loss that lies on the floor qualifies."""


@dataclass(frozen=True)
class Candidate:
    """What the choice looks at: rates on the validation split as fractions in [0, 1]."""

    asr: float
    ca: float
    ca_lost: float
    """CA of the poisoned model less `ca`; below 0 for a gain."""
    order: int
    """Position among the candidates, as the number of the first trial; the last tie-break."""

    def qualifies(self, ca_floor: float) -> bool:
        """Return whether the candidate loses at most `ca_floor` of CA."""
        return keeps_accuracy(self.ca_lost, ca_floor)

    @property
    def rank(self) -> tuple[float, float, int]:
        """Return what candidates that qualify are sorted by, best first."""
        return self.asr, -self.ca, self.order


def keeps_accuracy(ca_lost: float, ca_floor: float) -> bool:
    """Return whether a loss of CA lies within the floor, or on it.

    Example:
        >>> keeps_accuracy(0.82 - 0.80, ca_floor=0.02)
        True
    """
    return ca_lost <= ca_floor + _ROUNDING


def choose(candidates: Iterable[Candidate], ca_floor: float) -> Candidate | None:
    """Return the candidate that wins, None if none qualifies.

    Example:
        >>> poisoned_ca = 0.82
        >>> rates = [(0.30, 0.82), (0.10, 0.81), (0.00, 0.50)]
        >>> found = [Candidate(asr, ca, poisoned_ca - ca, at) for at, (asr, ca) in enumerate(rates)]
        >>> choose(found, ca_floor=0.02).order
        1
    """
    return min((one for one in candidates if one.qualifies(ca_floor)), key=lambda one: one.rank, default=None)
