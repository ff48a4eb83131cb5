"""As much of a search as its budget allows, in trials: time and money are watched where trials run."""

from __future__ import annotations

from dataclasses import replace

from sweeps.search.base import Study
from sweeps.search.proposals import Outcome, Proposal, Proposer


def limited(proposer: Proposer, study: Study) -> Proposer:
    """Return what proposes a study's configurations as far as its budget allows that many trials."""
    budget = study.search.budget
    return Limited(proposer, budget.trials, len(study.seeds)) if budget and budget.trials else proposer


class Limited:
    """Proposes as much of a search as makes so many trials, in its order: the same on any number of workers."""

    def __init__(self, proposer: Proposer, trials: int, seeds: int) -> None:
        """Limit a search whose configurations run with `seeds` seeds each, unless a proposal says otherwise."""
        self._proposer = proposer
        self._left = trials
        self._seeds = seeds

    @property
    def exhausted(self) -> bool:
        """Tell whether there will be no further proposal."""
        return not self._left or self._proposer.exhausted

    def propose(self) -> Proposal | None:
        """Return the next configuration; the last one perhaps with fewer of its seeds."""
        if not self._left or (proposal := self._proposer.propose()) is None:
            return None
        wanted = (proposal.replicates or self._seeds) - proposal.first
        runs = min(wanted, self._left)
        self._left -= runs
        return proposal if runs == wanted else replace(proposal, replicates=proposal.first + runs)

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Pass on what came of a proposal."""
        self._proposer.tell(proposal, outcome)

    def finish(self) -> None:
        """Settle what is open."""
        self._proposer.finish()
