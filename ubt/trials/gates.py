"""Sanity gates between stages, as configured and as found: is it worth going on from here? Loads no torch.

A threshold looks at a result and does not change it: no stage's key has any of this in it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ubt.config import Config

Act = Literal["stop", "report"]
"""What becomes of a trial that is below a threshold: it ends, or goes on, and its record says so in both cases."""
WEIGHTS, LABELS, TRIGGER, POISON = "weights", "labels", "trigger", "poison"
"""What it takes to measure what a gate looks at, from what anyone has to what only the attacker has."""


class AccuracyGate(Config):
    """Clean accuracy of every model that is loaded: the clean one, and a poisoned one that is given."""

    over_chance: float = Field(default=0.05, ge=0, lt=1)
    """How far the lower end of CA's 95% interval must lie above chance (1 / classes), as a fraction of the way from
    there to 1: at 0.05 above 14.5% for 10 classes, above 5.1% for 1,000."""
    act: Act = "stop"
    """`stop` ends the trials of a model below that, `report` goes on with it and says so in their records."""


class AurocGate(Config):
    """How well a stage of the defense ranks poisoned pairs before clean ones: its AUROC.

    The gate knows which pairs are poisoned, as no defense does, and its record says so. Where it is unknown, there is
    nothing to measure.
    """

    at_least: float = Field(default=0.5, ge=0, le=1)
    """Least AUROC; 0.5 is that of drawing lots."""
    act: Act = "report"
    """`stop` ends trials below that, `report` goes on and says so in their records."""


class Gates(Config):
    """What is asked of results between stages.

    The gate behind the implant is `victim.implant.min_asr`; that weights are finite is always asked for.
    """

    clean_accuracy: AccuracyGate = AccuracyGate()
    """CA of models whose weights are loaded."""
    detector_auroc: AurocGate = AurocGate()
    """AUROC of the detector's trust in pairs."""
    overfit_auroc: AurocGate = AurocGate()
    """AUROC of the similarity of suspicious pairs after overfitting."""

    def confirm(self, found: GateOutcome) -> bool:
        """Return whether a gate of these settings would end a trial, or let it pass, as it did by others before."""
        match getattr(self, found.gate, None):
            case AccuracyGate(over_chance=threshold, act=act) | AurocGate(at_least=threshold, act=act):
                stops = act == "stop" and found.measured is not None and found.measured < threshold
                return stops == (found.outcome == "stopped")
        return True  # what it asks for is among the trial's own settings


class GateOutcome(Config):
    """What one sanity gate found behind one stage."""

    gate: str
    """Its name: `clean_accuracy`, `implant`, …"""
    stage: str
    """The stage that it stands behind."""
    measured: float | None
    """What it looked at; null if that could not be measured, as an AUROC without a list of what is poisoned."""
    threshold: float
    """Least value that passes."""
    outcome: Literal["passed", "reported", "stopped", "unmeasured"]
    """`reported` is below the threshold, and the trial went on all the same; `stopped` ended it."""
    knew: str
    """What it takes to measure this: `weights`, `labels` (clean labelled images), `trigger`, or `poison` (the list of
    what is poisoned, which no defense has)."""
    reason: str = ""
    """What is wrong and what to change, unless it passed."""
