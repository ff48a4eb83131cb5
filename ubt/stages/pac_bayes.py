"""Measure the quantity of the paper's Theorem 1, a PAC-Bayes bound of the defended model's risk.

With the prior P = N(w_p, σ²I) around the poisoned weights and the posterior Q = N(w, σ²I) around the defended
ones, with probability 1 − δ over n training pairs, for all Q at once,

    risk(Q) ≤ empirical risk(Q) + sqrt((KL(Q‖P) + ln(2√n / δ)) / (2n)),    KL(Q‖P) = ‖w − w_p‖² / (2σ²).

Source: McAllester, COLT 1999, with the constant of Maurer, 2004 (arXiv cs/0411099, theorem 5, through Pinsker's
inequality). What it is not: a guarantee. P was trained on the same n pairs, the risk is that of w and not the
mean over Q, and it is measured on the labelled validation images, for training pairs have no labels. It ranks
defenses by how far they move for the accuracy they keep. σ is a choice: the smaller, the larger the bound; the
larger, the less the risk of w is that of Q (σ = 0.01 takes the embedded victim's CA from 0.91 to 0.73–0.80, in
three draws).
"""

from __future__ import annotations

import math
from typing import cast

import torch

from ubt.engine.context import Output, PrivilegedContext, StageContext
from ubt.engine.poisoning import PoisonManifest
from ubt.models.clip import State
from ubt.trials.metrics import PacBayes
from ubt.trials.record import Rates


def run(context: PrivilegedContext) -> Output:
    """Return `kl` in nats, `bound_term`, `empirical_risk` (1 − CA on validation) and `bound`, their sum, as facts.

    A bound of 1 or more says nothing.
    """
    settings, model = context.settings(PacBayes), context.clip("model")
    parameters = {name: value.detach().cpu() for name, value in model.net.named_parameters()}
    kl = gaussian_kl(parameters, context.artifact("poisoned").weights, settings.variance)
    term = bound_term(kl, len(context.data.train), settings.delta)
    risk = 1 - Rates.model_validate(context.facts("rates")["val"]).ca
    return Output(facts={"kl": kl, "bound_term": term, "empirical_risk": risk, "bound": risk + term})


def diagnose(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return what was measured."""
    return cast("dict[str, float]", dict(output.facts))


def gaussian_kl(weights: State, prior: State, variance: float) -> float:
    """Return KL(N(weights, σ²I) ‖ N(prior, σ²I)) = ‖weights − prior‖² / (2σ²) in nats.

    Over the tensors of `weights` alone: of a state that has more, such as the statistics of batch norm, which
    are counted and not trained, the rest is left out.
    """
    moved = sum(float(torch.sum((value.double() - prior[name].double()) ** 2)) for name, value in weights.items())
    return moved / (2 * variance)


def bound_term(kl: float, pairs: int, delta: float) -> float:
    """Return sqrt((KL + ln(2√n / δ)) / (2n)), what the bound adds to the empirical risk of n `pairs`."""
    return math.sqrt((kl + math.log(2 * math.sqrt(pairs) / delta)) / (2 * pairs))
