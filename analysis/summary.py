"""The result of a run in a few numbers, for readers and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from pydantic import Field, JsonValue

from analysis.findings import Findings, validation_points
from analysis.planned import PlannedTimes, planned_times
from analysis.points.configurations import Configuration, Outcome
from analysis.points.geometry import hypervolume
from analysis.records import has_path
from ubt.common.choice import KNOWS, EpochsCounted, RuleName
from ubt.common.errors import Problem, UserError
from ubt.config import Config, get_path
from ubt.trials.budget import BudgetUse
from ubt.trials.failures import Failure
from ubt.trials.record import State, TrialRecord


class Point(Config):
    """Rates on one split, as fractions in [0, 1]; means over seeds."""

    asr: float | None
    """Null if no attack is known."""
    ca: float


class Splits(Config):
    """Rates on both splits; null where a split was not measured."""

    val: Point | None
    test: Point | None


class Chosen(Config):
    """The chosen configuration."""

    trial: str
    name: str = ""
    """The same, or TRIAL@EPOCH if an earlier epoch of the trial is meant: as `ubt export` takes it."""
    config: dict[str, JsonValue]
    """Dotted path → value: what differs from the base, and every searched setting."""
    val: Point | None
    test: Point | None
    epoch: int | None
    """After how many evaluated epochs its model is the one that is meant; null if the defense has none."""


class StageCounts(Config):
    """How many stages of trials were computed, and how many were found in the store."""

    computed: int
    reused: int


class Stopped(Config):
    """Trials that `search.stopping` has ended before their last epoch."""

    trials: int
    epochs: int
    """That count of the stages at which they ended, …"""
    planned_epochs: int
    """… of those that they were to run there."""


class Seconds(Config):
    """Where the time went."""

    wall: float
    """In which at least one trial ran: the time between an interruption and its resume is left out."""
    computed: float
    """Of all stages computed, added up over workers."""
    saved: float
    """What reused stages and epochs would have taken, had every trial run by itself."""


class Summary(Config):
    """What a run came to, in the form of `report/summary.json`.

    Example:
        >>> import analysis
        >>> summary = analysis.load_run("runs/demo").summary  # doctest: +SKIP
        >>> summary.chosen.trial, summary.chosen.test.asr  # doctest: +SKIP
        ('t0007', 0.0)
    """

    name: str
    states: dict[State, int]
    earlier_epochs: int = 0
    """Of these trials, those that end at an earlier epoch of another one, to judge it in full."""
    failures: dict[Failure, int] = Field(default_factory=dict)
    """What failed trials failed by: a fault of a machine, somebody's mistake, or the method; those that occurred."""
    compared: str = ""
    """What a comparison compares, in words. It has several victims, and so neither `poisoned` nor `chosen`."""
    poisoned: Splits
    chosen: Chosen | None
    """Null if no trial qualifies by the rule (none keeps clean accuracy within the floor), or there is nothing to
    choose by: no attack, or no selected pairs."""
    rule: RuleName = "lowest_asr"
    """By which it was chosen, …"""
    knew: str = KNOWS["lowest_asr"]
    """… and what that rule knew."""
    otherwise: dict[RuleName, Chosen | None] = Field(default_factory=dict)
    """What the other rule would have chosen of the same trials, where there is what it looks at."""
    front: tuple[str, ...]
    """Trials on the validation front, by rising ASR; the first of a configuration with several seeds. An earlier epoch
    that no trial has judged in full yet is TRIAL@EPOCH."""
    front_chances: tuple[float, ...] = ()
    """Of each of these the probability of being on the front, by a bootstrap over seeds and images."""
    like_chosen: tuple[str, ...] = ()
    """Those of them that differ from the choice in neither rate, by 95 % intervals on the test split, if measured."""
    epochs: EpochsCounted = "last"
    """Whether front and choice are of every judged epoch, or of the last ones."""
    hypervolume: float
    """Area dominated by the front, between ASR 1, CA 0 and ASR 0, CA 1."""
    stages: StageCounts
    gates: dict[str, dict[str, int]]
    """Sanity gate → outcome → number of trials."""
    stopped: Stopped | None = None
    """What was stopped early; null if nothing was."""
    seconds: Seconds
    budget: dict[str, BudgetUse] = Field(default_factory=dict)
    """Limit (`trials`, `hours`, `GPU-hours`, `price`) → what of it is used; those that the study sets."""
    planned: PlannedTimes | None = None
    """What it was planned to take against what it took; null if nothing says what was planned."""


