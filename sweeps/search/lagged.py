"""A search in step: each configuration begins when those up to a lag before it have ended.

So what is known of the others when it begins is the same on any number of workers (see `ubt.trials.stopping`).
"""

from __future__ import annotations

from sweeps.search.base import Study
from sweeps.search.proposals import Outcome, Proposal, Proposer


def in_step(proposer: Proposer, study: Study) -> Proposer:
    """Return what proposes a study's configurations; in step, if its trials are stopped by what others did."""
    stopping = study.search.stopping
    return Lagged(proposer, stopping.lag) if stopping and stopping.lag else proposer


class Lagged:
    """Proposes configuration i when the outcomes of those up to i − lag are known."""

    def __init__(self, proposer: Proposer, lag: int) -> None:
        self._proposer = proposer
        self._lag = lag
        self._order: list[int] = []
        """Numbers in the order in which they were proposed."""
        self._known: set[int] = set()
        self._ended = 0
        """So many, from the first one on, have ended."""

    @property
    def exhausted(self) -> bool:
        """Tell whether there will be no further proposal."""
        return self._proposer.exhausted

    def propose(self) -> Proposal | None:
        """Return the next configuration; None before those up to a lag before it have ended."""
        if len(self._order) - self._ended >= self._lag or (proposal := self._proposer.propose()) is None:
            return None
        self._order.append(proposal.number)
        return proposal

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Pass on what came of a proposal."""
        self._known.add(proposal.number)
        while self._ended < len(self._order) and self._order[self._ended] in self._known:
            self._ended += 1
        self._proposer.tell(proposal, outcome)

    def finish(self) -> None:
        """Settle what is open."""
        self._proposer.finish()
