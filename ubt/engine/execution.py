"""Compute one stage: run it, evaluate its epochs, diagnose its result, publish it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from ubt.artifacts.codec import MODEL, OPTIMIZER, TENSORS, Artifact, changed, encode
from ubt.artifacts.manifest import ArtifactManifest, utc_now
from ubt.artifacts.payloads import Content
from ubt.artifacts.unfinished import Unfinished
from ubt.common.errors import StageFault
from ubt.common.progress import beat
from ubt.engine.context import (
    DiagnoseFunction,
    Epoch,
    ObserveFunction,
    Output,
    StageContext,
    StageFunction,
    context_of,
)
from ubt.engine.continuation import Continuation
from ubt.engine.graph import Node
from ubt.engine.poisoning import PoisonManifest
from ubt.engine.spec import imported
from ubt.engine.work import Effort
from ubt.engine.workspace import Workspace, plain
from ubt.models.clip import check_finite, peak_memory_bytes, reset_peak_memory, same_state
from ubt.trials.judging import JUDGING, Judging
from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord, StageRecord


class Execution:
    """One stage being computed by one trial."""

    def __init__(
        self,
        node: Node,
        workspace: Workspace,
        inputs: Mapping[str, Artifact],
        poison: Artifact | None,
        keep_epochs: tuple[int, ...] = (),
        computed_by: str = "",
        effort: Effort | None = None,
        stops: Callable[[Sequence[EpochRecord]], bool] = lambda epochs: False,
        unfinished: Unfinished | None = None,
    ) -> None:
        """Compute a node; `stops` says of its epochs up to now whether the stage ends with them, without a result."""
        self._node = node
        self._workspace = workspace
        self._inputs = inputs
        self._poison = poison  # for evaluation and diagnostics; the stage sees its own inputs
        self._keep_epochs = keep_epochs
        self._computed_by = computed_by
        self._effort = effort or Effort()
        self._judging = Judging.model_validate(node.settings.get(JUDGING, {}))
        self._full: Rates | None = None
        """What the newest epoch's model is worth, if it was judged in full."""
        self._stops = stops
        self._started, self._started_at = time.perf_counter(), utc_now()
        self._continuation = Continuation(node, workspace, unfinished)
        earlier = self._continuation.manifest
        self._epochs = list(earlier.epochs) if earlier else []
        self._own_seconds = stage_record(earlier, reused=True).work_seconds if earlier else 0.0
        self._seconds_before = earlier.seconds if earlier else 0.0

    def steps(self) -> Iterator[StageRecord]:
        """Yield the stage's record after each epoch, and the complete one when its artifact is published.

        A stage that is stopped yields no complete one.

        Raises:
            StageFault: if the stage cannot produce a usable artifact.
            UnusableStore: if it cannot be published.
        """
        try:
            yield from self._steps()
        except StageFault:
            self._continuation.discard(None)  # who continues from there meets the same
            raise

    def _steps(self) -> Iterator[StageRecord]:
        if self._epochs and self._stops(self._epochs):  # by what was known before its last epoch
            yield self._so_far()
            return
        if self._continuation.resumed:
            yield self._so_far()
        reset_peak_memory(self._workspace.device)
        context = context_of(self._node, self._workspace, self._inputs, self._continuation.earlier())
        run: StageFunction = imported(self._node.spec.run)
        with self._own_work():
            result = run(context)
        last: Epoch | None = None
        if not isinstance(result, Output):
            for last in self._evaluated(result, self._observer(context)):
                yield self._so_far()
                stopped = self._stops(self._epochs)
                self._keep(context, last, stopped)
                if stopped:
                    self._continuation.discard(last.number)
                    return
                if self._continuation.must_save(last):
                    self._continuation.save(last, self._described(self._node))
            assert last is not None, f"{self._node.spec.name} yielded no epoch"  # noqa: S101
            with self._own_work():
                result = last.snapshot()
            if self._full and last.model and result.model and same_state(result.model, last.model.state()):
                self._workspace.note_judged(self._node.key, self._full)
        manifest = self._publish(context, result, self._node, self._memory(last, self._node.epochs))
        self._workspace.when_published(lambda done: self._continuation.discard(self._node.epochs or None, done))
        spent_seconds = manifest.seconds - self._seconds_before  # by the same clock
        record = stage_record(manifest, reused=False, spent_seconds=spent_seconds)
        yield record.model_copy(update={"resumed": self._continuation.resumed})

    def _observer(self, context: StageContext) -> ObserveFunction:
        """Return what sees the models of the stage's epochs as a defender would: through the stage's own context."""
        observe = self._node.spec.observe
        return imported(observe)(context) if observe else lambda model: {}

    def _evaluated(self, epochs: Iterator[Epoch], observe: ObserveFunction) -> Iterator[Epoch]:
        """Pass the epochs on, with the time each took and, where the stage asks for it, what its model is worth."""
        began = time.perf_counter()
        for epoch in epochs:
            seconds = time.perf_counter() - began
            self._own_seconds += seconds
            observed = observe(epoch.model) if epoch.model is not None else {}
            rates = self._judge(epoch)
            observed = {name: value for name, value in observed.items() if math.isfinite(value)}
            self._epochs.append(
                EpochRecord(epoch=epoch.number, seconds=seconds, loss=epoch.loss, val=rates, observed=observed)
            )
            beat()
            yield epoch
            began = time.perf_counter()

    def _judge(self, epoch: Epoch) -> Rates | None:
        """Return what an epoch's model is worth on validation, if that is asked for.

        Class by class it is kept for the stage that judges the model which the trial ends with, and in no record.
        """
        self._full = None
        if epoch.model is None or self._poison is None or not self._node.spec.evaluates_each_epoch:
            return None
        if not self._judging.after(epoch.number):
            return None
        evaluator, model = self._workspace.evaluator(self._poison), self._workspace.own_copy(epoch.model)
        rates = evaluator.rates(model, "val", by_class=True, images=self._judging.images)
        self._full = None if rates.provisional else rates
        return rates.model_copy(update={"per_class": None})

    def _keep(self, context: StageContext, epoch: Epoch, stopped: bool) -> None:
        """Publish an epoch on the way, if other trials end or continue there, as they may where this one is stopped."""
        kept = epoch.number in self._keep_epochs or (stopped and max(self._keep_epochs, default=0) > epoch.number)
        if self._node.spec.epochs and kept and epoch.number < self._node.epochs:
            self._publish(context, epoch.snapshot(), self._node.at(epoch.number), self._memory(epoch, epoch.number))

    def _memory(self, epoch: Epoch | None, number: int) -> Mapping[str, Tensor] | None:
        """Return the optimizer's memory if some trial continues from this epoch."""
        if epoch is None or epoch.optimizer is None or max(self._keep_epochs, default=0) <= number:
            return None
        return epoch.optimizer()

    def _described(self, node: Node, **more: Any) -> ArtifactManifest:  # noqa: ANN401 — fields of the manifest
        return ArtifactManifest(
            stage=node.spec.name,
            key=node.key,
            version=node.spec.version,
            seed=node.seed,
            settings=node.settings,
            inputs=node.inputs,
            epochs=tuple(self._epochs),
            seconds=self._spent_seconds + self._seconds_before,
            own_seconds=self._own_seconds,
            peak_memory_bytes=peak_memory_bytes(self._workspace.device),
            device=str(self._workspace.device),
            setup=self._effort.setup,
            node=self._workspace.node,
            computed_by=self._computed_by,
            started_at=self._started_at,
            **more,
        )

    def _publish(
        self, context: StageContext, output: Output, node: Node, memory: Mapping[str, Tensor] | None
    ) -> ArtifactManifest:
        model = None if output.model is None else plain(output.model)
        if model is not None:
            check_finite(model, self._workspace.clip.net, f"the model of `{node.spec.name}`")
        output = replace(output, tensors=plain(output.tensors), model=model)
        base = self._inputs[output.base] if output.base else None
        described = self._described(
            node,
            base=f"{base.manifest.stage}/{base.manifest.key}" if base else None,
            base_checksum=base.manifest.payloads[MODEL].checksum if base else "",
            facts=dict(output.facts),
            diagnostics=self._diagnose(context, output),
            work=self._effort.work_at(node),
        )
        payloads: dict[str, Content] = {}
        if output.tensors:
            payloads[TENSORS] = encode(output.tensors)
        if output.model is not None:
            payloads[MODEL] = encode(changed(output.model, base.weights if base else None))
        if memory is not None:
            payloads[OPTIMIZER] = encode(memory)
        # An epoch on the way counts as there once a later one is reported, so that others may go on from it.
        complete = self._workspace.publish(described, payloads, at_once=node is not self._node)
        self._workspace.remember(Artifact(complete, dict(output.tensors), output.model))
        return complete

    def _diagnose(self, context: StageContext, output: Output) -> dict[str, float]:
        """Return the stage's own diagnostics of its output; they know the poison, the stage does not.

        So they are given a context of their own: what the stage did to its context sees nothing of them.
        """
        spec = self._node.spec
        if spec.diagnose is None or self._poison is None:
            return {}
        diagnose: DiagnoseFunction = imported(spec.diagnose)
        own = context_of(self._node, self._workspace, self._inputs, context.earlier, lent=False)
        found = diagnose(own, output, PoisonManifest.of(self._poison))
        return {name: value for name, value in found.items() if math.isfinite(value)}

    @contextmanager
    def _own_work(self) -> Iterator[None]:
        """Count what happens inside as the stage's own work."""
        began = time.perf_counter()
        yield
        self._own_seconds += time.perf_counter() - began

    @property
    def _spent_seconds(self) -> float:
        return time.perf_counter() - self._started

    def _so_far(self) -> StageRecord:
        return StageRecord(
            stage=self._node.spec.name,
            key=self._node.key,
            reused=False,
            seconds=self._spent_seconds + self._seconds_before,
            spent_seconds=self._spent_seconds,
            complete=False,
            node=self._workspace.node,
            started_at=self._started_at,
            computed_by=self._computed_by,
            resumed=self._continuation.resumed,
            epochs=tuple(self._epochs),
        )


def stage_record(manifest: ArtifactManifest, reused: bool, spent_seconds: float = 0.0) -> StageRecord:
    """Return what a trial's record says of a stage whose artifact is there."""
    return StageRecord(
        stage=manifest.stage,
        key=manifest.key,
        reused=reused,
        seconds=manifest.seconds,
        own_seconds=manifest.own_seconds,
        spent_seconds=spent_seconds,
        peak_memory_bytes=manifest.peak_memory_bytes,
        node=manifest.node,
        started_at=manifest.started_at,
        ended_at=manifest.created_at,
        computed_by=manifest.computed_by,
        diagnostics=manifest.diagnostics,
        epochs=manifest.epochs,
    )
