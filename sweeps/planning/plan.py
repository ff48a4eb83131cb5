"""What a study would run, what the store has of it, and what is left to do and costs. Loads neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from statistics import median

from sweeps.planning.machine import machine_notes
from sweeps.planning.trials import TrialPlanner
from sweeps.study.config import StudyConfig
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore, default_store
from ubt.common.errors import UserError
from ubt.common.hashing import fingerprint
from ubt.config import Config
from ubt.config.base import kind_of
from ubt.data import DataSource, content_key
from ubt.engine.graph import Node, Pipeline, stage_order
from ubt.engine.spec import stage_names
from ubt.models.settings import image_size_px

DEFAULT_SECONDS = 60.0
"""Taken for a stage, or an epoch of one, that this store has never seen."""
_SAMPLED = 50
"""Artifacts of a stage that are looked at: enough for a median, and few enough for S3."""


@dataclass(frozen=True)
class StageCost:
    """What one unit of a stage takes: an epoch if it can be continued by epochs, else the whole stage."""

    seconds: float
    size_bytes: float
    """Of one artifact."""
    measured: int
    """Artifacts that this was read from; 0: a default."""

    def seconds_of(self, node: Node) -> float:
        """Return the seconds that a node takes from nothing."""
        return self.seconds * units(node)


def units(node: Node) -> int:
    """Return how many units of work a node is."""
    return max(1, node.epochs) if node.spec.epochs else 1


def stage_costs(store: ArtifactStore, nodes: Iterable[Node]) -> dict[str, StageCost]:
    """Return the cost of each stage among the nodes."""
    specs = {node.spec.name: node.spec for node in nodes}
    return {name: _cost(store, name, by_epochs=bool(spec.epochs)) for name, spec in specs.items()}


def _cost(store: ArtifactStore, stage: str, by_epochs: bool) -> StageCost:
    sampled = islice(sorted(store.keys(stage)), _SAMPLED)
    manifests = [manifest for key in sampled if (manifest := store.manifest(stage, key))]
    if not manifests:
        return StageCost(DEFAULT_SECONDS, 0.0, 0)
    seconds = median(manifest.seconds / (_epochs(manifest) if by_epochs else 1) for manifest in manifests)
    return StageCost(seconds, median(manifest.size_bytes for manifest in manifests), len(manifests))


def _epochs(manifest: ArtifactManifest) -> int:
    return max(1, manifest.epochs[-1].epoch) if manifest.epochs else 1


class StagePlan(Config):
    """One stage over all trials."""

    stage: str
    trials: int
    """Trials that need it."""
    unique: int
    """Distinct artifacts among them."""
    stored: int
    """Of those, in the store already."""
    seconds_alone: float
    """Seconds that computing it for every trial by itself would take."""
    seconds_shared: float
    """Seconds for the distinct artifacts; epochs that several continue from count once."""
    seconds_left: float
    """Of those, for what the store does not have."""
    size_bytes: float
    """What the artifacts that are left to make will take in the store."""
    measured: int
    """Artifacts that the time was estimated from; 0: a default."""


class StudyPlan(Config):
    """What a study would run, and what that would cost."""

    name: str
    design: str
    configurations: int
    seeds: int
    trials: int
    stages: tuple[StagePlan, ...]
    """Of the configurations that are known beforehand: of an adaptive search the first alone."""
    searched: int = 0
    """Configurations that run with fewer seeds, as those of a comparison from which it chooses its table's."""
    chosen_later: int = 0
    """Configurations that results decide, beyond those of the stages."""
    workers: int
    critical_path_seconds: float
    """Seconds of the longest trial: no number of workers is faster."""
    image_size_px: int
    store: str
    notes: tuple[str, ...] = ()
    """What the plan could not look at."""

    @property
    def total(self) -> int:
        """Return how many stages run without sharing."""
        return sum(stage.trials for stage in self.stages)

    @property
    def unique(self) -> int:
        """Return how many run with sharing."""
        return sum(stage.unique for stage in self.stages)

    @property
    def stored(self) -> int:
        """Return how many of those the store has."""
        return sum(stage.stored for stage in self.stages)

    @property
    def seconds_left(self) -> float:
        """Return the work that is left to do."""
        return sum(stage.seconds_left for stage in self.stages)

    @property
    def wall_seconds(self) -> float:
        """Return the least wall time: the work over the workers, or the critical path if that is longer."""
        return max(self.seconds_left / self.workers, self.critical_path_seconds)


