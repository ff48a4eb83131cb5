"""Detectors: how far each training pair is trusted, by similarity or by near neighbours, and what they put out.

- `clean` is the paper's. It is the first half of its suspicion stage, apart from the choice of a ratio because it is
  the costly half and does not depend on the ratio. It needs no poisoned model, so all implants of one poison share it.
- `gain` (ours): a backdoor is what the poisoned model finds alike and the clean model does not. Pairs of noise are
  unlike under both, so they do not stand beside the poison as they do under the clean model alone.
- `poisoned` (ours, as an ablation): what the paper's detector is worth without a clean model. The poisoned model has
  learnt the poison too and finds it alike: what it distrusts is rather noise.
- `knn`, `lof`, `lid`, `dao`: After Huang et al., "Detecting Backdoor Samples in Contrastive Language Image
  Pretraining", ICLR 2025 (arXiv 2502.01385): triggered images lie in sparser neighbourhoods than clean ones. They look
  for neighbours in a random batch that holds fewer triggered images than neighbours; here they are looked for among all
  pairs that are screened. Where many pairs are poisoned, triggered images are each other's neighbours: then `lof`,
  which compares a density with that of the neighbours, still tells them apart where `knn` does not (docs/method.md has
  numbers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ubt.common.hashing import numpy_generator
from ubt.common.statistics import auroc
from ubt.defenses.detectors import NeighbourDetector, ScreenSettings
from ubt.engine.context import Output, StageContext, StageInput
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.feeding import Indices
from ubt.methods.neighbours import (
    Neighbours,
    dimension_aware_outlierness,
    local_dimensions,
    nearest_neighbours,
    outlier_factors,
)
from ubt.models.clip import embed_pair_images, pair_similarities


@dataclass(frozen=True)
class Trust:
    """The pairs that a detector has looked at, and how far it trusts each."""

    pairs: Tensor
    """`[V]` int64 into D, sorted."""
    values: Tensor
    """`[V]` float32; low is suspicious."""

    @classmethod
    def of(cls, artifact: StageInput) -> Trust:
        """Return what a detector has put out."""
        return cls(artifact.tensors["pairs"], artifact.tensors["trust"])

    def output(self) -> Output:
        """Return it as a stage puts it out: `pairs[V]` and `trust[V]`."""
        return Output(tensors={"pairs": self.pairs, "trust": self.values})

    def ranked(self, descending: bool = False) -> Tensor:
        """Return the positions among `pairs`, `[V]` int64, least trusted first, or most; ties as they come."""
        return torch.argsort(self.values, descending=descending, stable=True)

    def in_pairs(self, indices: Tensor) -> Tensor:
        """Return the trust, `[K]`, in pairs at `indices[K]` int64 into D that were looked at."""
        return self.values[torch.searchsorted(self.pairs, indices)]


def screened(context: StageContext) -> Indices:
    """Return the pairs that a detector looks at, `[V]` int64 into D, sorted: all of them, or a random part."""
    count, ratio = len(context.pairs), context.settings(ScreenSettings).screened_ratio
    # Not drawn for each stage anew: detectors are compared on equal pairs.
    chosen = numpy_generator(context.seed, "screened").permutation(count)[: max(2, round(ratio * count))]
    return np.sort(chosen)


def similarities_under(context: StageContext, role: str, pairs: Indices) -> Tensor:
    """Return the similarity of each of `pairs[V]`, `[V]` float32 in [−1, 1], under the model that fills a role."""
    return pair_similarities(context.clip(role), context.pairs, context.pair_tokens, pairs)


def diagnose(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return how many pairs were looked at, their share of the poison (`recall`), and how well low trust tells it."""
    pairs, trust = output.tensors["pairs"], output.tensors["trust"]
    found = {name: value for name, value in manifest.found_in(pairs).items() if name != "precision"}
    return found | {"auroc": auroc(-trust.numpy(), manifest.marks(pairs))}


def detect_clean(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32 in [−1, 1]: similarity under M_c."""
    pairs = screened(context)
    return Trust(torch.from_numpy(pairs), similarities_under(context, "clean", pairs)).output()


def detect_gain(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32 in [−2, 2]: cos under M_c − under M_p."""
    pairs = screened(context)
    clean, poisoned = (similarities_under(context, role, pairs) for role in ("clean", "poisoned"))
    return Trust(torch.from_numpy(pairs), clean - poisoned).output()


def detect_poisoned(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32 in [−1, 1]: similarity under M_p."""
    pairs = screened(context)
    return Trust(torch.from_numpy(pairs), similarities_under(context, "poisoned", pairs)).output()


def detect_knn(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32: minus how far its k-th neighbour is.

    The search is exact, among the pairs looked at: time grows with V² and the width of the embeddings.
    """
    return _trust(context, lambda near: near.radius)


def detect_lof(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32: minus the local outlier factor.

    The search is as that of `detect_knn`, and so it is for the two that follow.
    """
    return _trust(context, outlier_factors)


def detect_lid(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32: minus the local intrinsic dimension."""
    return _trust(context, local_dimensions)


def detect_dao(context: StageContext) -> Output:
    """Return `pairs[V]` int64 into D, those looked at, and `trust[V]` float32: minus the logarithm of DAO."""
    return _trust(context, dimension_aware_outlierness)


def _trust(context: StageContext, outlyingness: Callable[[Neighbours], Tensor]) -> Output:
    pairs, clip = screened(context), context.clip("poisoned")
    images = embed_pair_images(clip, context.pairs, pairs).to(clip.device)
    near = nearest_neighbours(images, context.settings(NeighbourDetector).neighbours)
    return Trust(torch.from_numpy(pairs), -outlyingness(near).float().cpu()).output()
