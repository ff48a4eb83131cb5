"""The trials of a comparison: the defenses' searches first, then the table with what each search has chosen.

A trial's number follows from its place: the searches come first (defense by defense, setting by setting, attack by
attack), then the table (attack by attack, defense by defense). So a study has the same trials under the same
numbers in any order of their ends, and a row of the table may start as soon as its own search has ended.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Literal, cast

from sweeps.search.proposals import Changes, Outcome, Proposal
from ubt.attacks import AttackConfig
from ubt.common.choice import Candidate, RuleName, Seen, nearest
from ubt.common.choice import choose as choose_by_rule
from ubt.config import Config, set_path
from ubt.config.dotted_paths import JsonObject
from ubt.trials.config import TrialConfig
from ubt.trials.labels import ComparisonCell, Phase, TrialLabel

if TYPE_CHECKING:
    from sweeps.search.comparison import ComparedDefense, Comparison

ChooseBy = Literal["mean", "worst"]


def choose(
    outcomes: Sequence[Sequence[Outcome]], by: ChooseBy, ca_floor: float, rule: RuleName = "lowest_asr"
) -> int | None:
    """Return the position of the setting to choose, given `outcomes[S][A]` of S settings on A attacks.

    A rule of `ubt.common.choice` on means over the attacks (or on the highest ASR, or similarity in its place); if
    none qualifies, as when all settings lose more CA than the floor, the nearest to it. A setting that failed on an
    attack is never chosen, unless all failed there: then the victim did, and the attack says nothing of the
    settings. None if nothing was measured.
    """
    measured = [attack for attack in zip(*outcomes, strict=True) if any(outcome.values for outcome in attack)]
    rows = enumerate(zip(*measured, strict=True))
    candidates = [found for at, row in rows if (found := _candidate(at, row, by, rule))]
    chosen = choose_by_rule(candidates, ca_floor, rule) or nearest(candidates, rule)
    return None if chosen is None else chosen.order


def _candidate(at: int, row: Sequence[Outcome], by: ChooseBy, rule: RuleName) -> Candidate | None:
    rates = [outcome.values for outcome in row if outcome.values]
    lost = [outcome.ca_lost for outcome in row if outcome.ca_lost is not None]
    if min(len(rates), len(lost)) < len(row):
        return None
    first, ca = ([rate[part] for rate in rates] for part in (0, 1))
    lowered = max(first) if by == "worst" else fmean(first)
    if rule == "lowest_asr":
        return Candidate(lowered, fmean(ca), fmean(lost), at)
    seen = Seen(lowered, fmean(outcome.held_lost or 0.0 for outcome in row))
    return Candidate(None, fmean(ca), fmean(lost), at, seen)


UNSEARCHED = "search failed"
"""Note on a row whose search could measure nothing; its settings are those that the search starts from."""

logger = logging.getLogger(__name__)


class Trials:
    """Every trial that a comparison may come to have, with its number."""

    def __init__(self, comparison: Comparison) -> None:
        """Number a comparison's trials; `ValueError` if a defense's search cannot be expanded."""
        numbers, on = itertools.count(), comparison.searched_attacks
        self._attacks, defenses = comparison.attacks, comparison.defenses
        self.own = {name: written(compared.defense) for name, compared in defenses.items()}
        """Defense → the settings that its search starts from."""
        self.searches = {
            name: [
                [
                    self._trial(next(numbers), ComparisonCell(phase="search", defense=name, attack=attack), one, 1)
                    for attack in on
                ]
                for one in tried
            ]
            for name, compared in defenses.items()
            if (tried := settings_of(compared))
        }
        """Defense → the trials of its search, `[S][A]`: S settings on the A attacks searched on, with one seed."""
        self._places = {(attack, name): next(numbers) for attack in self._attacks for name in defenses}

    @property
    def searched(self) -> list[Proposal]:
        """Return the trials of all searches by number."""
        return [trial for search in self.searches.values() for settings in search for trial in settings]

    def rows(self, settings: Mapping[str, Changes]) -> list[Proposal]:
        """Return the table's trials of some defenses by number."""
        trials = (trial for name, one in settings.items() for trial in self.row(name, one))
        return sorted(trials, key=lambda trial: trial.number)

    def row(self, name: str, settings: Changes, note: str = "") -> list[Proposal]:
        """Return a defense's trials in the table, against every attack and with every seed."""
        cells = {attack: _cell("table", name, attack, note) for attack in self._attacks}
        return [self._trial(self._places[attack, name], place, settings) for attack, place in cells.items()]

    def _trial(self, number: int, place: ComparisonCell, settings: Changes, replicates: int | None = None) -> Proposal:
        return Proposal(number, cell(self._attacks[place.attack], settings), TrialLabel(cell=place), replicates)


