"""Compute a trial of a run again, in a fresh store, and say whether the same comes out.

The same bits are to come out on the same kind of device with the same library; elsewhere rates within a tolerance. What
was stored may have been computed by other trials, on other nodes, in another order: none of that may matter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal

from analysis import load_run
from sweeps.replaying.differences import (
    SPLITS,
    Difference,
    Manifests,
    StageDifferences,
    largest,
    rate_differences,
    stage_differences,
)
from sweeps.replaying.wanted import Check, Wanted, checks, wanted
from sweeps.run.preflight import decode_here
from ubt.artifacts.exporting.weights import MODEL
from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import digest_bytes
from ubt.config import Config
from ubt.data import content_key
from ubt.trials.assignment import Assignment
from ubt.trials.rates import Rates
from ubt.trials.record import StageRecord, State, TrialRecord

TOLERANCE = 0.02
"""How far, as a fraction, rates may be apart on another kind of device, unless something else is said."""
PROMISED = ("code", "ubt-sweeper")
"""Of what is checked, that on which bits do not depend: stages of the same version and settings promise the same."""

Show = Callable[[StageRecord], None]


class Replayed(Config):
    """What came of computing a trial again."""

    run: str
    trial: str
    """Its name, or TRIAL@EPOCH."""
    seed: int
    checks: tuple[Check, ...]
    """What results depend on, then and now. (If study, seed, data or the code of a stage differ, nothing is run.)"""
    expected: Literal["bits", "tolerance"]
    """What is to come out: the same bits, or rates within the tolerance, where the kind of device or torch is another
    one or is not known."""
    tolerance: float
    """As a fraction."""
    stages: tuple[StageDifferences, ...]
    """Each stage of the trial, in order; the first that is not the same is where it begins."""
    outcome: tuple[Difference, ...]
    """State and rates that differ."""
    rates: dict[str, tuple[Rates | None, Rates | None]]
    """Split → the rates then and now: `poisoned_val`, `poisoned_test`, `val`, `test`."""
    reason: str = ""
    """Why it failed when it was computed again, if it did."""
    seconds: float
    """That computing it again took."""

    @property
    def same_bits(self) -> bool:
        """Return whether nothing differs, in numbers or in artifacts, of all that can be compared."""
        return all(stage.same for stage in self.stages) and not self.outcome

    @property
    def apart(self) -> float:
        """Return how far rates are apart at most; infinite if the trial ended otherwise."""
        return largest(self.outcome) or 0.0

    @property
    def as_expected(self) -> bool:
        """Return whether what was to come out did."""
        return self.same_bits or (self.expected == "tolerance" and self.apart <= self.tolerance)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Return the stages whose artifacts the run's store does not have any more."""
        return tuple(stage.stage for stage in self.stages if stage.artifact == "unknown")


def replay(
    run: Path | str,
    trial: str,
    *,
    store: Path | str | None = None,
    tolerance: float = TOLERANCE,
    show: Show = lambda stage: None,
) -> Replayed:
    """Compute a trial of a run again in this process, without Ray, and compare it with its record and artifacts.

    Args:
        run: the run folder, or its address.
        trial: name of the trial, or NAME@EPOCH for the model after an epoch of the stage that makes the defended one.
        store: a new or empty folder, or an address where nothing is, which keeps what is computed; by default a
            temporary folder.
        tolerance: how far, as a fraction, rates may be apart where other bits are to be expected.
        show: called with each stage that is computed, after every epoch.

    Example:
        >>> found = replay("runs/demo", "t0007")  # doctest: +SKIP
        >>> found.expected, found.same_bits  # doctest: +SKIP
        ('bits', True)

    Raises:
        UserError: if the run has no such trial, it would be other work today, or its data cannot be read.
    """
    asked = wanted(load_run(run), trial)
    with _fresh(store) as place:
        decode_problems, _ = decode_here([asked.trial], place)
        if decode_problems:
            raise UserError(decode_problems)
        now = _computed(asked, place, show)
        kept = asked.kept()
        made = checked_alike(_manifests(asked, place), kept, ArtifactStore(place))
        found = checks(asked, kept, now.versions, now.device_kind)
        return _compared(str(run), asked, now, kept, made, found, tolerance)


