"""What a defender sees of a model that is being cleaned, who has D, the suspects and M_p, but neither trigger nor ASR.

Three mean similarities, under the model of every epoch and, with `_before`, under the poisoned one:

- `selected_similarity`: of the pairs that are unlearnt, image and whole caption. Unlearning pushes it down;
- `mismatched_similarity`: of those images with captions of other pairs. A pair that is no more similar than this is no
  longer alike: the model sees nothing of the caption in the image;
- `held_similarity`: of held pairs, a fixed sample of D that no stage suspects, trains on or holds in place. What
  unlearning takes from it, it takes from the rest of the model.

None of it needs a label. `ubt.common.choice` has the rule that chooses by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ubt.defenses.ubt import UnlearnSettings
from ubt.engine.context import StageContext
from ubt.methods.training import Indices
from ubt.models.clip import Clip, embed_pair_images, embed_tokens
from ubt.stages.retention import retained_pairs

HELD, SELECTED = 256, 96
"""Most held pairs, and most selected ones, that are looked at: it costs a fraction of an epoch's evaluation."""

Observe = Callable[[Clip], dict[str, float]]
"""A model → what is seen of it, by name."""


def of_unlearning(context: StageContext) -> Observe:
    """Return what sees the models of UBT's last stage."""
    settings = context.settings(UnlearnSettings)
    touched = context.artifact("suspects").tensors["indices"].numpy()
    if settings.retain_weight:
        touched = np.union1d(touched, retained_pairs(context, settings))
    return Observer.of(context, context.artifact("selection").tensors["indices"].numpy(), touched)


def of_ascent(context: StageContext) -> Observe:
    """Return what sees the models of ABL's last stage: its isolated pairs are the selected ones.

    It trains on all others, so that its held pairs are not untouched: their similarity may rise.
    """
    isolated = context.artifact("isolated").tensors["indices"].numpy()
    return Observer.of(context, isolated, isolated)


@dataclass(frozen=True)
class Observer:
    """Looks at models through the same pairs each time."""

    context: StageContext
    selected: Indices
    """`[S]` int64 into D."""
    held: Indices
    """`[H]` int64 into D."""
    before: Mapping[str, float]
    """What is seen of the poisoned model."""

    @classmethod
    def of(cls, context: StageContext, selected: Indices, touched: Indices) -> Observer:
        """Return the observer of some selected pairs; held ones are drawn from those that are not `touched`.

        If all are, they are drawn from all: a small D may be held in place to the last pair.
        """
        every = np.arange(len(context.pairs))
        apart = np.setdiff1d(every, touched)
        held = context.rng("observed").permutation(apart if len(apart) else every)[:HELD]
        unseen = cls(context, selected[:SELECTED], held, {})
        return cls(context, unseen.selected, held, unseen.see(context.clip("poisoned")))

    def __call__(self, clip: Clip) -> dict[str, float]:
        """Return what is seen of a model, and of the poisoned one."""
        return self.see(clip) | {f"{name}_before": value for name, value in self.before.items()}

    def see(self, clip: Clip) -> dict[str, float]:
        """Return the three similarities, each in [−1, 1], under a model."""
        selected, captions = self._embedded(clip, self.selected)
        held, others = self._embedded(clip, self.held)
        return {
            "selected_similarity": float((selected * captions).sum(dim=1).mean()),
            "mismatched_similarity": float((selected @ others.T).mean()),
            "held_similarity": float((held * others).sum(dim=1).mean()),
        }

    def _embedded(self, clip: Clip, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        """Return unit embeddings of the images and the captions at `indices[S]`, `[S, D]` float32 each."""
        tokens = self.context.pair_tokens[torch.from_numpy(indices)]
        return embed_pair_images(clip, self.context.pairs, indices), embed_tokens(clip, tokens)