def settings_of(compared: ComparedDefense) -> list[Changes]:
    """Return the distinct settings that a defense's search tries, each a whole defense as one would write it."""
    if compared.search is None:
        return []
    own, base = written(compared.defense), {"defense": compared.defense.as_json()}
    return [_with(own, proposal.changes) for proposal in compared.search.expand(cast(JsonObject, base))]


def cell(attack: AttackConfig, defense: Changes) -> Changes:
    """Return the changes of one trial: the whole attack and the whole defense, in place of the study's own."""
    return {"victim.attack": written(attack), "defense": defense}


def written(part: Config) -> Changes:
    """Return a configuration as one would write it: its kind, and what is not by default; so for what it holds, too."""
    fields = part.model_dump(mode="json", exclude_defaults=True)
    held = {name: value for name in fields if isinstance(value := getattr(part, name), Config)}
    return part.model_dump(mode="json", include={"kind"}) | fields | {name: written(held[name]) for name in held}


class ComparisonProposer:
    """Proposes all searches at once, and each row of the table when its defense's search has ended."""

    def __init__(self, comparison: Comparison, ca_floor: float, rule: RuleName = "lowest_asr") -> None:
        self._choose_by, self._ca_floor, self._rule = comparison.choose_by, ca_floor, rule
        self._trials = Trials(comparison)
        searches = self._trials.searches
        self._searcher = {trial.number: name for name, rows in searches.items() for row in rows for trial in row}
        self._open = {name: sum(map(len, rows)) for name, rows in searches.items()}
        self._outcomes: dict[int, Outcome] = {}
        at_once = {name: own for name, own in self._trials.own.items() if name not in searches}
        self._ready = deque(self._trials.searched + self._trials.rows(at_once))

    @property
    def exhausted(self) -> bool:
        """Tell whether the whole table has been proposed."""
        return not self._ready and not self._open

    def propose(self) -> Proposal | None:
        """Return the next trial; None while those that are left wait for a search."""
        return self._ready.popleft() if self._ready else None

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Note what came of a trial; the last one of a search brings its defense's row of the table."""
        name = self._searcher.get(proposal.number)
        if name is None:
            return  # the table's own outcomes decide nothing
        self._outcomes[proposal.number] = outcome
        self._open[name] -= 1
        if not self._open[name]:
            del self._open[name]
            self._ready.extend(self._chosen_row(name))

    def finish(self) -> None:
        """Nothing is open."""

    def _chosen_row(self, name: str) -> list[Proposal]:
        search = self._trials.searches[name]
        outcomes = [[self._outcomes[trial.number] for trial in settings] for settings in search]
        chosen = choose(outcomes, self._choose_by, self._ca_floor, self._rule)
        if chosen is None:
            logger.warning("no setting of `%s` could be measured: its row of the table is not searched", name)
            return self._trials.row(name, self._trials.own[name], UNSEARCHED)
        return self._trials.row(name, _defense_of(search[chosen][0].changes))


def _with(own: Changes, changes: Changes) -> Changes:
    tree: Changes = {"defense": own}
    for path, value in changes.items():
        tree = set_path(tree, path, value, TrialConfig)
    return _defense_of(tree)


def _defense_of(changes: Changes) -> Changes:
    return cast(Changes, changes["defense"])


def _cell(phase: Phase, defense: str, attack: str, note: str = "") -> ComparisonCell:
    return ComparisonCell(phase=phase, defense=defense, attack=attack, note=note)