def summarise(findings: Findings) -> Summary:
    """Return the summary of a run."""
    records, compared = findings.run.records, findings.run.compared
    victim = None if compared else findings.victim
    stages = [stage for record in records for stage in record.stages]
    states = Counter(record.state for record in records)
    return Summary(
        name=findings.run.name,
        states={state: states[state] for state in State},
        earlier_epochs=sum(bool(record.label.epoch_of) for record in records),
        failures=failures_of(records),
        compared=compared,
        poisoned=Splits(
            val=_point(victim.poisoned_val if victim else None),
            test=_point(victim.poisoned_test if victim else None),
        ),
        chosen=_chosen(findings.chosen, findings.run.knobs),
        rule=findings.run.rule,
        knew=KNOWS[findings.run.rule],
        otherwise={
            rule: _chosen(choice, findings.run.knobs)
            for rule, choice in findings.choices.items()
            if rule != findings.run.rule
        },
        front=tuple(member.name for member in findings.front),
        front_chances=tuple(findings.doubt.chances.get(member.name, 0.0) for member in findings.front),
        like_chosen=tuple(member.name for member in findings.front if member.name in findings.doubt.alike),
        epochs="every" if findings.run.every_epoch else "last",
        hypervolume=hypervolume(validation_points(findings.front)),
        stages=StageCounts(
            computed=sum(not stage.reused for stage in stages), reused=sum(stage.reused for stage in stages)
        ),
        gates=_gates(records),
        stopped=stopped_of(records),
        seconds=Seconds(
            wall=wall_seconds(records),
            computed=sum(stage.spent_seconds for stage in stages),
            saved=sum(stage.saved_seconds for stage in stages),
        ),
        budget=findings.run.budget.used(findings.run.spent) if findings.run.budget else {},
        planned=planned_times(findings.run),
    )


def failures_of(records: Iterable[TrialRecord]) -> dict[Failure, int]:
    """Return what failed trials failed by, and how many by each."""
    counts = Counter(record.failed_by for record in records)
    return {failure: counts[failure] for failure in Failure if counts[failure]}


def earlier_text(number: int) -> str:
    """Say in brackets how many trials end at earlier epochs of others: ` (7 of them at …)`; nothing if none does."""
    return f" ({number:,} of them at an earlier epoch of another)" if number else ""


def failures_text(failures: Mapping[Failure, int]) -> str:
    """Say what failed trials failed by, in brackets: ` (1 by a fault, 2 by the method)`; nothing if none failed."""
    told = ", ".join(f"{number:,} by {FAILED_BY[failure]}" for failure, number in failures.items())
    return f" ({told})" if told else ""


FAILED_BY = {Failure.FAULT: "a fault", Failure.MISTAKE: "a mistake", Failure.METHOD: "the method"}


def wall_seconds(records: Iterable[TrialRecord]) -> float:
    """Return the seconds in which at least one trial ran.

    Raises:
        UserError: if a start is no ISO 8601 time.
    """
    spans = sorted((_start(record).timestamp(), record.seconds) for record in records if record.started_at)
    total, reached = 0.0, 0.0
    for start, seconds in spans:
        total += max(0.0, start + seconds - max(start, reached))
        reached = max(reached, start + seconds)
    return total


def _start(record: TrialRecord) -> datetime:
    try:
        start = datetime.fromisoformat(record.started_at)
    except ValueError as error:
        where = f"{record.trial}: started_at"
        raise UserError(Problem(where, "is no ISO 8601 time", record.started_at)) from error
    return start if start.tzinfo else start.replace(tzinfo=UTC)


def _point(outcome: Outcome | None) -> Point | None:
    if outcome is None:
        return None
    return Point(asr=outcome.asr.mean if outcome.asr else None, ca=outcome.ca.mean)


def _chosen(chosen: Configuration | None, knobs: Iterable[str]) -> Chosen | None:
    if chosen is None:
        return None
    config = chosen.config
    searched = {path: get_path(config, path) for path in knobs if has_path(config, path)}
    return Chosen(
        trial=chosen.first.trial,
        name=chosen.name,
        config=searched | chosen.changes,
        val=_point(chosen.val),
        test=_point(chosen.test),
        epoch=chosen.epoch,
    )


def stopped_of(records: Iterable[TrialRecord]) -> Stopped | None:
    """Return what `search.stopping` has ended early; None if nothing."""
    ends = [record.pruned for record in records if record.pruned]
    counted = Stopped(
        trials=len(ends),
        epochs=sum(end.epoch for end in ends),
        planned_epochs=sum(end.epochs for end in ends),
    )
    return counted if ends else None


def stopped_text(stopped: Stopped | None) -> str:
    """Say how far trials came that were stopped early, in brackets; nothing if none was."""
    return f" (after {stopped.epochs:,} of {stopped.planned_epochs:,} epochs)" if stopped else ""


def _gates(records: Iterable[TrialRecord]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for record in records:
        for gate in record.gates:
            counts.setdefault(gate.gate, Counter())[gate.outcome] += 1
    return {gate: dict(outcomes) for gate, outcomes in counts.items()}
