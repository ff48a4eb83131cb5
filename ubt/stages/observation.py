"""What a defender sees of a model that is being cleaned, who has D, the suspects and M_p, but neither trigger nor ASR.

Under the model of every epoch and, with `_before`, under the poisoned one:

- `alike_selected`: the share of selected images that are nearer to the captions of the selected pairs than 95 % of
  ordinary images are. Ordinary images are those of held pairs, a fixed sample of D that no stage suspects, trains on or
  holds in place. What the captions of a backdoor have in common is the target. So the share is nearly 1 where the
  trigger draws, and 0.05 in images that have nothing to do with it;
- `alike_suspected`: the same of suspects that were not selected. Unlearning has not seen them: they show whether it
  reaches images that it was not shown;
- `alike`: the larger of both;
- `held_similarity`: of held pairs, image and caption. What unlearning takes from it, it takes from the whole model.

Shares, like ranks, have no scale of their own, as similarities have, which differ from model to model.

None of it needs a label. `ubt.common.choice` has the rule that chooses by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ubt.defenses.ubt import UnlearnSettings
from ubt.engine.context import StageContext
from ubt.methods.feeding import Indices
from ubt.models.clip import Clip, embed_pair_images, embed_tokens
from ubt.stages.retention import retained_pairs

HELD, LOOKED_AT = 256, 96
"""Most held pairs, and most selected or suspected ones: looking at them costs a fraction of an epoch's evaluation."""
ORDINARY = 0.95
"""Fraction of the held images that an image has to be nearer than to be alike."""


def of_unlearning(context: StageContext) -> Observer:
    """Return what sees the models of UBT's last stage."""
    settings = context.settings(UnlearnSettings)
    selected = context.artifact("selection").tensors["indices"].numpy()
    suspects = context.artifact("suspects").tensors["indices"].numpy()
    touched = np.union1d(suspects, retained_pairs(context, settings)) if settings.retain_weight else suspects
    return Observer.of(context, selected, suspects[~np.isin(suspects, selected)], touched)


def of_ascent(context: StageContext) -> Observer:
    """Return what sees the models of ABL's last stage: its isolated pairs are selected, and no others suspected.

    It trains on all others, so that its held pairs are not untouched: their similarity may rise.
    """
    isolated = context.artifact("isolated").tensors["indices"].numpy()
    return Observer.of(context, isolated, isolated[:0], isolated)


@dataclass(frozen=True)
class Observer:
    """Looks at models through the same pairs each time."""

    context: StageContext
    selected: Indices
    """`[S]` int64 into D: pairs that are unlearnt, the most telling first."""
    suspected: Indices
    """`[R]` int64 into D: suspects that are not, the least trusted first."""
    held: Indices
    """`[H]` int64 into D."""
    before: Mapping[str, float]
    """What is seen of the poisoned model."""

    @classmethod
    def of(cls, context: StageContext, selected: Indices, suspected: Indices, touched: Indices) -> Observer:
        """Return the observer of some pairs; held ones are drawn from those that are not `touched`.

        If all are, they are drawn from all: a small D may be held in place to the last pair.
        """
        every = np.arange(len(context.pairs))
        apart = np.setdiff1d(every, touched)
        held = context.rng("observed").permutation(apart if len(apart) else every)[:HELD]
        blank = cls(context, selected[:LOOKED_AT], suspected[:LOOKED_AT], held, {})
        return replace(blank, before=blank.see(context.clip("poisoned")))

    def __call__(self, clip: Clip) -> dict[str, float]:
        """Return what is seen of a model, and of the poisoned one."""
        return self.see(clip) | {f"{name}_before": value for name, value in self.before.items()}

    def see(self, clip: Clip) -> dict[str, float]:
        """Return what is seen of a model: shares in [0, 1], and the similarity of held pairs in [−1, 1]."""
        ordinary, captions = self._images(clip, self.held), self._captions(clip, self.held)
        common = self._captions(clip, self.selected).mean(dim=0)
        bar = torch.quantile(ordinary @ common, ORDINARY)
        groups = {"selected": self.selected, "suspected": self.suspected}
        shares = {
            f"alike_{name}": float((self._images(clip, indices) @ common > bar).double().mean())
            for name, indices in groups.items()
            if len(indices)
        }
        held = float((ordinary * captions).sum(dim=1).mean())
        return {**shares, "alike": max(shares.values()), "held_similarity": held}

    def _images(self, clip: Clip, indices: Indices) -> Tensor:
        return embed_pair_images(clip, self.context.pairs, indices)

    def _captions(self, clip: Clip, indices: Indices) -> Tensor:
        return embed_tokens(clip, self.context.pair_tokens[torch.from_numpy(indices)])
