"""What a study would run: trials, stages, what the store has of them, and what is left to do. No Ray, no torch."""

from __future__ import annotations

import shlex
from collections import Counter

from sweeps.planner import TrialPlanner
from sweeps.search.designs import Adaptive
from sweeps.search.proposer import Proposal
from sweeps.session import PlannedTrial
from sweeps.study import StudyConfig
from ubt.config import Config
from ubt.data.base import DataSource
from ubt.errors import UserError
from ubt.fingerprint import fingerprint
from ubt.models.names import image_size_px
from ubt.stages.table import STAGES
from ubt.store import ArtifactStore, default_store


class StagePlan(Config):
    """One stage over all trials."""

    stage: str
    trials: int
    """Trials that need it."""
    unique: int
    """Distinct pieces of work among them."""
    stored: int
    """Of those, in the store already."""


class StudyPlan(Config):
    """What a study would run."""

    name: str
    design: str
    configurations: int
    seeds: int
    trials: int
    stages: tuple[StagePlan, ...]
    """Empty for an adaptive search beyond its first trial: its configurations are not known beforehand."""
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


def plan_study(study: StudyConfig) -> StudyPlan:
    """Lay the study out without running anything. Data that cannot be read here is a note, not an error.

    Raises:
        UserError: if a configuration is not allowed.
    """
    notes: list[str] = []

    def content_key(data: DataSource) -> str:
        try:
            return data.content_key()
        except UserError as error:
            notes.append(f"the data cannot be read here: {error.problems[0]!s}")
            return fingerprint(data.as_json())

    store = study.store or default_store()
    adaptive = isinstance(study.search, Adaptive)
    layout = [{}] if adaptive else study.layout()
    planner = TrialPlanner(study, store, content_key=content_key)
    planned = [
        planner(Proposal(number, changes), position)
        for number, changes in enumerate(layout)
        for position in range(len(study.seeds))
    ]
    configurations = study.search.n_trials if isinstance(study.search, Adaptive) else len(layout)
    return StudyPlan(
        name=study.name,
        design=getattr(study.search, "design", ""),
        configurations=configurations,
        seeds=len(study.seeds),
        trials=configurations * len(study.seeds),
        stages=_stage_plans(planned, ArtifactStore(store)),
        image_size_px=image_size_px(study.victim.model.name),
        store=store,
        notes=tuple(notes),
    )


def _stage_plans(planned: list[PlannedTrial], store: ArtifactStore) -> tuple[StagePlan, ...]:
    trials: Counter[str] = Counter()
    unique: dict[str, set[str]] = {}
    for trial in planned:
        for node in trial.pipeline:
            trials[node.spec.name] += 1
            unique.setdefault(node.spec.name, set()).add(node.key)
    return tuple(
        StagePlan(stage=name, trials=trials[name], unique=len(keys), stored=len(keys & store.keys(name)))
        for name, keys in sorted(unique.items(), key=lambda item: list(STAGES).index(item[0]))
    )


def plan_text(plan: StudyPlan) -> str:
    """Return a plan as a table."""
    lines = [
        f"{plan.name}: {plan.design}, {plan.configurations} configurations × {plan.seeds} seeds = {plan.trials} trials",
        f"images {plan.image_size_px} px · store {shlex.quote(plan.store)}",
        "",
        f"{'stage':<12}{'needed':>8}{'unique':>8}{'stored':>8}",
    ]
    lines += [f"{s.stage:<12}{s.trials:>8}{s.unique:>8}{s.stored:>8}" for s in plan.stages]
    lines.append(f"{'all':<12}{plan.total:>8}{plan.unique:>8}{plan.stored:>8}")
    if plan.design == "optuna":
        lines += ["", "An adaptive search chooses as it goes; the table is its first trial, the base."]
    lines += ["", *(f"Note: {note}" for note in plan.notes)] if plan.notes else []
    return "\n".join(lines)
