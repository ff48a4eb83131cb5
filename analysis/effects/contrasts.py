"""Which configurations of a run may be compared, because they differ in one component or in the value of one setting.

Nothing is asked of the design but that it did not choose by results: `leave_one_out`, `ofat`, `pairs`, a grid, a list,
or several of them together hold contrasts wherever two configurations have everything else in common.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import JsonValue

from analysis.findings import Findings
from analysis.formatting import setting_text, short_names
from analysis.points.configurations import Configuration
from analysis.tables import setting
from ubt.config.dotted_paths import JsonObject

ADAPTIVE = "optuna"
AT_THE_BASE = "pairs"
"""The design whose effects are those at the base, as what changes beside it is there for the interactions."""


@dataclass(frozen=True)
class Term:
    """Configurations whose rates are added, and as many whose rates are taken off; else they are alike."""

    plus: tuple[Configuration, ...]
    minus: tuple[Configuration, ...]

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        """Return all of them."""
        return (*self.plus, *self.minus)


@dataclass(frozen=True)
class Contrast:
    """One question: what a change does to the rates, on average over the settings that it was tried in."""

    name: str
    """As tables have it: `without overfitting`, `unlearn_samples 64 → 16`."""
    factors: tuple[str, ...]
    """What is changed: a component's name or a setting's path; of an interaction, two paths."""
    before: str
    """The value that the change starts from; empty for a component."""
    after: str
    terms: tuple[Term, ...]
    """One for each choice of the other settings."""


@dataclass(frozen=True)
class Contrasts:
    """All that can be compared in a run."""

    effects: tuple[Contrast, ...] = ()
    interactions: tuple[Contrast, ...] = ()


def contrasts(findings: Findings) -> Contrasts:
    """Return what can be compared in a run.

    Nothing in a comparison, whose victims differ, nor in a search by results: it tries more where it found
    something, so that what lies side by side in it does so by luck.
    """
    run = findings.run
    if run.compared or run.design == ADAPTIVE or any(record.asked_as for record in run.records):
        return Contrasts()
    plain = [c for c in findings.configurations if not c.first.label.leaves_out and not c.epoch_of]
    grid = _Grid(plain, run.space or run.knobs, findings.base, at_base=run.design == AT_THE_BASE)
    return Contrasts((*_components(findings), *grid.effects()), tuple(grid.interactions()))


def _components(findings: Findings) -> Iterator[Contrast]:
    base = findings.base
    for configuration in findings.configurations if base else ():
        label = configuration.first.label
        if base and label.leaves_out:
            term = Term((configuration,), (base,))
            yield Contrast(label.leaves_out, (label.component,), "", "", (term,))


Level = str
"""A setting's value as JSON; "null" where a configuration has no such setting."""
Rest = tuple[object, ...]
Square = dict[tuple[Level, Level], Configuration]
"""Configurations that differ in two settings alone, by their values."""


