"""Two kinds of trouble: mistakes of the user (`UserError`) and faults of a run (`StageFault`).

A mistake is reported once, completely, and ends the command with status 2. A fault ends one trial; it is
recorded with its reason and the sweep goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake: where it is, what was given there, what is allowed and what to do about it."""

    where: str
    message: str
    given: object = None
    advice: str = ""

    def __str__(self) -> str:
        given = "" if self.given is None else f" (given: {_shortened(self.given)})"
        advice = f"\n    → {self.advice}" if self.advice else ""
        return f"{self.where}: {self.message}{given}{advice}"


class UserError(Exception):
    """What was given cannot be used; carries every mistake found, not only the first."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[UserError], tuple[tuple[Problem, ...]]]:
        """Survive the trip from a worker process, which pickles exceptions."""
        return type(self), (self.problems,)


class StageFault(Exception):
    """A stage could not produce a usable artifact; the trial that needed it fails with this reason."""


class WeakImplant(StageFault):
    """The attack did not take, so there is nothing to defend against (see `implant.min_asr`)."""


class DamagedArtifact(Exception):
    """An artifact's checksum does not match; it has been set aside and must be computed again."""


def _shortened(value: object, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
