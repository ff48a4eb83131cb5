"""Score every training pair by its similarity under the clean model.

The first half of the paper's suspicion stage, apart from the choice of a ratio because it is the costly half
and does not depend on the ratio.
"""

from __future__ import annotations

import numpy as np

from ubt.metrics import auroc
from ubt.poisoning import Manifest
from ubt.similarity import pair_similarities
from ubt.stages.context import Output, StageContext


def run(context: StageContext) -> Output:
    """Return `similarities[N]` float32 in [−1, 1], one for each pair of D."""
    clip, pairs = context.clip("clean"), context.pairs
    return Output(tensors={"similarities": pair_similarities(clip, pairs, context.pair_tokens, np.arange(len(pairs)))})


def measure(context: StageContext, output: Output, manifest: Manifest) -> dict[str, float]:
    """Return how well low similarity alone tells poison from the rest (AUROC over all of D)."""
    similarities = output.tensors["similarities"].numpy()
    poisoned = np.isin(np.arange(len(similarities)), manifest.indices)
    return {"auroc": auroc(-similarities, poisoned)}
