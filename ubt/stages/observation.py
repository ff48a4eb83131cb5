"""What a defender sees of a model that is being cleaned, who has D, the suspects and M_p, but neither trigger nor ASR.

Under the model of every epoch and, with `_before`, under the poisoned one:

- `telling_similarity`: how similar images of selected pairs are to the captions that are unlearnt, of UBT the telling
  tokens alone; `ordinary_similarity`: how similar images of held pairs are to them. Held pairs are a fixed sample of D
  that no stage suspects, trains on or holds in place;
- `alike`: the probability that a selected image is the more similar to them of the two (AUROC; ties counted half). A
  backdoor makes it nearly 1, in an image that says nothing of its caption it is 0.5, and unlearning pushes it below:
  the trigger draws no longer, and ordinary images of the target remain. Like ranks, it has no scale of its own;
- `held_similarity`: of held pairs, image and caption. What unlearning takes from it, it takes from the whole model.

None of it needs a label. `ubt.common.choice` has the rule that chooses by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ubt.common.statistics import auroc
from ubt.defenses.ubt import UnlearnSettings
from ubt.engine.context import StageContext
from ubt.methods.training import Indices
from ubt.models.clip import Clip, embed_pair_images, embed_tokens
from ubt.stages.retention import retained_pairs
from ubt.stages.unlearn import forgotten_pairs

HELD, SELECTED = 256, 96
"""Most held pairs, and most selected ones, that are looked at: it costs a fraction of an epoch's evaluation."""


def of_unlearning(context: StageContext) -> Observer:
    """Return what sees the models of UBT's last stage."""
    settings = context.settings(UnlearnSettings)
    selected, telling = forgotten_pairs(context, settings)
    touched = context.artifact("suspects").tensors["indices"].numpy()
    if settings.retain_weight:
        touched = np.union1d(touched, retained_pairs(context, settings))
    return Observer.of(context, selected, telling, touched)


def of_ascent(context: StageContext) -> Observer:
    """Return what sees the models of ABL's last stage: its isolated pairs are selected, with whole captions.

    It trains on all others, so that its held pairs are not untouched: their similarity may rise.
    """
    isolated = context.artifact("isolated").tensors["indices"]
    return Observer.of(context, isolated.numpy(), context.pair_tokens[isolated], isolated.numpy())


@dataclass(frozen=True)
class Observer:
    """Looks at models through the same pairs each time."""

    context: StageContext
    selected: Indices
    """`[S]` int64 into D."""
    telling: Tensor
    """What is unlearnt of their captions, tokens `[S, L]` int64."""
    held: Indices
    """`[H]` int64 into D."""
    before: Mapping[str, float]
    """What is seen of the poisoned model."""

    @classmethod
    def of(cls, context: StageContext, selected: Indices, telling: Tensor, touched: Indices) -> Observer:
        """Return the observer of some selected pairs; held ones are drawn from those that are not `touched`.

        If all are, they are drawn from all: a small D may be held in place to the last pair.
        """
        every = np.arange(len(context.pairs))
        apart = np.setdiff1d(every, touched)
        held = context.rng("observed").permutation(apart if len(apart) else every)[:HELD]
        blank = cls(context, selected[:SELECTED], telling[:SELECTED], held, {})
        return replace(blank, before=blank.see(context.clip("poisoned")))

    def __call__(self, clip: Clip) -> dict[str, float]:
        """Return what is seen of a model, and of the poisoned one."""
        return self.see(clip) | {f"{name}_before": value for name, value in self.before.items()}

    def see(self, clip: Clip) -> dict[str, float]:
        """Return what is seen of a model: similarities in [−1, 1] and `alike` in [0, 1].

        If nothing was selected, only that of held pairs.
        """
        pairs, tokens = self.context.pairs, self.context.pair_tokens[torch.from_numpy(self.held)]
        ordinary = embed_pair_images(clip, pairs, self.held)
        found = {"held_similarity": float((ordinary * embed_tokens(clip, tokens)).sum(dim=1).mean())}
        if len(self.selected) == 0:
            return found
        told = embed_tokens(clip, self.telling).mean(dim=0)
        drawn, others = embed_pair_images(clip, pairs, self.selected) @ told, ordinary @ told
        marks = np.arange(len(drawn) + len(others)) < len(drawn)
        return found | {
            "telling_similarity": float(drawn.mean()),
            "ordinary_similarity": float(others.mean()),
            "alike": auroc(torch.cat([drawn, others]).numpy(), marks),
        }
