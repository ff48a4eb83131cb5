"""What a study would run, what the store has of it, and what is left to do and costs. Loads neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from sweeps.planning.costs import CostModel, Piece, SizesOf, chained_seconds, sizes_in, tasks_of
from sweeps.planning.layout import Laid, lay_out
from sweeps.planning.peak import store_peak
from sweeps.planning.wall import path_seconds, wall_seconds
from sweeps.study.config import StudyConfig
from ubt.artifacts.store import ArtifactStore, default_store
from ubt.config import Config
from ubt.config.base import kind_of
from ubt.engine.graph import Node, Pipeline, stage_order
from ubt.engine.spec import stage_names
from ubt.models.settings import image_size_px
from ubt.trials.config import TrialConfig
from ubt.trials.planned import PlannedCosts


class StagePlan(Config):
    """One stage over all trials."""

    stage: str
    trials: int
    """Trials that need it."""
    unique: int
    """Distinct artifacts among them."""
    stored: int
    """Of those, in the store already."""
    seconds_alone: float | None
    """Seconds that computing it for every trial by itself would take; null if that is unknown, as below."""
    seconds_shared: float | None
    """Seconds for the distinct artifacts; epochs that several continue from count once."""
    seconds_left: float | None
    """Of those, for what the store does not have."""
    size_bytes: float | None
    """What the artifacts that are left to make will take in the store."""
    measured: int
    """Artifacts that the time was estimated from; 0: a calibration, or it is unknown."""


class StudyPlan(Config):
    """What a study would run, and what that would cost. What nothing is known of is null, and so are sums with it."""

    name: str
    design: str
    configurations: int
    seeds: int
    trials: int
    stages: tuple[StagePlan, ...]
    """Of all configurations; for those that results decide, others drawn at random stand in."""
    searched: int = 0
    """Configurations that run with fewer seeds, as those of a comparison from which it chooses its table's."""
    chosen_later: int = 0
    """Configurations that results decide: so many of them are stand-ins here."""
    seconds_left: float | None
    """The work that is left to do, added up over workers."""
    unknown: tuple[str, ...]
    """Stages of which something is left to do, and it is not known how long that takes."""
    workers: int
    critical_path_seconds: float | None
    """Seconds of the longest chain of stages: no number of workers is faster."""
    wall_seconds: float | None
    """How long the workers take if each that is free takes what most is behind: less time than a sweep, which also
    starts workers and waits for what another one computes."""
    gpus: float
    """Of a trial."""
    gpu_hours: float | None
    """Hours of GPUs that the stages left take; 0 without GPUs."""
    gpu_hours_held: float | None
    """Hours for which so many workers hold their GPUs."""
    price_per_gpu_hour: float | None = None
    price: float | None = None
    """Of the hours held, if the price of one was given."""
    store_bytes: float | None
    """What is left to come into the store."""
    store_peak_bytes: float | None = None
    """The most that the store holds of this study, with what is there already, if nothing goes."""
    store_within_bytes: float | None = None
    """The same under the study's `store_budget`; null without one."""
    store_needed_bytes: float | None = None
    """The most that trials need of it at a time: a budget cannot make it less."""
    cache_bytes: float | None
    """What decoded images take on each machine."""
    memory_bytes: int | None
    """Most memory that a trial has taken on this setup: of the GPU, or of the process on a CPU."""
    setups: tuple[str, ...]
    """What the times are for: models, image sizes, hardware."""
    image_size_px: int
    store: str
    notes: tuple[str, ...] = ()
    """What the plan could not look at."""
    every_epoch: bool = False
    """Earlier epochs on the front, or chosen, become trials of their own. How many is not known, and they are not
    counted in the rest of the plan."""
    earlier_epoch_seconds: float | None = None
    """What each of these trials takes at most; null if that is unknown, or there are none."""

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

    def costs(self) -> PlannedCosts:
        """Return what a run will be compared with when it has ended."""
        return PlannedCosts(
            seconds={stage.stage: stage.seconds_left for stage in self.stages},
            wall_seconds=self.wall_seconds,
            workers=self.workers,
            gpus=self.gpus,
            trials=self.trials,
        )


def total(parts: Iterable[float | None]) -> float | None:
    """Return the sum; None if a part is unknown."""
    known = list(parts)
    return None if None in known else sum(part for part in known if part is not None)


@dataclass(frozen=True)
class Forecast:
    """All that a plan, and the time that is left of a sweep, are worked out from."""

    laid: Laid
    model: CostModel
    stored: frozenset[str]
    """Keys that the store has."""
    cache_bytes: float | None
    """What decoded images take."""

    @classmethod
    def of(cls, study: StudyConfig, sizes: SizesOf | None = None) -> Forecast:
        """Work out what the stages of a study cost.

        Raises:
            UserError: if a configuration is not allowed.
        """
        store = study.store or default_store()
        sizes = cache(sizes or sizes_in(store))
        laid = lay_out(study)
        model = CostModel(study, store, sizes)
        model.price(laid.everything)
        return cls(laid, model, frozenset(stored_keys(store)), _cache_bytes(laid.everything, sizes))


