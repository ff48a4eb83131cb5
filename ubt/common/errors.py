"""Three kinds of trouble: mistakes of the user (`UserError`), failures of the method (`StageFault`), faults (`Fault`).

A mistake is reported once, completely, and ends the command with status 2. A failure of the method is a result: it
ends one trial, is recorded with its reason, and the sweep goes on. A fault is of the machine, a disk, the network: it
says nothing of the trial, which is run again where that makes sense (`sweeps.scheduling.retries` has the rules).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ubt.common.secrets import without_credentials


@dataclass(frozen=True)
class Problem:
    """One mistake: where it is, what was given there, what is allowed and what to do about it."""

    where: str
    message: str
    given: object = None
    advice: str = ""

    def __str__(self) -> str:
        advice = f"\n    → {self.advice}" if self.advice else ""
        return f"{self.said}{without_credentials(advice)}"

    @property
    def said(self) -> str:
        """Return it without the advice."""
        given = "" if self.given is None else f" (given: {_shortened(self.given)})"
        where, message = (without_credentials(text) for text in (self.where, self.message))
        return f"{_middle_out(where, 500)}: {_middle_out(message, 2000)}{given}"


LISTED = 20
"""A data set with one mistake often has it in every row, and ten thousand lines are not read."""


class UserError(Exception):
    """What was given cannot be used; `problems` has every mistake found, the text the first `LISTED` of them."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        more = len(self.problems) - LISTED
        listed = [str(problem) for problem in self.problems[:LISTED]]
        super().__init__("\n".join([*listed, f"and {more:,} more"] if more > 0 else listed))

    def __reduce__(self) -> tuple[type[UserError], tuple[tuple[Problem, ...]]]:
        """Survive the trip from a worker process, which pickles exceptions."""
        return type(self), (self.problems,)


class StageFault(Exception):
    """A stage could not produce a usable artifact; the trial that needed it fails with this reason."""


class StoppedByGate(StageFault):
    """A sanity gate found that it makes no sense to go on."""


class NotFinite(StoppedByGate):
    """A model has weights that are NaN or infinite: nothing can be computed from it."""

    def __init__(self, reason: str, tensors: int = 0) -> None:
        super().__init__(reason, tensors)
        self.tensors = tensors
        """How many tensors of it."""

    def __str__(self) -> str:
        return str(self.args[0])


class WeakImplant(StoppedByGate):
    """The attack did not take, so there is nothing to defend against (see `implant.min_asr`)."""


class Fault(Exception):
    """What ends one run of a trial without being an end of the trial; `OSError` and `MemoryError` do likewise.

    Its class's name reaches the sweep as the record's `fault`, and `sweeps.scheduling.retries.RULES` says by that
    name what is done about it. A kind without a rule ends the trial, and a resume runs it again.
    """


class DamagedArtifact(Fault):
    """An artifact's checksum does not match; it has been set aside and must be computed again."""


class UnfitNode(Fault):
    """No trial of the study can be run on this node (its data differs, say), but perhaps on another one."""


class Stalled(Fault):
    """A stage has not come on for too long."""


class Waits(Fault):
    """Another sweep computes a stage that the trial needs; the trial goes on once that is there."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        """Of the stage."""

    def __str__(self) -> str:
        return str(self.args[1])


def _shortened(value: object, limit: int = 120) -> str:
    text = without_credentials(repr(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _middle_out(text: str, limit: int) -> str:
    """Return a text without its middle if it is too long to read, as a path of thousands of letters."""
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"
