"""Which configuration is chosen, by one of two rules: one that knows the trigger, and one that does not.

The report, a comparison's rows, its searches and a sweep's live "best" all choose by it. Needs no library.

Both look at candidates whose clean accuracy (CA), measured on the validation split, lies at most a floor below that of
the poisoned model. A candidate below the floor never wins: what to do when none qualifies is the caller's to decide.

- `lowest_asr`: the lowest attack success rate (ASR) wins; ties go to the higher CA. It takes the trigger to measure it:
  the choice of an oracle, by which defenses are compared.
- `trigger_free`: of those whose selected pairs are *no longer alike*, the one that loses least, of CA and of the
  similarity of held pairs. It is what a defender can do who has the suspicious pairs and nothing of the attack.

Remaining ties go to the earlier candidate. Rates are means over seeds (and, in a comparison, over attacks).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, get_args

CA_FLOOR = 0.02
"""How much CA, as a fraction, a choice may lose unless a study says otherwise."""

RuleName = Literal["lowest_asr", "trigger_free"]
"""The rules that there are."""
RULES: tuple[RuleName, ...] = get_args(RuleName)

EpochsCounted = Literal["every", "last"]
"""Which epochs of a configuration may be chosen: every one that was judged, or only the last, where it ends."""

KNOWS: Mapping[RuleName, str] = {
    "lowest_asr": "the trigger, which attack success is measured with, and the labels of the validation images",
    "trigger_free": "the labels of the validation images and the similarity of pairs, but neither trigger nor target",
}
"""What each rule knows, in words."""

ALIKE = 0.1
"""`Seen.alike` up to which selected pairs are no longer alike: twice what chance gives. Fixed on BadNets and BadCLIP,
and held against other attacks and photographs in docs/results.md."""

_ROUNDING = 1e-9
"""0.82 − 0.80 is not 0.02 in binary: a loss that lies on the floor qualifies."""


@dataclass(frozen=True)
class Seen:
    """What a defender sees of a candidate without the trigger (`ubt.stages.observation`)."""

    alike: float
    """Share of suspicious images that are nearer to what selected captions have in common than 95 % of ordinary images
    are, in [0, 1]; chance gives 0.05."""
    held_lost: float
    """Cosine similarity of held pairs, their mean, under the poisoned model less that under the candidate; below 0 for
    a gain."""

    @classmethod
    def of(cls, observed: Mapping[str, float]) -> Seen | None:
        """Return it from what a stage's observation has recorded; None if it has not recorded all of it."""
        try:
            return cls(observed["alike"], observed["held_similarity_before"] - observed["held_similarity"])
        except KeyError:
            return None


def mean_seen(found: Iterable[Seen | None]) -> Seen | None:
    """Return the mean over seeds or attacks; None if there are none, or nothing was seen of one."""
    every = list(found)
    known = [seen for seen in every if seen]
    if not known or len(known) < len(every):
        return None
    return Seen(fmean(seen.alike for seen in known), fmean(seen.held_lost for seen in known))


@dataclass(frozen=True)
class Candidate:
    """What the choice looks at: rates on the validation split as fractions in [0, 1], and what is seen without them."""

    asr: float | None
    """None if no attack is known."""
    ca: float
    ca_lost: float
    """CA of the poisoned model less `ca`; below 0 for a gain."""
    order: int
    """Position among the candidates, as the number of the first trial; the last tie-break."""
    seen: Seen | None = None
    """None if the defense selects no pairs to look at."""

    def measured(self, rule: RuleName) -> bool:
        """Return whether there is what the rule looks at."""
        return (self.asr if rule == "lowest_asr" else self.seen) is not None

    def qualifies(self, ca_floor: float, rule: RuleName = "lowest_asr") -> bool:
        """Return whether the candidate loses at most `ca_floor` of CA and has all else that the rule asks for."""
        if not self.measured(rule) or not keeps_accuracy(self.ca_lost, ca_floor):
            return False
        return rule == "lowest_asr" or self._unlike

    def rank(self, rule: RuleName = "lowest_asr") -> tuple[float, float, int]:
        """Return what candidates that qualify are sorted by, best first; `ValueError` if it is not measured."""
        if rule == "lowest_asr":
            if self.asr is None:
                raise ValueError("no attack is known, so there is no ASR to choose by")
            return self.asr, -self.ca, self.order
        return self._lost, -self.ca, self.order

    def shortfall(self, rule: RuleName = "lowest_asr") -> tuple[float, float, float, int]:
        """Return what candidates are sorted by of which none qualifies, the nearest to it first.

        Without the trigger those come first whose pairs are no longer alike: what is left of a backdoor is worse than
        a loss of accuracy, which can be seen.
        """
        if rule == "lowest_asr":
            return self.ca_lost, 0.0 if self.asr is None else self.asr, -self.ca, self.order
        alike = self.seen.alike if self.seen and not self._unlike else 0.0
        return alike, self._lost, -self.ca, self.order

    @property
    def _unlike(self) -> bool:
        return self.seen is not None and self.seen.alike <= ALIKE

    @property
    def _lost(self) -> float:
        """Return what the candidate has lost: of CA, and of the similarity of held pairs."""
        if self.seen is None:
            raise ValueError("nothing was seen without the trigger")
        return self.ca_lost + self.seen.held_lost


def mean_candidate(found: Sequence[Candidate]) -> Candidate:
    """Return the mean of what was measured under several seeds or attacks, in the place of the first."""
    ca, lost = fmean(one.ca for one in found), fmean(one.ca_lost for one in found)
    attacked = [one.asr for one in found if one.asr is not None]
    asr = fmean(attacked) if len(attacked) == len(found) else None
    return Candidate(asr, ca, lost, found[0].order, mean_seen(one.seen for one in found))


def keeps_accuracy(ca_lost: float, ca_floor: float) -> bool:
    """Return whether a loss of CA lies within the floor, or on it.

    Example:
        >>> keeps_accuracy(0.82 - 0.80, ca_floor=0.02)
        True
    """
    return ca_lost <= ca_floor + _ROUNDING


def choose(candidates: Iterable[Candidate], ca_floor: float, rule: RuleName = "lowest_asr") -> Candidate | None:
    """Return the candidate that wins by a rule, None if none qualifies.

    Example:
        >>> poisoned_ca = 0.82
        >>> rates = [(0.30, 0.82), (0.10, 0.81), (0.00, 0.50)]
        >>> found = [Candidate(asr, ca, poisoned_ca - ca, at) for at, (asr, ca) in enumerate(rates)]
        >>> choose(found, ca_floor=0.02).order
        1
    """
    able = (one for one in candidates if one.qualifies(ca_floor, rule))
    return min(able, key=lambda one: one.rank(rule), default=None)


def nearest(candidates: Iterable[Candidate], rule: RuleName = "lowest_asr") -> Candidate | None:
    """Return the candidate that is nearest to qualifying, where none does; None if nothing was measured."""
    able = (one for one in candidates if one.measured(rule))
    return min(able, key=lambda one: one.shortfall(rule), default=None)
