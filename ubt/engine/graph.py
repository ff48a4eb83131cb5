"""Which work a trial consists of: its stages, each with the key under which the result is found. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from pydantic import JsonValue

from ubt.common.errors import Problem, UserError
from ubt.common.hashing import fingerprint
from ubt.config.base import kind_of
from ubt.data import content_key
from ubt.defenses import Defense
from ubt.engine.spec import Settings, StageSpec, stage_named, stage_of_metric, stage_origin
from ubt.trials.config import TrialConfig, VictimConfig


@dataclass(frozen=True)
class Node:
    """One stage of one trial: a unit of work that trials with the same key share."""

    spec: StageSpec
    settings: Settings
    seed: int | None
    data_key: str | None
    inputs: dict[str, str]
    """Role → key of the artifact that fills it."""
    plugin: Mapping[str, str] = field(default_factory=dict)
    """Where the stage comes from, if it is not the package's own."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Files that the stage reads; what is in them is among the settings."""

    @cached_property
    def key(self) -> str:
        """Fingerprint of the work; equal work has an equal key."""
        work: dict[str, JsonValue] = {
            "stage": self.spec.name,
            "version": self.spec.version,
            "settings": self.settings,
            "seed": self.seed,
            "data": self.data_key,
            "inputs": dict(self.inputs),
        }
        return fingerprint({**work, "plugin": dict(self.plugin)} if self.plugin else work)

    @property
    def epochs(self) -> int:
        """Number of epochs asked for; 0 if the stage's epochs cannot be continued."""
        count = self.settings[self.spec.epochs] if self.spec.epochs else 0
        assert isinstance(count, int)  # noqa: S101 — the settings' model says so
        return count

    def at(self, epochs: int) -> Node:
        """Return the same work with another number of epochs."""
        assert self.spec.epochs is not None  # noqa: S101
        return replace(self, settings={**self.settings, self.spec.epochs: epochs})

    @cached_property
    def chain(self) -> str:
        """Fingerprint of the work without its number of epochs; the key itself if that cannot be continued.

        Two nodes of one chain are prefixes of each other: the longer one continues the shorter.
        """
        return self.at(-1).key if self.spec.epochs else self.key


Pipeline = tuple[Node, ...]


def build_pipeline(trial: TrialConfig, seed: int, data_key: str | None = None) -> Pipeline:
    """Return the stages of a trial in order, each linked to the keys of its inputs.

    `data_key` is the data's `content_key`, for callers that know it already.

    Raises:
        UserError: if the data or a checkpoint cannot be read, or the defense knows more than it says.
    """
    return PipelineBuilder().build(trial, seed, data_key or content_key(trial.victim.data))


def stages_of(trial: TrialConfig) -> tuple[StageSpec, ...]:
    """Return the stages that a trial runs, in order.

    Raises:
        UserError: if its defense names a stage that is not installed, or a metric's name is that of a stage.
    """
    model = trial.victim.model
    clean = ("pretrain",) if model.trained_here else ("load", *(() if model.random_weights else ("evaluate_clean",)))
    names = (*clean, "poison", "implant", *trial.defense.stages, "evaluate")
    return (*map(stage_named, names), *(stage_of_metric(metric.kind) for metric in trial.metrics))


def is_observed(defense: Defense) -> bool:
    """Return whether a defender sees what a defense does without the trigger: some stage of it selects pairs.

    Raises:
        UserError: if it names a stage that is not installed.
    """
    return any(stage_named(name).observe is not None for name in defense.stages)


def stage_order(pipelines: Iterable[Pipeline]) -> list[str]:
    """Return the names of the stages that occur, in the order in which trials run them.

    The longest pipelines come first: they show where the stages belong that shorter ones leave out.
    """
    longest_first = sorted(pipelines, key=len, reverse=True)
    return list(dict.fromkeys(node.spec.name for pipeline in longest_first for node in pipeline))


class PipelineBuilder:
    """Builds the pipelines of many trials, working out what they have in common once."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[object, ...], Node] = {}
        self._victims: dict[int, VictimConfig] = {}
        self._plugins: dict[str, Mapping[str, str]] = {}
        self._checked: set[tuple[object, ...]] = set()
        self._specs: dict[tuple[object, ...], tuple[StageSpec, ...]] = {}

    def build(self, trial: TrialConfig, seed: int, data_key: str) -> Pipeline:
        """Return the stages of a trial in order, each linked to the keys of its inputs.

        Raises:
            UserError: if a checkpoint cannot be read, or the defense knows more than it says.
        """
        self._check_knowledge(trial.defense)
        self._victims[id(trial.victim)] = trial.victim  # kept, so that no other victim gets its number
        provider: dict[str, str] = {}
        nodes = []
        for spec in self._stages(trial):
            inputs = tuple([provider[role] for role in spec.needs])
            judging = trial.judging if spec.evaluates_each_epoch else None
            identity = (spec.name, seed, data_key, spec.settings.identity(trial), judging, inputs)
            node = self._nodes.get(identity)
            if node is None:
                node = self._nodes[identity] = self._node(spec, trial, seed, data_key, inputs)
            nodes.append(node)
            for role in spec.provides:
                provider[role] = node.key
        return tuple(nodes)

    def _stages(self, trial: TrialConfig) -> tuple[StageSpec, ...]:
        """Return `stages_of` a trial, worked out once for those whose victim is the same object, with equal stages."""
        telling = (id(trial.victim), trial.defense.stages, tuple([metric.kind for metric in trial.metrics]))
        if telling not in self._specs:
            self._specs[telling] = stages_of(trial)
        return self._specs[telling]

    def _node(self, spec: StageSpec, trial: TrialConfig, seed: int, data_key: str, inputs: tuple[str, ...]) -> Node:
        if spec.name not in self._plugins:
            origin = stage_origin(spec.name)
            self._plugins[spec.name] = origin.as_json() if origin else {}
        return Node(
            spec=spec,
            settings={**spec.settings(trial), **(trial.judging.settings if spec.evaluates_each_epoch else {})},
            seed=seed if spec.seeded else None,
            data_key=data_key if spec.needs_data else None,
            inputs=dict(zip(spec.needs, inputs, strict=True)),
            plugin=self._plugins[spec.name],
            files=spec.files(trial),
        )

    def _check_knowledge(self, defense: Defense) -> None:
        """Refuse a defense that runs a stage which sees the poison, unless it says that it knows it."""
        kind = (type(defense), defense.stages)
        if defense.knows_poison or kind in self._checked:
            return
        knowing = [name for name in defense.stages if stage_named(name).sees_poison]
        if knowing:
            stages = ", ".join(f"`{name}`" for name in knowing)
            message = f"says `knows_poison = False`, and runs stages marked `sees_poison`: {stages}"
            advice = "take the mark from the stages; or say `knows_poison = True`: it is then a reference, no defense"
            raise UserError(Problem("defense.kind", message, kind_of(type(defense)), advice))
        self._checked.add(kind)