@contextmanager
def _fresh(store: Path | str | None) -> Iterator[str]:
    """Have an empty store for a while.

    Raises:
        UserError: if there is something in it.
    """
    if store is None:
        with tempfile.TemporaryDirectory(prefix="ubt-replay-") as folder:
            yield folder
        return
    place = str(store) if "://" in str(store) else str(Path(store).absolute())
    opened = ArtifactStore(place)
    opened.check_writable()
    if next(opened.manifests(), None) is not None:
        message = "holds artifacts: what is in it would not be computed again"
        raise UserError(Problem("--store", message, str(store), "give a new folder"))
    yield place


def _computed(asked: Wanted, store: str, show: Show) -> TrialRecord:
    """Return the record of the trial as it is computed now."""
    from ubt.engine.runner import TrialRunner  # noqa: PLC0415 — torch, 5 s, after all mistakes have been met

    record = asked.record
    assignment = Assignment(
        study=record.study,
        trial=record.trial,
        number=record.number,
        seed=record.seed,
        config=asked.trial.as_json(),
        changes=record.changes,
        label=record.label,
        data_key=content_key(asked.trial.victim.data),
        keys=tuple(node.key for node in asked.pipeline),
        store=store,
        threads=asked.study.resources.cpus_per_trial,
        gpus=_gpus(asked),
        gates=asked.study.gates,
        plugins=asked.study.plugins,
    )
    last = assignment.record(State.RUNNING)
    with closing(TrialRunner(patient=True)) as runner:
        for last in runner.run(assignment):
            if last.stages:
                show(last.stages[-1])
    return last


def _gpus(asked: Wanted) -> float:
    """Return what it is computed on: a GPU if it was then and there is one, else the CPU."""
    import torch  # noqa: PLC0415 — slow, and needed by then

    there = asked.record.device.startswith("cuda") and torch.cuda.is_available()
    return (asked.study.resources.gpus_per_trial or 1.0) if there else 0.0


def _manifests(asked: Wanted, store: str) -> Manifests:
    opened = ArtifactStore(store)
    found = {node.spec.name: opened.manifest(node.spec.name, node.key) for node in asked.pipeline}
    return {stage: manifest for stage, manifest in found.items() if manifest}


def checked_alike(made: Manifests, kept: Manifests, store: ArtifactStore) -> Manifests:
    """Return what was made in a store, with SHA-256 where what is kept has that, as artifacts of before do."""
    old = {name for name, one in kept.items() if any(not payload.xxh3 for payload in one.payloads.values())}
    found = dict(made)
    for name in old & made.keys():
        payloads = {
            part: payload.model_copy(update={"sha256": digest_bytes(store.read(made[name], part)), "xxh3": ""})
            for part, payload in made[name].payloads.items()
        }
        found[name] = made[name].model_copy(update={"payloads": payloads})
    for name in old & made.keys():
        stage = (made[name].base or "").partition("/")[0]
        if stage in old:
            base = found[stage].payloads[MODEL].checksum
            found[name] = found[name].model_copy(update={"base_checksum": base})
    return found


def _compared(
    run: str,
    asked: Wanted,
    now: TrialRecord,
    kept: Manifests,
    made: Manifests,
    found: tuple[Check, ...],
    tolerance: float,
) -> Replayed:
    then, again = _rates(asked.record, asked.upto), _rates(now, None)
    outcome = list(rate_differences(then, again))
    if asked.upto is None and asked.record.state is not now.state:
        outcome.insert(0, Difference(where="state", then=str(asked.record.state), now=str(now.state)))
    elif asked.upto and now.state is not State.DONE:
        outcome.insert(0, Difference(where="state", then=str(State.DONE), now=str(now.state)))
    return Replayed(
        run=run,
        trial=asked.name,
        seed=asked.record.seed,
        checks=found,
        expected="bits" if all(check.same for check in found if check.what not in PROMISED) else "tolerance",
        tolerance=tolerance,
        stages=stage_differences(asked.record, now, kept, made, asked.upto),
        outcome=tuple(outcome),
        rates={split: (then.get(split), again.get(split)) for split in SPLITS},
        reason=now.reason,
        seconds=now.seconds,
    )


def _rates(record: TrialRecord, upto: tuple[str, int] | None) -> Mapping[str, Rates | None]:
    """Return a trial's rates; those of the model after an epoch, if one is meant, which were on validation alone."""
    rates: dict[str, Rates | None] = {split: getattr(record, split) for split in SPLITS}
    if upto is None:
        return rates
    stage = next(stage for stage in record.stages if stage.stage == upto[0])
    at_end = record.state is State.DONE and upto[1] == len(stage.epochs)
    return rates if at_end else {**rates, "val": stage.epochs[upto[1] - 1].val, "test": None}
