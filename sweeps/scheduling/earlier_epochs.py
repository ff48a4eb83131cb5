"""Earlier epochs on the front: once a search has ended, trials that end there, and judge those models in full.

A search runs configurations to their last epoch, and their models are judged on validation after each. Where an
earlier epoch is on the front, or chosen, the configuration with so many epochs is run as a trial of its own: it finds
what it has in common with the longer one in the store, ends there, and has test rates and a model like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sweeps.search.base import identity
from sweeps.search.proposals import Outcome, Proposal, Proposer

Wanted = Callable[[], Sequence[Proposal]]
"""Says which earlier epochs are to be judged, going by the records there are; numbers are given here."""


class EarlierEpochs:
    """Proposes a search's configurations and, when all of them have ended, earlier epochs of theirs that are wanted.

    What these show may bring others onto the front, so it is asked again until there is nothing new. The search is told
    of its own configurations alone.
    """

    def __init__(self, proposer: Proposer, wanted: Wanted) -> None:
        self._proposer = proposer
        self._wanted = wanted
        self._open = 0
        self._next = 0
        self._queue: list[Proposal] = []
        self._asked: set[str] = set()
        self._over = False

    @property
    def exhausted(self) -> bool:
        """Tell whether there will be no further proposal."""
        return self._over

    def propose(self) -> Proposal | None:
        """Return the next configuration of the search, and after its last outcome the next earlier epoch."""
        proposal = self._proposer.propose()
        if proposal is None and self._proposer.exhausted:
            proposal = self._earlier()
        if proposal is not None:
            self._open += 1
            self._next = max(self._next, proposal.number + 1)
        return proposal

    def _earlier(self) -> Proposal | None:
        if not self._queue and not self._open and not self._over:
            self._queue = [one for one in self._wanted() if identity(one.changes) not in self._asked]
            self._over = not self._queue
        if not self._queue:
            return None
        proposal = replace(self._queue.pop(0), number=self._next)
        self._asked.add(identity(proposal.changes))
        return proposal

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Take note of what came of a proposal."""
        self._open -= 1
        if not proposal.label.epoch_of:
            self._proposer.tell(proposal, outcome)

    def finish(self) -> None:
        """Settle what is open."""
        self._proposer.finish()
