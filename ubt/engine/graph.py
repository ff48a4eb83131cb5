"""Which work a trial consists of: its stages, each with the key under which the result is found. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from ubt.common.fingerprint import fingerprint
from ubt.engine.spec import OfDefense, OfMetric, Settings, StageSpec
from ubt.stages import stages_of
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

    @cached_property
    def key(self) -> str:
        """Fingerprint of the work; equal work has an equal key."""
        return fingerprint(
            {
                "stage": self.spec.name,
                "version": self.spec.version,
                "settings": self.settings,
                "seed": self.seed,
                "data": self.data_key,
                "inputs": dict(self.inputs),
            }
        )

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

    `data_key` is the data's `content_key()`, for callers that know it already.

    Raises:
        UserError: if the data or a checkpoint cannot be read.
    """
    return PipelineBuilder().build(trial, seed, data_key or trial.victim.data.content_key())


class PipelineBuilder:
    """Builds the pipelines of many trials, working out what they have in common once."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[object, ...], Node] = {}
        self._victims: dict[int, VictimConfig] = {}

    def build(self, trial: TrialConfig, seed: int, data_key: str) -> Pipeline:
        """Return the stages of a trial in order, each linked to the keys of its inputs.

        Raises:
            UserError: if a checkpoint cannot be read.
        """
        provider: dict[str, Node] = {}
        nodes = []
        for spec in stages_of(trial):
            inputs = tuple(provider[role].key for role in spec.needs)
            identity = (spec.name, seed, data_key, self._identity(spec, trial), inputs)
            node = self._nodes.get(identity)
            if node is None:
                node = self._nodes[identity] = _node(spec, trial, seed, data_key, inputs)
            nodes.append(node)
            provider.update(dict.fromkeys(spec.provides, node))
        return tuple(nodes)

    def _identity(self, spec: StageSpec, trial: TrialConfig) -> object:
        """Return something cheap that is equal only for equal settings of the stage."""
        if isinstance(spec.settings, OfDefense | OfMetric):
            return spec.settings.identity(trial)
        self._victims[id(trial.victim)] = trial.victim  # kept, so that no other victim gets its id
        return id(trial.victim)


def _node(spec: StageSpec, trial: TrialConfig, seed: int, data_key: str, inputs: tuple[str, ...]) -> Node:
    return Node(
        spec=spec,
        settings=spec.settings(trial),
        seed=seed if spec.seeded else None,
        data_key=data_key if spec.needs_data else None,
        inputs=dict(zip(spec.needs, inputs, strict=True)),
    )
