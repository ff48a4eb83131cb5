"""When a trial is ended before its last epoch: it has lost too much clean accuracy, or others do better.

Pure logic, applied where a trial runs, after each epoch whose model is judged on the validation split. All that it
compares with is known when the trial begins (`StopRule`), so it waits for nothing and depends on no order of events.

Trials are compared at *rungs*, after so many epochs: sorted by non-domination, equal ones by crowding distance (Deb et
al., 2002), as in MOASHA (Schmucker et al., 2021, arXiv 2106.12639). Loads no torch.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, JsonValue

from ubt.common.choice import RuleName, Seen
from ubt.config import Config

if TYPE_CHECKING:
    from ubt.trials.record import EpochRecord

Point = tuple[float, float]
"""What a model is ranked by: ASR (or, without the trigger, how alike selected pairs are) and CA, both in [0, 1]."""

MOST_PEERS = 500
"""Trials that one is compared with, the latest ones: they travel with its assignment."""


class Stopping(Config):
    """When a trial ends before its last epoch, as `PRUNED`; what it has measured until then counts."""

    grace_epochs: int = Field(default=2, ge=1)
    """Epochs that every trial is given; after as many is the first rung."""
    rung_spacing: float = Field(default=1.25, ge=1, le=100)
    """Each further rung is after so many times as many epochs, and at least one more: with 1 every epoch is a rung."""
    keep: float = Field(default=0.45, gt=0, lt=1)
    """At each rung the best of this share go on, of the trial and those that it is compared with."""
    equals: Literal["go_on", "crowding"] = "go_on"
    """What becomes of models where that share ends, of which none is better than another in both rates: all go on, or
    the least crowded of them."""
    ca_floor: float | None = Field(default=0.1, ge=0, le=1)
    """A trial ends when its clean accuracy lies, by the upper end of its 95 % interval, more than this below that of
    the poisoned model; `null`: never for that."""
    lag: int | None = Field(default=None, ge=1)
    """A configuration is compared with those up to so many before it, and begins when they have ended: so results do
    not depend on which trial happens to end first. Default: `search.lag`, or twice the trials at a time, at least 4."""

    def rungs(self, epochs: int) -> Iterator[int]:
        """Yield the epochs after which a trial of `epochs` epochs is compared; the last one is none.

        Example:
            >>> list(Stopping(grace_epochs=2, rung_spacing=2).rungs(20))
            [2, 4, 8, 16]
        """
        rung = float(self.grace_epochs)
        while (reached := round(rung)) < epochs:
            yield reached
            rung = max(rung * self.rung_spacing, reached + 1.0)

    def with_lag(self, lag: int | None) -> Self:
        """Return the settings with this lag, unless they say one."""
        return self if self.lag or not lag else self.model_copy(update={"lag": lag})


def lag_of(written: JsonValue) -> int | None:
    """Return the lag of settings as a run wrote them down; None if it had none."""
    lag = written.get("lag") if isinstance(written, dict) else None
    return lag if isinstance(lag, int) else None


class Pruned(Config):
    """Why a trial was ended before its last epoch."""

    stage: str
    """The stage that it was at."""
    epoch: int
    """The last epoch that counts."""
    epochs: int
    """How many it was to run."""
    by: Literal["ca_floor", "rank"]
    """It had lost too much clean accuracy; or too many trials do better."""
    rank: int | None = None
    """How many of the trials that it was compared with do better."""
    peers: int | None = None
    """How many these are."""
    settings: Stopping
    """`search.stopping` as it was then."""
    choice: RuleName
    """How a configuration was chosen then, which says what models are ranked by."""


@dataclass(frozen=True)
class JudgedEpoch:
    """What the rule looks at of one epoch."""

    epoch: int
    point: Point | None
    """None if what the rule ranks by was not measured."""
    ca: float
    ca_high: float
    """Upper end of the 95 % interval of `ca`."""


def judged_epochs(epochs: Iterable[EpochRecord], choice: RuleName) -> tuple[JudgedEpoch, ...]:
    """Return those of a stage's epochs whose models were judged, as a rule of choice sees them."""
    found = []
    for one in epochs:
        if one.val is not None:
            seen = Seen.of(one.observed)
            first = one.val.asr if choice == "lowest_asr" else seen.alike if seen else None
            point = None if first is None else (first, one.val.ca)
            found.append(JudgedEpoch(one.epoch, point, one.val.ca, one.val.ca_high))
    return tuple(found)


