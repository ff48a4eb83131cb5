"""Designs that know their configurations beforehand, from a grid to leaving one component out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Literal, NamedTuple, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from sweeps.search.base import LaidOut, Search, Study, settle
from sweeps.search.proposals import Changes
from sweeps.search.space import FieldPath, check_count, values_of
from ubt.config.dotted_paths import JsonObject
from ubt.trials.labels import BASE, TrialLabel

EFFECTS = "effects are read off trials that have run to their end"


class Grid(Search):
    """Every combination of the space's values."""

    design: Literal["grid"] = "grid"

    def layout(self) -> list[Changes]:
        """Return the cross product; the last path varies fastest."""
        axes = [[(path, value) for value in values_of(path, dimension)] for path, dimension in self.space.items()]
        check_count(math.prod(map(len, axes)))
        return [dict(combination) for combination in itertools.product(*axes)]


class OneFactorAtATime(Search):
    """Each path varied alone, around the base."""

    needs_whole_trials: ClassVar[str] = EFFECTS

    design: Literal["ofat"] = "ofat"

    def layout(self) -> list[Changes]:
        """Return the base, then each value of each path by itself."""
        singles: list[Changes] = [
            {p: value} for p, dimension in self.space.items() for value in values_of(p, dimension)
        ]
        return [{}, *singles]


class Pairs(Search):
    """Every combination of the values of every two paths, the others at the base."""

    needs_whole_trials: ClassVar[str] = EFFECTS

    design: Literal["pairs"] = "pairs"

    @model_validator(mode="after")
    def _at_least_two(self) -> Pairs:
        if len(self.space) < 2:
            raise ValueError("pairs need a space of at least two paths")
        return self

    def layout(self) -> list[Changes]:
        """Return the base, then the grid of each two paths."""
        axes = {path: values_of(path, dimension) for path, dimension in self.space.items()}
        check_count(sum(len(one) * len(other) for one, other in itertools.combinations(axes.values(), 2)))
        crossed: list[Changes] = [
            {one: first, other: second}
            for one, other in itertools.combinations(axes, 2)
            for first, second in itertools.product(axes[one], axes[other])
        ]
        return [{}, *crossed]


