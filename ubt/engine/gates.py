"""Sanity gates: is it worth going on from what a stage has made?

A gate is a function of a finished artifact and of what it is held against, which returns a `GateOutcome`, or None if it
does not apply; a stage's row names those that stand behind it. Gates belong to the engine: what they know (clean
labels, the trigger, which pairs are poisoned) is not what the stage knows. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from ubt.artifacts.manifest import ArtifactManifest
from ubt.common.errors import NotFinite, StoppedByGate, WeakImplant
from ubt.config.base import Function
from ubt.engine.spec import imported
from ubt.trials.config import TrialConfig
from ubt.trials.gates import LABELS, POISON, TRIGGER, WEIGHTS, Act, AurocGate, GateOutcome, Gates
from ubt.trials.rates import Rates

IMPLANT, IMPLANT_ACCURACY, CLEAN_ACCURACY = "implant", "implant_accuracy", "clean_accuracy"
DETECTOR_AUROC, OVERFIT_AUROC, FINITE_WEIGHTS = "detector_auroc", "overfit_auroc", "finite_weights"
"""Names of the gates."""
NO_VICTIM = (IMPLANT, IMPLANT_ACCURACY)
"""The gates whose failure says that there is nothing to defend against, or nothing to defend."""


@dataclass(frozen=True)
class Judged:
    """What a gate looks at."""

    manifest: ArtifactManifest
    """Of the finished stage: its facts, and its diagnostics, which know the poison."""
    trial: TrialConfig
    gates: Gates
    classes: int
    """How many classes the data has."""

    @property
    def rates(self) -> Rates:
        """Return what a stage that evaluates a model measured on validation."""
        return Rates.model_validate(self.manifest.facts["val"])

    @property
    def chance(self) -> float:
        """Return the accuracy of drawing lots."""
        return 1 / self.classes

    def outcome(
        self, gate: str, measured: float | None, threshold: float, act: Act, knew: str, reason: str, setting: str
    ) -> GateOutcome:
        """Return what a gate found; `reason` is what to say below the threshold, `setting` goes on all the same."""
        found: Literal["passed", "reported", "stopped", "unmeasured"] = "passed"
        if measured is None:
            found = "unmeasured"
        elif measured < threshold:
            found = "stopped" if act == "stop" else "reported"
        if found == "stopped":
            reason = f"{reason} ({setting} goes on all the same)"
        return GateOutcome(
            gate=gate,
            stage=self.manifest.stage,
            measured=measured,
            threshold=threshold,
            outcome=found,
            knew=knew,
            reason="" if found == "passed" else reason,
        )


GateFunction = Callable[[Judged], GateOutcome | None]


def judge(gates: Iterable[Function], judged: Judged) -> tuple[GateOutcome, ...]:
    """Return what each of a stage's gates found, up to the first that stops the trial."""
    found: list[GateOutcome] = []
    for gate in gates:
        function: GateFunction = imported(gate)
        outcome = function(judged)
        found += [outcome] if outcome else []
        if outcome and outcome.outcome == "stopped":
            break
    return tuple(found)


def stop(outcome: GateOutcome) -> StoppedByGate:
    """Return the fault of a trial that a gate stopped."""
    return WeakImplant(outcome.reason) if outcome.gate in NO_VICTIM else StoppedByGate(outcome.reason)


def implant(judged: Judged) -> GateOutcome | None:
    """Ask for a backdoor to remove: the validation ASR must reach `implant.min_asr`, if the attack is known."""
    rates, least = judged.rates, judged.trial.victim.implant.min_asr
    if rates.asr is None:
        return None
    advice = "raise victim.implant.epochs or .learning_rate, or victim.attack.poison_rate"
    if judged.trial.victim.implant.checkpoint:
        advice = "check that victim.attack is the attack that the checkpoint was poisoned with, and its target"
    reason = (
        f"the backdoor did not take: ASR {rates.asr:.3f} on validation, victim.implant.min_asr is {least}; {advice}"
    )
    return judged.outcome(IMPLANT, rates.asr, least, "stop", TRIGGER, reason, "min_asr: 0")


def implant_accuracy(judged: Judged) -> GateOutcome | None:
    """Ask for a model to defend: the CA of one that was poisoned here must lie above chance, or `min_asr` be 0."""
    if judged.trial.victim.implant.checkpoint:
        return None
    rates = judged.rates
    reason = (
        f"the poisoned model's CA {rates.ca:.3f} is near chance ({judged.chance:.3f}); "
        "train longer, or lower victim.implant.learning_rate"
    )
    act: Act = "stop" if judged.trial.victim.implant.min_asr else "report"
    return judged.outcome(IMPLANT_ACCURACY, rates.ca_low, judged.chance, act, LABELS, reason, "min_asr: 0")


def clean_accuracy(judged: Judged) -> GateOutcome | None:
    """Ask a model that was loaded for a CA well over chance: its weights may be another network's, or spoiled."""
    is_poisoned = judged.manifest.stage == "implant"
    if is_poisoned and not judged.trial.victim.implant.checkpoint:
        return None
    asked, rates, chance = judged.gates.clean_accuracy, judged.rates, judged.chance
    measured = (rates.ca_low - chance) / (1 - chance) if chance < 1 else None
    where = "victim.implant.checkpoint" if is_poisoned else "victim.model"
    reason = (
        f"the {'poisoned' if is_poisoned else 'clean'} model that was loaded classifies hardly better than chance: CA "
        f"{rates.ca:.3f} on {rates.ca_images} validation images of {judged.classes} classes; check {where} (is it the "
        "right file, architecture and activation?), and the classes and their names"
    )
    setting = f"gates.{CLEAN_ACCURACY}.act: report"
    return judged.outcome(CLEAN_ACCURACY, measured, asked.over_chance, asked.act, LABELS, reason, setting)


def detector_auroc(judged: Judged) -> GateOutcome:
    """Ask a detector to rank poisoned pairs before clean ones."""
    return _auroc(judged, DETECTOR_AUROC, judged.gates.detector_auroc)


def overfit_auroc(judged: Judged) -> GateOutcome:
    """Ask the overfitted model to rank the poisoned ones of the suspicious pairs before the others."""
    return _auroc(judged, OVERFIT_AUROC, judged.gates.overfit_auroc)


def _auroc(judged: Judged, gate: str, asked: AurocGate) -> GateOutcome:
    stage, measured = judged.manifest.stage, judged.manifest.diagnostics.get("auroc")
    reason = f"`{stage}` says no AUROC: it is not known which pairs are poisoned, or all are, or none"
    if measured is not None:
        reason = (
            f"`{stage}` does not tell poisoned pairs from clean ones: AUROC {measured:.3f}, gates.{gate}.at_least is "
            f"{asked.at_least}"
        )
    return judged.outcome(gate, measured, asked.at_least, asked.act, POISON, reason, f"gates.{gate}.act: report")


def finite_weights(stage: str, fault: NotFinite) -> GateOutcome:
    """Return what is recorded of a stage that could publish no model: minus the number of tensors that are not finite.

    Always asked for, where the engine takes a model from a stage: no artifact has such weights.
    """
    return GateOutcome(
        gate=FINITE_WEIGHTS,
        stage=stage,
        measured=-fault.tensors,
        threshold=0,
        outcome="stopped",
        knew=WEIGHTS,
        reason=str(fault),
    )