class _Grid:
    """Configurations by the values of the paths that vary."""

    def __init__(
        self, found: Sequence[Configuration], paths: Iterable[str], base: Configuration | None, at_base: bool
    ) -> None:
        self._paths = tuple(paths)
        self._values: dict[str, dict[Level, JsonValue]] = {path: {} for path in self._paths}
        self._base = base
        self._places: dict[tuple[tuple[Level, ...], str], Configuration] = {}
        """Values at the paths, and all else of the configuration → the configuration."""
        for configuration in found:
            levels = tuple(self._level(configuration, path) for path in self._paths)
            self._places[levels, _rest(configuration, self._paths)] = configuration
        self._at_base = tuple(self._level(base, path) for path in self._paths) if base and at_base else None
        self._names = short_names(self._paths)

    def _level(self, configuration: Configuration, path: str) -> Level:
        value = setting(configuration.first, path)
        level = json.dumps(value, sort_keys=True)
        self._values[path].setdefault(level, value)
        return level

    def effects(self) -> Iterator[Contrast]:
        """Yield for each path and each of its values the contrast to the value that it is held against."""
        for at, path in enumerate(self._paths):
            groups = self._lines[at]
            reference = self._references[at]
            for level in self._values[path]:
                pairs = [(line[level], line[reference]) for line in groups if level in line and reference in line]
                if level != reference and pairs:
                    before, after = self._text(path, reference), self._text(path, level)
                    name = f"{self._names[path]} {before} → {after}"
                    terms = tuple(Term((changed,), (kept,)) for changed, kept in pairs)
                    yield Contrast(name, (path,), before, after, terms)

    def interactions(self) -> Iterator[Contrast]:
        """Yield for each two paths how far the effect of one depends on the other, value by value."""
        for one, other in itertools.combinations(range(len(self._paths)), 2):
            squares: dict[Rest, Square] = {}
            for (levels, elsewhere), configuration in self._places.items():
                rest = (*(level for at, level in enumerate(levels) if at not in {one, other}), elsewhere)
                squares.setdefault(rest, {})[levels[one], levels[other]] = configuration
            paths = self._paths[one], self._paths[other]
            # Where `pairs` leave the base's values out, nothing stands beside the base: the first values do.
            for held in (
                (self._references[one], self._references[other]),
                self._first_crossed(squares.values(), paths),
            ):
                found = tuple(self._of_two(paths, held, list(squares.values())))
                if found:
                    yield from found
                    break

    def _first_crossed(self, squares: Iterable[Square], paths: tuple[str, str]) -> tuple[Level, Level]:
        """Return the first value of each of two paths that both stand in a square with several values of each."""
        crossed = {place for square in squares if _is_crossed(square) for place in square}
        first = (
            next((level for level in self._values[path] if any(place[at] == level for place in crossed)), "")
            for at, path in enumerate(paths)
        )
        return next(first), next(first)

    def _of_two(self, paths: tuple[str, str], held: tuple[Level, Level], squares: list[Square]) -> Iterator[Contrast]:
        for first, second in itertools.product(self._values[paths[0]], self._values[paths[1]]):
            corners = (first, second), held, (first, held[1]), (held[0], second)
            if first == held[0] or second == held[1]:
                continue
            terms = tuple(
                Term((square[corners[0]], square[corners[1]]), (square[corners[2]], square[corners[3]]))
                for square in squares
                if all(corner in square for corner in corners)
            )
            if terms:
                before = tuple(self._text(path, level) for path, level in zip(paths, held, strict=True))
                after = tuple(self._text(path, level) for path, level in zip(paths, (first, second), strict=True))
                each = (f"{self._names[p]} {b} → {a}" for p, b, a in zip(paths, before, after, strict=True))
                yield Contrast(" with ".join(each), paths, ", ".join(before), ", ".join(after), terms)

    @cached_property
    def _lines(self) -> list[list[dict[Level, Configuration]]]:
        """For each path, the groups of configurations that differ in it alone, by its value."""
        lines: list[list[dict[Level, Configuration]]] = []
        for at in range(len(self._paths)):
            groups: dict[tuple[tuple[Level, ...], str], dict[Level, Configuration]] = {}
            for (levels, elsewhere), configuration in self._places.items():
                others = levels[:at] + levels[at + 1 :]
                groups.setdefault((others, elsewhere), {})[levels[at]] = configuration
            found = {others: group for (others, _), group in groups.items() if len(group) > 1}
            here = self._at_base[:at] + self._at_base[at + 1 :] if self._at_base else None
            lines.append([found[here]] if here in found else list(found.values()))
        return lines

    @cached_property
    def _references(self) -> list[Level]:
        """The value that a path's others are held against: the base's, where it has a counterpart; else the first."""
        found = []
        for at, path in enumerate(self._paths):
            met = [level for level in self._values[path] if any(level in line for line in self._lines[at])]
            base = self._level(self._base, path) if self._base else ""
            found.append(base if base in met or not met else met[0])
        return found

    def _text(self, path: str, level: Level) -> str:
        return setting_text(self._values[path][level])


def _is_crossed(square: Square) -> bool:
    return all(len({place[at] for place in square}) > 1 for at in (0, 1)) and len(square) > 3


def _rest(configuration: Configuration, paths: Iterable[str]) -> str:
    """Return all of a configuration but the values at some paths, as text that is equal for equals."""
    tree: JsonValue = configuration.first.config
    for path in paths:
        tree = _without(tree, path.split("."))
    return json.dumps(tree, sort_keys=True)


def _without(tree: JsonValue, parts: Sequence[str]) -> JsonValue:
    if not isinstance(tree, Mapping) or parts[0] not in tree:
        return tree
    if len(parts) == 1:
        return {name: value for name, value in tree.items() if name != parts[0]}
    copy: JsonObject = {**tree, parts[0]: _without(tree[parts[0]], parts[1:])}
    return copy
