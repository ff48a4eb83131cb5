"""Optuna by ask and tell, in an order that does not depend on which trial happens to end first.

Configuration k is asked knowing the outcomes of exactly those up to k − lag, given in order, and with a sampler
seeded by k. So the same study and lag give the same trials on any number of workers, and after any interruption; but
a trial that was lost to a fault stays a failure to the search, though a resume runs it again.

A storage that was lost is rebuilt by asking again, and telling what the records say: the same questions with the same
seeds, so the same answers. Where one differs (another version of Optuna, an outcome that was told otherwise), what has
a record is asked for, so that no trial is left out and none is run beyond those that were asked for.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from sweeps.search.base import identity
from sweeps.search.curves.sampler import CurveSampler, attributes_of
from sweeps.search.optuna_points import Point, Points
from sweeps.search.optuna_samplers import DistinctSampler, Drawn, taken_into_account
from sweeps.search.optuna_storage import SOURCE, copied, open_storage, renewed, source_of, tell_earlier
from sweeps.search.proposals import Changes, Earlier, Outcome, Proposal
from ubt.common.hashing import derive
from ubt.config.dotted_paths import JsonObject

if TYPE_CHECKING:
    from sweeps.search.adaptive import Adaptive
    from sweeps.search.curves.prices import Prices

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

logger = logging.getLogger(__name__)

FAILED = "failed"
"""The constraint that a configuration breaks which failed by the method: it has no rates, and yet is a result."""


class OptunaProposer:
    """Proposes what an Optuna study asks for; distinct configurations only."""

    def __init__(
        self,
        search: Adaptive,
        base: JsonObject,
        lag: int,
        journal: Path,
        name: str,
        ca_floor: float = 0.0,
        recorded: Mapping[int, Changes] | None = None,
        earlier: Iterable[Earlier] = (),
    ) -> None:
        """Go on with the search in `journal`; `recorded` are the configurations that have a record, by number.

        Of what other runs have found out `earlier`, only what lies in the space is told.

        Raises:
            UserError: if the journal cannot be written.
        """
        self._search = search
        self._name = name.rpartition("-")[2]
        self._recorded = recorded or {}
        self._ca_floor = ca_floor
        self._lag = lag
        self._points = Points(search, base)
        self._earlier = self._as_trials(earlier)
        self.drawn = Drawn()
        self.prices: Prices | None = None
        """What configurations cost, for a sampler that weighs it; set by who knows the study."""
        self._asked: dict[int, Proposal] = {}
        self._by_identity: dict[str, Proposal] = {}
        self._names = {self._points.name(trial.params) for trial in self._earlier.values()}
        """Of all configurations that are known."""
        self._outcomes: dict[int, Outcome] = {}
        self._told = 0
        self._complete = False
        self._base_inside = self._points.base is not None
        storage = open_storage(journal, name)
        self._study = storage.study
        self._known = self._take_over()
        self._compare_with_records(journal, name, storage.damage)
        self._numbers = [trial.number for trial in self._known]
        self._trials = {trial.number: Trial(self._study, trial._trial_id) for trial in self._known}
        self._size = self._points.count + (0 if self._base_inside else 1)

    @property
    def questions(self) -> int:
        """Return how many questions Optuna was asked."""
        return len(self._asked)

    @property
    def exhausted(self) -> bool:
        """Tell whether all distinct configurations that were asked for, or that there are, have been proposed."""
        return self._complete or len(self._by_identity) >= self._search.n_trials or len(self._names) >= self._size

    def propose(self) -> Proposal | None:
        """Return the next configuration not proposed before; None while an outcome it depends on is open."""
        if not self._by_identity and not self._base_inside:
            return self._remember({})  # the base is run first even where Optuna would not look
        while not self.exhausted and self._tell_up_to(len(self._asked) - self._lag):
            changes, asked_before = self._ask(len(self._asked)), len(self._asked) < len(self._known)
            known = self._by_identity.get(identity(changes))
            self._asked[len(self._asked)] = known or self._remember(changes)
            if known is None:
                return self._asked[len(self._asked) - 1]
            if not asked_before:  # journals of before have repeats
                self._give_up()
        return None

    def _give_up(self) -> None:
        self._complete = True
        text = "nothing new is found: the search ends after %d configurations of the %d asked for"
        logger.warning(text, len(self._by_identity), self._search.n_trials)

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Keep the outcome until its turn."""
        self._outcomes[proposal.number] = outcome

    def finish(self) -> None:
        """Tell Optuna all outcomes that are known."""
        self._tell_up_to(len(self._asked) - 1)

    def _remember(self, changes: Changes) -> Proposal:
        number = len(self._by_identity)
        proposal = Proposal(number, changes, asked_as=f"{self._name}/{number}")
        self._by_identity[identity(changes)] = proposal
        self._names.add(identity(changes))
        return proposal

    def _tell_up_to(self, last: int) -> bool:
        """Tell outcomes in order up to question `last`; False if one of them is not known yet."""
        while self._told <= last:
            outcome = self._outcomes.get(self._asked[self._told].number)
            if outcome is None:
                return False
            if not self._is_settled(self._told):
                self._tell_one(self._told, outcome)
            self._told += 1
        return True

    def _is_settled(self, question: int) -> bool:
        return question < len(self._known) and self._known[question].state.is_finished()

    def _tell_one(self, question: int, outcome: Outcome) -> None:
        number = self._numbers[question]
        state, values, constraints = self._as_told(outcome)
        for name, value in constraints.items():
            self._trials[number].set_constraint(name, value)
        for name, kept in self._kept_of(outcome).items():
            self._trials[number].set_user_attr(name, kept)
        self._study.tell(number, values, state=state)

    def _kept_of(self, outcome: Outcome) -> dict[str, object]:
        """Return what the sampler learns from beside values."""
        return attributes_of(outcome) if self._search.sampler == "curves" else {}

    def _as_told(self, outcome: Outcome) -> tuple[TrialState, tuple[float, ...] | None, dict[str, float]]:
        """Return state, values and constraints by which Optuna learns of an outcome.

        A configuration that failed by the method is pruned and breaks a constraint: TPE then looks elsewhere, and no
        value is made up. FAIL it leaves out of account, as is right for faults.
        """
        values, constraints = outcome.values, {}
        if self._search.constrain_ca and outcome.ca_lost is not None:
            constraints["ca_floor"] = outcome.ca_lost - self._ca_floor
        if values is not None and all(map(math.isfinite, values)):
            return TrialState.COMPLETE, values, constraints
        if outcome.ruled_out or values is not None:
            return TrialState.PRUNED, None, {**constraints, FAILED: 1.0}
        return TrialState.FAIL, None, constraints

    def _as_trials(self, earlier: Iterable[Earlier]) -> dict[str, FrozenTrial]:
        """Return what other runs have found out as Optuna has it, by source. The base is left out: it is run anyway."""
        trials = {}
        for found in earlier:
            point = self._points.of(found.changes) if found.changes else None
            state, values, constraints = self._as_told(found.outcome)
            if point is None or state is TrialState.FAIL:
                continue
            trials[found.source] = optuna.trial.create_trial(
                state=state,
                values=values,
                params=point,
                distributions=self._points.distributions,
                user_attrs={SOURCE: found.source, **self._kept_of(found.outcome)},
                system_attrs=taken_into_account(self._search.sampler),
                constraints=constraints,
            )
        return trials

    def _ask(self, question: int) -> Changes:
        """Return the answer to a question: from the storage if it was asked before an interruption."""
        if question < len(self._known):
            return self._points.changes(self._known[question].params)
        self._study.sampler = self._sampler(question, self.drawn)
        first = self._wanted(question) or (self._points.base if question == 0 else None)
        if first is not None and not self._waiting():
            self._study.enqueue_trial(first)
        trial = self._study.ask(self._points.distributions)
        self._numbers.append(trial.number)
        self._trials[trial.number] = trial
        return self._points.changes(trial.params)

    def _take_over(self) -> list[FrozenTrial]:
        """Return the trials that were asked before an interruption; one that hit a question voids the answer."""
        asked = self._study.get_trials(deepcopy=False)
        paths = self._points.distributions.keys()
        for trial in asked:
            if trial.state is TrialState.RUNNING and trial.params.keys() != paths:
                self._study.tell(trial.number, state=TrialState.FAIL)
        return [trial for trial in asked if trial.params.keys() == paths and not source_of(trial)]

    def _compare_with_records(self, journal: Path, name: str, damage: str) -> None:
        """Say so if the storage lacks what has a record; one that says otherwise than the records is set aside.

        What other runs have found out is told to one that does not know it.
        """
        numbered = self._by_number()
        differs = any(
            identity(self._recorded.get(number, changes)) != identity(changes) for number, changes in numbered
        )
        differs = differs or any(trial.state is TrialState.WAITING for trial in self._known)  # and yet has been asked
        if differs or not tell_earlier(self._study, self._earlier):
            self._study, aside = renewed(journal, name)
            tell_earlier(self._study, self._earlier)
            self._known = []
            numbered = self._by_number()
            damage = f"contradicts the records, and is set aside as {aside.name}"
        lacking = len(self._recorded.keys() - {number for number, _ in numbered})
        if lacking or (damage and self._recorded):
            reason = damage or f"lacks {lacking} of the configurations that have a record"
            logger.warning("Optuna's storage %s %s: it is rebuilt from the records", journal, reason)

    def _by_number(self) -> list[tuple[int, Changes]]:
        """Return the configurations that the storage was asked for, each with its number."""
        distinct: dict[str, Changes] = {} if self._base_inside else {identity({}): {}}
        for trial in self._known:
            changes = self._points.changes(trial.params)
            distinct.setdefault(identity(changes), changes)
        return list(enumerate(distinct.values()))

    def _wanted(self, question: int) -> Point | None:
        """Return the point that has to be asked for, so that what has a record is answered by it; else None."""
        changes = self._recorded.get(len(self._by_identity))
        if changes is None:
            return None
        # What would be the answer? Asked of a copy, as a question cannot be taken back.
        copy = copied(self._study)
        copy.sampler = self._sampler(question, Drawn())
        if question == 0 and (base := self._points.base) is not None and not self._waiting():
            copy.enqueue_trial(base)
        answer = identity(self._points.changes(copy.ask(self._points.distributions).params))
        return None if answer in self._by_identity or answer == identity(changes) else self._points.of(changes)

    def _waiting(self) -> bool:
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _sampler(self, question: int, drawn: Drawn) -> DistinctSampler:
        seed = derive(self._search.sampler_seed, "ask", question) % 2**32
        curves = None
        if self._search.sampler == "curves":
            curves = CurveSampler(self._points, self.prices, self._search.startup_trials, seed)
        return DistinctSampler(self._search, self._points, self._names, seed, drawn, curves)
