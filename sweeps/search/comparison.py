"""A table of defenses against attacks; each defense's settings are chosen by a search of its own beforehand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator

from sweeps.search.base import Changes, Search
from ubt.attacks import AttackConfig
from ubt.config import Config
from ubt.defenses import DefenseConfig

if TYPE_CHECKING:
    from sweeps.search.kinds import LaidOut

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_KNOB = "defense."


class ComparedDefense(Config):
    """One defense of a comparison."""

    defense: DefenseConfig
    """Its settings; those that it searches are where its search starts."""
    search: LaidOut | None = None
    """Which settings of it are tried before the table, `defense.` paths only: any design that lays its
    configurations out beforehand. Without one, the defense goes into the table as it is."""

    @field_validator("search")
    @classmethod
    def _of_the_defense_alone(cls, search: Search | None) -> Search | None:
        foreign = [path for path in _paths(search) if not path.startswith(_KNOB)] if search else []
        if foreign:
            raise ValueError(
                f"a defense's search changes its own settings, `defense.…`, and no other: {', '.join(foreign)}"
            )
        return search


class Comparison(Search):
    """Every defense against every attack with every seed, after a search of the same rule for each defense.

    A search runs with the study's first seed on the attacks of `search_on`. Of the settings that lose at most
    `objectives.ca_floor` of clean accuracy, on average over these attacks, those of lowest validation ASR are
    chosen, and take part in the table. The study's own `defense` and `victim.attack` take no part.
    """

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


def cell(attack: AttackConfig, defense: Changes) -> Changes:
    """Return the changes of one trial: the whole attack and the whole defense, in place of the study's own."""
    return {"victim.attack": written(attack), "defense": defense}


def written(part: Config) -> Changes:
    """Return a configuration as somebody would write it: its kind, and what is not by default."""
    return part.model_dump(mode="json", include={"kind"}) | part.model_dump(mode="json", exclude_defaults=True)


def _paths(search: Search) -> Iterator[str]:
    """Yield every path that a design names."""
    yield from search.space
    for path, condition in search.when.items():
        yield from (path, *condition)
    for changes in getattr(search, "trials", ()):
        yield from changes
