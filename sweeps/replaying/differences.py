"""What differs between two computations of one trial: numbers in their records, and bits in their artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import JsonValue

from ubt.artifacts.manifest import ArtifactManifest
from ubt.config import Config
from ubt.trials.rates import Rates
from ubt.trials.record import StageRecord, TrialRecord

Manifests = Mapping[str, ArtifactManifest]
"""Stage → what its artifact says of itself, of those that are there."""


class Difference(Config):
    """One value that is not the same."""

    where: str
    """What it is of: `implant: epoch 2: loss`."""
    then: JsonValue
    """As the run has it; null if it has none."""
    now: JsonValue
    """As it was computed again."""

    @property
    def size(self) -> float | None:
        """Return how far apart two numbers are."""
        numbers = [value for value in (self.then, self.now) if isinstance(value, int | float)]
        return abs(float(numbers[0]) - float(numbers[1])) if len(numbers) == 2 else None


class StageDifferences(Config):
    """One stage, then and now."""

    stage: str
    artifact: Literal["same", "other", "unknown"]
    """Whether tensors and weights have the same bits; `unknown` if the run's store does not have them any more."""
    differences: tuple[Difference, ...] = ()
    """Numbers that differ, in the order in which they were computed."""

    @property
    def same(self) -> bool:
        """Return whether nothing is known to differ."""
        return self.artifact != "other" and not self.differences


def stage_differences(
    then: TrialRecord, now: TrialRecord, kept: Manifests, made: Manifests, upto: tuple[str, int] | None = None
) -> tuple[StageDifferences, ...]:
    """Return each stage of a trial with what differs, in order.

    `upto` names a stage and the epoch at which it ends: what the trial did after that is not compared.
    """
    again = {stage.stage: stage for stage in now.stages}
    found = []
    for stage in then.stages:
        last = upto[1] if upto and stage.stage == upto[0] else None
        different = tuple(_of_stage(stage, again.get(stage.stage), last))
        bits = _artifact(kept.get(stage.stage), made.get(stage.stage))
        found.append(StageDifferences(stage=stage.stage, artifact=bits, differences=different))
        if last is not None:
            break
    return tuple(found)


def _of_stage(then: StageRecord, now: StageRecord | None, last: int | None) -> Iterator[Difference]:
    if now is None:
        yield Difference(where=f"{then.stage}: computed", then=True, now=False)
        return
    for old, new in zip(then.epochs[:last], now.epochs, strict=False):
        for name in ("epoch", "loss", "val", "observed"):
            yield from _differing(f"{then.stage}: epoch {old.epoch}: {name}", _plain(old, name), _plain(new, name))
    if last is None:  # what is known of a stage is known of its end
        if len(then.epochs) != len(now.epochs):
            yield Difference(where=f"{then.stage}: epochs", then=len(then.epochs), now=len(now.epochs))
        yield from _differing(then.stage, dict(then.diagnostics), dict(now.diagnostics))


def _plain(epoch: Config, name: str) -> JsonValue:
    value: JsonValue = epoch.model_dump(mode="json", include={name})[name]
    return value


def _artifact(kept: ArtifactManifest | None, made: ArtifactManifest | None) -> Literal["same", "other", "unknown"]:
    if kept is None or made is None:
        return "unknown"
    # The optimizer's memory is kept only where other trials go on from there.
    shared = kept.payloads.keys() & made.payloads.keys()
    alike = all(kept.payloads[name].checksum == made.payloads[name].checksum for name in shared)
    same_base = kept.base_checksum == made.base_checksum
    return "same" if alike and same_base and kept.facts == made.facts else "other"


SPLITS = ("poisoned_val", "poisoned_test", "val", "test")
"""Rates of a trial, by the record's names."""


def rate_differences(then: Mapping[str, Rates | None], now: Mapping[str, Rates | None]) -> tuple[Difference, ...]:
    """Return the rates that differ, of the splits that were measured then."""
    found: list[Difference] = []
    for split, rates in then.items():
        if rates is not None:
            again = now.get(split)
            for rate in ("asr", "ca"):
                old, new = getattr(rates, rate), getattr(again, rate, None)
                if old != new:
                    found.append(Difference(where=f"{split}: {rate}", then=old, now=new))
    return tuple(found)


def _differing(where: str, then: JsonValue, now: JsonValue) -> Iterator[Difference]:
    """Yield each leaf of two JSON values that differs, also where only one side has it."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in {**then, **now}:
            yield from _differing(f"{where}: {name}", then.get(name), now.get(name))
    elif then != now:
        yield Difference(where=where, then=then, now=now)


def largest(differences: Sequence[Difference]) -> float | None:
    """Return the largest difference of two numbers; None if there are none, infinite if a number is missing."""
    sizes = [float("inf") if one.size is None else one.size for one in differences]
    return max(sizes, default=None)
