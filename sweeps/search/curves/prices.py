"""What a configuration costs beside those that were proposed before it: its stages that no other one brings along.

Costs are amounts of work, counted before a stage runs, not seconds: so the same search chooses the same configurations
on any machine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING

from sweeps.search.base import identity
from sweeps.search.proposals import Changes
from ubt.common.errors import UserError
from ubt.data.base import DataSizes
from ubt.engine.graph import PipelineBuilder
from ubt.engine.work import Work, work_of

if TYPE_CHECKING:
    from sweeps.search.base import Study

ROUGHLY: Mapping[str, float] = {"images": 1.0, "trained_images": 3.0, "captions": 0.5, "trained_captions": 1.5}
"""How long kinds of work take beside each other, roughly; all others take little."""
_BESIDE = 16.0
"""What a stage takes beside its work, in images: its models are read, its result is stored."""


Priced = Mapping[str, tuple[str, float]]


class Prices:
    """The stages of a study's configurations, each with what it costs."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self.shared: Collection[str] | None = None
        """Names of the stages that trials share; None for all of them."""
        self._builder = PipelineBuilder()
        self._sizes = _sizes(study)
        self._known: dict[str, Priced] = {}

    def named(self, changes: Changes) -> Priced:
        """Return name → key and cost of each stage of a configuration's trial; {} if it is not allowed."""
        name = identity(changes)
        if name not in self._known:
            self._known[name] = self._priced(changes)
        return self._known[name]

    def _priced(self, changes: Changes) -> Priced:
        try:
            trial = self._study.trial(changes)
            pipeline = self._builder.build(trial, self._study.seeds[0], "")
        except UserError:
            return {}
        work = {node.spec.name: (node.key, work_of(node, trial, self._sizes)) for node in pipeline}
        return {name: (key, _BESIDE + _amount(found)) for name, (key, found) in work.items()}

    def of_all(self, candidates: Iterable[Changes], others: Iterable[Changes]) -> list[float]:
        """Return what each candidate costs where the stages of others are there already."""
        there = {key for other in others for name, (key, _) in self.named(other).items() if self._is_shared(name)}
        stages = [self.named(one).values() for one in candidates]
        return [sum(cost for key, cost in one if key not in there) or _BESIDE for one in stages]

    def _is_shared(self, stage: str) -> bool:
        return self.shared is None or stage in self.shared


def _amount(work: Work | None) -> float:
    return sum(ROUGHLY.get(kind, 0.0) * count for kind, count in work.counts.items()) if work else 0.0


def _sizes(study: Study) -> DataSizes | None:
    """Return how much data there is; None if that is known only once it is decoded, so that costs stay the same."""
    try:
        return study.victim.data.sizes(Path(gettempdir()) / "nothing")
    except (UserError, OSError):
        return None