def plan_study(study: StudyConfig, workers: int = 1) -> StudyPlan:
    """Return what a study would run and cost, without running anything.

    Args:
        study: as `load_study` returns it.
        workers: how many trials run at a time; only the wall time depends on it.

    Data that cannot be read here is a note in the plan, not an error.

    Example:
        >>> study = load_study("smoke", ["search={design: ofat, space: {defense.token_threshold: [0.1, 0.2]}}"])
        >>> plan = plan_study(study, workers=2)
        >>> print(f"{plan.trials} trials of {plan.total} stages, {plan.unique} of them distinct")
        2 trials of 20 stages, 12 of them distinct

    Raises:
        UserError: if a configuration is not allowed.
    """
    store = ArtifactStore(study.store or default_store())
    pipelines, notes = planned_pipelines(study)
    costs = stage_costs(store, (node for pipeline in pipelines for node in pipeline))
    left = {key for pipeline in pipelines for key in (node.key for node in pipeline)} - stored_keys(store.root)
    return StudyPlan(
        name=study.name,
        design=kind_of(type(study.search), "design"),
        configurations=len(study.proposals()) + study.search.chosen_later,
        searched=sum(proposal.replicates is not None for proposal in study.proposals()),
        chosen_later=study.search.chosen_later,
        seeds=len(study.seeds),
        trials=study.trials,
        stages=_stage_plans(pipelines, costs, left),
        workers=workers,
        critical_path_seconds=max(_path_seconds(pipeline, costs, left) for pipeline in pipelines),
        image_size_px=image_size_px(study.victim.model.name),
        store=store.root,
        notes=notes,
    )


def planned_pipelines(study: StudyConfig) -> tuple[list[Pipeline], tuple[str, ...]]:
    """Return the stages of every trial that is known beforehand, and notes on what the plan does not show.

    Raises:
        UserError: if a configuration is not allowed.
    """
    notes: list[str] = []

    def key_or_stand_in(data: DataSource) -> str:
        try:
            return content_key(data)
        except UserError as error:
            more = len(error.problems) - 1
            rest = f" (and {more:,} more problems, which `ubt run` lists)" if more else ""
            notes.append(f"the data cannot be read here: {error.problems[0]!s}{rest}")
            return fingerprint(data.as_json())

    planner = TrialPlanner(study, study.store or default_store(), content_key=key_or_stand_in)
    pipelines = [planner.pipeline(one, seed) for one in study.proposals() for seed in range(study.replicates(one))]
    if study.victim.model.trained_here and not study.victim.data.has_pretrain:
        notes.append("the clean model is to be trained, and the data has no `pretrain` pairs: a sweep would refuse it")
    search_notes = [study.search.plan_note] if study.search.plan_note else []
    return pipelines, (*notes, *search_notes, *machine_notes(study.resources))


def stored_keys(store: str) -> set[str]:
    """Return the keys of all artifacts in a store."""
    artifacts = ArtifactStore(store)
    return {key for stage in stage_names() for key in artifacts.keys(stage)}


def _stage_plans(pipelines: list[Pipeline], costs: dict[str, StageCost], left: set[str]) -> tuple[StagePlan, ...]:
    nodes: dict[str, list[Node]] = {}
    for pipeline in pipelines:
        for node in pipeline:
            nodes.setdefault(node.spec.name, []).append(node)
    return tuple(_stage_plan(name, nodes[name], costs[name], left) for name in stage_order(pipelines))


def _stage_plan(name: str, nodes: list[Node], cost: StageCost, left: set[str]) -> StagePlan:
    unique = {node.key: node for node in nodes}
    missing = [node for key, node in unique.items() if key in left]
    return StagePlan(
        stage=name,
        trials=len(nodes),
        unique=len(unique),
        stored=len(unique) - len(missing),
        seconds_alone=sum(cost.seconds_of(node) for node in nodes),
        seconds_shared=_chained_seconds(unique.values(), cost),
        seconds_left=_chained_seconds(missing, cost),
        size_bytes=cost.size_bytes * len(missing),
        measured=cost.measured,
    )


def _chained_seconds(nodes: Iterable[Node], cost: StageCost) -> float:
    """Return the seconds of the nodes when each chain of epochs is walked once, as far as its longest."""
    longest: dict[str, float] = {}
    for node in nodes:
        longest[node.chain] = max(longest.get(node.chain, 0.0), cost.seconds_of(node))
    return sum(longest.values())


def _path_seconds(pipeline: Pipeline, costs: dict[str, StageCost], left: set[str]) -> float:
    return sum(costs[node.spec.name].seconds_of(node) for node in pipeline if node.key in left)
