"""A table of defenses against attacks; each defense's settings are chosen by a search of its own beforehand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator

from sweeps.search.base import LaidOut, Part, Search, Study
from sweeps.search.comparison_proposer import ComparisonProposer, Trials, cell, written
from sweeps.search.designs import Grid
from sweeps.search.proposals import Changes, Proposal, Proposer
from sweeps.search.space import check_count
from ubt.attacks import AttackConfig
from ubt.config import Config
from ubt.config.dotted_paths import JsonObject
from ubt.defenses import DefenseConfig
from ubt.trials.record import TrialRecord

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_KNOB = "defense."

STAND_IN = "the table is planned with the settings that each search starts from; those chosen take their place"


class ComparedDefense(Config):
    """One defense of a comparison."""

    defense: DefenseConfig
    """Its settings; those that it searches are where its search starts."""
    search: LaidOut | None = None
    """Which settings of it are tried before the table, `defense.` paths only: any design that knows its
    configurations beforehand. Without one, the defense goes into the table as it is."""

    @field_validator("search")
    @classmethod
    def _of_the_defense_alone(cls, search: Search | None) -> Search | None:
        foreign = [path for path in dict.fromkeys(_paths(search)) if not path.startswith(_KNOB)] if search else []
        if foreign:
            raise ValueError(
                f"a defense's search changes its own settings, `defense.…`, and no other: {', '.join(foreign)}"
            )
        return search

    def settled(self, study: Study) -> Self:
        """Return the defense with its search settled, `study` being one of it alone."""
        return self.model_copy(update={"search": self.search and self.search.settled(study)})


class Comparison(Search):
    """Every defense against every attack with every seed, after a search of the same rule for each defense.

    A search runs with the study's first seed on the attacks of `search_on`. Of the settings that lose at most
    `objectives.ca_floor` of clean accuracy, on average over these attacks, those of lowest validation ASR are
    chosen, or those that `objectives.rule` says, and take part in the table. The study's own `defense` and
    `victim.attack` take no part.
    """

    nestable: ClassVar[bool] = False
    decided_by: ClassVar[tuple[str, ...]] = ("objectives",)  # the table is of what they choose
    plan_note: ClassVar[str] = STAND_IN
    more_trials_by: ClassVar[str] = "name further attacks or defenses"
    needs_whole_trials: ClassVar[str] = "its table is of defenses that have run to their end"

    design: Literal["comparison"] = "comparison"
    attacks: dict[str, AttackConfig] = Field(min_length=1)
    """Name → attack: the columns of the table."""
    search_on: tuple[str, ...] = ()
    """Names of the attacks that settings are searched on; all of them if none is named."""
    choose_by: Literal["mean", "worst"] = "mean"
    """Choose by the mean ASR over the attacks searched on, or by the highest of them."""
    defenses: dict[str, ComparedDefense] = Field(min_length=1)
    """Name → defense, with its search: the rows of the table."""

    @field_validator("attacks", "defenses")
    @classmethod
    def _well_named(cls, named: dict[str, Config]) -> dict[str, Config]:
        if odd := [name for name in named if not _NAME.fullmatch(name)]:
            raise ValueError(f"names are up to 32 letters, digits, `_` and `-`: {', '.join(map(repr, odd))}")
        return named

    @field_validator("search_on")
    @classmethod
    def _among_the_attacks(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        attacks: Iterable[str] = info.data.get("attacks", names)
        if unknown := [name for name in names if name not in attacks]:
            raise ValueError(f"unknown: {', '.join(unknown)}; `attacks` has {', '.join(attacks)}")
        if len(set(names)) < len(names):
            raise ValueError("names must be distinct")
        return names

    @field_validator("space", "when")
    @classmethod
    def _nothing_of_its_own(cls, given: dict[str, object]) -> dict[str, object]:
        if given:
            raise ValueError("a comparison has none of its own: give it to the `search` of a defense")
        return given

    @property
    def searched_attacks(self) -> tuple[str, ...]:
        """Return the names of the attacks that settings are searched on."""
        return self.search_on or tuple(self.attacks)

    def layout(self) -> list[Changes]:
        """Return the table, attack by attack, each defense with the settings that its search starts from."""
        return [
            cell(attack, written(row.defense)) for attack in self.attacks.values() for row in self.defenses.values()
        ]

    def expand(self, base: JsonObject) -> list[Proposal]:
        """Return all trials by number; those of the table with the settings that each search starts from."""
        trials = Trials(self)
        return trials.searched + trials.rows(trials.own)

    def proposer(self, study: Study, journal: Path, known: Sequence[TrialRecord] = ()) -> Proposer:
        """Return what proposes the searches, and each row of the table when its search has ended."""
        return ComparisonProposer(self, study.ca_floor, study.rule)

    def places(self, study: Study) -> Iterable[tuple[str, Changes]]:
        """Return nothing: what there is to check, `parts` has. `ValueError` if there are too many."""
        searched = 0
        for row in self.defenses.values():
            with suppress(ValueError):  # reported where the part is checked
                searched += len(row.search.layout()) if row.search else 0
        check_count(searched * len(self.searched_attacks) + len(self.attacks) * len(self.defenses))
        return ()

    def parts(self, study: Study) -> Iterator[Part]:
        """Yield each attack, and each defense with its search, as in a study of it alone."""
        for name, attack in self.attacks.items():
            attacked = study.with_parts(victim=study.victim.model_copy(update={"attack": attack}))
            yield Part(f"search.attacks.{name}.", attacked, only="victim.attack.")
        for name, row in self.defenses.items():
            alone = study.with_parts(defense=row.defense, search=row.search or Grid())
            yield Part(f"search.defenses.{name}.", alone, without="victim.")

    def settled(self, study: Study) -> Self:
        """Return the comparison with the search of each defense settled."""
        defenses = {name: row.settled(study.with_parts(defense=row.defense)) for name, row in self.defenses.items()}
        return self.model_copy(update={"defenses": defenses})


def _paths(search: Search) -> Iterator[str]:
    """Yield every path that a design names."""
    yield from search.space
    for path, condition in search.when.items():
        yield from (path, *condition)
    with suppress(ValueError):  # found again where the whole study is checked
        for changes in search.layout():
            yield from changes
