"""What is done when a trial's run ends without being an end of the trial: again, elsewhere, later, or not at all.

Pure logic, asked by the session. A run that ends so arrives as a `TrialRecord` with `lost=True` and `fault`, the name
of what ended it: the class of the worker's exception, or one of the names below if the worker itself is gone. To
have a new kind of trouble dealt with:

1. Raise an exception in the worker: a subclass of `ubt.common.errors.Fault` (`OSError` and `MemoryError` count too).
   The runner turns it into a record; `Session.ended` takes it.
2. Give its class's name a rule in `RULES`. A kind without a rule ends the trial; a resume runs it again.

What a rule can ask for, and who does it:

- `times`: so often again. The trial waits in the stage scheduler once more, what it left undone is free, and the
  record's `attempts` say when, on which node and why each earlier run ended.
- `leaves_node`: `Session.leave_node(trial, record)` is called, which the backend sets. It keeps all trials off the
  node that this one ran on, and says whether that was possible. If so the trial runs elsewhere, which takes none of
  its times; if not (no other node is left), the trial fails with what is wrong on each.
- `announced`: as often as it happens, for it says nothing of the trial.
- `waits`: the record's `waits_for` names the stage that another sweep computes. All trials that need it wait, others
  go first, no attempt is counted. `Session.awaited` has these stages; call `Session.arrived(key, done)` when one is in
  the store, or free to be computed here.
- `alone`: the assignment says `alone`, and the worker computes only while no other trial does on its GPU or node.

Example:
    >>> retries = Retries(2)
    >>> [retries.after("t0001", "WorkerDied") is not None for _ in range(3)]
    [True, True, False]
    >>> retries.after("t0001", "UnfitNode").leaves_node
    True
    >>> retries.after("t0001", "PermissionError") is None
    True
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ubt.trials.record import TrialRecord

WORKER_DIED = "WorkerDied"
"""The process of a trial was killed, or crashed."""
WORKER_OUT_OF_MEMORY = "WorkerOutOfMemory"
"""It was killed as its node ran out of memory."""
NODE_DIED = "NodeDied"
"""Its node is gone."""
NODE_LEFT = "NodeLeft"
"""Its node leaves the cluster, as had been announced."""

STALLED = "Stalled"
"""A stage of it has not come on for too long, or its process gives no sign of life."""


@dataclass(frozen=True)
class Rule:
    """What is done about one kind of fault."""

    times: int | None = None
    """How often a trial is run again for it, at most `resources.retries`; as often as that if None."""
    alone: str = ""
    """What the trial then has for itself: `gpu` or `node`, with everything else that computes there standing still."""
    leaves_node: bool = False
    """The node gets no more trials; the trial runs on another one, as often as there is another."""
    announced: bool = False
    """It happens to trials wherever nodes come and go, as often as it does."""
    waits: bool = False
    """The trial waits for somebody else's work, as long as that takes."""

    @property
    def counts(self) -> bool:
        """Tell whether running a trial again for this takes one of the times that it has."""
        return not (self.leaves_node or self.announced or self.waits)


RULES: Mapping[str, Rule] = {
    WORKER_DIED: Rule(),
    NODE_DIED: Rule(),
    NODE_LEFT: Rule(announced=True),
    WORKER_OUT_OF_MEMORY: Rule(alone="node"),
    "MemoryError": Rule(alone="node"),
    "OutOfMemoryError": Rule(alone="gpu"),  # torch's
    STALLED: Rule(times=1),
    "UnfitNode": Rule(leaves_node=True),
    "Waits": Rule(waits=True),
}


LOST_IN_A_ROW = 8
"""Trials that may be lost one after the other, to a full disk or an expired token, say, before no more are started."""


class LostInARow:
    """Counts trials that are lost one after the other. Those that were lost before may never fit, and do not count."""

    def __init__(self, known: Iterable[TrialRecord]) -> None:
        self._before = {record.trial for record in known if record.lost}
        self._count = 0

    def too_many(self, record: TrialRecord) -> str:
        """Take note of a trial's end; return why no more are to be started, once."""
        if record.lost and record.trial in self._before:
            return ""
        self._count = self._count + 1 if record.lost else 0
        many = self._count == LOST_IN_A_ROW
        return f"{LOST_IN_A_ROW} trials in a row were lost, the last to {record.reason}" if many else ""


class Retries:
    """Counts, for each trial of a sweep, what has ended its runs."""

    def __init__(self, retries: int, rules: Mapping[str, Rule] = RULES) -> None:
        self._retries = retries
        self._rules = rules
        self._ended: Counter[tuple[str, Rule]] = Counter()

    def after(self, trial: str, fault: str) -> Rule | None:
        """Return the rule by which a trial is run again after a fault; None if it has ended."""
        rule = self._rules.get(fault)
        if rule is None or not rule.counts:
            return rule
        self._ended[trial, rule] += 1
        most = self._retries if rule.times is None else min(rule.times, self._retries)
        return rule if self._ended[trial, rule] <= most else None
