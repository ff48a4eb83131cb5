"""Optuna by ask and tell, in an order that does not depend on which trial happens to end first.

Configuration k is asked knowing the outcomes of exactly those up to k − lag, given in order, and with a sampler
seeded by k. So the same study and lag give the same trials on any number of workers, and after any interruption; but
a trial that was lost to a fault stays a failure to the search, though a resume runs it again.

A storage that was lost is rebuilt by asking again, and telling what the records say: the same questions with the same
seeds, so the same answers. Where one differs (another version of Optuna, an outcome that was told otherwise), what has
a record is asked for, so that no trial is left out and none is run beyond those that were asked for.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import JsonValue

from sweeps.search.base import differing, identity
from sweeps.search.optuna_storage import copied, open_storage, renewed
from sweeps.search.proposals import Changes, Outcome, Proposal
from sweeps.search.space import Dimension, Range, contains, samples_of, space_size, tidy
from ubt.common.hashing import derive
from ubt.config.dotted_paths import JsonObject, get_path

if TYPE_CHECKING:
    from sweeps.search.adaptive import Adaptive

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

logger = logging.getLogger(__name__)

MAX_REPEATS = 50
"""Repeats in a row after which a search over few configurations is taken for complete."""

SAMPLERS: dict[str, Callable[[int, Adaptive], BaseSampler]] = {
    "tpe": lambda seed, search: TPESampler(seed=seed, n_startup_trials=search.startup_trials),
    "nsgaii": lambda seed, search: NSGAIISampler(seed=seed, population_size=search.startup_trials),
    "gp": lambda seed, search: GPSampler(seed=seed, n_startup_trials=search.startup_trials),
    "random": lambda seed, search: RandomSampler(seed=seed),
    "qmc": lambda seed, search: QMCSampler(
        seed=search.sampler_seed,  # a sequence needs one seed throughout
        independent_sampler=RandomSampler(seed=seed),  # lists are not part of it
    ),
}


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
    ) -> None:
        """Go on with the search in `journal`; `recorded` are the configurations that have a record, by number.

        Raises:
            UserError: if the journal cannot be written.
        """
        self._search = search
        self._name = name.rpartition("-")[2]
        self._recorded = recorded or {}
        self._ca_floor = ca_floor
        self._base = base
        self._lag = lag
        self._distributions = {path: _distribution(d) for path, d in search.space.items()}
        storage = open_storage(journal, name)
        self._study = storage.study
        self._asked: dict[int, Proposal] = {}
        self._by_identity: dict[str, Proposal] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._told = 0
        self._repeats = 0
        self._complete = False
        self._base_inside = self._base_parameters() is not None
        self._known = self._take_over()
        self._compare_with_records(journal, name, storage.damage)
        self._numbers = [trial.number for trial in self._known]
        self._trials = {trial.number: Trial(self._study, trial._trial_id) for trial in self._known}
        self._size = space_size(search.space) + (0 if self._base_inside else 1)

    @property
    def exhausted(self) -> bool:
        """Tell whether all distinct configurations that were asked for, or that there are, have been proposed."""
        return self._complete or len(self._by_identity) >= min(self._search.n_trials, self._size)

    def propose(self) -> Proposal | None:
        """Return the next configuration not proposed before; None while an outcome it depends on is open."""
        if not self._by_identity and not self._base_inside:
            return self._remember({})  # the base is run first even where Optuna would not look
        while not self.exhausted and self._tell_up_to(len(self._asked) - self._lag):
            changes = self._ask(len(self._asked))
            known = self._by_identity.get(identity(changes))
            self._asked[len(self._asked)] = known or self._remember(changes)
            if known is None:
                self._repeats = 0
                return self._asked[len(self._asked) - 1]
            self._repeats += 1
            if self._repeats >= MAX_REPEATS:
                self._give_up()
        return None

    def _give_up(self) -> None:
        self._complete = True
        text = "the sampler only repeats itself: the search ends after %d configurations of the %d asked for"
        logger.warning(text, len(self._by_identity), self._search.n_trials)

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Keep the outcome until its turn; repeats of the configuration get the same one."""
        self._outcomes[proposal.number] = outcome

    def finish(self) -> None:
        """Tell Optuna all outcomes that are known."""
        self._tell_up_to(len(self._asked) - 1)

    def _remember(self, changes: Changes) -> Proposal:
        number = len(self._by_identity)
        proposal = Proposal(number, changes, asked_as=f"{self._name}/{number}")
        self._by_identity[identity(changes)] = proposal
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
        number, values = self._numbers[question], outcome.values
        if self._search.constrain_ca and outcome.ca_lost is not None:
            self._trials[number].set_constraint("ca_floor", outcome.ca_lost - self._ca_floor)
        if values is None or not all(map(math.isfinite, values)):
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, values)

    def _ask(self, question: int) -> Changes:
        """Return the answer to a question: from the storage if it was asked before an interruption."""
        if question < len(self._known):
            return self._changes(self._known[question].params)
        self._study.sampler = self._sampler(question)
        first = self._wanted(question) or (self._base_parameters() if question == 0 else None)
        if first is not None and not self._waiting():
            self._study.enqueue_trial(first)
        trial = self._study.ask(self._distributions)
        self._numbers.append(trial.number)
        self._trials[trial.number] = trial
        return self._changes(trial.params)

    def _take_over(self) -> list[FrozenTrial]:
        """Return the trials that were asked before an interruption; one that hit a question voids the answer."""
        asked = self._study.get_trials(deepcopy=False)
        for trial in asked:
            if trial.state is TrialState.RUNNING and trial.params.keys() != self._distributions.keys():
                self._study.tell(trial.number, state=TrialState.FAIL)
        return [trial for trial in asked if trial.params.keys() == self._distributions.keys()]

    def _compare_with_records(self, journal: Path, name: str, damage: str) -> None:
        """Say so if the storage lacks what has a record; one that says otherwise than the records is set aside."""
        numbered = self._by_number()
        differs = any(
            identity(self._recorded.get(number, changes)) != identity(changes) for number, changes in numbered
        )
        if differs or any(trial.state is TrialState.WAITING for trial in self._known):  # and yet has been asked
            self._study, aside = renewed(journal, name)
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
            changes = self._changes(trial.params)
            distinct.setdefault(identity(changes), changes)
        return list(enumerate(distinct.values()))

    def _wanted(self, question: int) -> Changes | None:
        """Return the point that has to be asked for, so that what has a record is answered by it; else None."""
        changes = self._recorded.get(len(self._by_identity))
        if changes is None:
            return None
        # What would be the answer? Asked of a copy, as a question cannot be taken back.
        copy = copied(self._study)
        copy.sampler = self._sampler(question)
        if question == 0 and (base := self._base_parameters()) is not None and not self._waiting():
            copy.enqueue_trial(base)
        answer = identity(self._changes(copy.ask(self._distributions).params))
        return None if answer in self._by_identity or answer == identity(changes) else self._point(changes)

    def _waiting(self) -> bool:
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _sampler(self, question: int) -> BaseSampler:
        seed = derive(self._search.sampler_seed, "ask", question) % 2**32
        if self._repeats > self._lag:  # the sampler insists on what is known: draw at random instead
            return RandomSampler(seed=seed)
        return SAMPLERS[self._search.sampler](seed, self._search)

    def _base_parameters(self) -> Changes | None:
        """Return the base as a point of the space; None if it lies outside."""
        values = {path: get_path(self._base, path) for path in self._search.space}
        inside = all(contains(dimension, values[path]) for path, dimension in self._search.space.items())
        return self._encoded(values) if inside else None

    def _point(self, changes: Changes) -> Changes | None:
        """Return a point of the space that stands for a configuration; None if none does."""
        values = {path: changes.get(path, get_path(self._base, path)) for path in self._search.space}
        outside = [path for path, dimension in self._search.space.items() if not contains(dimension, values[path])]
        point = self._encoded({**values, **{path: samples_of(self._search.space[path])[0][0] for path in outside}})
        return point if identity(self._changes(point)) == identity(changes) else None

    def _encoded(self, values: Changes) -> Changes:
        return {path: _encoded(self._distributions[path], value) for path, value in values.items()}

    def _changes(self, parameters: dict[str, JsonValue]) -> Changes:
        """Return where a point differs from the base."""
        decoded = {path: _decoded(self._search.space[path], value) for path, value in parameters.items()}
        return differing(self._search.active(decoded, self._base), self._base)


def _distribution(dimension: Dimension) -> BaseDistribution:
    if not isinstance(dimension, Range):
        return CategoricalDistribution([_choice(value) for value in dimension])
    if dimension.whole:
        step = 1 if dimension.step is None else int(dimension.step)
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log, step=step)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def _choice(value: JsonValue) -> str | int | float | bool | None:
    """Return a value as Optuna's storages take it: lists and mappings as JSON text."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def _encoded(distribution: BaseDistribution, value: JsonValue) -> JsonValue:
    return _choice(value) if isinstance(distribution, CategoricalDistribution) else value


def _decoded(dimension: Dimension, value: JsonValue) -> JsonValue:
    if isinstance(dimension, Range):
        return tidy(value) if dimension.step and isinstance(value, int | float) else value
    if isinstance(value, str) and value[:1] in "[{":
        decoded: JsonValue = json.loads(value)
        return decoded
    return value