def plan_study(
    study: StudyConfig, workers: int = 1, sizes: SizesOf | None = None, price_per_gpu_hour: float | None = None
) -> StudyPlan:
    """Return what a study would run and cost, without running anything.

    Args:
        study: as `load_study` returns it.
        workers: how many trials run at a time; only the wall time, and what follows from it, depends on it.
        sizes: says how much data there is, for data that is not here; by default it is looked at.
        price_per_gpu_hour: of one GPU, in any currency.

    Data that cannot be read here is a note in the plan, not an error. Times come from what artifacts of the store took
    for their work, with the same architecture, image size, hardware and precision, or from a calibration; else they are
    None.

    Example:
        >>> study = load_study("smoke", ["search={design: ofat, space: {defense.token_threshold: [0.1, 0.2]}}"])
        >>> plan = plan_study(study, workers=2)
        >>> print(f"{plan.trials} trials of {plan.total} stages, {plan.unique} of them distinct")
        2 trials of 20 stages, 12 of them distinct

    Raises:
        UserError: if a configuration is not allowed.
    """
    return plan_of(study, Forecast.of(study, sizes), workers, price_per_gpu_hour)


def plan_of(study: StudyConfig, forecast: Forecast, workers: int, price_per_gpu_hour: float | None = None) -> StudyPlan:
    """Return the plan that follows from a forecast of a study."""
    pieces, stored = forecast.model.pieces, forecast.stored
    tasks = tasks_of(pieces.values(), stored)
    known = all(pieces[key].seconds is not None for key in tasks)
    wall = wall_seconds(tasks, workers) if known else None
    stages = _stage_plans(forecast.laid.pipelines, pieces, stored)
    left, gpus = total(stage.seconds_left for stage in stages), study.resources.gpus_per_trial
    held = None if wall is None else wall * workers * gpus / 3600
    setups = dict.fromkeys(piece.setup for piece in pieces.values())
    judged = _from_judged_epochs(forecast.laid.pipelines) if study.every_epoch else []
    peak = store_peak(forecast.laid.pipelines, pieces, workers)
    memory = [forecast.model.speeds.memory_bytes(setup) for setup in setups]
    return StudyPlan(
        name=study.name,
        design=kind_of(type(study.search), "design"),
        configurations=len(study.proposals()) + study.search.chosen_later,
        searched=sum(proposal.replicates is not None for proposal in study.proposals()),
        chosen_later=study.search.chosen_later,
        seeds=len(study.seeds),
        trials=study.trials,
        stages=stages,
        seconds_left=left,
        unknown=tuple(stage.stage for stage in stages if stage.seconds_left is None),
        workers=workers,
        critical_path_seconds=max(path_seconds(tasks).values(), default=0.0) if known else None,
        wall_seconds=wall,
        gpus=gpus,
        gpu_hours=None if left is None else left * gpus / 3600,
        gpu_hours_held=held,
        price_per_gpu_hour=price_per_gpu_hour,
        price=None if price_per_gpu_hour is None or held is None else held * price_per_gpu_hour,
        store_bytes=total(stage.size_bytes for stage in stages),
        store_peak_bytes=peak.everything_bytes,
        store_within_bytes=peak.within(study.store_budget),
        store_needed_bytes=peak.needed_bytes,
        cache_bytes=forecast.cache_bytes,
        memory_bytes=max(filter(None, memory), default=None),
        setups=tuple(map(str, setups)),
        image_size_px=image_size_px(study.victim.model.name),
        store=ArtifactStore(study.store or default_store()).root,
        notes=tuple(forecast.laid.notes),
        every_epoch=bool(judged),
        earlier_epoch_seconds=_longest([total(pieces[node.key].seconds for node in nodes) for nodes in judged]),
    )


def _from_judged_epochs(pipelines: Iterable[Pipeline]) -> list[Pipeline]:
    """Return, of trials that could end at an earlier epoch, the stages from there on: the others are in the store."""
    found = []
    for pipeline in pipelines:
        judged = [at for at, node in enumerate(pipeline) if node.spec.evaluates_each_epoch and node.epochs > 1]
        found += [pipeline[judged[-1] :]] if judged else []
    return found


def _longest(seconds: Sequence[float | None]) -> float | None:
    known = [one for one in seconds if one is not None]
    return max(known, default=None) if len(known) == len(seconds) else None


def stored_keys(store: str) -> set[str]:
    """Return the keys of all artifacts in a store."""
    artifacts = ArtifactStore(store)
    return {key for stage in stage_names() for key in artifacts.keys(stage)}


def _stage_plans(
    pipelines: Sequence[Pipeline], pieces: Mapping[str, Piece], stored: Collection[str]
) -> tuple[StagePlan, ...]:
    nodes: dict[str, list[Node]] = {}
    for pipeline in pipelines:
        for node in pipeline:
            nodes.setdefault(node.spec.name, []).append(node)
    return tuple(
        _stage_plan(name, [pieces[node.key] for node in nodes[name]], stored) for name in stage_order(pipelines)
    )


def _stage_plan(name: str, needed: list[Piece], stored: Collection[str]) -> StagePlan:
    unique = {piece.node.key: piece for piece in needed}
    missing = [piece for key, piece in unique.items() if key not in stored]
    return StagePlan(
        stage=name,
        trials=len(needed),
        unique=len(unique),
        stored=len(unique) - len(missing),
        seconds_alone=total(piece.seconds for piece in needed),
        seconds_shared=chained_seconds(unique.values()),
        seconds_left=chained_seconds(unique.values(), stored),
        size_bytes=total(piece.size_bytes for piece in missing),
        measured=max(piece.artifacts for piece in needed),
    )


def _cache_bytes(trials: Iterable[tuple[TrialConfig, Pipeline]], sizes: SizesOf) -> float | None:
    """Return what the decoded images of all data sets take, each at the sizes that models look at."""
    wanted = {(trial.victim.data, image_size_px(trial.victim.model.name)) for trial, _ in trials}
    found = [(sizes(data), size_px) for data, size_px in wanted]
    return total(None if counted is None else counted.images * size_px**2 * 3.0 for counted, size_px in found)
