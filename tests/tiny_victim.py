"""A victim small enough to be trained in two seconds, and what it takes to run its stages one by one.

Nothing here is mocked: trials go through the real `TrialRunner`, stages through the real pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from ubt.data import content_key
from ubt.engine.graph import Node, build_pipeline
from ubt.engine.spec import imported, stage_named
from ubt.testing import tiny_trial
from ubt.trials.assignment import Assignment
from ubt.trials.config import TrialConfig
from ubt.trials.gates import Gates
from ubt.trials.record import TrialRecord

if TYPE_CHECKING:
    from ubt.artifacts.codec import Artifact
    from ubt.engine.context import Output, StageContext, StageInput
    from ubt.engine.runner import TrialRunner
    from ubt.engine.workspace import Workspace
    from ubt.models.clip import Clip, State


REPORT = Gates.model_validate({"clean_accuracy": {"act": "report"}})
"""Of gates: a model of one epoch is no better than chance, and its stages are to be looked at all the same."""


def assign(store: object, changes: Mapping[str, Any] | None = None, **fields: Any) -> Assignment:
    """Return the assignment of a tiny trial whose artifacts belong into `store`."""
    trial = tiny_trial(changes)
    described = {
        "study": "tiny",
        "trial": "tiny-0",
        "number": 0,
        "seed": 0,
        "config": trial.as_json(),
        "changes": dict(changes or {}),
        "data_key": content_key(trial.victim.data),
        "store": str(store),
    }
    return Assignment.model_validate({**described, **fields})


def run_trial(
    store: object, changes: Mapping[str, Any] | None = None, runner: TrialRunner | None = None, **fields: Any
) -> list[TrialRecord]:
    """Return every record that a tiny trial yields."""
    from ubt.engine.runner import TrialRunner

    return list((runner or TrialRunner()).run(assign(store, changes, **fields)))


@dataclass
class Bench:
    """One workspace on which the stages of tiny trials are run one by one."""

    workspace: Workspace
    keep_epochs: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def nodes(self, changes: Mapping[str, Any] | None = None, seed: int = 0) -> dict[str, Node]:
        """Return the stages of a trial by name."""
        return {node.spec.name: node for node in build_pipeline(tiny_trial(changes), seed)}

    def node(self, stage: str, changes: Mapping[str, Any] | None = None, seed: int = 0) -> Node:
        """Return one stage of a trial."""
        return self.nodes(changes, seed)[stage]

    def inputs(self, stage: str, changes: Mapping[str, Any] | None = None, seed: int = 0) -> dict[str, Artifact]:
        """Return role → the whole artifact that fills it, manifest included; it is made if need be."""
        trial = tiny_trial(changes)
        nodes = list(build_pipeline(trial, seed))
        before = tuple(takewhile(lambda node: node.spec.name != stage, nodes))
        assert len(before) < len(nodes), f"{stage} is no stage of this trial"
        self._run(before, trial)
        stage_of = {other.key: other.spec.name for other in before}
        return {role: self._loaded(stage_of[key], key) for role, key in nodes[len(before)].inputs.items()}

    def context(
        self,
        stage: str,
        changes: Mapping[str, Any] | None = None,
        seed: int = 0,
        given: Mapping[str, StageInput] | None = None,
    ) -> StageContext:
        """Return what the pipeline would hand to a stage, but for the roles that are `given` something else.

        The stages before it are run if need be.
        """
        from ubt.engine.context import context_of

        inputs = self.inputs(stage, changes, seed)
        for role, other in (given or {}).items():
            inputs[role] = replace(inputs[role], tensors=other.tensors, model=other.model)
        return context_of(self.node(stage, changes, seed), self.workspace, inputs)

    def artifact(self, stage: str, changes: Mapping[str, Any] | None = None, seed: int = 0) -> Artifact:
        """Return the artifact of a stage, manifest included; it is made if need be."""
        trial = tiny_trial(changes)
        nodes = build_pipeline(trial, seed)
        names = [node.spec.name for node in nodes]
        upto = nodes[: names.index(stage) + 1]
        self._run(upto, trial)
        return self._loaded(stage, upto[-1].key)

    def clip(self, model: State) -> Clip:
        """Return the tiny model with these weights, in evaluation mode."""
        return self.workspace.clip.with_state(model)

    def output(self, stage: str, changes: Mapping[str, Any] | None = None, seed: int = 0) -> Output:
        """Return what a stage makes of its inputs, computed now (the last epoch's, if it works by epochs)."""
        from ubt.engine.context import Output

        result = imported(stage_named(stage).run)(self.context(stage, changes, seed))
        if isinstance(result, Output):
            return result
        *_, last = [epoch.snapshot() for epoch in result]
        return last

    def _run(self, nodes: tuple[Node, ...], trial: TrialConfig) -> None:
        from ubt.engine.pipeline import PipelineRun

        list(PipelineRun(nodes, trial, self.workspace, self.keep_epochs, REPORT).steps())

    def _loaded(self, stage: str, key: str) -> Artifact:
        found = self.workspace.load(stage, key)
        assert found is not None, f"{stage} has not been run"
        return found