class ZipDesign(Search):
    """The first values of all paths together, then the second, and so on."""

    design: Literal["zip"] = "zip"

    def layout(self) -> list[Changes]:
        """Return one configuration for each place in the lists; `ValueError` if they differ in length."""
        axes = {path: values_of(path, dimension) for path, dimension in self.space.items()}
        lengths = {path: len(values) for path, values in axes.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{path} has {length}" for path, length in lengths.items())
            raise ValueError(f"space: zip needs as many values for each path, but {found}")
        return [dict(zip(axes, row, strict=True)) for row in zip(*axes.values(), strict=True)]


class ListDesign(Search):
    """The configurations that the study names one by one, each a mapping of paths to values."""

    design: Literal["list"] = "list"
    trials: list[dict[FieldPath, JsonValue]] = Field(min_length=1)
    """One mapping of dotted paths to values for each configuration; {} is the base."""

    def layout(self) -> list[Changes]:
        """Return them as they stand."""
        return [dict(changes) for changes in self.trials]

    def places(self, study: Study) -> Iterable[tuple[str, Changes]]:
        """Return all trials as they stand, also those that repeat others, each with its place in the list."""
        return ((f"search.trials.{at}", changes) for at, changes in enumerate(self.trials))

    def settled(self, study: Study) -> Self:
        """Return the design with the values of its trials as fields hold them."""
        trials = [settle(study, changes) for changes in self.trials]
        return super().settled(study).model_copy(update={"trials": trials})


class Component(NamedTuple):
    """A part of UBT that a leave-one-out design can do without."""

    words: str
    """What the defense is without it, as tables have it."""
    changes: Changes


COMPONENTS: dict[str, Component] = {
    "poisoned-detector": Component("with the poisoned model as detector", {"defense.detector": {"kind": "poisoned"}}),
    "gain-detector": Component("with the gain detector", {"defense.detector": {"kind": "gain"}}),
    "knn-detector": Component(
        "with the nearest-neighbour detector", {"defense.detector": {"kind": "knn", "neighbours": 16}}
    ),
    "lof-detector": Component(
        "with the local-outlier detector", {"defense.detector": {"kind": "lof", "neighbours": 16}}
    ),
    "no-overfit": Component("without overfitting", {"defense.overfit_epochs": 0}),
    "overfit-on-all": Component("overfitting to all pairs", {"defense.overfit_data": "all"}),
    "contrastive-overfit": Component("overfitting by CLIP’s loss", {"defense.overfit_loss": "contrastive"}),
    "random-selection": Component("with random selection", {"defense.selection": "random"}),
    "clean-selection": Component("with selection by the detector", {"defense.selection": "clean"}),
    "whole-captions": Component("unlearning whole captions", {"defense.unlearn_scope": "caption"}),
    "random-tokens": Component("with random tokens", {"defense.attribution": "random"}),
    "gradient-tokens": Component("with tokens by gradient", {"defense.attribution": "gradient"}),
    "last-block-tokens": Component("with relevance of the last block", {"defense.attribution_layers": "last"}),
    "plain-ascent": Component("with ascent instead of the hinge", {"defense.unlearn_loss": "ascent"}),
    "both-towers": Component("training both towers", {"defense.unlearn_towers": "both"}),
    "contrastive-retention": Component("with retention by CLIP’s loss", {"defense.retain_loss": "contrastive"}),
    "no-retention": Component("without retention", {"defense.retain_weight": 0.0}),
}
"""Name of an ablation → how it reads, and what it changes. A new one is one row."""


class LeaveOneOut(Search):
    """The base, then the base without each component."""

    needs_whole_trials: ClassVar[str] = EFFECTS

    design: Literal["leave_one_out"] = "leave_one_out"
    components: tuple[str, ...] = Field(default=tuple(COMPONENTS), min_length=1)
    """Which components to switch off, one at a time; all of the table by default."""

    @field_validator("components")
    @classmethod
    def _known(cls, components: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in components if name not in COMPONENTS]
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}; allowed: {', '.join(COMPONENTS)}")
        return components

    def layout(self) -> list[Changes]:
        """Return the base, then one configuration for each component."""
        return [{}, *(dict(COMPONENTS[name].changes) for name in self.components)]

    def label(self, changes: Changes) -> TrialLabel:
        """Return the name of the component that a configuration leaves out."""
        left_out = next((name for name in self.components if COMPONENTS[name].changes == changes), None)
        return (
            TrialLabel(component=left_out, words=COMPONENTS[left_out].words) if left_out else TrialLabel(component=BASE)
        )


class Concat(Search):
    """The configurations of each design in turn."""

    nestable: ClassVar[bool] = False
    design: Literal["concat"] = "concat"
    designs: list[LaidOut] = Field(min_length=1)
    """Designs that know their configurations beforehand, each with its own space and conditions."""

    @property
    def children(self) -> Sequence[Search]:
        """Return the designs."""
        return self.designs

    def layout(self) -> list[Changes]:
        """Return the configurations of each design in turn."""
        return [changes for design in self.designs for changes in design.layout()]

    def conditioned(self, base: JsonObject) -> Iterator[tuple[Changes, TrialLabel]]:
        """Yield each configuration with its design's conditions and its own applied, and its design's label."""
        for design in self.designs:
            for changes, label in design.conditioned(base):
                yield self.active(changes, base), label

    def settled(self, study: Study) -> Self:
        """Return the search with each of its designs settled."""
        designs = [design.settled(study) for design in self.designs]
        return super().settled(study).model_copy(update={"designs": designs})