class StopRule(Config):
    """By what one trial is stopped: settings, and the trials that it is compared with. Part of its assignment."""

    settings: Stopping
    stage: str
    """The stage whose epochs are looked at: the last one that changes the defended model."""
    choice: RuleName = "lowest_asr"
    """How a configuration is chosen, which says what models are ranked by."""
    peers: dict[int, tuple[Point, ...]] = Field(default_factory=dict)
    """Rung → where trials of the same victim and seed stood there."""

    def first_stop(self, judged: Sequence[JudgedEpoch], epochs: int, poisoned_ca: float | None) -> Pruned | None:
        """Return at which of a trial's epochs it ends, of `epochs` that it was to run; None if it goes on.

        It looks at each epoch with what was known by then, so that it makes no difference whether epochs come one by
        one or, from the store, all at once.
        """
        rungs = set(self.settings.rungs(epochs))
        for one in judged:
            if not self.settings.grace_epochs <= one.epoch < epochs:
                continue
            if self._below_floor(one, poisoned_ca):
                return self._at(one, epochs, "ca_floor")
            if one.epoch in rungs and one.point is not None:
                peers = self.peers.get(one.epoch, ())
                rank = self._rank(one.point, peers)
                if rank >= self.go_on(len(peers)):
                    return self._at(one, epochs, "rank").model_copy(update={"rank": rank, "peers": len(peers)})
        return None

    def is_of(self, pruned: Pruned) -> bool:
        """Tell whether a trial was stopped by the same settings, with any peers."""
        return (pruned.settings, pruned.choice) == (self.settings, self.choice)

    def go_on(self, peers: int) -> int:
        """Return how many go on, of a trial and so many peers.

        Example:
            >>> [StopRule(settings=Stopping(), stage="unlearn").go_on(peers) for peers in range(5)]
            [1, 1, 2, 2, 3]
        """
        return math.ceil((peers + 1) * self.settings.keep)

    def _rank(self, point: Point, peers: Sequence[Point]) -> int:
        """Return how many peers come before a model, at its rung."""
        if self.settings.equals == "crowding":
            return rank_among(point, peers)
        layers = layers_of([*peers, point])
        return sum(layer < layers[-1] for layer in layers)

    def reason(self, stop: Pruned, judged: Sequence[JudgedEpoch], poisoned_ca: float | None) -> str:
        """Say why a trial was ended."""
        at = next(one for one in judged if one.epoch == stop.epoch)
        after = f"after epoch {stop.epoch} of `{stop.stage}`"
        if stop.by == "ca_floor":
            floor = 100 * (self.settings.ca_floor or 0.0)
            return (
                f"{after} CA was {100 * at.ca:.1f} %, by its 95 % interval more than {floor:g} points below the"
                f" {100 * (poisoned_ca or 0.0):.1f} % of the poisoned model (search.stopping.ca_floor)"
            )
        assert stop.rank is not None and stop.peers is not None  # noqa: S101
        what = "ASR" if self.choice == "lowest_asr" else "similarity of selected pairs"
        return (
            f"{after} {stop.rank} of the {stop.peers} trials that it was compared with came before it by {what} and CA;"
            f" the best {self.go_on(stop.peers)} of {stop.peers + 1} go on (search.stopping)"
        )

    def _at(self, one: JudgedEpoch, epochs: int, by: Literal["ca_floor", "rank"]) -> Pruned:
        rule = {"stage": self.stage, "settings": self.settings, "choice": self.choice}
        return Pruned.model_validate({**rule, "epoch": one.epoch, "epochs": epochs, "by": by})

    def _below_floor(self, one: JudgedEpoch, poisoned_ca: float | None) -> bool:
        floor = self.settings.ca_floor
        return floor is not None and poisoned_ca is not None and one.ca_high < poisoned_ca - floor


def rank_among(point: Point, peers: Sequence[Point]) -> int:
    """Return how many of `peers` come before a point: in a better layer, or in the same one and less crowded.

    Example:
        >>> rank_among((0.2, 0.8), [(0.1, 0.9), (0.3, 0.7), (0.9, 0.95)])
        2
    """
    return ranking([*peers, point]).index(len(peers))


def ranking(points: Sequence[Point]) -> list[int]:
    """Return the positions of points (ASR, CA), best first: low ASR and high CA; of equal ones the earlier first."""
    layers = layers_of(points)
    order: list[int] = []
    for layer in range(max(layers, default=-1) + 1):
        members = [at for at, one in enumerate(layers) if one == layer]
        distance = _crowding([points[at] for at in members])
        order += [at for _, at in sorted((-distance[place], at) for place, at in enumerate(members))]
    return order


def layers_of(points: Sequence[Point]) -> list[int]:
    """Return the layer of each point: 0 if no other dominates it, then 0 without those, and so on.

    Points sorted by rising ASR are dominated only by earlier ones, and by one of a layer if its highest CA is as high
    (Jensen, 2003): O(N log N).
    """
    layers = [0] * len(points)
    highest: list[float] = []
    """Of each layer, the highest CA yet, negated: it rises with the layers."""
    last: dict[Point, int] = {}
    for at in sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1])):
        point = points[at]
        if point in last:  # equal points do not dominate each other
            layers[at] = last[point]
            continue
        layer = bisect_right(highest, -point[1])  # the first one that has no point of as high a CA
        if layer == len(highest):
            highest.append(-point[1])
        highest[layer] = -point[1]
        layers[at] = last[point] = layer
    return layers


def _crowding(points: Sequence[Point]) -> list[float]:
    """Return the crowding distance of each point of a layer: infinite at its ends, 0 of one that is there twice."""
    distance = [0.0] * len(points)
    distinct = sorted(set(points))
    spans = [max(column) - min(column) or 1.0 for column in zip(*distinct, strict=True)]
    between = {
        point: sum(abs(above[part] - below[part]) / spans[part] for part in (0, 1))
        for below, point, above in zip(distinct, distinct[1:], distinct[2:], strict=False)
    }
    seen: set[Point] = set()
    for at, point in enumerate(points):
        distance[at] = 0.0 if point in seen else between.get(point, math.inf)
        seen.add(point)
    return distance
