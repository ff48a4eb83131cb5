"""What a search is: a space, conditions, and the configurations that it expands to.

What checks, plan, launch and resume want to know of a search, they ask by a method of `Search`. A design from elsewhere
is a class with a `design` of its own and a `layout`; everything else follows from these:

    class Ends(Search):
        \"\"\"The base, and both ends of each range alone.\"\"\"

        design: Literal["ends"] = "ends"

        def layout(self) -> list[Changes]:
            return [{}, *({path: end} for path, range in self.space.items() for end in (range.low, range.high))]

    DESIGNS.register(Ends)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Protocol, Self

from pydantic import Field, JsonValue

from sweeps.search.proposals import Changes, DesignProposer, Proposal, Proposer
from sweeps.search.space import FieldPath, Range, Space
from ubt.common.choice import RuleName
from ubt.common.errors import Problem, UserError
from ubt.common.registry import Registry
from ubt.config import Config, get_path
from ubt.config.base import ByKind, kind_of
from ubt.config.dotted_paths import JsonObject
from ubt.trials.budget import Budget
from ubt.trials.config import TrialConfig, VictimConfig
from ubt.trials.labels import NO_LABEL, TrialLabel
from ubt.trials.record import TrialRecord
from ubt.trials.stopping import Stopping, lag_of


class Study(Protocol):
    """What a search may ask of the study that it belongs to; `sweeps.study.config.StudyConfig` answers."""

    @property
    def search(self) -> Search:
        """The study's search."""

    @property
    def victim(self) -> VictimConfig:
        """The base's victim."""

    @property
    def base(self) -> JsonObject:
        """Victim and defense that changes start from, as plain values."""

    @property
    def ca_floor(self) -> float:
        """Clean accuracy, as a fraction, that a configuration may lose."""

    @property
    def seeds(self) -> Sequence[int]:
        """Seeds that every configuration is run with."""

    @property
    def trials(self) -> int:
        """How many trials there will be."""

    @property
    def gpus(self) -> float:
        """GPUs of one trial."""

    @property
    def rule(self) -> RuleName:
        """The rule by which a configuration is chosen."""

    def proposals(self) -> Sequence[Proposal]:
        """Return what the search expands to; `ValueError` if it cannot be expanded."""

    def trial(self, changes: Changes) -> TrialConfig:
        """Return the base with changes; `UserError` naming each that is not allowed."""

    def with_parts(self, **parts: object) -> Study:
        """Return the study with other parts."""


@dataclass(frozen=True)
class Part:
    """A part of a search that is checked like a study of its own."""

    place: str
    """Where in the study's file it is written, as `search.attacks.sig.`."""
    study: Study
    only: str = ""
    """The beginning of the settings that the part holds; the file leaves it out."""
    without: str = ""
    """The beginning of settings that belong to the whole study, and are checked there; none if empty."""

    def names(self, setting: str) -> bool:
        """Tell whether a setting belongs to the part."""
        return setting.startswith(self.only) and not (self.without and setting.startswith(self.without))


Condition = dict[FieldPath, JsonValue]
"""Dotted path → the value, or the list of values, that it must have."""


