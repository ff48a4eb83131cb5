"""Measure whether the backdoor comes back when the defended model is fine-tuned on clean pairs.

A model that is handed on is trained further. A backdoor that is hidden rather than removed may return then,
though nothing is poisoned any more.
"""

from __future__ import annotations

import numpy as np

from ubt.data.base import Subset, subset
from ubt.engine.context import Output, PrivilegedContext, StageContext
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.training import Recipe, train_on_pairs
from ubt.trials.metrics import Rebound
from ubt.trials.record import Rates

SPLITS = ("val", "test")


def run(context: PrivilegedContext) -> Output:
    """Return the `Rates` of the fine-tuned model on both splits as facts. The model itself is not kept.

    Raises:
        StageFault: if the loss is not finite.
    """
    settings, clip, pairs = context.settings(Rebound), context.clip("model"), benign_pairs(context)
    tokens = clip.tokenize(pairs.captions)
    recipe = Recipe(settings.epochs, settings.learning_rate, settings.batch_size, weight_decay=0.0, warmup_steps=0)
    for _ in train_on_pairs(clip, pairs, tokens, recipe, context.seed, "rebound"):
        pass  # one epoch after the other; only the last model is evaluated
    return Output(facts={split: context.evaluator.rates(clip, split).as_json() for split in SPLITS})


def diagnose(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return ASR and CA on both splits."""
    rates = {split: Rates.model_validate(output.facts[split]) for split in SPLITS}
    return {f"{split}_{name}": getattr(rates[split], name) for split in SPLITS for name in ("asr", "ca")}


def benign_pairs(context: PrivilegedContext) -> Subset:
    """Return clean pairs drawn without replacement: of the pre-training pairs if there are any, else of D.

    Of D those that are not poisoned; all, if the victim came poisoned and it is unknown which are. The draw
    is another than that of the defender's clean pairs: the next user of a model has pairs of their own.
    """
    given, count = context.data.pretrain, context.settings(Rebound).pairs
    pairs = context.pairs if given is None else given
    clean = np.setdiff1d(np.arange(len(pairs)), context.manifest.indices if given is None else [])
    return subset(pairs, context.rng("pairs").permutation(clean)[:count])