class Search(Config):
    """How a study looks for configurations."""

    nestable: ClassVar[bool] = True
    """`concat` and the defenses of a comparison may hold it: it knows all its configurations beforehand."""
    decided_by: ClassVar[tuple[str, ...]] = ()
    """Parts of a study beside the search that decide what is run, so that a resumed run may not change them."""
    plan_note: ClassVar[str] = ""
    """What a reader of the study's plan should know."""
    more_trials_by: ClassVar[str] = "change the design"
    """What a user does to have more trials in a run that exists."""
    needs_whole_trials: ClassVar[str] = ""
    """Why no trial of it may be stopped before its last epoch; empty if any may."""

    space: Space = Field(default_factory=dict)
    """Dotted path → a list of values, or a range (`low`, `high`, `log`, `step`)."""
    when: dict[FieldPath, Condition] = Field(default_factory=dict)
    """Searched path → what must hold for it to exist: where it does not, the path keeps its base value and
    configurations that differ in nothing else are one."""

    budget: Budget | None = None
    """What may be spent: `trials`, `hours`, `gpu_hours`, `price`; the first one reached ends it."""

    stopping: Stopping | None = None
    """When a trial ends before its last epoch; `{}` for the defaults. Without it none does."""

    # What a design says

    def layout(self) -> list[Changes]:
        """Return the configurations in order; `ValueError` (`path: what is wrong`) if the space does not allow it."""
        raise NotImplementedError

    def label(self, changes: Changes) -> TrialLabel:
        """Return what the design calls a configuration of its layout; an empty label if it has no names for them."""
        return NO_LABEL

    # What follows from that, and what a search that learns from results says instead

    def expand(self, base: JsonObject) -> list[Proposal]:
        """Return the distinct configurations that are known beforehand, as differences from the base, in order.

        Raises:
            ValueError: as `layout`.
        """
        distinct: dict[str, Proposal] = {}
        for changes, label in self.conditioned(base):
            changed = differing(changes, base)
            distinct.setdefault(identity(changed), Proposal(len(distinct), changed, label))
        return list(distinct.values())

    def conditioned(self, base: JsonObject) -> Iterator[tuple[Changes, TrialLabel]]:
        """Yield each configuration of the layout, its conditions applied, with its label."""
        for changes in self.layout():
            yield self.active(changes, base), self.label(changes)

    def active(self, changes: Changes, base: JsonObject) -> Changes:
        """Return the changes without those whose conditions do not hold, going by the values given and the base's."""
        if not self.when:
            return changes
        return {path: value for path, value in changes.items() if _holds(self.when.get(path, {}), changes, base)}

    @property
    def chosen_later(self) -> int:
        """Number of configurations, within `space`, that results decide; they come beyond those of `expand`."""
        return 0

    def proposer(self, study: Study, journal: Path, known: Sequence[TrialRecord] = ()) -> Proposer:
        """Return what proposes a study's configurations; it may keep its memory in the file `journal`.

        A run that goes on has `known` records: they are the truth, and the journal may be damaged or lost.
        """
        return DesignProposer(study.proposals())

    # How it is checked and settled

    @property
    def children(self) -> Sequence[Search]:
        """Return the designs that it is made of, whose spaces and conditions are checked like its own."""
        return ()

    def parts(self, study: Study) -> Iterator[Part]:
        """Yield what it holds that has to be checked like a study of its own."""
        yield from ()

    def places(self, study: Study) -> Iterable[tuple[str, Changes]]:
        """Return the configurations to check, each with the place that is named when it is not allowed."""
        return ((f"configuration.{at}", proposal.changes) for at, proposal in enumerate(study.proposals()))

    def settled(self, study: Study) -> Self:
        """Return the search with its values as fields hold them: `1` may be written for `1.0`, or `yes` for `true`."""
        space = {
            path: dimension
            if isinstance(dimension, Range)
            else [settle(study, {path: value})[path] for value in dimension]
            for path, dimension in self.space.items()
        }
        when = {path: settled_condition(study, condition) for path, condition in self.when.items()}
        return self.model_copy(update={"space": space, "when": when})

    def for_workers(self, concurrent: int) -> Self:
        """Return the search with what follows from the number of trials at a time, so that the study says it."""
        return self.with_stopping_lag(max(4, 2 * concurrent))

    def with_stopping_lag(self, lag: int | None) -> Self:
        """Return the search with this lag of `stopping`, if it stops trials and does not say one itself."""
        return self.model_copy(update={"stopping": self.stopping.with_lag(lag)}) if self.stopping else self

    # How a run goes on

    def as_begun(self, before: JsonObject, extend: bool) -> Self:
        """Return the search as a run was begun with it, which wrote down `before`; `extend` says it is another."""
        return self.with_stopping_lag(lag_of(before.get("stopping")))

    def with_more_trials(self, more: int, before: JsonObject) -> Self:
        """Return the search with `more` trials than `before`, as a run wrote it down.

        Raises:
            UserError: if the search says itself how many trials it has.
        """
        advice = f"{self.more_trials_by} in the study and say --extend"
        raise UserError(Problem("--add-trials", "only an adaptive search (`design: optuna`) takes more", advice=advice))


DESIGNS: Registry[type[Search]] = Registry(
    "design", "ubt.designs", lambda model: kind_of(model, "design"), "sweeps.search", Search
)
SearchConfig = Annotated[Search, ByKind(DESIGNS, tag="design")]
"""A search as configured, of any design that is registered."""
LaidOut = Annotated[
    Search,
    ByKind(
        DESIGNS,
        tag="design",
        accepts=lambda model: bool(model.nestable),
        otherwise="cannot stand within another search: it does not lay all its configurations out by itself",
    ),
]
"""A design that may be part of another search."""


def settle(study: Study, changes: Changes) -> Changes:
    """Return changes with their single values as the fields hold them; `UserError` if they are not allowed."""
    tree = study.trial(changes).as_json()
    return {path: value if isinstance(value, list | dict) else get_path(tree, path) for path, value in changes.items()}


def settled_condition(study: Study, condition: Condition) -> Condition:
    """Return a condition with the values that it asks for as the fields hold them."""

    def held(path: str, value: JsonValue) -> JsonValue:
        with suppress(UserError):  # of another kind, what stands beside may be wrong; it is not what is asked for
            return settle(study, {path: value})[path]
        return value

    return {
        path: [held(path, value) for value in wanted] if isinstance(wanted, list) else held(path, wanted)
        for path, wanted in condition.items()
    }


def differing(changes: Changes, base: JsonObject) -> Changes:
    """Return the changes without those that set what the base has anyway."""
    return {path: value for path, value in changes.items() if value != _value(path, {}, base)}


def identity(changes: Changes) -> str:
    """Return a text that is equal for equal configurations."""
    return json.dumps(changes, sort_keys=True)


def _holds(condition: Condition, changes: Changes, base: JsonObject) -> bool:
    allowed = {path: wanted if isinstance(wanted, list) else [wanted] for path, wanted in condition.items()}
    return all(_value(path, changes, base) in values for path, values in allowed.items())


def _value(path: str, changes: Changes, base: JsonObject) -> JsonValue:
    """Return what a field is with the changes, one of which may be a whole part with that field; None if it is none."""
    part, rest = path, ""
    while part not in changes and "." in part:
        part, _, name = part.rpartition(".")
        rest = f"{name}.{rest}" if rest else name
    if part not in changes:
        tree, rest = base, path
    elif not rest:
        return changes[part]
    else:
        changed = changes[part]
        tree = changed if isinstance(changed, dict) else {"kind": changed}  # a bare name
    try:
        return get_path(tree, rest)
    except KeyError:
        return None
